// SPDX-License-Identifier: Apache-2.0
//
// The repository's loader: a bundle becomes a runner, the runner with its catalogue a ServingModel. Refuses a model and
// a catalogue that do not belong together, compiles the rules that requests use now, warms up with what they asked
// lately, and measures what batches cost. What any of that throws becomes a status: a bundle that cannot be loaded must
// not end a server that serves. Called by one thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "beamline/engine.h"
#include "engine/request_recorder.h"
#include "engine/serving_model.h"
#include "repository/loader.h"
#include "runtime/runner.h"

namespace beamline::engine {

// Where runners come from: bundles (create_engine.cc), or a test.
struct RunnerSource {
  std::function<absl::StatusOr<std::string>(const std::string& bundle)> identify;
  std::function<absl::Status(const std::string& bundle)> verify = [](const std::string&) { return absl::OkStatus(); };
  std::function<absl::StatusOr<std::unique_ptr<runtime::Runner>>(const std::string& bundle, const std::string& digest)>
      load;
};

class ModelLoader final : public repository::Loader {
 public:
  // All but the source are the caller's and outlive the loader.
  ModelLoader(RunnerSource source, const EngineOptions* options, const RequestRecorder* recorder, const Clock* clock);

  absl::StatusOr<std::string> Identify(const std::string& bundle) override;
  absl::Status Verify(const std::string& bundle) override;
  absl::StatusOr<std::unique_ptr<repository::Model>> Load(const std::string& bundle,
                                                          const std::string& digest) override;
  absl::Status WarmUp(repository::Model& model, const repository::Model* serving) override;

 private:
  absl::StatusOr<std::unique_ptr<repository::Model>> LoadNow(const std::string& bundle, const std::string& digest);
  absl::Status WarmUpNow(ServingModel& next, const repository::Model* serving) const;
  // What was recorded, with widths for this model's levels, as much as fits one batch.
  std::vector<RecommendRequest> Recorded(int levels) const;

  const RunnerSource source_;
  const EngineOptions& options_;
  const RequestRecorder& recorder_;
  const Clock& clock_;
  uint64_t last_group_ = 0;
};

}  // namespace beamline::engine
