// SPDX-License-Identifier: Apache-2.0
#include "sid/sparse_svd.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "base/interrupt.h"
#include "sid/symmetric_eigen.h"

namespace beamline::sid {
namespace {

SparseMatrix RandomSparse(int64_t rows, int64_t cols, double density, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  SparseMatrix matrix;
  matrix.cols = cols;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      if (uniform(engine) >= density) continue;
      matrix.columns.push_back(static_cast<uint32_t>(j));
      matrix.values.push_back(static_cast<float>(uniform(engine) * ((i * 7) % 5 == (j * 3) % 5 ? 4 : 1)));
    }
    matrix.offsets.push_back(matrix.columns.size());
  }
  return matrix;
}

std::vector<double> Dense(const SparseMatrix& matrix) {
  std::vector<double> dense(matrix.rows() * matrix.cols, 0.0);
  for (int64_t i = 0; i < matrix.rows(); ++i) {
    for (uint64_t e = matrix.offsets[i]; e < matrix.offsets[i + 1]; ++e) {
      dense[i * matrix.cols + matrix.columns[e]] = matrix.values[e];
    }
  }
  return dense;
}

// M M', whose eigenvalues are the squared singular values.
std::vector<double> LeftGram(const SparseMatrix& matrix) {
  const std::vector<double> dense = Dense(matrix);
  const int64_t n = matrix.rows();
  std::vector<double> gram(n * n, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t k = 0; k < matrix.cols; ++k)
        gram[i * n + j] += dense[i * matrix.cols + k] * dense[j * matrix.cols + k];
    }
  }
  return gram;
}

TEST(SymmetricEigen, RebuildsTheMatrix) {
  std::mt19937_64 engine(1);
  std::normal_distribution<double> normal;
  for (const int64_t n : {1, 2, 5, 40}) {
    std::vector<double> matrix(n * n);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j <= i; ++j) matrix[i * n + j] = matrix[j * n + i] = normal(engine);
    }
    const SymmetricEigen eigen = EigenDecompose(matrix, n);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double rebuilt = 0;
        double product = 0;
        for (int64_t k = 0; k < n; ++k) {
          rebuilt += eigen.vectors[i * n + k] * eigen.values[k] * eigen.vectors[j * n + k];
          product += eigen.vectors[k * n + i] * eigen.vectors[k * n + j];
        }
        EXPECT_NEAR(rebuilt, matrix[i * n + j], 1e-10);
        EXPECT_NEAR(product, i == j ? 1 : 0, 1e-10);
      }
      if (i > 0) {
        EXPECT_GE(eigen.values[i - 1], eigen.values[i]);
      }
    }
  }
}

TEST(SymmetricEigen, OrthonormalizingFactorDropsDependentColumns) {
  // Columns a, b, a + b of three vectors.
  const double a[3] = {1, 2, 3};
  const double b[3] = {0, 1, -1};
  const double columns[3][3] = {{a[0], b[0], a[0] + b[0]}, {a[1], b[1], a[1] + b[1]}, {a[2], b[2], a[2] + b[2]}};
  std::vector<double> gram(9, 0.0);
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 3; ++k) gram[i * 3 + j] += columns[k][i] * columns[k][j];
    }
  }
  const std::vector<double> t = OrthonormalizingFactor(gram, 3, 1e-11);
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      double product = 0;
      for (int p = 0; p < 3; ++p) {
        for (int q = 0; q < 3; ++q) product += t[p * 3 + i] * gram[p * 3 + q] * t[q * 3 + j];
      }
      EXPECT_NEAR(product, i == j && i < 2 ? 1 : 0, 1e-9) << i << "," << j;
    }
  }
}

