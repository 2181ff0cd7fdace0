// SPDX-License-Identifier: Apache-2.0
#include "sid/residual_kmeans.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "sid/balance.h"
#include "sid/centroid_search.h"
#include "sid/collision_free.h"
#include "sid/kmeans.h"
#include "sid/random_source.h"

namespace beamline::sid {
namespace {

constexpr int64_t kResidualRowsPerTask = 8192;

absl::Status CheckOptions(const FloatMatrix& vectors, const ResidualKMeansOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(CheckLevelSizes(options.level_sizes));
  const uint32_t largest = *std::max_element(options.level_sizes.begin(), options.level_sizes.end());
  if (vectors.rows < largest || vectors.cols < 1) {
    return absl::InvalidArgumentError(absl::StrCat("residual k-means: ", vectors.rows, " vectors of dimension ",
                                                   vectors.cols, " are too few for ", largest,
                                                   " codes on a level; use smaller levels"));
  }
  const auto check = [](bool ok, absl::string_view field, double value, absl::string_view limits) {
    if (ok) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("residual k-means: ", field, " is ", value, ", must be ", limits));
  };
  BEAMLINE_RETURN_IF_ERROR(
      check(options.iterations >= 1 && options.iterations <= 10'000, "iterations", options.iterations, "1 to 10000"));
  BEAMLINE_RETURN_IF_ERROR(
      check(options.tolerance >= 0 && options.tolerance < 1, "tolerance", options.tolerance, "at least 0 and below 1"));
  BEAMLINE_RETURN_IF_ERROR(check(options.max_points_per_centroid >= 0, "max_points_per_centroid",
                                 static_cast<double>(options.max_points_per_centroid), "at least 0"));
  BEAMLINE_RETURN_IF_ERROR(check(options.balance_slack >= 1 && options.balance_slack <= 1e6, "balance_slack",
                                 options.balance_slack, "1 to 1e6"));
  BEAMLINE_RETURN_IF_ERROR(
      check(options.max_items_per_sid >= 1, "max_items_per_sid", options.max_items_per_sid, "at least 1"));
  return check(options.max_move_error >= 0, "max_move_error", options.max_move_error, "at least 0");
}

FloatMatrix TrainingSample(const FloatMatrix& points, uint32_t size, int64_t per_centroid, RandomSource& random) {
  if (per_centroid == 0 || per_centroid >= (points.rows + size - 1) / size) return points;
  const int64_t count = per_centroid * size;
  const std::vector<int64_t> rows = random.Sample(points.rows, count);
  FloatMatrix sample(count, points.cols);
  for (int64_t i = 0; i < count; ++i) std::copy_n(points.row(rows[i]), points.cols, sample.row(i));
  return sample;
}

absl::StatusOr<std::vector<uint32_t>> AssignAll(const FloatMatrix& residuals, const KMeansResult& level,
                                                const ResidualKMeansOptions& options, ThreadPool* pool) {
  const CentroidSearch search(level.centroids);
  Assignment assignment = AssignNearest(search, residuals, pool);
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  if (options.balanced) {
    const int64_t capacity = CodeCapacity(residuals.rows, search.size(), options.balance_slack);
    BEAMLINE_RETURN_IF_ERROR(EnforceCapacity({search, residuals, capacity}, assignment.codes, pool));
  }
  return std::move(assignment.codes);
}

void Subtract(const FloatMatrix& centroids, const std::vector<uint32_t>& codes, FloatMatrix& residuals,
              ThreadPool* pool) {
  ParallelFor(pool, residuals.rows, kResidualRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* centroid = centroids.row(codes[i]);
      float* residual = residuals.row(i);
      for (int64_t d = 0; d < residuals.cols; ++d) residual[d] -= centroid[d];
    }
  });
}

}  // namespace

absl::StatusOr<ResidualKMeansResult> FitResidualKMeans(const FloatMatrix& vectors, const ResidualKMeansOptions& options,
                                                       ThreadPool* pool, Progress* progress) {
  BEAMLINE_RETURN_IF_ERROR(CheckOptions(vectors, options));
  BEAMLINE_RETURN_IF_ERROR(CheckVectors(vectors));
  const size_t levels = options.level_sizes.size();
  FloatMatrix residuals = vectors;
  std::vector<FloatMatrix> centroids;
  std::vector<Sid> sids(vectors.rows);
  std::vector<int> iterations;
  int64_t moved_items = 0;
  for (size_t l = 0; l < levels; ++l) {
    StartProgress(progress, absl::StrCat("k-means level ", l + 1, "/", levels), options.iterations, "iterations");
    RandomSource random(options.seed, l);
    KMeansResult level;
    {
      const FloatMatrix sample =
          TrainingSample(residuals, options.level_sizes[l], options.max_points_per_centroid, random);
      BEAMLINE_ASSIGN_OR_RETURN(level, FitKMeans(sample, options.level_sizes[l], options, {random, pool, progress}));
    }
    BEAMLINE_ASSIGN_OR_RETURN(const std::vector<uint32_t> codes, AssignAll(residuals, level, options, pool));
    for (int64_t i = 0; i < vectors.rows; ++i) sids[i].push_back(codes[i]);
    if (l + 1 < levels) {
      Subtract(level.centroids, codes, residuals, pool);
    } else if (options.collision_free) {
      const CollisionFreeProblem problem = {&residuals, &level.centroids, options.max_items_per_sid,
                                            options.max_move_error};
      BEAMLINE_ASSIGN_OR_RETURN(moved_items, RemoveCollisions(problem, sids, pool));
    }
    centroids.push_back(std::move(level.centroids));
    iterations.push_back(level.iterations);
    FinishProgress(progress);
  }
  BEAMLINE_ASSIGN_OR_RETURN(Codebook codebook, Codebook::FromCentroids("residual k-means", std::move(centroids)));
  return ResidualKMeansResult{std::move(codebook), std::move(sids), moved_items, std::move(iterations)};
}

}  // namespace beamline::sid
