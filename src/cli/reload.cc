// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "beamline/status.h"
#include "cli/client.h"
#include "cli/verb.h"

namespace beamline::cli {
namespace {

struct Options {
  std::string target = "127.0.0.1:50052";
  std::string bundle;
  bool rollback = false;
  int timeout_ms = 600'000;
  Option* bundle_option = nullptr;
};

absl::Status Run(const Options& options) {
  if (options.bundle_option->given() && options.bundle.empty()) {
    return absl::InvalidArgumentError("--bundle: empty; leave it out to load the newest");
  }
  if (!IsUtf8(options.bundle)) {
    return absl::InvalidArgumentError(absl::StrCat("--bundle: '", absl::CHexEscape(options.bundle), "' is not UTF-8"));
  }
  BEAMLINE_ASSIGN_OR_RETURN(Client client, Client::Create(options.target, absl::Milliseconds(options.timeout_ms)));
  BEAMLINE_ASSIGN_OR_RETURN(const v1::ModelVersion serving,
                            options.rollback ? client.Rollback() : client.Reload(options.bundle));
  std::printf("serving %s, catalogue %s, from %s (version %lld; loaded in %lld ms, warmed up in %lld ms)\n",
              serving.model_version().c_str(), serving.catalogue_version().c_str(), serving.bundle().c_str(),
              static_cast<long long>(serving.id()), static_cast<long long>(serving.load_ms()),
              static_cast<long long>(serving.warm_up_ms()));
  return absl::OkStatus();
}

}  // namespace

Verb AddReload(Command& root) {
  auto options = std::make_shared<Options>();
  Command* command = root.AddCommand("reload", "Change the model of a running server, or roll it back");
  command->AddText("--target", options->target, "The server's admin listener: admin.address and admin.port")
      ->ShowDefault()
      ->TypeName("HOST:PORT");
  options->bundle_option =
      command
          ->AddText("--bundle", options->bundle,
                    "Folder on the server's machine; without it the newest of engine.model_folder, else engine.bundle")
          ->TypeName("DIR");
  command->AddFlag("--rollback", options->rollback, "Back to the version that served before")
      ->Excludes(options->bundle_option);
  command
      ->AddNumber("--timeout-ms", options->timeout_ms, {1, 86'400'000},
                  "How long to wait for the answer; the reload goes on after it")
      ->ShowDefault();
  command->Footer(R"(Examples:
  beamline reload --bundle /srv/models/7
  beamline reload --rollback

The server loads and verifies the bundle in the background, warms it up and swaps it in between requests; every request
is answered by one version alone. A bundle that is broken, incompatible or fails in the warm-up is refused, the reason is
printed here and kept in `beamline recommend --status` of the admin port, and the old version goes on serving. A rollback
holds until something newer comes or the server starts again: remove the version that must not serve from
engine.model_folder. A second rollback goes one version further back.

A version is a model with its catalogue. New items: write `beamline pack --catalogue-only`, with the --model that
serves, beside engine.catalogue, rename it over that, and reload the bundle that serves, with --bundle. A rollback takes
the catalogue back, too: items that have been taken down since are recommended again.)");
  return {command, [options] { return Run(*options); }};
}

}  // namespace beamline::cli
