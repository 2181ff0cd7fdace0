// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "beamline/engine.h"
#include "loadgen/target.h"

namespace beamline::loadgen {

// An engine in this process; a call of several requests is several submissions. The engine outlives the target.
class EngineTarget final : public Target {
 public:
  explicit EngineTarget(Engine* engine) : engine_(*engine) {}
  absl::Status Prepare(std::vector<RecommendRequest> pool, int64_t open_calls) override;
  absl::Time Now() const override { return engine_.Now(); }
  void Send(absl::Span<const int> indices, absl::Time deadline, bool want_items, Done done) override;

 private:
  Engine& engine_;
  std::vector<RecommendRequest> pool_;
};

}  // namespace beamline::loadgen
