// SPDX-License-Identifier: Apache-2.0
//
// One level of residual k-means: seeding, Lloyd's iterations with re-seeded empty clusters and, when balancing, more of
// them in which every assignment is held to the codes' capacity (sid/balance.h). Deterministic as residual_kmeans.h
// says.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "base/float_matrix.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "sid/random_source.h"
#include "sid/residual_kmeans.h"

namespace beamline::sid {

struct KMeansResult {
  FloatMatrix centroids;  // [size, dim]
  int iterations = 0;
};

// What a fit runs on; borrowed.
struct KMeansRun {
  RandomSource& random;
  ThreadPool* pool = nullptr;
  Progress* progress = nullptr;
};

// points: the training sample, at least `size` rows.
absl::StatusOr<KMeansResult> FitKMeans(const FloatMatrix& points, uint32_t size, const ResidualKMeansOptions& options,
                                       const KMeansRun& run);

// [size, dim] starting centroids. k-means++ stops early when Interrupted(): check that afterwards.
FloatMatrix SeedPlusPlus(const FloatMatrix& points, uint32_t size, RandomSource& random, ThreadPool* pool);
FloatMatrix SeedSampled(const FloatMatrix& points, uint32_t size, RandomSource& random);

// The mean of every code's points, summed in index order; a code without points keeps its centroid. Returns counts.
std::vector<int64_t> UpdateCentroids(const FloatMatrix& points, const std::vector<uint32_t>& codes,
                                     FloatMatrix& centroids, ThreadPool* pool);

}  // namespace beamline::sid
