// SPDX-License-Identifier: Apache-2.0
//
// The sublayers that all families are made of (2506.13695, section 2.3; 1910.10683): RMSNorm, dense layers, attention
// and the feed-forward network, dense or of experts.
#pragma once

#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "beamline/kernels/relative_position.h"
#include "oracle/pass.h"

namespace beamline::oracle {

using backend::Columns;
using backend::MatMul;
using backend::MatrixOf;

template <typename Real>
MatrixOf<Real> RmsNorm(const Pass<Real>& pass, MatrixOf<Real> x, const std::string& name) {
  const MatrixOf<Real>& weight = pass[name];
  for (int64_t r = 0; r < x.rows; ++r) {
    Real squares = 0;
    for (int64_t c = 0; c < x.cols; ++c) squares += x(r, c) * x(r, c);
    const Real scale = 1 / std::sqrt(squares / static_cast<Real>(x.cols) + static_cast<Real>(pass.config.norm_epsilon));
    for (int64_t c = 0; c < x.cols; ++c) x(r, c) *= scale * weight(0, c);
  }
  return x;
}

template <typename Real>
MatrixOf<Real> Dense(const Pass<Real>& pass, const MatrixOf<Real>& x, const std::string& name) {
  MatrixOf<Real> y = MatMul(x, pass[absl::StrCat(name, ".weight")]);
  for (int64_t r = 0; r < y.rows; ++r) AddRow(y, r, pass[absl::StrCat(name, ".bias")], 0);
  return y;
}

// -- Attention -----------------------------------------------------------------------------------------------------
using Sees = std::function<bool(int64_t query, int64_t key)>;

// t5: scores are not scaled, and a key's distance from its query has a bias of its own. Which bucket a distance is in
// is transformers' rule, to the rounding: tests/kernels/relative_position_test.cc holds it.
template <typename Real>
backend::Scoring ScoringOf(const Pass<Real>& pass, const std::string& stack, const std::vector<int>& positions) {
  if (!pass.config.is_t5()) return {};
  const model::T5Config& t5 = pass.config.t5;
  const kernels::RelativeBuckets buckets = {t5.relative_buckets, t5.relative_max_distance, stack == "encoder"};
  const MatrixOf<Real>& table = pass[absl::StrCat(stack, ".relative_bias")];
  return {1, [&table, buckets, positions](int head, int64_t query, int64_t key) -> double {
            return table(kernels::RelativePositionBucket(positions[key] - positions[query], buckets), head);
          }};
}

template <typename Real>
MatrixOf<Real> SelfAttention(const Pass<Real>& pass, const MatrixOf<Real>& x, const std::string& name, const Sees& sees,
                             const backend::Scoring& scoring) {
  const int64_t inner = pass.config.inner();
  const MatrixOf<Real> qkv = MatMul(x, pass[absl::StrCat(name, ".qkv")]);
  return MatMul(backend::Attend(Columns(qkv, 0, inner), Columns(qkv, inner, inner), Columns(qkv, 2 * inner, inner),
                                pass.config.heads, sees, scoring),
                pass[absl::StrCat(name, ".out")]);
}

// Every row of x sees all of the context.
template <typename Real>
MatrixOf<Real> CrossAttention(const Pass<Real>& pass, const MatrixOf<Real>& x, const std::string& name,
                              const MatrixOf<Real>& context) {
  const int64_t inner = pass.config.inner();
  const MatrixOf<Real> key_value = MatMul(context, pass[absl::StrCat(name, ".key_value")]);
  backend::Scoring scoring;
  if (pass.config.is_t5()) scoring.scale = 1;
  return MatMul(
      backend::Attend(
          MatMul(x, pass[absl::StrCat(name, ".query")]), Columns(key_value, 0, inner), Columns(key_value, inner, inner),
          pass.config.heads, [](int64_t, int64_t) { return true; }, scoring),
      pass[absl::StrCat(name, ".out")]);
}

// -- Feed-forward --------------------------------------------------------------------------------------------------
inline double Relu(double x) { return std::max(0.0, x); }
inline double GeluErf(double x) { return .5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

inline double (*ActivationOf(const model::ModelConfig& config, bool gated))(double) {
  if (!config.is_t5()) return gated ? backend::Silu : GeluErf;
  return config.t5.activation == model::T5Activation::kRelu   ? Relu
         : config.t5.activation == model::T5Activation::kGelu ? backend::GeluTanh
                                                              : backend::Silu;
}

// Experts by their sigmoid plus a bias that balances them (2408.15664); the sigmoid alone is their share.
template <typename Real>
MatrixOf<Real> Experts(Pass<Real>& pass, const model::FeedForwardConfig& ffn, const std::string& layer,
                       const MatrixOf<Real>& x) {
  const auto weight = [&](const char* name) -> const MatrixOf<Real>& {
    return pass[absl::StrCat(layer, ".moe.", name)];
  };
  const MatrixOf<Real> gate = MatMul(x, weight("gate"));
  MatrixOf<Real> y(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    std::vector<double> share(ffn.experts), biased(ffn.experts);
    for (int e = 0; e < ffn.experts; ++e) {
      share[e] = static_cast<Real>(backend::Sigmoid(gate(r, e)));
      biased[e] = share[e] + weight("bias").v[e];
      pass.gate_scores.push_back(biased[e]);
    }
    std::vector<int> best(ffn.experts);
    std::iota(best.begin(), best.end(), 0);
    std::stable_sort(best.begin(), best.end(), [&](int a, int b) { return biased[a] > biased[b]; });
    if (ffn.top_k < ffn.experts) {
      pass.narrowest_choice = std::min(pass.narrowest_choice, biased[best[ffn.top_k - 1]] - biased[best[ffn.top_k]]);
    }
    double sum = 1e-20;
    for (int k = 0; k < ffn.top_k; ++k) sum += share[best[k]];
    for (int k = 0; k < ffn.top_k; ++k) {
      const int e = best[k];
      const MatrixOf<Real> one =
          backend::SwiGlu(RowsOf(x, r, 1), RowsOf(weight("up"), int64_t{e} * 2 * ffn.width, 2 * int64_t{ffn.width}),
                          RowsOf(weight("down"), e * x.cols, x.cols));
      for (int64_t c = 0; c < x.cols; ++c) y(r, c) += static_cast<Real>(share[e] / sum) * one(0, c);
    }
  }
  if (ffn.shared_experts > 0) Add(y, backend::SwiGlu(x, weight("shared_up"), weight("shared_down")));
  return y;
}

template <typename Real>
MatrixOf<Real> FeedForward(Pass<Real>& pass, const model::FeedForwardConfig& ffn, const std::string& layer,
                           const MatrixOf<Real>& x) {
  if (ffn.experts > 0) return Experts(pass, ffn, layer, x);
  const auto activation = ActivationOf(pass.config, ffn.gated);
  MatrixOf<Real> hidden = MatMul(x, pass[absl::StrCat(layer, ".ffn.up")]);
  if (ffn.gated) {
    hidden = backend::Gated(hidden, activation);
  } else {
    for (Real& value : hidden.v) value = static_cast<Real>(activation(value));
  }
  return MatMul(hidden, pass[absl::StrCat(layer, ".ffn.down")]);
}

}  // namespace beamline::oracle
