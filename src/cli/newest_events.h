// SPDX-License-Identifier: Apache-2.0
//
// The newest events of a log that may be far longer than what is wanted of it, and in any order: at most twice as many
// as wanted are held. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "beamline/request.h"

namespace beamline::cli {

class NewestEvents {
 public:
  explicit NewestEvents(size_t wanted) : wanted_(wanted) {}

  void Add(const Event& event) {
    events_.push_back(event);
    if (events_.size() / 2 >= wanted_) Trim();
  }

  // In time order; of one time in the order they were added, the last of them being the newest.
  std::vector<Event> Take() && {
    Trim();
    return std::move(events_);
  }

  size_t held() const { return events_.size(); }

 private:
  // What stays was added before what comes, and a stable sort leaves it before: the order among equal times is kept.
  void Trim() {
    std::stable_sort(events_.begin(), events_.end(),
                     [](const Event& a, const Event& b) { return a.timestamp_ms < b.timestamp_ms; });
    if (events_.size() > wanted_) {
      events_.erase(events_.begin(), events_.end() - static_cast<std::ptrdiff_t>(wanted_));
    }
  }

  size_t wanted_;
  std::vector<Event> events_;
};

}  // namespace beamline::cli
