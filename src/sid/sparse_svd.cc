// SPDX-License-Identifier: Apache-2.0
#include "sid/sparse_svd.h"

#include <algorithm>
#include <cmath>

#include "base/interrupt.h"
#include "beamline/status.h"
#include "sid/random_source.h"
#include "sid/symmetric_eigen.h"

namespace beamline::sid {
namespace {

constexpr int64_t kGramChunks = 16;  // partial sums, added in order; a constant, so that threads do not matter
// A column whose direction is this far (squared) inside the span of those before it is rounding error in fp32.
constexpr double kDependent = 1e-11;

// matrix' * matrix, [cols, cols], in double.
std::vector<double> Gram(const FloatMatrix& matrix, ThreadPool* pool) {
  const int64_t r = matrix.cols;
  const int64_t chunk = std::max<int64_t>(1, (matrix.rows + kGramChunks - 1) / kGramChunks);
  std::vector<std::vector<double>> partial(kGramChunks);
  ParallelFor(pool, matrix.rows, chunk, [&](int64_t begin, int64_t end) {
    std::vector<double>& sum = partial[begin / chunk];
    sum.assign(r * r, 0.0);
    for (int64_t i = begin; i < end; ++i) {
      const float* row = matrix.row(i);
      for (int64_t a = 0; a < r; ++a) {
        const double left = row[a];
        for (int64_t b = a; b < r; ++b) sum[a * r + b] += left * row[b];
      }
    }
  });
  std::vector<double> gram(r * r, 0.0);
  for (const std::vector<double>& sum : partial) {
    for (size_t k = 0; k < sum.size(); ++k) gram[k] += sum[k];
  }
  for (int64_t a = 0; a < r; ++a) {
    for (int64_t b = 0; b < a; ++b) gram[a * r + b] = gram[b * r + a];
  }
  return gram;
}

// matrix * factor, with the first `cols` columns of a [matrix.cols, stride] factor.
FloatMatrix RightMultiply(const FloatMatrix& matrix, const std::vector<double>& factor, int64_t cols,
                          ThreadPool* pool) {
  const int64_t stride = matrix.cols;
  FloatMatrix product(matrix.rows, cols);
  ParallelFor(pool, matrix.rows, 1024, [&](int64_t begin, int64_t end) {
    std::vector<double> sum(cols);
    for (int64_t i = begin; i < end; ++i) {
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t a = 0; a < stride; ++a) {
        const double value = matrix.row(i)[a];
        for (int64_t b = 0; b < cols; ++b) sum[b] += value * factor[a * stride + b];
      }
      for (int64_t b = 0; b < cols; ++b) product.row(i)[b] = static_cast<float>(sum[b]);
    }
  });
  return product;
}

// Twice: the first pass leaves an error that grows with the condition number, the second removes it.
FloatMatrix Orthonormalize(FloatMatrix matrix, ThreadPool* pool) {
  for (int pass = 0; pass < 2; ++pass) {
    const std::vector<double> factor = OrthonormalizingFactor(Gram(matrix, pool), matrix.cols, kDependent);
    matrix = RightMultiply(matrix, factor, matrix.cols, pool);
  }
  return matrix;
}

FloatMatrix RandomSigns(int64_t rows, int64_t cols, uint64_t seed) {
  FloatMatrix signs(rows, cols);
  RandomSource random(seed, 0);
  uint64_t bits = 0;
  for (size_t i = 0; i < signs.values.size(); ++i) {
    if (i % 64 == 0) bits = random.Next();
    signs.values[i] = (bits & 1) != 0 ? 1.0f : -1.0f;
    bits >>= 1;
  }
  return signs;
}

}  // namespace

SparseMatrix Transpose(const SparseMatrix& matrix) {
  SparseMatrix transposed;
  transposed.cols = matrix.rows();
  transposed.offsets.assign(matrix.cols + 1, 0);
  for (const uint32_t column : matrix.columns) ++transposed.offsets[column + 1];
  for (int64_t c = 0; c < matrix.cols; ++c) transposed.offsets[c + 1] += transposed.offsets[c];
  transposed.columns.resize(matrix.columns.size());
  transposed.values.resize(matrix.values.size());
  std::vector<uint64_t> next(transposed.offsets.begin(), transposed.offsets.end() - 1);
  for (int64_t row = 0; row < matrix.rows(); ++row) {
    for (uint64_t e = matrix.offsets[row]; e < matrix.offsets[row + 1]; ++e) {
      const uint64_t at = next[matrix.columns[e]]++;
      transposed.columns[at] = static_cast<uint32_t>(row);
      transposed.values[at] = matrix.values[e];
    }
  }
  return transposed;
}

FloatMatrix Multiply(const SparseMatrix& matrix, const FloatMatrix& dense, ThreadPool* pool) {
  FloatMatrix product(matrix.rows(), dense.cols);
  ParallelFor(pool, matrix.rows(), 256, [&](int64_t begin, int64_t end) {
    if (Interrupted()) return;
    for (int64_t i = begin; i < end; ++i) {
      float* out = product.row(i);
      for (uint64_t e = matrix.offsets[i]; e < matrix.offsets[i + 1]; ++e) {
        const float value = matrix.values[e];
        const float* row = dense.row(matrix.columns[e]);
        for (int64_t k = 0; k < dense.cols; ++k) out[k] += value * row[k];
      }
    }
  });
  return product;
}

absl::StatusOr<SparseSvd> ComputeSparseSvd(const SparseMatrix& matrix, const SparseSvdOptions& options,
                                           ThreadPool* pool, Progress* progress) {
  const SparseMatrix transposed = Transpose(matrix);
  const int64_t width =
      std::min({int64_t{options.rank} + options.oversampling, matrix.rows(), std::max<int64_t>(1, matrix.cols)});
  StartProgress(progress, "singular vectors", options.iterations + 1, "iterations");
  FloatMatrix basis = Orthonormalize(Multiply(matrix, RandomSigns(matrix.cols, width, options.seed), pool), pool);
  for (int iteration = 0; iteration < options.iterations; ++iteration) {
    basis = Orthonormalize(Multiply(matrix, Orthonormalize(Multiply(transposed, basis, pool), pool), pool), pool);
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    UpdateProgress(progress, iteration + 1);
  }
  const FloatMatrix right = Multiply(transposed, basis, pool);
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  UpdateProgress(progress, options.iterations + 1);
  // basis' * matrix = right': its left singular vectors turn the basis into the matrix's.
  const SymmetricEigen eigen = EigenDecompose(Gram(right, pool), width);
  const int64_t found = std::min<int64_t>(width, options.rank);
  const FloatMatrix left = RightMultiply(basis, eigen.vectors, found, pool);
  SparseSvd svd{FloatMatrix(matrix.rows(), options.rank), std::vector<float>(options.rank, 0.0f)};
  for (int64_t k = 0; k < found; ++k) {
    svd.singular_values[k] = static_cast<float>(std::sqrt(std::max(0.0, eigen.values[k])));
  }
  for (int64_t i = 0; i < matrix.rows(); ++i) std::copy_n(left.row(i), found, svd.left.row(i));
  FinishProgress(progress);
  return svd;
}

}  // namespace beamline::sid
