// SPDX-License-Identifier: Apache-2.0
//
// Residual k-means (RQ-Kmeans of OneRec, arXiv 2506.13695; QARM): level 1 clusters the vectors, level l what the levels
// before left over. Lloyd's iterations on a sample of at most max_points_per_centroid points per code, as faiss does,
// then one exact assignment of every vector. Options: balanced clusters (each code gets about n / size items, the rule
// of the first OneRec paper, arXiv 2502.18965), and nearly unique SIDs (collision_free).
// The result depends on vectors and options only, bit for bit: not on the number of threads, nor on the machine's
// vector width (sums run in a fixed order, without fused multiply-add).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/float_matrix.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "sid/codebook.h"

namespace beamline::sid {

enum class KMeansInit {
  kPlusPlus,  // k-means++ (Arthur and Vassilvitskii 2007) on a sample
  kSampled,   // distinct random points: faster, slightly worse
};

struct ResidualKMeansOptions {
  std::vector<uint32_t> level_sizes{256, 256, 256};
  KMeansInit init = KMeansInit::kPlusPlus;
  int iterations = 25;                    // of Lloyd's algorithm per level, at most
  double tolerance = 1e-4;                // stop when an iteration gains less than this part of the error
  int64_t max_points_per_centroid = 256;  // training sample; 0 = all points
  // Every code of every level gets at most ceil(balance_slack * n / size) items.
  bool balanced = false;
  double balance_slack = 1.0;
  // At most max_items_per_sid items share a SID where the last level has room: among items with equal prefix the last
  // codes are dealt out anew at the least total squared error (overrides `balanced` on the last level).
  bool collision_free = false;
  int max_items_per_sid = 1;
  // An item whose move would raise its squared error by more than this times the mean squared error stays where it
  // was, colliding. Infinite = always move.
  double max_move_error = 1e30;
  uint64_t seed = 1;
};

struct ResidualKMeansResult {
  Codebook codebook;
  std::vector<Sid> sids;        // [n]; equal to codebook.Encode(vectors) unless balanced or collision_free
  int64_t moved_items = 0;      // given another than the nearest last code by collision_free
  std::vector<int> iterations;  // [levels], run
};

// Errors: options out of range, fewer vectors than a level has codes, values that are not finite (row named),
// CANCELLED when interrupted. pool and progress may be null.
absl::StatusOr<ResidualKMeansResult> FitResidualKMeans(const FloatMatrix& vectors, const ResidualKMeansOptions& options,
                                                       ThreadPool* pool = nullptr, Progress* progress = nullptr);

}  // namespace beamline::sid
