// SPDX-License-Identifier: Apache-2.0
#include "sid/collision_free.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/interrupt.h"
#include "beamline/status.h"
#include "sid/balance.h"
#include "sid/centroid_search.h"
#include "sid/linear_assignment.h"

namespace beamline::sid {
namespace {

// Items [begin, end) of the order share their prefix.
struct Group {
  int64_t begin;
  int64_t end;
};

bool SamePrefix(const Sid& a, const Sid& b) {
  return std::equal(a.codes().begin(), a.codes().end() - 1, b.codes().begin(), b.codes().end() - 1);
}

Sid WithLastCode(const Sid& sid, Code code) {
  Sid changed(sid.codes().first(sid.levels() - 1));
  changed.push_back(code);
  return changed;
}

// Groups in which some nearest last code has more than `capacity` items.
std::vector<Group> CrowdedGroups(const std::vector<Sid>& sids, const std::vector<int64_t>& order, int64_t capacity) {
  std::vector<Group> groups;
  const int64_t n = static_cast<int64_t>(order.size());
  for (int64_t begin = 0; begin < n;) {
    int64_t end = begin;
    int64_t run = 0;
    int64_t longest = 0;
    while (end < n && SamePrefix(sids[order[begin]], sids[order[end]])) {
      run = end > begin && sids[order[end]] == sids[order[end - 1]] ? run + 1 : 1;
      longest = std::max(longest, run);
      ++end;
    }
    if (longest > capacity) groups.push_back({begin, end});
    begin = end;
  }
  return groups;
}

std::vector<uint32_t> DealExactly(const CentroidSearch& search, const FloatMatrix& points, int64_t capacity) {
  const int64_t size = search.size();
  std::vector<float> costs(points.rows * size);
  std::vector<LaneFloats> row(search.blocks());
  for (int64_t i = 0; i < points.rows; ++i) {
    search.Scores(points.row(i), 0, search.blocks(), row.data());
    for (int64_t c = 0; c < size; ++c) costs[i * size + c] = row[c / kLanes].values[c % kLanes];
  }
  return DealCodes(costs, points.rows, size, capacity);
}

// New last codes of one group's items, with moves over the error limit undone.
absl::StatusOr<std::vector<uint32_t>> DealGroup(const CapacityProblem& group, const std::vector<uint32_t>& nearest,
                                                double move_limit) {
  const CentroidSearch& search = group.search;
  const FloatMatrix& points = group.points;
  const int64_t needed = std::max(group.capacity, (points.rows + search.size() - 1) / search.size());
  std::vector<uint32_t> codes = nearest;
  if (points.rows <= kExactGroup && points.rows * search.size() * std::min(needed, points.rows) <= kExactEntries) {
    codes = DealExactly(search, points, group.capacity);
  } else {
    BEAMLINE_RETURN_IF_ERROR(EnforceCapacity({search, points, needed}, codes, nullptr));
  }
  std::vector<LaneFloats> row(search.blocks());
  for (int64_t i = 0; i < points.rows; ++i) {
    if (codes[i] == nearest[i]) continue;
    search.Scores(points.row(i), 0, search.blocks(), row.data());
    const auto score = [&row](uint32_t code) { return double{row[code / kLanes].values[code % kLanes]}; };
    if (score(codes[i]) - score(nearest[i]) > move_limit) codes[i] = nearest[i];
  }
  return codes;
}

}  // namespace

std::vector<uint32_t> DealCodes(const std::vector<float>& costs, int64_t items, int64_t size, int64_t capacity) {
  int64_t required = 0;  // places of each code that must be taken
  float bonus = 0;       // for taking one: more than all else could save
  if (items > size * capacity) {
    required = items / size;
    capacity = (items + size - 1) / size;
    const auto [least, most] = std::minmax_element(costs.begin(), costs.end());
    bonus = (*most - *least + 1e-30f) * static_cast<float>(items);
  }
  const int64_t places = std::min(capacity, items);
  std::vector<float> repeated;
  if (places > 1) {  // one column per place
    repeated.reserve(items * size * places);
    for (const float cost : costs) {
      for (int64_t place = 0; place < places; ++place) repeated.push_back(place < required ? cost - bonus : cost);
    }
  }
  const std::vector<int64_t> columns = SolveAssignment(places > 1 ? repeated : costs, items, size * places);
  std::vector<uint32_t> codes(items);
  for (int64_t i = 0; i < items; ++i) codes[i] = static_cast<uint32_t>(columns[i] / places);
  return codes;
}

absl::StatusOr<int64_t> RemoveCollisions(const CollisionFreeProblem& problem, std::vector<Sid>& sids,
                                         ThreadPool* pool) {
  const CentroidSearch search(*problem.centroids);
  const Assignment nearest = AssignNearest(search, *problem.residuals, pool);
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  double error = 0;
  for (size_t i = 0; i < sids.size(); ++i) {
    error += nearest.distances[i];
    sids[i] = WithLastCode(sids[i], nearest.codes[i]);
  }
  const double move_limit = problem.max_move_error * error / static_cast<double>(std::max<size_t>(1, sids.size()));
  std::vector<int64_t> order(sids.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int64_t a, int64_t b) { return sids[a] != sids[b] ? sids[a] < sids[b] : a < b; });
  const std::vector<Group> groups = CrowdedGroups(sids, order, problem.capacity);
  std::vector<int64_t> moved(groups.size(), 0);
  ParallelFor(pool, static_cast<int64_t>(groups.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t g = first; g < last && !Interrupted(); ++g) {
      const absl::Span<const int64_t> items =
          absl::MakeConstSpan(order).subspan(groups[g].begin, groups[g].end - groups[g].begin);
      FloatMatrix points(static_cast<int64_t>(items.size()), search.dim());
      std::vector<uint32_t> group_nearest(items.size());
      for (size_t i = 0; i < items.size(); ++i) {
        std::copy_n(problem.residuals->row(items[i]), search.dim(), points.row(static_cast<int64_t>(i)));
        group_nearest[i] = nearest.codes[items[i]];
      }
      // The only error is an interrupt, which is looked for below.
      const auto codes = DealGroup({search, points, problem.capacity}, group_nearest, move_limit);
      if (!codes.ok()) return;
      for (size_t i = 0; i < items.size(); ++i) {
        moved[g] += (*codes)[i] != group_nearest[i] ? 1 : 0;
        sids[items[i]] = WithLastCode(sids[items[i]], (*codes)[i]);
      }
    }
  });
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  return std::accumulate(moved.begin(), moved.end(), int64_t{0});
}

}  // namespace beamline::sid
