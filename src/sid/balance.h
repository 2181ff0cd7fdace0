// SPDX-License-Identifier: Apache-2.0
//
// Equal shares for the codes of a level. Prices steer the soft part: an assignment to the least distance plus price,
// with prices moved against the load, tends to equal loads at little extra distance (the dual of the transport
// problem). EnforceCapacity makes the rest exact. Pure functions, deterministic.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "base/float_matrix.h"
#include "base/thread_pool.h"
#include "sid/centroid_search.h"

namespace beamline::sid {

std::vector<int64_t> CountCodes(const std::vector<uint32_t>& codes, int64_t size);

// Moves every price by at most `unit` towards equal loads: by unit * (count - share) / (count + share).
void MovePrices(const std::vector<int64_t>& counts, int64_t items, double unit, std::vector<float>& prices);

// Changes codes until none has more than `capacity` points: each overfull code gives up the points that lose least, and
// those take, whoever loses most first, the nearest code with room. REQUIRES: capacity * search.size() >= points.rows.
// Error: CancelledError when interrupted.
absl::Status EnforceCapacity(const CentroidSearch& search, const FloatMatrix& points, int64_t capacity,
                             std::vector<uint32_t>& codes, ThreadPool* pool);

}  // namespace beamline::sid
