// SPDX-License-Identifier: Apache-2.0
#include "sid/symmetric_eigen.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace beamline::sid {
namespace {

struct Entry {
  int64_t p, q;
};

// Zeroes an entry of the symmetric matrix by a rotation, applied to the rows of `vectors` too.
void Rotate(std::vector<double>& matrix, std::vector<double>& vectors, int64_t n, Entry entry) {
  const int64_t p = entry.p, q = entry.q;
  const double apq = matrix[p * n + q];
  const double theta = (matrix[q * n + q] - matrix[p * n + p]) / (2 * apq);
  const double t = (theta >= 0 ? 1.0 : -1.0) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
  const double c = 1 / std::sqrt(t * t + 1);
  const double s = t * c;
  for (int64_t k = 0; k < n; ++k) {
    const double kp = matrix[k * n + p];
    const double kq = matrix[k * n + q];
    matrix[k * n + p] = c * kp - s * kq;
    matrix[k * n + q] = s * kp + c * kq;
  }
  const auto rotate_rows = [&](std::vector<double>& rows) {
    for (int64_t k = 0; k < n; ++k) {
      const double pk = rows[p * n + k];
      const double qk = rows[q * n + k];
      rows[p * n + k] = c * pk - s * qk;
      rows[q * n + k] = s * pk + c * qk;
    }
  };
  rotate_rows(matrix);
  rotate_rows(vectors);
}

double OffDiagonal(const std::vector<double>& matrix, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < i; ++j) sum += matrix[i * n + j] * matrix[i * n + j];
  }
  return sum;
}

}  // namespace

SymmetricEigen EigenDecompose(std::vector<double> matrix, int64_t n) {
  constexpr int kMaxSweeps = 60;
  std::vector<double> rows(n * n, 0.0);  // eigenvectors as rows, for locality
  for (int64_t i = 0; i < n; ++i) rows[i * n + i] = 1;
  double scale = 0;
  for (const double value : matrix) scale += value * value;
  for (int sweep = 0; sweep < kMaxSweeps && OffDiagonal(matrix, n) > 1e-28 * scale; ++sweep) {
    for (int64_t p = 0; p < n; ++p) {
      for (int64_t q = p + 1; q < n; ++q) {
        const double product = matrix[p * n + p] * matrix[q * n + q];
        if (matrix[p * n + q] * matrix[p * n + q] > 1e-34 * std::fabs(product) && matrix[p * n + q] != 0) {
          Rotate(matrix, rows, n, {p, q});
        }
      }
    }
  }
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return matrix[a * n + a] > matrix[b * n + b]; });
  SymmetricEigen result{std::vector<double>(n), std::vector<double>(n * n)};
  for (int64_t k = 0; k < n; ++k) {
    result.values[k] = matrix[order[k] * n + order[k]];
    for (int64_t i = 0; i < n; ++i) result.vectors[i * n + k] = rows[order[k] * n + i];
  }
  return result;
}

std::vector<double> OrthonormalizingFactor(std::vector<double> gram, int64_t n, double tolerance) {
  // gram becomes R with R' R = G, row by row; a dropped column's row and column are zero but for a diagonal of 1.
  std::vector<char> dropped(n, 0);
  std::vector<double> r(n * n, 0.0);
  for (int64_t k = 0; k < n; ++k) {
    double pivot = gram[k * n + k];
    for (int64_t i = 0; i < k; ++i) pivot -= r[i * n + k] * r[i * n + k];
    dropped[k] = !(pivot > tolerance * gram[k * n + k]);
    if (dropped[k]) {
      for (int64_t i = 0; i < k; ++i) r[i * n + k] = 0;
      continue;
    }
    r[k * n + k] = std::sqrt(pivot);
    for (int64_t j = k + 1; j < n; ++j) {
      double value = gram[k * n + j];
      for (int64_t i = 0; i < k; ++i) value -= r[i * n + k] * r[i * n + j];
      r[k * n + j] = value / r[k * n + k];
    }
  }
  std::vector<double> inverse(n * n, 0.0);
  for (int64_t column = 0; column < n; ++column) {
    if (dropped[column]) continue;
    for (int64_t i = column; i >= 0; --i) {
      if (dropped[i]) continue;
      double value = i == column ? 1.0 : 0.0;
      for (int64_t k = i + 1; k <= column; ++k) value -= r[i * n + k] * inverse[k * n + column];
      inverse[i * n + column] = value / r[i * n + i];
    }
  }
  return inverse;
}

}  // namespace beamline::sid
