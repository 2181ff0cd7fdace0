// SPDX-License-Identifier: Apache-2.0
//
// What orders the candidates of a search: OneRec chooses among what it generates by reward, and most of its gain comes
// from there (2506.13695, P-score). The ranker sees a candidate as the decoder does: the state of its prefix, which has
// seen the context and all codes but the last, and a vector of the last code.
//
//   hidden = silu(W state + b + code[c])      one hidden layer of config.ranker.width
//   p[h] = sigmoid(head[h] . hidden + bias)   per behaviour h: click, like, long view, ...
//   value = score_weight score + sum over h of weight[h] p[h]      config.ranker
//
// The heads say what a user does with a candidate that comes; the score, how likely it comes next. By the heads alone
// the lists of a log lose much of what they find (bench/results/ranker.md), so that both have a weight.
//
// A part of the model: its weights are in the schema, the bundle and the digest of the model that it was trained with
// (`beamline train-ranker`). Pure; thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include "backend/ops.h"
#include "model/config.h"
#include "model/weights.h"

namespace beamline::model {

struct Ranker {
  backend::DenseWeights state;  // [width, d]
  backend::RankerWeights weights;
};

// REQUIRES: config.ranker.enabled().
Ranker BindRanker(const ModelConfig& config, const Weights& weights);

// What the last layer takes of the rows of a step: x [rows, d], what their head saw. -> [rows, width]
at::Tensor RankerStates(backend::Context& ctx, const Ranker& ranker, const at::Tensor& x);

}  // namespace beamline::model
