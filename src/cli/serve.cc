// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <malloc.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "backend/model_limits.h"
#include "beamline/engine.h"
#include "beamline/status.h"
#include "catalogue/section_file.h"
#include "catalogue/snapshot_file.h"
#include "cli/verb.h"
#include "runtime/bundle.h"
#include "server/config.h"
#include "server/lifecycle.h"
#include "server/tls_files.h"

namespace beamline::cli {
namespace {

struct Options {
  std::string config;
  std::string bundle;
  int port = 0;
  int rank = 0;
  bool any_port = false;
  bool check_only = false;
  Option* bundle_option = nullptr;
  Option* port_option = nullptr;
  Option* rank_option = nullptr;
};

// All that can be told in no time of the bundle and the catalogue that the configuration names.
absl::Status CheckArtefacts(const Options& options, const config::v1::ServerConfig& config) {
  const config::v1::Engine& engine = config.engine();
  std::vector<std::string> problems;
  const auto note = [&](const std::string& what, const absl::Status& status) {
    if (!status.ok()) problems.push_back(absl::StrCat(what, ": ", status.message()));
  };
  if (!engine.bundle().empty()) {
    const std::string what =
        options.bundle_option->given() ? "--bundle" : absl::StrCat(options.config, ": engine.bundle");
    const absl::Status fits = runtime::CheckBundleSizes(
        engine.bundle(), backend::ModelLimitsOf(engine.device(), engine.dtype(), engine.backend()),
        config.parallel().size());
    if (absl::IsFailedPrecondition(fits) && engine.device() == "auto") {
      std::printf("%s: warning: with a GPU: %s\n", what.c_str(), std::string(fits.message()).c_str());
    } else {
      note(what, fits);
    }
  }
  if (!engine.catalogue().empty()) {
    note(absl::StrCat(options.config, ": engine.catalogue"),
         catalogue::SectionReader::Open(engine.catalogue(), catalogue::LoadOptions().max_bytes).status());
  }
  return problems.empty() ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

// What glibc frees in pieces below its threshold it keeps, and it raises that by itself to 32 MiB: a process in which
// models take turns would grow to the size of three. Backends cpu and cuda take a request's storage once; aten takes it
// for every op, and would become slower by a quarter.
void GiveMemoryBackEarly(const config::v1::Engine& engine) {
#ifdef __GLIBC__
  const char* const tunables = std::getenv("GLIBC_TUNABLES");
  const bool chosen = std::getenv("MALLOC_MMAP_THRESHOLD_") != nullptr ||
                      (tunables != nullptr && absl::StrContains(tunables, "mmap_threshold"));
  if (engine.backend() == "aten" || chosen) return;
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);  // the other setting would have made it 128 KiB
#endif
}

absl::Status Run(const Options& options) {
  server::ConfigOverrides overrides;
  if (options.bundle_option->given()) overrides.bundle = options.bundle;
  if (options.port_option->given()) overrides.port = options.port;
  if (options.rank_option->given()) overrides.rank = options.rank;
  overrides.any_port = options.any_port;
  const absl::StatusOr<config::v1::ServerConfig> config = server::LoadServerConfig(options.config, overrides);
  if (!config.ok()) {
    return options.check_only ? config.status() : server::Told(config.status(), server::LogOf(options.config));
  }
  if (options.check_only) {
    BEAMLINE_RETURN_IF_ERROR(CheckArtefacts(options, *config));
    if (config->has_tls()) {
      for (const auto& [field, text] : server::ReadTlsFiles(config->tls(), absl::Now()).warnings) {
        std::printf("%s: warning: tls.%s: %s\n", options.config.c_str(), field.c_str(), text.c_str());
      }
    }
    std::printf(
        "%s: no problems found; versions in engine.model_folder, weights, the device and limits are looked at by the "
        "start\n",
        options.config.c_str());
    return absl::OkStatus();
  }
  GiveMemoryBackEarly(config->engine());
  if (config->parallel().rank() > 0) return server::RunFollower(*config, FollowEngine);
  return server::RunServer(*config, [](const EngineOptions& engine) { return CreateEngine(engine); });
}

}  // namespace

Verb AddServe(Command& root) {
  auto options = std::make_shared<Options>();
  Command* command = root.AddCommand("serve", "Serve a bundle over gRPC");
  command->AddText("--config", options->config, "Configuration: protobuf text, see configs/ and the schema in proto/")
      ->Required()
      ->TypeName("FILE");
  options->bundle_option =
      command->AddText("--bundle", options->bundle, "Bundle folder; overrides engine.bundle")->TypeName("DIR");
  options->port_option =
      command->AddNumber("--port", options->port, {0, 65535}, "Port; overrides listen.port")->TypeName("N");
  options->rank_option =
      command
          ->AddNumber("--rank", options->rank, {0, kMaxRanks - 1},
                      "Which of the processes that hold the model together this one is; overrides parallel.rank")
          ->TypeName("N");
  command->AddFlag("--check-config", options->check_only,
                   "Say all that is wrong with the configuration, and with the bundle that it names, and exit");
  command->AddFlag("--any-port", options->any_port,
                   "Allow port 0: the system chooses a free one and the log names it. For tests");
  command->Footer(R"(Examples:
  beamline serve --config configs/demo.textproto --bundle bundle
  beamline serve --config configs/server.textproto --bundle bundle --check-config

Try it, with this binary or with grpcurl (the server offers reflection unless configured otherwise):
  beamline recommend --target 127.0.0.1:50051 --status
  grpcurl -plaintext 127.0.0.1:50051 list
  grpcurl -plaintext 127.0.0.1:50051 beamline.v1.ModelService/GetStatus
  grpcurl -plaintext -d '{"service": "beamline.v1.RecommendService"}' 127.0.0.1:50051 grpc.health.v1.Health/Check

A model split over two processes (parallel { size: 2 } in the configuration; its comments say how such a group starts
and ends):
  beamline serve --config group.textproto --bundle bundle --rank 1 &
  beamline serve --config group.textproto --bundle bundle --rank 0

The log goes to standard error. On SIGTERM or Ctrl-C health says NOT_SERVING, calls in flight are finished
(lifecycle.grace_ms), and the exit code is 0, or 1 if calls had to be cut off. A second signal, half a second later or
more, ends it at once. While the model loads, the first does, with exit code 130. Without
tls {} in the configuration the server speaks plaintext without authentication. Beyond one machine put a proxy in front: docker/proxy/haproxy.cfg.)");
  return {command, [options] { return Run(*options); }};
}

}  // namespace beamline::cli
