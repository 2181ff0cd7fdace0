// SPDX-License-Identifier: Apache-2.0
//
// Where users' behaviour sequences live between requests: an embedder's own (a key-value store, a feature platform), or
// the one in memory of src/history. The engine asks it for the history of a request that brings none, and never writes
// to it. Thread-safe: up to eight calls at once, on threads that do nothing else, so Get may block. A request ends at
// its deadline, or when its caller cancels, though Get has not returned; requests that need no store wait for none. A
// Get that never returns keeps its thread, and the engine from being destroyed: bound it.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "beamline/request.h"

namespace beamline {

class UserHistoryStore {
 public:
  virtual ~UserHistoryStore() = default;

  // The newest events of a user, oldest first, at most `limit`. A user nobody heard of has an empty history.
  // UNAVAILABLE and the like where the store cannot be asked. The message of an error is logged: it must not tell what
  // a user did (the user's id the engine strikes out).
  virtual absl::StatusOr<std::vector<Event>> Get(absl::string_view user_id, int limit) = 0;
};

}  // namespace beamline
