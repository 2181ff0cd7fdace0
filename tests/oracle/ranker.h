// SPDX-License-Identifier: Apache-2.0
//
// What the ranker says of candidates (src/model/ranker.h): for every SID the hidden layer, from the state of all its
// codes but the last and a vector of the last, and the sum of its heads' weighted probabilities.
#pragma once

#include <vector>

#include "oracle/layers.h"

namespace beamline::oracle {

template <typename Real>
struct Ranked {
  MatrixOf<Real> hidden;           // [sids, width]
  std::vector<double> behaviours;  // [sids]; the value is this and the weighted score
};

// states [sids, d] of the prefixes, codes [sids].
template <typename Real>
Ranked<Real> Rank(const Pass<Real>& pass, const MatrixOf<Real>& states, const std::vector<int64_t>& codes) {
  Ranked<Real> ranked{.hidden = Dense(pass, states, "ranker.state")};
  for (int64_t r = 0; r < states.rows; ++r) AddRow(ranked.hidden, r, pass["ranker.code"], codes[r]);
  for (Real& value : ranked.hidden.v) value = static_cast<Real>(backend::Silu(value));
  const MatrixOf<Real> logits = Dense(pass, ranked.hidden, "ranker.head");
  for (int64_t r = 0; r < logits.rows; ++r) {
    double sum = 0;
    for (int64_t h = 0; h < logits.cols; ++h)
      sum += pass.config.ranker.heads[h].weight * backend::Sigmoid(logits(r, h));
    ranked.behaviours.push_back(sum);
  }
  return ranked;
}

}  // namespace beamline::oracle
