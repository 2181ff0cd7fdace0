// SPDX-License-Identifier: Apache-2.0
#include "sid/balance.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/interrupt.h"
#include "beamline/status.h"

namespace beamline::sid {
namespace {

constexpr int64_t kBalanceRowsPerTask = 64;
constexpr int64_t kBatchBytes = 64 << 20;

struct Mover {
  int64_t point;
  float loss;  // score of the nearest code with room, less the score of the present one
};

float ScoreOf(const std::vector<LaneFloats>& row, uint32_t code) { return row[code / kLanes].values[code % kLanes]; }

// The code of least score among those with room; ties go to the lower code. REQUIRES: some code has room.
uint32_t NearestOpen(const LaneFloats* row, const std::vector<int64_t>& counts, int64_t capacity) {
  float best = std::numeric_limits<float>::infinity();
  uint32_t best_code = 0;
  for (uint32_t code = 0; code < counts.size(); ++code) {
    const float score = row[code / kLanes].values[code % kLanes];
    if (counts[code] >= capacity || !(score < best)) continue;
    best = score;
    best_code = code;
  }
  return best_code;
}

// Members of overfull codes with what leaving would cost them, given the loads at the start.
std::vector<Mover> Candidates(const CapacityProblem& problem, const std::vector<uint32_t>& codes,
                              const std::vector<int64_t>& counts, ThreadPool* pool) {
  const CentroidSearch& search = problem.search;
  const int64_t capacity = problem.capacity;
  std::vector<Mover> movers;
  for (size_t i = 0; i < codes.size(); ++i) {
    if (counts[codes[i]] > capacity) movers.push_back({static_cast<int64_t>(i), 0});
  }
  ParallelFor(pool, static_cast<int64_t>(movers.size()), kBalanceRowsPerTask, [&](int64_t begin, int64_t end) {
    if (Interrupted()) return;
    std::vector<LaneFloats> row(search.blocks());
    for (int64_t m = begin; m < end; ++m) {
      search.Scores(problem.points.row(movers[m].point), 0, search.blocks(), row.data());
      const uint32_t open = NearestOpen(row.data(), counts, capacity);
      movers[m].loss = ScoreOf(row, open) - ScoreOf(row, codes[movers[m].point]);
    }
  });
  return movers;
}

// Of each overfull code, the surplus of members that lose least.
std::vector<Mover> Surplus(std::vector<Mover> movers, int64_t capacity, const std::vector<uint32_t>& codes,
                           std::vector<int64_t>& counts) {
  std::sort(movers.begin(), movers.end(),
            [](const Mover& a, const Mover& b) { return a.loss != b.loss ? a.loss < b.loss : a.point < b.point; });
  std::vector<Mover> surplus;
  for (const Mover& mover : movers) {
    if (counts[codes[mover.point]] <= capacity) continue;
    --counts[codes[mover.point]];
    surplus.push_back(mover);
  }
  std::reverse(surplus.begin(), surplus.end());
  return surplus;
}

}  // namespace

std::vector<int64_t> CountCodes(const std::vector<uint32_t>& codes, int64_t size) {
  std::vector<int64_t> counts(size, 0);
  for (const uint32_t code : codes) ++counts[code];
  return counts;
}

int64_t CodeCapacity(int64_t items, int64_t size, double slack) {
  const double share = static_cast<double>(items) / static_cast<double>(size);
  return std::max((items + size - 1) / size, static_cast<int64_t>(std::ceil(slack * share)));
}

absl::Status EnforceCapacity(const CapacityProblem& problem, std::vector<uint32_t>& codes, ThreadPool* pool) {
  const CentroidSearch& search = problem.search;
  const FloatMatrix& points = problem.points;
  const int64_t capacity = problem.capacity;
  std::vector<int64_t> counts = CountCodes(codes, search.size());
  std::vector<Mover> movers = Candidates(problem, codes, counts, pool);
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  movers = Surplus(std::move(movers), capacity, codes, counts);
  std::vector<LaneFloats> rows;
  const int64_t batch = std::max<int64_t>(1, kBatchBytes / (search.blocks() * sizeof(LaneFloats)));
  for (int64_t begin = 0; begin < static_cast<int64_t>(movers.size()); begin += batch) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    const int64_t count = std::min(batch, static_cast<int64_t>(movers.size()) - begin);
    rows.resize(count * search.blocks());
    ParallelFor(pool, count, kBalanceRowsPerTask, [&](int64_t first, int64_t last) {
      for (int64_t m = first; m < last; ++m) {
        search.Scores(points.row(movers[begin + m].point), 0, search.blocks(), &rows[m * search.blocks()]);
      }
    });
    // Serial: each choice depends on the room the ones before it left.
    for (int64_t m = 0; m < count; ++m) {
      const uint32_t code = NearestOpen(&rows[m * search.blocks()], counts, capacity);
      codes[movers[begin + m].point] = code;
      ++counts[code];
    }
  }
  return absl::OkStatus();
}

}  // namespace beamline::sid
