// SPDX-License-Identifier: Apache-2.0
//
// Naive forms of the ops on plain matrices, without torch: in double what every backend is compared with, in float what
// the plainest code in fp32 would make of the same.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

namespace beamline::backend {

template <typename Real>
struct MatrixOf {
  int64_t rows = 0, cols = 0;
  std::vector<Real> v;
  MatrixOf() = default;
  MatrixOf(int64_t r, int64_t c) : rows(r), cols(c), v(r * c, Real{0}) {}
  Real& operator()(int64_t r, int64_t c) { return v[r * cols + c]; }
  Real operator()(int64_t r, int64_t c) const { return v[r * cols + c]; }
};
using Matrix = MatrixOf<double>;

// x times w transposed: w is [out, in].
template <typename Real>
MatrixOf<Real> MatMul(const MatrixOf<Real>& x, const MatrixOf<Real>& w) {
  MatrixOf<Real> y(x.rows, w.rows);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t o = 0; o < w.rows; ++o) {
      const Real *a = x.v.data() + r * x.cols, *b = w.v.data() + o * x.cols;
      Real sum = 0;
      for (int64_t i = 0; i < x.cols; ++i) sum += a[i] * b[i];
      y(r, o) = sum;
    }
  }
  return y;
}

inline double Silu(double x) { return x / (1 + std::exp(-x)); }
inline double GeluTanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
}
inline double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Gate columns, then values: activation(gate) * value.
template <typename Real>
MatrixOf<Real> Gated(const MatrixOf<Real>& both, double (*activation)(double) = Silu) {
  MatrixOf<Real> hidden(both.rows, both.cols / 2);
  for (int64_t r = 0; r < hidden.rows; ++r) {
    for (int64_t i = 0; i < hidden.cols; ++i) {
      hidden(r, i) = static_cast<Real>(activation(both(r, i)) * both(r, hidden.cols + i));
    }
  }
  return hidden;
}
inline Matrix GatedSilu(const Matrix& both) { return Gated(both); }

template <typename Real>
MatrixOf<Real> SwiGlu(const MatrixOf<Real>& x, const MatrixOf<Real>& up, const MatrixOf<Real>& down) {
  return MatMul(Gated(MatMul(x, up)), down);
}

template <typename Real>
MatrixOf<Real> Columns(const MatrixOf<Real>& x, int64_t begin, int64_t count) {
  MatrixOf<Real> y(x.rows, count);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < count; ++c) y(r, c) = x(r, begin + c);
  }
  return y;
}

// How scores are made of products: as onerec_v1 does it, or with T5's scale and relative bias.
struct Scoring {
  double scale = 0;  // 0: 1 / sqrt(head_dim)
  std::function<double(int, int64_t, int64_t)> bias = [](int head, int64_t query, int64_t key) { return 0.0; };
};

// Row q attends, per head, to the rows k for which sees(q, k); a row that sees none gets 0.
template <typename Real>
MatrixOf<Real> Attend(const MatrixOf<Real>& q, const MatrixOf<Real>& k, const MatrixOf<Real>& v, int heads,
                      const std::function<bool(int64_t, int64_t)>& sees, const Scoring& scoring = {}) {
  MatrixOf<Real> out(q.rows, q.cols);
  const int64_t dim = q.cols / heads;
  const Real scale = static_cast<Real>(scoring.scale == 0 ? 1 / std::sqrt(static_cast<double>(dim)) : scoring.scale);
  for (int64_t r = 0; r < q.rows; ++r) {
    std::vector<int64_t> seen;
    for (int64_t j = 0; j < k.rows; ++j) {
      if (sees(r, j)) seen.push_back(j);
    }
    for (int h = 0; h < heads; ++h) {
      std::vector<Real> p;
      Real most = -std::numeric_limits<Real>::infinity(), sum = 0;
      for (const int64_t j : seen) {
        Real score = 0;
        for (int64_t i = 0; i < dim; ++i) score += q(r, h * dim + i) * k(j, h * dim + i);
        p.push_back(score * scale + static_cast<Real>(scoring.bias(h, r, j)));
        most = std::max(most, p.back());
      }
      for (Real& x : p) sum += x = std::exp(x - most);
      for (size_t s = 0; s < seen.size(); ++s) {
        for (int64_t i = 0; i < dim; ++i) out(r, h * dim + i) += p[s] / sum * v(seen[s], h * dim + i);
      }
    }
  }
  return out;
}

}  // namespace beamline::backend