TEST(SparseSvd, AgreesWithTheDenseDecomposition) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const SparseMatrix matrix = RandomSparse(60, 45 + 10 * static_cast<int64_t>(seed), 0.2, seed);
    const SymmetricEigen exact = EigenDecompose(LeftGram(matrix), 60);
    const auto svd =
        ComputeSparseSvd(matrix, {.rank = 6, .oversampling = 16, .iterations = 12, .seed = 1}, nullptr, nullptr);
    ASSERT_TRUE(svd.ok());
    for (int k = 0; k < 6; ++k) {
      EXPECT_NEAR(svd->singular_values[k], std::sqrt(exact.values[k]), 1e-3 * std::sqrt(exact.values[0])) << k;
    }
    // The first vector is well apart from the second: it must be the same up to sign.
    double dot = 0;
    for (int64_t i = 0; i < 60; ++i) dot += svd->left.row(i)[0] * exact.vectors[i * 60];
    EXPECT_NEAR(std::fabs(dot), 1, 1e-4);
    for (int p = 0; p < 6; ++p) {
      for (int q = 0; q < 6; ++q) {
        double product = 0;
        for (int64_t i = 0; i < 60; ++i) product += double{svd->left.row(i)[p]} * svd->left.row(i)[q];
        EXPECT_NEAR(product, p == q ? 1 : 0, 1e-5);
      }
    }
  }
}

TEST(SparseSvd, RankOneAndTooSmallMatricesLeaveZeroColumns) {
  SparseMatrix matrix;
  matrix.cols = 4;
  for (int i = 0; i < 10; ++i) {
    for (uint32_t j = 0; j < 4; ++j) {
      matrix.columns.push_back(j);
      matrix.values.push_back(static_cast<float>((i + 1) * (j + 1)));
    }
    matrix.offsets.push_back(matrix.columns.size());
  }
  const auto svd = ComputeSparseSvd(matrix, {.rank = 8}, nullptr, nullptr);
  ASSERT_TRUE(svd.ok());
  EXPECT_NEAR(svd->singular_values[0], std::sqrt(385.0 * 30.0), 1e-2);
  for (int k = 1; k < 8; ++k) EXPECT_NEAR(svd->singular_values[k], 0, 1e-2);
  for (const float value : svd->left.values) EXPECT_TRUE(std::isfinite(value));
}

TEST(SparseSvd, ThreadsDoNotMatter) {
  const SparseMatrix matrix = RandomSparse(3000, 500, 0.02, 5);
  const SparseSvdOptions options{.rank = 16, .iterations = 3};
  ThreadPool pool(3);
  const auto a = ComputeSparseSvd(matrix, options, nullptr, nullptr);
  const auto b = ComputeSparseSvd(matrix, options, &pool, nullptr);
  EXPECT_EQ(a->left.values, b->left.values);
  EXPECT_EQ(a->singular_values, b->singular_values);
}

TEST(SparseSvd, TransposeAndMultiply) {
  const SparseMatrix matrix = RandomSparse(20, 30, 0.3, 6);
  const std::vector<double> dense = Dense(matrix);
  const std::vector<double> transposed = Dense(Transpose(matrix));
  FloatMatrix right(30, 3);
  for (size_t i = 0; i < right.values.size(); ++i) right.values[i] = static_cast<float>(i % 7) - 3;
  const FloatMatrix product = Multiply(matrix, right, nullptr);
  for (int64_t i = 0; i < 20; ++i) {
    for (int64_t j = 0; j < 30; ++j) EXPECT_EQ(dense[i * 30 + j], transposed[j * 20 + i]);
    for (int64_t k = 0; k < 3; ++k) {
      double sum = 0;
      for (int64_t j = 0; j < 30; ++j) sum += dense[i * 30 + j] * right.row(j)[k];
      EXPECT_NEAR(product.row(i)[k], sum, 1e-4);
    }
  }
}

TEST(SparseSvd, InterruptCancels) {
  SetInterrupted(true);
  const auto svd = ComputeSparseSvd(RandomSparse(20, 30, 0.3, 6), {.rank = 2}, nullptr, nullptr);
  SetInterrupted(false);
  EXPECT_EQ(svd.status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace beamline::sid
