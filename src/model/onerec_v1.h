// SPDX-License-Identifier: Apache-2.0
//
// onerec_v1 (2506.13695): pathways of behaviour features -> encoder -> decoder with cross-attention, one head per
// level. With decoder.trunk_layers = K > 0 the first K decoder layers see positions and context only and run once per
// request for all levels together; each level's trunk row is then fused with the code chosen before it, and the other
// layers run per beam (LazyAR, 2602.22732). Immutable, thread-safe (model/model.h).
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "model/layers.h"
#include "model/model.h"

namespace beamline::model {

// How the elements of one pathway become tokens.
struct PathwayEncoder {
  std::vector<backend::FeatureTable> tables;  // per column
  backend::FeatureFusion fusion = backend::FeatureFusion::kConcat;
  backend::DenseWeights dense1, dense2;  // of kConcat
};

class OneRecV1 final : public Model {
 public:
  // REQUIRES: a valid config and weights of its schema.
  OneRecV1(const ModelConfig& config, Weights weights);

  const ModelConfig& config() const override { return config_; }
  const Weights& weights() const override { return weights_; }

  EncodedContext Encode(backend::Context& ctx, const EncoderBatch& batch) const override;
  DecodeState BeginDecode(backend::Context& ctx, EncodedContext context) const override;
  at::Tensor DecodeStep(backend::Context& ctx, DecodeState& state, const StepInput& step) const override;
  std::vector<at::Tensor> TeacherForced(backend::Context& ctx, const EncodedContext& context,
                                        const TeacherBatch& targets) const override;
  at::Tensor TeacherForcedOutput(backend::Context& ctx, const EncodedContext& context,
                                 const TeacherBatch& targets) const override;
  const Ranker* ranker() const override { return ranker_ ? &*ranker_ : nullptr; }

 private:
  at::Tensor EmbedTokens(backend::Context& ctx, const EncoderBatch& batch) const;
  // Trunk rows [groups * levels, d] for `groups` targets, seeing the context through `mask`.
  at::Tensor RunTrunk(backend::Context& ctx, const EncodedContext& context, const at::Tensor& mask,
                      int64_t groups) const;

  const ModelConfig config_;
  const Weights weights_;

  PathwayEncoder static_;
  std::array<PathwayEncoder, kPathways> pathways_;
  at::Tensor position_;  // [max_tokens, d]
  std::vector<EncoderLayer> encoder_;
  at::Tensor encoder_norm_;
  backend::CodeEmbedding codes_;
  at::Tensor trunk_position_;  // [levels, d]
  std::vector<DecoderLayer> decoder_;
  backend::DenseWeights fusion_;
  at::Tensor decoder_norm_;
  std::vector<at::Tensor> heads_;  // per level [level size, d], of a rank of several its rows
  std::optional<Ranker> ranker_;
};

}  // namespace beamline::model
