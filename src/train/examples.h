// SPDX-License-Identifier: Apache-2.0
//
// Training examples from a corpus. A *window* is a stretch of one user's history with the targets to predict in it.
//
//   causal encoder         one window per user and model window length; up to `targets_per_window` random targets of it
//                          train in one pass, each seeing the events before it (model/inputs.h, order_limit)
//   bidirectional encoder  one window per target, which sees everything before it; targets with fewer than min_history
//                          events before them are left out
//
// Only the training part is used, but for HeldOutPlan. Plans and batches are functions of (options.seed, epoch, batch
// number) alone, so a resumed run sees what an uninterrupted one does. Thread-safe: Build may run ahead on another
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "beamline/catalogue.h"
#include "model/inputs.h"
#include "runtime/encoded_request.h"
#include "runtime/feature_builder.h"
#include "train/corpus.h"
#include "train/train_options.h"

namespace beamline::train {

// Targets of user at event positions first_target..last_target, both included; the history ends before last_target.
// Of them, one with n newer targets in the user's training part trains with probability target_decay^n.
struct Window {
  uint32_t user = 0;
  uint32_t first_target = 0;
  uint32_t last_target = 0;
  double target_decay = 1;
};

using EpochPlan = std::vector<std::vector<Window>>;  // batches

struct ExampleBatch {
  model::EncoderInput encoder;
  model::TeacherInput teacher;
  std::vector<int64_t> labels;       // [batch, targets, steps] columns of the logits; kNoLabel for padding
  std::vector<uint32_t> behaviours;  // [batch, targets] Event::labels of the target
  int64_t targets = 0;               // that count
};

class ExampleBuilder {
 public:
  // All outlive the builder.
  ExampleBuilder(const Corpus& corpus, const runtime::FeatureBuilder& features, const Catalogue& catalogue,
                 const TrainOptions& options);

  // The epoch's batches in order: windows of similar length side by side, batches shuffled.
  EpochPlan Plan(int epoch) const;
  // Every target beyond the training part, each in a window of its own: it sees what a request would.
  EpochPlan HeldOutPlan() const;
  // `seed` draws targets and augmentation. Zero `targets` when no target of the windows has a SID.
  ExampleBatch Build(absl::Span<const Window> windows, uint64_t seed) const;

  int64_t batches_per_epoch() const;  // of epoch 0; later epochs may differ by a few where users are long

 private:
  struct Example;
  void PlanUser(int64_t user, uint64_t seed, std::vector<Window>& windows) const;
  Example MakeExample(const Window& window, uint64_t seed) const;

  const Corpus& corpus_;
  const runtime::FeatureBuilder& features_;
  const Catalogue& catalogue_;
  const TrainOptions options_;
  const bool causal_;
  const uint32_t stride_;  // causal: elements of the main pathway (short-term, else positive) a window covers
  std::vector<Sid> sids_;  // [items]; empty: none
};

}  // namespace beamline::train
