// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/backend.h"
#include "backend/context.h"
#include "backend/device_budget.h"
#include "base/log.h"
#include "base/run_catching.h"
#include "beamline/dtype.h"
#include "beamline/status.h"
#include "model/model.h"
#include "model/weights.h"
#include "runtime/bundle_folder.h"
#include "runtime/bundle_manifest.h"
#include "runtime/gate_report.h"
#include "runtime/group_leader.h"
#include "runtime/load_model.h"
#include "runtime/memory_estimate.h"
#include "runtime/model_runner.h"
#include "runtime/runner.h"
#include "runtime/tuning_cache.h"

namespace beamline::runtime {

absl::Status CheckRunnerOptions(const RunnerOptions& options) {
  const auto at_least = [](absl::string_view field, int64_t value, int64_t limit) {
    if (value >= limit) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(field, ": must be at least ", limit, ", is ", value));
  };
  if (options.bundle.empty())
    return absl::InvalidArgumentError(
        "bundle: is empty; name a folder made by `beamline pack` or `beamline import hf`");
  BEAMLINE_RETURN_IF_ERROR(at_least("threads", options.threads.value_or(0), 0));
  BEAMLINE_RETURN_IF_ERROR(at_least("workers", options.workers, 1));
  BEAMLINE_RETURN_IF_ERROR(at_least("context_cache_bytes", options.context_cache_bytes, 0));
  return at_least("memory_limit_bytes", options.memory_limit_bytes, 0);
}

absl::StatusOr<std::string> ChooseDevice(const RunnerOptions& options) {
  if (options.device != "auto") return options.device;
  if (options.backend == "cpu" || options.dtype == "int8") return "cpu";  // what only the CPU has asks for it
  const absl::Status cuda = backend::MakeContext("cuda", options.dtype, options.backend).status();
  if (cuda.ok()) return "cuda";
  // On the CPU neither fp8 nor fp16 is served: the error says why there is none.
  if (!absl::IsFailedPrecondition(cuda) || IsFp8(options.dtype) || options.dtype == "fp16") return cuda;
  LogEvent(spdlog::level::warn, "device auto falls back to the CPU", {{"why", std::string(cuda.message())}});
  return "cpu";
}

namespace {

std::optional<DeviceUse> DeviceUseOf(const backend::Context& ctx, const RunnerOptions& options) {
  ctx.backend->ReleaseFreeMemory();
  const std::optional<DeviceMemory> memory = ctx.backend->GetDeviceMemory();
  if (ctx.device.is_cpu() && !memory) return std::nullopt;
  if (!memory) return DeviceUse{};
  return DeviceUse{.free_bytes = memory->free, .batch_bytes = options.workers * backend::kLtWorkspaceBytes};
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const RunnerOptions& options, backend::Context& ctx) {
  LoadBundleOptions load;
  load.digest = options.digest;
  load.catalogue = options.catalogue;
  load.memory = {.storage = model::StorageOf(ctx),
                 .context_cache_bytes = options.context_cache_bytes,
                 .device = DeviceUseOf(ctx, options)};
  load.limits = ctx.backend->GetModelLimits();
  load.shard = backend::ShardOf(ctx);
  load.memory_limit_bytes = options.memory_limit_bytes;
  if (IsGatedDtype(options.dtype) && options.allow_ungated_dtype) {
    LogEvent(spdlog::level::warn, "quality gate not asked for: allow_ungated_dtype is set",
             {{"bundle", options.bundle}, {"dtype", options.dtype}});
  } else if (IsGatedDtype(options.dtype)) {
    load.gated_dtype = options.dtype;
  }
  LoadedModel loaded;
  BEAMLINE_ASSIGN_OR_RETURN(loaded.bundle, LoadBundle(options.bundle, load));

  if (options.threads) backend::SetThreads(*options.threads);
  const absl::Status made =
      LoadingBesideEstimate(options.bundle, loaded.bundle.memory.Describe(), [&]() -> absl::Status {
        BEAMLINE_ASSIGN_OR_RETURN(model::Weights weights,
                                  model::LoadWeights(ctx, loaded.bundle.config, loaded.bundle.weights));
        loaded.bundle.weights = SafetensorsFile();  // the file's memory is given back before the first request
        BEAMLINE_ASSIGN_OR_RETURN(loaded.model, model::MakeModel(loaded.bundle.config, std::move(weights)));
        return absl::OkStatus();
      });
  if (!made.ok()) return NameWriter(made, loaded.bundle.manifest.written_by);  // names and shapes are looked at here
  return loaded;
}

absl::StatusOr<std::unique_ptr<Runner>> LoadRunnerOn(const RunnerOptions& options, ModelRunner::Parts parts) {
  parts.context.workers = parts.context.backend->NewWorkers();
  BEAMLINE_ASSIGN_OR_RETURN(LoadedModel loaded, LoadModel(options, parts.context));
  parts.memory_estimate = loaded.bundle.memory.Describe();
  // The others' errors have their own ranks' estimates.
  if (parts.group != nullptr) BEAMLINE_RETURN_IF_ERROR(parts.group->AwaitLoaded());
  std::unique_ptr<Runner> runner;
  const std::string estimate = parts.memory_estimate;
  BEAMLINE_RETURN_IF_ERROR(LoadingBesideEstimate(options.bundle, estimate, [&]() -> absl::Status {
    parts.tuning =
        TuningCache(parts.context.backend, TuningFolder(options.tuning_folder), DigestOf(loaded.bundle.manifest));
    parts.tuning.Load();
    parts.tuning.LoadOf(options.bundle, loaded.bundle.manifest);
    if (parts.group != nullptr) {
      if (absl::Status told = parts.group->ShareTuning(); !told.ok()) return told;
    }
    parts.model = std::move(loaded.model);
    parts.vocabulary = std::move(loaded.bundle.vocabulary);
    parts.catalogue = std::move(loaded.bundle.catalogue);
    parts.model_version = loaded.bundle.manifest.model_version;
    parts.codebook_fingerprint = loaded.bundle.manifest.codebook_fingerprint;
    parts.context_cache_bytes = options.context_cache_bytes;
    parts.workers = options.workers;
    runner = std::make_unique<ModelRunner>(std::move(parts));
    return absl::OkStatus();
  }));
  return runner;
}

namespace {

absl::StatusOr<std::unique_ptr<Runner>> Load(RunnerOptions options) {
  BEAMLINE_RETURN_IF_ERROR(CheckRunnerOptions(options));
  ModelRunner::Parts parts;
  if (options.group == nullptr) {
    BEAMLINE_ASSIGN_OR_RETURN(parts.context, backend::MakeContext(options.device, options.dtype, options.backend));
  } else {
    parts.context = options.group->context();
    // What the others are told is what this rank then loads.
    if (options.digest.empty()) {
      BEAMLINE_ASSIGN_OR_RETURN(options.digest, IdentifyBundle(options.bundle));
    }
    BEAMLINE_ASSIGN_OR_RETURN(parts.group, options.group->Load(options.bundle, options.digest));
  }
  return LoadRunnerOn(options, std::move(parts));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Runner>> LoadRunner(const RunnerOptions& options) {
  return ReturnCatching(
      absl::StrCat(options.bundle, ": loading"), [&] { return Load(options); }, absl::StatusCode::kResourceExhausted);
}

}  // namespace beamline::runtime
