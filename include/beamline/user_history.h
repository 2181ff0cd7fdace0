// SPDX-License-Identifier: Apache-2.0
//
// Where users' behaviour sequences live between requests. The engine asks a store for the history of a request that
// brings none. Implementations: src/history (in memory); an embedder may bring its own. Thread-safe; Get may block (the
// engine calls it on its preparation threads, never on the caller's).
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "beamline/request.h"

namespace beamline {

class UserHistoryStore {
 public:
  virtual ~UserHistoryStore() = default;

  // The newest events of a user, oldest first, at most `limit`. A user nobody heard of has an empty history.
  // UNAVAILABLE and the like where the store cannot be asked. The message of an error is logged: it must not tell what
  // a user did (the user's id the engine strikes out).
  virtual absl::StatusOr<std::vector<Event>> Get(absl::string_view user_id, int limit) = 0;
  // Adds events in any order; what exceeds the store's bounds is forgotten, oldest first.
  virtual absl::Status Append(absl::string_view user_id, absl::Span<const Event> events) = 0;
};

}  // namespace beamline
