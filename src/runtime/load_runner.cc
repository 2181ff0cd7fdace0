// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/context.h"
#include "base/run_catching.h"
#include "beamline/status.h"
#include "model/model.h"
#include "model/weights.h"
#include "runtime/model_runner.h"
#include "runtime/runner.h"

namespace beamline::runtime {
namespace {

absl::Status CheckOptions(const RunnerOptions& options) {
  const auto at_least = [](absl::string_view field, int64_t value, int64_t limit) {
    if (value >= limit) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(field, ": must be at least ", limit, ", is ", value));
  };
  if (options.bundle.empty())
    return absl::InvalidArgumentError("bundle: is empty; name a folder made by `beamline pack`");
  BEAMLINE_RETURN_IF_ERROR(at_least("threads", options.threads, 0));
  BEAMLINE_RETURN_IF_ERROR(at_least("workers", options.workers, 1));
  BEAMLINE_RETURN_IF_ERROR(at_least("context_cache_bytes", options.context_cache_bytes, 0));
  return at_least("memory_limit_bytes", options.memory_limit_bytes, 0);
}

// "auto" is CUDA where it works, else the CPU; what only the CPU has asks for it.
absl::StatusOr<backend::Context> ChooseContext(const RunnerOptions& options) {
  if (options.device != "auto") return backend::MakeContext(options.device, options.dtype, options.backend);
  if (options.backend == "cpu" || options.dtype == "int8") {
    return backend::MakeContext("cpu", options.dtype, options.backend);
  }
  absl::StatusOr<backend::Context> cuda = backend::MakeContext("cuda", options.dtype, options.backend);
  return cuda.status().code() == absl::StatusCode::kFailedPrecondition
             ? backend::MakeContext("cpu", options.dtype, options.backend)
             : cuda;
}

absl::StatusOr<std::unique_ptr<Runner>> Load(const RunnerOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(CheckOptions(options));
  ModelRunner::Parts parts;
  BEAMLINE_ASSIGN_OR_RETURN(parts.context, ChooseContext(options));
  LoadBundleOptions load;
  load.catalogue = options.catalogue;
  load.storage = model::StorageOf(parts.context);
  load.further_bytes = options.context_cache_bytes;
  load.memory_limit_bytes = options.memory_limit_bytes;
  BEAMLINE_ASSIGN_OR_RETURN(Bundle bundle, LoadBundle(options.bundle, load));

  backend::SetThreads(options.threads);
  BEAMLINE_ASSIGN_OR_RETURN(model::Weights weights, model::LoadWeights(parts.context, bundle.config, bundle.weights));
  bundle.weights = SafetensorsFile();  // the file's memory is given back before the first request
  BEAMLINE_ASSIGN_OR_RETURN(parts.model, model::MakeModel(bundle.config, std::move(weights)));
  parts.vocabulary = std::move(bundle.vocabulary);
  parts.catalogue = std::move(bundle.catalogue);
  parts.model_version = bundle.manifest.model_version;
  parts.codebook_fingerprint = bundle.manifest.codebook_fingerprint;
  parts.context_cache_bytes = options.context_cache_bytes;
  parts.workers = options.workers;
  return std::make_unique<ModelRunner>(std::move(parts));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Runner>> LoadRunner(const RunnerOptions& options) {
  return ReturnCatching(
      absl::StrCat(options.bundle, ": loading"), [&] { return Load(options); }, absl::StatusCode::kResourceExhausted);
}

}  // namespace beamline::runtime
