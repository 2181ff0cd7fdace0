// SPDX-License-Identifier: Apache-2.0
//
// A few requests of the recent past, kept in memory only, to warm up the next version of the model with what users
// really ask. Only those that were answered: one that no version can answer would refuse every version after. Records
// at most one request per `period`, so recording costs serving nothing. Thread-safe: requests that are served take the
// same lock as the repository's thread, which may stand still for long while it holds it, so nothing is copied under
// it.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "beamline/request.h"

namespace beamline::engine {

class RequestRecorder {
 public:
  explicit RequestRecorder(size_t capacity = 8, absl::Duration period = absl::Milliseconds(200))
      : capacity_(capacity), period_(period) {}

  // Whether a request that comes now is worth a copy, for Add.
  bool Wants(absl::Time now) const {
    std::lock_guard lock(mu_);
    return now >= next_;
  }

  // REQUIRES: `request` was answered.
  void Add(RecommendRequest request, absl::Time now) {
    auto added = std::make_shared<const RecommendRequest>(std::move(request));
    std::shared_ptr<const RecommendRequest> oldest;  // destroyed after the lock
    std::lock_guard lock(mu_);
    if (now < next_) return;
    next_ = now + period_;
    requests_.push_back(std::move(added));
    if (requests_.size() <= capacity_) return;
    oldest = std::move(requests_.front());
    requests_.pop_front();
  }

  std::vector<RecommendRequest> requests() const {  // oldest first
    std::vector<std::shared_ptr<const RecommendRequest>> held;
    held.reserve(capacity_);
    {
      std::lock_guard lock(mu_);
      held.assign(requests_.begin(), requests_.end());
    }
    std::vector<RecommendRequest> requests;
    requests.reserve(held.size());
    for (const auto& request : held) requests.push_back(*request);
    return requests;
  }

 private:
  const size_t capacity_;
  const absl::Duration period_;
  mutable std::mutex mu_;
  std::deque<std::shared_ptr<const RecommendRequest>> requests_;  // guarded by mu_
  absl::Time next_ = absl::InfinitePast();                        // guarded by mu_
};

}  // namespace beamline::engine
