// SPDX-License-Identifier: Apache-2.0
//
// Equal shares for the codes of a level. Prices steer the soft part: with every point at the code of least distance
// plus price, prices that rise under load and fall without it lead to equal loads at the least total distance (dual
// ascent on the transport problem). EnforceCapacity makes the rest exact. Deterministic; not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "base/float_matrix.h"
#include "base/thread_pool.h"
#include "sid/centroid_search.h"

namespace beamline::sid {

std::vector<int64_t> CountCodes(const std::vector<uint32_t>& codes, int64_t size);

// Prices with a step size each, which grows while the load stays on one side of the share and halves when it crosses
// (Rprop, Riedmiller and Braun 1993): distances between codes differ too much for one step size.
class PriceBalancer {
 public:
  // first_step: in units of squared distance; a hundredth of the mean one is a good start.
  PriceBalancer(int64_t size, double first_step);

  const std::vector<float>& prices() const { return prices_; }
  void Update(const std::vector<int64_t>& counts);  // counts [size] under the present prices

 private:
  std::vector<float> prices_;
  std::vector<double> steps_;
  std::vector<int> sides_;  // +1 over the share, -1 under, 0 unknown
};

// Changes codes until none has more than `capacity` points: each overfull code gives up the points that lose least, and
// those take, whoever loses most first, the nearest code with room. REQUIRES: capacity * search.size() >= points.rows.
// Error: CancelledError when interrupted.
absl::Status EnforceCapacity(const CentroidSearch& search, const FloatMatrix& points, int64_t capacity,
                             std::vector<uint32_t>& codes, ThreadPool* pool);

}  // namespace beamline::sid
