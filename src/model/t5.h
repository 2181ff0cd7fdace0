// SPDX-License-Identifier: Apache-2.0
//
// T5 (1910.10683) as Hugging Face's T5ForConditionalGeneration computes it, over one vocabulary of codes and other
// tokens (model/t5_config.h): the layers of onerec_v1 with relative biases, unscaled attention scores and their own
// activation; no positions; a head over the whole vocabulary. Immutable, thread-safe (model/model.h).
#pragma once

#include <vector>

#include "model/layers.h"
#include "model/model.h"

namespace beamline::model {

class T5 final : public Model {
 public:
  // REQUIRES: a valid config of the family and weights of its schema.
  T5(const ModelConfig& config, Weights weights);

  const ModelConfig& config() const override { return config_; }
  const Weights& weights() const override { return weights_; }

  EncodedContext Encode(backend::Context& ctx, const EncoderBatch& batch) const override;
  DecodeState BeginDecode(backend::Context& ctx, EncodedContext context) const override;
  at::Tensor DecodeStep(backend::Context& ctx, DecodeState& state, const StepInput& step) const override;
  std::vector<at::Tensor> TeacherForced(backend::Context& ctx, const EncodedContext& context,
                                        const TeacherBatch& targets) const override;
  at::Tensor TeacherForcedOutput(backend::Context& ctx, const EncodedContext& context,
                                 const TeacherBatch& targets) const override;

 private:
  void BindEncoder();
  void BindDecoder();

  const ModelConfig config_;
  const Weights weights_;

  backend::FeatureTable tokens_;  // of the encoder
  std::vector<EncoderLayer> encoder_;
  at::Tensor encoder_norm_;
  backend::CodeEmbedding codes_;
  std::vector<DecoderLayer> decoder_;
  at::Tensor decoder_norm_;
  backend::HeadWeights head_;
};

}  // namespace beamline::model
