// SPDX-License-Identifier: Apache-2.0
#include "beamline/engine.h"

#include <future>
#include <memory>
#include <utility>

namespace beamline {

absl::StatusOr<RecommendResult> Engine::Recommend(RecommendRequest request) {
  // Shared: the engine's thread may still be inside set_value when this one is already on its way.
  auto promise = std::make_shared<std::promise<absl::StatusOr<RecommendResult>>>();
  std::future<absl::StatusOr<RecommendResult>> future = promise->get_future();
  Submit(std::move(request),
         [promise](absl::StatusOr<RecommendResult> result) { promise->set_value(std::move(result)); });
  return future.get();
}

}  // namespace beamline
