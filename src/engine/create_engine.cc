// SPDX-License-Identifier: Apache-2.0
//
// The one place that puts a loaded model under the engine; built only where torch is.
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/context.h"
#include "base/run_catching.h"
#include "beamline/engine.h"
#include "beamline/status.h"
#include "engine/engine_core.h"
#include "engine/request_check.h"
#include "engine/runner_options.h"
#include "runtime/bundle_folder.h"
#include "runtime/runner.h"

namespace beamline {

namespace {

// In the caller's thread, for those that a later load started would have its thread's low priority for good.
absl::Status StartThreads(int threads) {
  return RunCatching(
      "threads", [&] { backend::SetThreads(threads); }, absl::StatusCode::kResourceExhausted);
}

constexpr char kAndCatalogue = '+';  // between the digests of a bundle and of the catalogue beside it

absl::StatusOr<std::string> Identify(const std::string& bundle, const std::string& catalogue) {
  BEAMLINE_ASSIGN_OR_RETURN(std::string digest, runtime::IdentifyBundle(bundle));
  if (catalogue.empty()) return digest;
  BEAMLINE_ASSIGN_OR_RETURN(const runtime::BundleFileEntry snapshot, runtime::DescribeFile(catalogue));
  digest += kAndCatalogue;
  return digest + snapshot.sha256;
}

// What Identify called `digest`, and nothing that came in its place meanwhile.
absl::StatusOr<std::unique_ptr<runtime::Runner>> LoadIdentified(runtime::RunnerOptions options,
                                                                const std::string& digest) {
  options.digest = digest.substr(0, digest.find(kAndCatalogue));
  BEAMLINE_ASSIGN_OR_RETURN(std::unique_ptr<runtime::Runner> runner, runtime::LoadRunner(options));
  if (options.catalogue.empty()) return runner;
  BEAMLINE_ASSIGN_OR_RETURN(const runtime::BundleFileEntry now, runtime::DescribeFile(options.catalogue));
  if (digest.substr(options.digest.size() + 1) != now.sha256) {
    return absl::AbortedError(absl::StrCat(options.catalogue, ": was replaced while it was loaded; load it again"));
  }
  return runner;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const EngineOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(engine::CheckOptions(options));
  if (options.parallel.rank != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("parallel.rank: ", options.parallel.rank, ", the engine is rank 0; others call FollowEngine"));
  }
  if (options.bundle.empty() && options.model_folder.empty()) {
    return absl::InvalidArgumentError(
        "bundle: is empty, and model_folder, too; name a folder made by `beamline pack` or `beamline import hf`");
  }
  BEAMLINE_ASSIGN_OR_RETURN(runtime::RunnerOptions load, engine::RunnerOptionsOf(options));
  BEAMLINE_RETURN_IF_ERROR(StartThreads(options.threads));
  load.threads = std::nullopt;
  if (options.parallel.enabled()) {
    BEAMLINE_ASSIGN_OR_RETURN(load.group, runtime::StartGroup(load, options.parallel));
  }
  engine::EngineCore::Parts parts;
  parts.options = options;
  parts.options.device = load.device;
  parts.options.backend = backend::BackendOf(load.device, load.backend);
  parts.options.workers = load.workers;
  parts.source.identify = [catalogue = options.catalogue](const std::string& bundle) {
    return Identify(bundle, catalogue);
  };
  parts.source.verify = [](const std::string& bundle) { return runtime::VerifyBundle(bundle); };
  parts.source.load = [load](const std::string& bundle, const std::string& digest) {
    runtime::RunnerOptions options = load;
    options.bundle = bundle;
    return LoadIdentified(std::move(options), digest);
  };
  return engine::EngineCore::Create(std::move(parts));
}

absl::Status FollowEngine(const EngineOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(engine::CheckOptions(options));
  if (options.parallel.rank == 0) {
    return absl::InvalidArgumentError("parallel.rank: 0 is the engine (CreateEngine); others follow it");
  }
  BEAMLINE_ASSIGN_OR_RETURN(runtime::RunnerOptions load, engine::RunnerOptionsOf(options));
  BEAMLINE_RETURN_IF_ERROR(StartThreads(options.threads));
  load.threads = std::nullopt;
  return runtime::FollowGroup(load, options.parallel);
}

}  // namespace beamline
