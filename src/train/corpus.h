// SPDX-License-Identifier: Apache-2.0
//
// A behaviour log as training and evaluation see it: every event is history, and the events with a target label (long
// views by default) are what the model learns to predict. The leave-one-out split is over targets: a user's last target
// is the test item, the last but one the validation item, and the *training part* ends with the event before the
// validation item; users with fewer than three targets keep all of theirs, since nothing of them is ever ranked. A
// split by time (time_split.h) ends everybody's training part at one moment. Whatever is fitted (vocabulary,
// popularity, baselines, weights) is fitted on the training part.
//
// Shares the dataset. Immutable, thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/item_sequences.h"
#include "beamline/request.h"
#include "data/dataset.h"
#include "data/split.h"
#include "runtime/vocabulary.h"
#include "train/time_split.h"

namespace beamline::train {

struct CorpusOptions {
  uint32_t target_labels = kLongView;   // targets carry one of these labels; 0: every event is a target
  int k_core = 0;                       // targets are those of the k-core of the target events; 0: all of them
  std::optional<TimeSplit> time_split;  // nullopt: leave-one-out
};

// Target labels from "long_view|like"; "any": 0. Errors: unknown labels, or none.
absl::StatusOr<uint32_t> ParseTargets(absl::string_view text);

// "long_view, k-core 0", and where it is split by time, "... split at 2022-...": equal options split a log alike.
std::string DescribeTargets(const CorpusOptions& options);

// A target to rank: the user's events before `event` are the history.
struct CorpusCase {
  uint32_t user = 0;
  uint32_t event = 0;
};

class Corpus {
 public:
  // Errors: no target at all (naming the labels there are), or none in the training part.
  static absl::StatusOr<Corpus> Create(std::shared_ptr<const data::Dataset> dataset, const CorpusOptions& options = {});
  // The same split with every event as a target: what a ranker learns from, and is measured on beyond the training
  // part. Without cases.
  Corpus EveryEvent() const;

  const data::Dataset& dataset() const { return *dataset_; }
  const CorpusOptions& options() const { return options_; }
  int64_t num_users() const { return static_cast<int64_t>(training_end_.size()); }
  // Positions of the user's targets in the events, ascending.
  absl::Span<const uint32_t> targets(int64_t user) const {
    return absl::MakeConstSpan(targets_).subspan(target_offsets_[user],
                                                 target_offsets_[user + 1] - target_offsets_[user]);
  }
  // Of them, how many are in the training part; and how many of the user's events are.
  int64_t training_targets(int64_t user) const;
  uint32_t training_end(int64_t user) const { return training_end_[user]; }

  // At most one of a user, in user order: of those with at least three targets, or, by time, with a target there and an
  // event before it.
  absl::Span<const CorpusCase> Cases(data::HeldOut held_out) const { return cases_[static_cast<size_t>(held_out)]; }
  // Why there are none.
  std::string WhyNoCases(data::HeldOut held_out) const;
  // The items of all targets, and those of the training part: what the counting baselines are fitted on.
  const ItemSequences& target_items() const { return target_items_; }
  ItemSequences TrainingTargetItems() const;
  // A case as they take it: the items of its target and of the targets before that. A view into target_items.
  data::EvaluationCase CountingCase(const CorpusCase& one) const;

  // Items and authors of the training part's events, with the items' popularity.
  runtime::Vocabulary FitVocabulary() const;
  // Into a vocabulary that may be another log's, or a t5 model's.
  void CountPopularity(runtime::Vocabulary& vocabulary) const;
  // Targets per item in the training part, [num_items].
  std::vector<uint32_t> TrainingPopularity() const;

 private:
  explicit Corpus(const CorpusOptions& options) : options_(options) {}
  std::vector<uint32_t> TrainingItems() const;
  absl::Status CheckTraining() const;
  void SplitLastTargets(int64_t user);
  void SplitByTime(int64_t user, const TimeSplit& split);

  CorpusOptions options_;
  std::shared_ptr<const data::Dataset> dataset_;
  std::vector<uint64_t> target_offsets_{0};
  std::vector<uint32_t> targets_;
  std::vector<uint32_t> training_end_;
  std::array<std::vector<CorpusCase>, 2> cases_;  // by data::HeldOut
  ItemSequences target_items_;
};

// The event as requests carry it.
Event ToEvent(const data::Dataset& dataset, const data::CompactEvent& event);

}  // namespace beamline::train
