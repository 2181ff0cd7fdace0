// SPDX-License-Identifier: Apache-2.0
//
// The two layers of onerec_v1 (2506.13695, section on the network), as weights and functions over them; t5's are the
// same ones with its own scale, bias and activation (model/t5.h). Every sublayer is pre-normed, the decoder's two
// attentions too (the paper prints a norm only before the MoE); dropout sits on what is added to the residual stream.
// Pure; thread-safe. Rows are `[rows, d]`, d = d_model. Of a rank of several, attention and feed-forward give its own
// heads' and hidden columns' part of each row; AllReduce adds up the parts (1909.08053; backend/ops.h).
#pragma once

#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "backend/ops.h"
#include "model/config.h"
#include "model/weights.h"

namespace beamline::model {

// A dense or an MoE feed-forward.
struct FeedForwardLayer {
  backend::FeedForwardWeights dense;
  std::optional<backend::MoeWeights> moe;
};

struct EncoderLayer {
  double epsilon = 0;         // of the norms
  at::Tensor attention_norm;  // [d]
  backend::SelfAttentionWeights attention;
  at::Tensor ffn_norm;  // [d]
  FeedForwardLayer ffn;
};

struct DecoderLayer {
  double epsilon = 0;    // of the norms
  at::Tensor self_norm;  // [d]
  backend::SelfAttentionWeights self;
  at::Tensor cross_norm;  // [d]
  backend::CrossAttentionWeights cross;
  at::Tensor ffn_norm;  // [d]
  FeedForwardLayer ffn;
};

EncoderLayer BindEncoderLayer(const ModelConfig& config, const Weights& weights, int layer);
DecoderLayer BindDecoderLayer(const ModelConfig& config, const Weights& weights, int layer);

// x [batch * tokens, d], packed [rows, d]
at::Tensor RunEncoderLayer(backend::Context& ctx, const EncoderLayer& layer, at::Tensor x,
                           const backend::TokenView& view);

struct LayerTargets {
  backend::ContextView context;
  int levels = 1;
};

// All levels of every target at once: x [groups * levels, d].
at::Tensor RunDecoderLayer(backend::Context& ctx, const DecoderLayer& layer, const LayerTargets& input, at::Tensor x);

struct LayerStep {
  backend::ContextView context;
  backend::LineageStep lineage;
};

// One step of every beam: x [batch * rows, d].
at::Tensor RunDecoderLayer(backend::Context& ctx, const DecoderLayer& layer, const LayerStep& input, at::Tensor x);

}  // namespace beamline::model
