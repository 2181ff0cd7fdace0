// SPDX-License-Identifier: Apache-2.0
//
// The truncated singular value decomposition of a sparse matrix by randomised subspace iteration (Halko, Martinsson and
// Tropp 2011, algorithm 4.4), with a random sign matrix as start. Deterministic for a seed, whatever the threads.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "base/float_matrix.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "sid/sparse_matrix.h"

namespace beamline::sid {

struct SparseSvdOptions {
  int rank = 64;
  int oversampling = 16;
  int iterations = 6;
  uint64_t seed = 1;
};

struct SparseSvd {
  FloatMatrix left;                    // [rows, rank], orthonormal columns; zero columns past the matrix's rank
  std::vector<float> singular_values;  // [rank], falling
};

// Error: CANCELLED when interrupted.
absl::StatusOr<SparseSvd> ComputeSparseSvd(const SparseMatrix& matrix, const SparseSvdOptions& options,
                                           ThreadPool* pool, Progress* progress);

SparseMatrix Transpose(const SparseMatrix& matrix);
// [rows, dense.cols]
FloatMatrix Multiply(const SparseMatrix& matrix, const FloatMatrix& dense, ThreadPool* pool);

}  // namespace beamline::sid
