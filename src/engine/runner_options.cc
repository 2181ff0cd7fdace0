// SPDX-License-Identifier: Apache-2.0
#include "engine/runner_options.h"

#include "absl/strings/match.h"
#include "beamline/status.h"

namespace beamline::engine {

absl::StatusOr<runtime::RunnerOptions> RunnerOptionsOf(const EngineOptions& options) {
  runtime::RunnerOptions load;
  load.bundle = options.bundle;
  load.catalogue = options.catalogue;
  load.device = options.device;
  load.dtype = options.dtype;
  load.allow_ungated_dtype = options.allow_ungated_dtype;
  load.backend = options.backend;
  load.tuning_folder = options.tuning_folder;
  load.threads = options.threads;
  load.context_cache_bytes = options.context_cache_bytes;
  BEAMLINE_ASSIGN_OR_RETURN(load.device, runtime::ChooseDevice(load));
  load.workers = options.workers > 0 ? options.workers : absl::StartsWith(load.device, "cuda") ? 2 : 1;
  return load;
}

}  // namespace beamline::engine
