// SPDX-License-Identifier: Apache-2.0
//
// From options to a model in memory: what every rank of a group does, and one that is alone. Errors name file, field,
// limit and value; memory that runs out is RESOURCE_EXHAUSTED with the estimate, or, before there is one, an exception,
// caught by the callers. Thread-safe, but LoadModel sets the threads of the whole process
// (backend::SetThreads).
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backend/context.h"
#include "model/model.h"
#include "runtime/bundle.h"
#include "runtime/model_runner.h"
#include "runtime/runner.h"

namespace beamline::runtime {

// Numbers within their limits and a bundle named; INVALID_ARGUMENT names the option.
absl::Status CheckRunnerOptions(const RunnerOptions& options);

struct LoadedModel {
  Bundle bundle;  // without its weights
  std::unique_ptr<const model::Model> model;
};

// Verifies the bundle in full and makes the model of it, or the share of the context's rank.
absl::StatusOr<LoadedModel> LoadModel(const RunnerOptions& options, backend::Context& ctx);

// A runner of that on the context of `parts`, with its group or none; the other parts are made here.
absl::StatusOr<std::unique_ptr<Runner>> LoadRunnerOn(const RunnerOptions& options, ModelRunner::Parts parts);

}  // namespace beamline::runtime
