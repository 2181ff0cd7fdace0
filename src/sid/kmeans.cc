// SPDX-License-Identifier: Apache-2.0
#include "sid/kmeans.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "absl/strings/str_format.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "sid/balance.h"
#include "sid/centroid_search.h"

namespace beamline::sid {
namespace {

constexpr int64_t kSeedPointsPerCode = 16;  // k-means++ looks at a sample of this many points per code
constexpr int64_t kSumChunk = 4096;
constexpr int kBalanceSteps = 25;  // at most

FloatMatrix GatherRows(const FloatMatrix& points, const std::vector<int64_t>& rows) {
  FloatMatrix gathered(static_cast<int64_t>(rows.size()), points.cols);
  for (size_t i = 0; i < rows.size(); ++i) std::copy_n(points.row(rows[i]), points.cols, gathered.row(i));
  return gathered;
}

double Sum(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return sum;
}

// Empty codes move to the points farthest from their centroid; ties go to the lower index.
void ReseedEmpty(const FloatMatrix& points, const std::vector<int64_t>& counts, const std::vector<float>& distances,
                 FloatMatrix& centroids) {
  std::vector<int64_t> empty;
  for (size_t code = 0; code < counts.size(); ++code) {
    if (counts[code] == 0) empty.push_back(static_cast<int64_t>(code));
  }
  if (empty.empty()) return;
  std::vector<int64_t> order(points.rows);
  std::iota(order.begin(), order.end(), 0);
  const auto farther = [&](int64_t a, int64_t b) {
    return distances[a] != distances[b] ? distances[a] > distances[b] : a < b;
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(empty.size()), order.end(), farther);
  for (size_t i = 0; i < empty.size(); ++i) std::copy_n(points.row(order[i]), points.cols, centroids.row(empty[i]));
}

double MeanError(const FloatMatrix& points, const std::vector<uint32_t>& codes, const FloatMatrix& centroids) {
  double sum = 0;
  for (int64_t i = 0; i < points.rows; ++i) {
    const float* centroid = centroids.row(codes[i]);
    float distance = 0;
    for (int64_t d = 0; d < points.cols; ++d) {
      const float difference = points.row(i)[d] - centroid[d];
      distance += difference * difference;
    }
    sum += distance;
  }
  return sum / static_cast<double>(points.rows);
}

// Lloyd's iterations with strict shares: codes with room draw the points that others must give up, and so their
// centroids move to where the points are.
absl::Status Balance(const FloatMatrix& points, const ResidualKMeansOptions& options, KMeansResult& state,
                     const KMeansRun& run) {
  const int64_t capacity = CodeCapacity(points.rows, state.centroids.rows, options.balance_slack);
  double previous = std::numeric_limits<double>::infinity();
  for (int step = 1; step <= kBalanceSteps; ++step) {
    const CentroidSearch search(state.centroids);
    Assignment assignment = AssignNearest(search, points, run.pool);
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    BEAMLINE_RETURN_IF_ERROR(EnforceCapacity({search, points, capacity}, assignment.codes, run.pool));
    const double error = MeanError(points, assignment.codes, state.centroids);
    UpdateCentroids(points, assignment.codes, state.centroids, run.pool);
    UpdateProgress(run.progress, state.iterations, absl::StrFormat("balancing %d, error %.5g", step, error));
    if (error >= previous * (1 - options.tolerance)) break;
    previous = error;
  }
  return absl::OkStatus();
}

}  // namespace

FloatMatrix SeedSampled(const FloatMatrix& points, uint32_t size, RandomSource& random) {
  return GatherRows(points, random.Sample(points.rows, size));
}

FloatMatrix SeedPlusPlus(const FloatMatrix& points, uint32_t size, RandomSource& random, ThreadPool* pool) {
  const int64_t count = std::min<int64_t>(points.rows, kSeedPointsPerCode * size);
  const FloatMatrix sample = GatherRows(points, random.Sample(points.rows, count));
  // The roles are swapped here: the sample is what is packed, and each new centroid is scored against it.
  const CentroidSearch search(sample);
  std::vector<LaneFloats> scores(search.blocks());
  std::vector<float> distances(count, std::numeric_limits<float>::max());
  std::vector<double> chunk_sums((count + kSumChunk - 1) / kSumChunk);
  FloatMatrix centroids(size, points.cols);
  int64_t chosen = static_cast<int64_t>(random.Below(static_cast<uint64_t>(count)));
  for (uint32_t code = 0; code < size && !Interrupted(); ++code) {
    std::copy_n(sample.row(chosen), sample.cols, centroids.row(code));
    const float norm = search.Norm(centroids.row(code));
    ParallelFor(pool, count, kSumChunk, [&](int64_t begin, int64_t end) {
      search.Scores(centroids.row(code), begin / kLanes, (end + kLanes - 1) / kLanes, &scores[begin / kLanes]);
      double sum = 0;
      for (int64_t i = begin; i < end; ++i) {
        const float distance = std::max(0.0f, scores[i / kLanes].values[i % kLanes] + norm);
        distances[i] = std::min(distances[i], distance);
        sum += distances[i];
      }
      chunk_sums[begin / kSumChunk] = sum;
    });
    // Its own distance is rounding error only, and must not be drawn.
    chunk_sums[chosen / kSumChunk] -= distances[chosen];
    distances[chosen] = 0;
    const double total = std::accumulate(chunk_sums.begin(), chunk_sums.end(), 0.0);
    if (!(total > 0)) {  // fewer distinct points than codes
      chosen = static_cast<int64_t>(random.Below(static_cast<uint64_t>(count)));
      continue;
    }
    double target = random.Unit() * total;
    size_t chunk = 0;
    while (chunk + 1 < chunk_sums.size() && target >= chunk_sums[chunk]) target -= chunk_sums[chunk++];
    const int64_t last = std::min<int64_t>(count, (static_cast<int64_t>(chunk) + 1) * kSumChunk) - 1;
    chosen = static_cast<int64_t>(chunk) * kSumChunk;
    while (chosen < last && target >= distances[chosen]) target -= distances[chosen++];
  }
  return centroids;
}

std::vector<int64_t> UpdateCentroids(const FloatMatrix& points, const std::vector<uint32_t>& codes,
                                     FloatMatrix& centroids, ThreadPool* pool) {
  // A counting sort lists every code's points in index order; each code then sums its own, whatever thread runs it.
  const std::vector<int64_t> counts = CountCodes(codes, centroids.rows);
  std::vector<int64_t> begin(counts.size() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), begin.begin() + 1);
  std::vector<int64_t> members(codes.size());
  std::vector<int64_t> next(begin.begin(), begin.end() - 1);
  for (size_t i = 0; i < codes.size(); ++i) members[next[codes[i]]++] = static_cast<int64_t>(i);
  ParallelFor(pool, centroids.rows, 16, [&](int64_t first, int64_t last) {
    std::vector<double> sum(points.cols);
    for (int64_t code = first; code < last; ++code) {
      if (counts[code] == 0) continue;
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t m = begin[code]; m < begin[code + 1]; ++m) {
        const float* point = points.row(members[m]);
        for (int64_t d = 0; d < points.cols; ++d) sum[d] += point[d];
      }
      for (int64_t d = 0; d < points.cols; ++d) {
        centroids.row(code)[d] = static_cast<float>(sum[d] / static_cast<double>(counts[code]));
      }
    }
  });
  return counts;
}

absl::StatusOr<KMeansResult> FitKMeans(const FloatMatrix& points, uint32_t size, const ResidualKMeansOptions& options,
                                       const KMeansRun& run) {
  KMeansResult state;
  state.centroids = options.init == KMeansInit::kPlusPlus ? SeedPlusPlus(points, size, run.random, run.pool)
                                                          : SeedSampled(points, size, run.random);
  double previous = std::numeric_limits<double>::infinity();
  while (state.iterations < options.iterations) {
    const Assignment assignment = AssignNearest(CentroidSearch(state.centroids), points, run.pool);
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    const double error = Sum(assignment.distances) / static_cast<double>(points.rows);
    const std::vector<int64_t> counts = UpdateCentroids(points, assignment.codes, state.centroids, run.pool);
    ++state.iterations;
    UpdateProgress(run.progress, state.iterations, absl::StrFormat("error %.5g", error));
    ReseedEmpty(points, counts, assignment.distances, state.centroids);
    if (error >= previous * (1 - options.tolerance)) break;
    previous = error;
  }
  if (options.balanced) BEAMLINE_RETURN_IF_ERROR(Balance(points, options, state, run));
  return state;
}

}  // namespace beamline::sid
