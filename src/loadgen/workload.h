// SPDX-License-Identifier: Apache-2.0
//
// Requests to load a target with: synthetic histories over items the target knows, or the histories of a real log, cut
// to one length. The same options give the same requests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "beamline/request.h"
#include "loadgen/target.h"

namespace beamline::loadgen {

// Percent of the requests; together 100.
struct ClassShares {
  int critical = 0;
  int plain = 100;
  int sheddable = 0;
};

struct WorkloadOptions {
  int requests = 256;  // distinct ones, used in turn
  int history = 50;    // events of each
  int beam = 0;        // at every level; 0: the target's default
  int top_k = 10;
  int users = 0;  // user ids given to requests in turn, which lets a context cache help; 0: none, so that it cannot
  ClassShares classes;
  uint64_t seed = 1;
};

// `histories` in turn (with `users`, one of them for each), the newest `history` events; where there are none, items
// drawn from `items`, the first ones more often (as popular ones are). A request may have neither events nor a user id;
// see NewUser. REQUIRES: either of the two, unless `history` is 0.
std::vector<RecommendRequest> MakeWorkload(const WorkloadOptions& options, absl::Span<const ItemId> items,
                                           absl::Span<const std::vector<Event>> histories);

// The id of a user whom no request named before, whatever process sent it. As a request must have events or a user, a
// target gives one to each that it sends with neither, so that a cache knows none of them. Thread-safe.
std::string NewUser();

// Sends one call of `requests` and waits for its answer, or an interrupt: what is wrong with it, before many are sent.
absl::Status TryOnce(Target& target, std::vector<RecommendRequest> requests, absl::Duration timeout);

// Items the target knows: what it recommends to a user without history, and to those who saw that. The error is the
// target's own where it answers nothing.
absl::StatusOr<std::vector<ItemId>> DiscoverItems(Target& target, absl::Duration timeout);

}  // namespace beamline::loadgen
