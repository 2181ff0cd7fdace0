// SPDX-License-Identifier: Apache-2.0
//
// Equal shares for the codes of a level. Deterministic, whatever the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "base/float_matrix.h"
#include "base/thread_pool.h"
#include "sid/centroid_search.h"

namespace beamline::sid {

std::vector<int64_t> CountCodes(const std::vector<uint32_t>& codes, int64_t size);

// Most items of a code: slack times the equal share, and at least so many that all fit.
int64_t CodeCapacity(int64_t items, int64_t size, double slack);

// Points to share among the centroids.
struct CapacityProblem {
  const CentroidSearch& search;
  const FloatMatrix& points;
  int64_t capacity = 0;  // most points of a code
};

// Changes codes until none has more than `capacity` points: each overfull code gives up the points that lose least, and
// those take, whoever loses most first, the nearest code with room. REQUIRES: capacity * search.size() >= points.rows.
// Error: CANCELLED when interrupted.
absl::Status EnforceCapacity(const CapacityProblem& problem, std::vector<uint32_t>& codes, ThreadPool* pool);

}  // namespace beamline::sid
