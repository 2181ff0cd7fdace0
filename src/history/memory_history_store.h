// SPDX-License-Identifier: Apache-2.0
//
// User histories in this process's memory: for tests, demos and single-replica services that can afford to lose them.
// Bounded in both directions: a user keeps the newest `max_events`, the store the `max_users` that were used last (a
// Get or an Append). About 40 bytes an event. Thread-safe; one lock.
#pragma once

#include <cstddef>
#include <list>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "beamline/user_history.h"

namespace beamline::history {

struct MemoryHistoryOptions {
  size_t max_users = 1'000'000;
  size_t max_events = 512;         // per user
  size_t max_user_id_bytes = 256;  // longer ids are refused
};

class MemoryHistoryStore final : public UserHistoryStore {
 public:
  explicit MemoryHistoryStore(MemoryHistoryOptions options = {}) : options_(options) {}

  absl::StatusOr<std::vector<Event>> Get(absl::string_view user_id, int limit) override;
  // Adds events in any order; what exceeds the bounds is forgotten, oldest first. Kept in time order; events of one
  // time stay in the order they came. Unknown times (0) count as older than all. INVALID_ARGUMENT for an id that is
  // empty or too long.
  absl::Status Append(absl::string_view user_id, absl::Span<const Event> events);

  size_t users() const;

 private:
  struct User {
    std::string id;
    std::vector<Event> events;  // oldest first
  };
  using Recency = std::list<User>;  // most recently used first

  const MemoryHistoryOptions options_;
  mutable std::mutex mu_;
  Recency recency_;                                            // guarded by mu_
  absl::flat_hash_map<std::string, Recency::iterator> users_;  // guarded by mu_
};

}  // namespace beamline::history
