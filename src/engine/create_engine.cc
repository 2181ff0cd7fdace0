// SPDX-License-Identifier: Apache-2.0
//
// The one place that puts a loaded model under the engine; built only where torch is.
#include <utility>

#include "beamline/engine.h"
#include "beamline/status.h"
#include "engine/engine_core.h"
#include "engine/request_check.h"
#include "runtime/runner.h"

namespace beamline {

absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const EngineOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(engine::CheckOptions(options));
  runtime::RunnerOptions load;
  load.bundle = options.bundle;
  load.catalogue = options.catalogue;
  load.device = options.device;
  load.dtype = options.dtype;
  load.threads = options.threads;
  load.workers = options.workers;
  load.context_cache_bytes = options.context_cache_bytes;
  engine::EngineCore::Parts parts;
  parts.options = options;
  BEAMLINE_ASSIGN_OR_RETURN(parts.runner, runtime::LoadRunner(load));
  BEAMLINE_RETURN_IF_ERROR(parts.runner->WarmUp());
  return engine::EngineCore::Create(std::move(parts));
}

}  // namespace beamline
