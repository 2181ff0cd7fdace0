// SPDX-License-Identifier: Apache-2.0
#include "oracle/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "oracle/encoder.h"
#include "oracle/ranker.h"

namespace beamline::oracle {
namespace {

template <typename Real>
struct Run {
  Pass<Real> pass;
  Decoded<Real> decoded;
  Ranked<Real> ranked;
};

template <typename Real>
Run<Real> RunIn(const model::ModelConfig& config, const Weights<Real>& weights, const runtime::EncodedRequest& request,
                const std::vector<Prefix>& prefixes, const std::vector<Prefix>& sids) {
  Run<Real> run{.pass = {config, weights}};
  run.decoded = Decode(run.pass, Encode(run.pass, request), prefixes);
  if (!config.ranker.enabled()) return run;
  MatrixOf<Real> states(static_cast<int64_t>(sids.size()), config.d_model);
  std::vector<int64_t> codes;
  for (size_t r = 0; r < sids.size(); ++r) {
    const Prefix all_but_last(sids[r].begin(), sids[r].end() - 1);
    const auto row = std::lower_bound(prefixes.begin(), prefixes.end(), all_but_last) - prefixes.begin();
    AddRow(states, r, run.decoded.output, row);
    codes.push_back(sids[r].back());
  }
  run.ranked = Rank(run.pass, states, codes);
  return run;
}

template <typename Real>
double LargestNorm(const MatrixOf<Real>& x, const auto& of) {
  double largest = 0;
  for (int64_t r = 0; r < x.rows; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < x.cols; ++c) squares += of(r, c) * of(r, c);
    largest = std::max(largest, std::sqrt(squares));
  }
  return largest;
}

// Of products of rows of x with rows of w; see the header.
double ProductError(const MatrixOf<double>& x, const MatrixOf<float>& x32, const MatrixOf<double>& w, double rounding) {
  const double off = LargestNorm(x, [&](int64_t r, int64_t c) { return x(r, c) - x32(r, c); });
  const double norm = LargestNorm(x, [&](int64_t r, int64_t c) { return x(r, c); });
  return (kLuck * off + std::sqrt(static_cast<double>(x.cols)) * rounding * norm) *
         LargestNorm(w, [&](int64_t r, int64_t c) { return w(r, c); });
}

// A choice that some order of the sums may turn.
bool Decided(const Pass<double>& exact, const Pass<float>& fp32, double rounding) {
  double off = rounding;
  for (size_t i = 0; i < exact.gate_scores.size(); ++i) {
    off = std::max(off, std::abs(exact.gate_scores[i] - fp32.gate_scores[i]));
  }
  return exact.narrowest_choice > 2 * kLuck * off;
}

// Every weight the next float above or below, or as far as a wider rounding may move it.
Weights<float> Moved(Weights<float> weights, uint64_t seed, double rounding) {
  std::mt19937_64 random(seed);
  for (auto& [name, matrix] : weights) {
    for (float& value : matrix.v) {
      const float sign = random() % 2 == 0 ? -1 : 1;
      if (rounding > kRounding) {
        value *= 1 + sign * static_cast<float>(rounding);
      } else if (value != 0) {
        value = std::nextafter(value, sign * std::numeric_limits<float>::infinity());
      }
    }
  }
  return weights;
}

// What a request may be off by, from one probe.
Reference ErrorsOf(const Run<double>& exact, const Run<float>& probe, double rounding) {
  const model::ModelConfig& config = exact.pass.config;
  const Weights<double>& weights = exact.pass.weights;
  Reference errors;
  errors.decided = Decided(exact.pass, probe.pass, rounding);
  const int heads = config.is_t5() ? 1 : config.levels();
  for (int level = 0; level < heads; ++level) {
    const double error = HeadScale(config) * ProductError(exact.decoded.output, probe.decoded.output,
                                                          weights.at(HeadName(config, level)), rounding);
    errors.logit_error = std::max(errors.logit_error, error);
  }
  if (!config.ranker.enabled()) return errors;
  // A sigmoid rises by a quarter. A term, which is less than its weight, is rounded five times: the weight, exp, 1 +
  // exp, the quotient, the product; then come the sums.
  double all_weights = 0;
  for (const model::RankerHead& head : config.ranker.heads) all_weights += std::abs(head.weight);
  const double logit_error =
      ProductError(exact.ranked.hidden, probe.ranked.hidden, weights.at("ranker.head.weight"), rounding);
  const auto roundings = 5 + static_cast<double>(config.ranker.heads.size());
  errors.behaviours_error = all_weights * (logit_error / 4 + roundings * kRounding);
  return errors;
}

}  // namespace

double RoundingOf(absl::string_view dtype) {
  if (dtype == "fp32") return kRounding;
  return dtype == "bf16" ? 1.0 / (1 << 8) : dtype == "fp16" ? 1.0 / (1 << 11) : 0;
}

ReferenceModel::ReferenceModel(const model::ModelConfig& config, const HostWeights& weights, double rounding)
    : config_(config), rounding_(rounding), exact_(ToMatrices<double>(config, weights)) {
  const Weights<float> fp32 = ToMatrices<float>(config, weights);
  if (rounding == kRounding) probes_.push_back(fp32);
  while (probes_.size() < kProbes) probes_.push_back(Moved(fp32, probes_.size(), rounding));
}

double Reference::LogProbError(double log_prob, size_t columns) const {
  return 2 * logit_error + kRounding * (std::sqrt(static_cast<double>(columns)) + 4 * std::abs(log_prob));
}

double Reference::ValueError(double value, double score_weight, double score) const {
  return behaviours_error + kRounding * 4 * (std::abs(value) + std::abs(score_weight * score));
}

Reference ReferenceModel::Run(const runtime::EncodedRequest& request, const std::set<Prefix>& wanted) const {
  std::vector<Prefix> prefixes, sids;
  for (const Prefix& prefix : wanted) {
    const int depth = static_cast<int>(prefix.size());
    if (depth < config_.steps()) prefixes.push_back(prefix);
    if (depth == config_.levels()) sids.push_back(prefix);
  }
  const auto exact = RunIn(config_, exact_, request, prefixes, sids);
  Reference reference;
  for (const Weights<float>& weights : probes_) {
    const Reference errors = ErrorsOf(exact, RunIn(config_, weights, request, prefixes, sids), rounding_);
    reference.decided = reference.decided && errors.decided;
    reference.logit_error = std::max(reference.logit_error, errors.logit_error);
    reference.behaviours_error = std::max(reference.behaviours_error, errors.behaviours_error);
  }
  for (size_t r = 0; r < prefixes.size(); ++r) reference.logits[prefixes[r]] = exact.decoded.logits[r];
  if (!config_.ranker.enabled()) return reference;
  for (size_t r = 0; r < sids.size(); ++r) reference.behaviours[sids[r]] = exact.ranked.behaviours[r];
  return reference;
}

}  // namespace beamline::oracle
