// SPDX-License-Identifier: Apache-2.0
//
// A model whose logits are any deterministic function of request and prefix: what the search sees of a decoder, without
// one. Rows that cannot be beams (a prefix the catalogue does not have, or one that stands twice in its request) get
// NaN, so a search that reads an inactive row fails.
#pragma once

#include <functional>
#include <set>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "decode/naive_beam.h"
#include "model/model.h"

namespace beamline::decode::testing {

class TableModel : public model::Model {
 public:
  // logits[request](prefix); `legal` holds every prefix of the catalogue.
  TableModel(std::vector<uint32_t> level_sizes, std::vector<LogitsOf> logits, std::set<std::vector<Code>> legal);

  // A context of these requests, in this order.
  model::EncodedContext Context(absl::Span<const int> requests) const;

  const model::ModelConfig& config() const override { return config_; }
  const model::Weights& weights() const override { return weights_; }
  model::EncodedContext Encode(backend::Context&, const model::EncoderBatch&) const override { return {}; }
  model::DecodeState BeginDecode(backend::Context& ctx, model::EncodedContext context) const override;
  at::Tensor DecodeStep(backend::Context& ctx, model::DecodeState& state, const model::StepInput& step) const override;
  std::vector<at::Tensor> TeacherForced(backend::Context&, const model::EncodedContext&,
                                        const model::TeacherBatch&) const override {
    return {};
  }
  at::Tensor TeacherForcedOutput(backend::Context&, const model::EncodedContext&,
                                 const model::TeacherBatch&) const override {
    return {};
  }

  mutable int steps = 0;              // decode steps run
  mutable std::vector<int64_t> rows;  // rows of each step

 private:
  model::ModelConfig config_;
  model::Weights weights_;
  std::vector<LogitsOf> logits_;
  std::set<std::vector<Code>> legal_;
};

}  // namespace beamline::decode::testing
