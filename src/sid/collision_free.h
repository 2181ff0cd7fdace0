// SPDX-License-Identifier: Apache-2.0
//
// Nearly unique SIDs: items that share all codes but the last are dealt last codes anew, at most `capacity` items per
// code and at the least total squared error (exact for prefixes of up to kExactGroup items; larger ones only move their
// surplus, see sid/balance.h). Only prefixes with a collision over the capacity change. Pure functions, deterministic.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "base/float_matrix.h"
#include "base/thread_pool.h"
#include "beamline/types.h"

namespace beamline::sid {

inline constexpr int64_t kExactGroup = 1024;                // items
inline constexpr int64_t kExactEntries = int64_t{1} << 24;  // of the cost matrix, one column per place

struct CollisionFreeProblem {
  const FloatMatrix* residuals = nullptr;  // [n, dim], what the levels before the last left over
  const FloatMatrix* centroids = nullptr;  // [size, dim], of the last level
  int64_t capacity = 1;                    // items per SID; of a prefix with more than size * capacity items, more do
  double max_move_error = 1e30;            // see ResidualKMeansOptions
};

// Changes the last codes of sids; on entry they are the nearest ones or not, it does not matter. Returns how many items
// have another than their nearest last code. Error: CANCELLED when interrupted.
absl::StatusOr<int64_t> RemoveCollisions(const CollisionFreeProblem& problem, std::vector<Sid>& sids, ThreadPool* pool);

// costs [items, size] -> code of each item, at most `capacity` per code, at the least total cost. More items than that
// are spread evenly: every code gets floor or ceil of items / size.
std::vector<uint32_t> DealCodes(const std::vector<float>& costs, int64_t items, int64_t size, int64_t capacity);

}  // namespace beamline::sid
