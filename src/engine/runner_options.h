// SPDX-License-Identifier: Apache-2.0
//
// What of an engine's options its runners are made with: the device that "auto" comes to on this machine, and the
// workers where none are asked for, two on a GPU, else one. Errors are those of runtime::ChooseDevice.
#pragma once

#include "absl/status/statusor.h"
#include "beamline/engine.h"
#include "runtime/runner.h"

namespace beamline::engine {

absl::StatusOr<runtime::RunnerOptions> RunnerOptionsOf(const EngineOptions& options);

}  // namespace beamline::engine
