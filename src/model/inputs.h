// SPDX-License-Identifier: Apache-2.0
//
// What goes into a model, first as plain host vectors that runtime and trainer fill by feature_index.h, then as int32
// tensors on the device. Tokens stand in the order static (0 or 1), short-term, positive feedback, each padded to the
// capacity of the batch; element i of a pathway is its i-th oldest, so padding is at the end of a pathway. Padding has
// order kPaddingOrder and any valid ids. Row-major throughout.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "backend/ops.h"
#include "model/config.h"

namespace beamline::model {

enum Pathway { kShortTerm = 0, kPositive = 1 };
inline constexpr int kPathways = 2;

struct PathwayInput {
  int length = 0;                 // capacity, 0 <= length <= the config's: may be as short as the batch allows
  std::vector<int32_t> features;  // [batch, length, columns]
};

struct EncoderInput {
  int batch = 0;
  std::vector<int32_t> static_features;  // [batch, static columns]
  std::array<PathwayInput, kPathways> pathways;
  std::vector<int32_t> positions;  // [batch, tokens]
  std::vector<int32_t> order;      // [batch, tokens]: -1 static, event index, kPaddingOrder

  int tokens(const ModelConfig& config) const;
};

// An input of the right shape in which every element is padding, to be filled element by element. Lengths above the
// config's are cut to it; positions are already set.
EncoderInput MakeEncoderInput(const ModelConfig& config, int batch, int short_term_length, int positive_length);

// Sizes match and every id lies in its table: what Encode requires. INVALID_ARGUMENT names field and index.
absl::Status CheckEncoderInput(const ModelConfig& config, const EncoderInput& input);

struct EncoderBatch {
  int64_t batch = 0;
  at::Tensor static_features;                  // [batch, 1, columns]; undefined where the static token is off
  std::array<at::Tensor, kPathways> features;  // [batch, length, columns]; undefined where length is 0
  at::Tensor positions;                        // [batch, tokens]
  at::Tensor order;                            // [batch, tokens], as the packing leaves them
  backend::TokenPacking packing;               // of the tokens that go into the encoder
};

// For inference no padding stands between a request's tokens, and they are packed, where the backend has use for it
// (backend::RowsToPack): then what is computed of them depends on nothing else in the batch.
EncoderBatch UploadEncoderInput(backend::Context& ctx, const ModelConfig& config, const EncoderInput& input);

// Targets to score under a history: each sees the context tokens whose order is at most its limit. Training on many
// positions of one history: target p has limit p - 1. Scoring candidates of a request: kSeesAllOrders. Padding targets
// (any codes, limit -1) cost time, nothing else: leave them out of the loss.
struct TeacherInput {
  int batch = 0;
  int targets = 0;                   // capacity per context row
  std::vector<int32_t> codes;        // [batch, targets, levels]
  std::vector<int32_t> order_limit;  // [batch, targets]
};

struct TeacherBatch {
  int64_t batch = 0;
  int64_t targets = 0;
  at::Tensor codes;        // [batch, targets, levels]
  at::Tensor order_limit;  // [batch, targets]
};

TeacherBatch UploadTeacherInput(backend::Context& ctx, const ModelConfig& config, const TeacherInput& input);

}  // namespace beamline::model
