// SPDX-License-Identifier: Apache-2.0
//
// What a ranker learns from: every event of a log's training part (Corpus::EveryEvent) whose item has a SID, those with
// a head's label as positives and those without as negatives, each as the model's decoder sees it after the events
// before it. Pure; thread-safe.
#pragma once

#include <array>
#include <cstdint>

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "beamline/catalogue.h"
#include "model/model.h"
#include "train/corpus.h"
#include "train/examples.h"

namespace beamline::train {

// Of the training part's events.
struct BehaviourCounts {
  int64_t events = 0;                            // whose item has a SID
  std::array<int64_t, kNumLabels> with_label{};  // of those, by the label's bit
  int64_t without_sid = 0;                       // left out

  int64_t With(uint32_t label) const;  // REQUIRES: one label
  double Rate(uint32_t label) const { return static_cast<double>(With(label)) / static_cast<double>(events); }
};
BehaviourCounts CountBehaviours(const Corpus& every_event, const Catalogue& catalogue);

// A head whose label no event has, or all, would learn nothing: FAILED_PRECONDITION names label and counts.
absl::Status CheckHeads(const model::RankerConfig& ranker, const BehaviourCounts& counts);

// The batch's targets without its padding.
struct RankerRows {
  at::Tensor output;  // [rows, d] of the decoder's last step, which has seen all codes but the last; no gradient
  at::Tensor codes;   // int32 [rows] the last
  at::Tensor labels;  // fp32 [rows, heads] 1 where the event has the head's label
};
// REQUIRES: batch.targets > 0.
RankerRows MakeRankerRows(backend::Context& ctx, const model::Model& model, const ExampleBatch& batch);

// Differentiable in the ranker's weights. -> fp32 [rows, heads]
at::Tensor RowLogits(backend::Context& ctx, const model::Ranker& ranker, const RankerRows& rows);

}  // namespace beamline::train
