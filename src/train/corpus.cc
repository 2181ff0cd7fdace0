// SPDX-License-Identifier: Apache-2.0
#include "train/corpus.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "data/labels.h"

namespace beamline::train {
namespace {

constexpr int kTargetsOfACase = 3;  // users with fewer are never ranked

// Which events of the dataset are targets, by the options.
class TargetFilter {
 public:
  TargetFilter(const data::Dataset& dataset, const CorpusOptions& options) : labels_(options.target_labels) {
    if (options.k_core <= 0) return;
    const data::Dataset labelled = labels_ == 0 ? dataset : dataset.WithLabels(labels_);
    const data::Dataset core = labelled.KCore(options.k_core);
    users_.emplace(dataset.num_users());
    for (int64_t user = 0; user < dataset.num_users(); ++user) {
      (*users_)[user] = core.FindUser(dataset.user_id(user)).has_value();
    }
    items_.emplace(dataset.num_items());
    for (int64_t item = 0; item < dataset.num_items(); ++item) {
      (*items_)[item] = core.FindItem(dataset.item_id(item)).has_value();
    }
  }

  bool operator()(int64_t user, const data::CompactEvent& event) const {
    if (labels_ != 0 && (event.labels & labels_) == 0) return false;
    return !users_.has_value() || ((*users_)[user] && (*items_)[event.item]);
  }

 private:
  uint32_t labels_;
  std::optional<std::vector<bool>> users_, items_;
};

}  // namespace

absl::StatusOr<uint32_t> ParseTargets(absl::string_view text) {
  if (text == "any") return 0;
  if (text.empty()) return absl::InvalidArgumentError("is empty; name labels, or 'any' for every event");
  return data::ParseLabels(std::string_view(text.data(), text.size()));
}

std::string DescribeTargets(const CorpusOptions& options) {
  const std::string labels = options.target_labels == 0 ? "any" : data::FormatLabels(options.target_labels);
  return absl::StrCat(labels, ", k-core ", options.k_core,
                      options.time_split ? absl::StrCat(", split at ", DescribeTimeSplit(*options.time_split)) : "");
}

absl::StatusOr<Corpus> Corpus::Create(std::shared_ptr<const data::Dataset> dataset, const CorpusOptions& options) {
  Corpus corpus(options);
  const TargetFilter is_target(*dataset, options);
  uint32_t labels_seen = 0;
  corpus.target_items_.num_items = static_cast<uint32_t>(dataset->num_items());
  std::vector<uint32_t> items;
  for (int64_t user = 0; user < dataset->num_users(); ++user) {
    const absl::Span<const data::CompactEvent> events = dataset->events(user);
    items.clear();
    for (uint32_t i = 0; i < events.size(); ++i) {
      labels_seen |= events[i].labels;
      if (!is_target(user, events[i])) continue;
      corpus.targets_.push_back(i);
      items.push_back(events[i].item);
    }
    corpus.target_offsets_.push_back(corpus.targets_.size());
    corpus.target_items_.Append(items);
  }
  if (corpus.targets_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "nothing to learn: none of ", dataset->num_events(), " events is a target (labels wanted: '",
        data::FormatLabels(options.target_labels), "', labels in the log: '", data::FormatLabels(labels_seen),
        "', k-core ", options.k_core, "); choose other target labels or a smaller k-core"));
  }
  corpus.dataset_ = std::move(dataset);
  for (int64_t user = 0; user < corpus.dataset_->num_users(); ++user) {
    if (options.time_split) {
      corpus.SplitByTime(user, *options.time_split);
    } else {
      corpus.SplitLastTargets(user);
    }
  }
  BEAMLINE_RETURN_IF_ERROR(corpus.CheckTraining());
  return corpus;
}

void Corpus::SplitLastTargets(int64_t user) {
  const absl::Span<const uint32_t> all = targets(user);
  if (all.size() < kTargetsOfACase) {
    training_end_.push_back(static_cast<uint32_t>(dataset_->events(user).size()));
    return;
  }
  const uint32_t test = all[all.size() - 1], validation = all[all.size() - 2];
  training_end_.push_back(validation);
  cases_[static_cast<size_t>(data::HeldOut::kValidation)].push_back({static_cast<uint32_t>(user), validation});
  cases_[static_cast<size_t>(data::HeldOut::kTest)].push_back({static_cast<uint32_t>(user), test});
}

void Corpus::SplitByTime(int64_t user, const TimeSplit& split) {
  const absl::Span<const data::CompactEvent> events = dataset_->events(user);
  const auto first_from = [&](int64_t ms) {
    const auto at = std::partition_point(events.begin(), events.end(),
                                         [ms](const data::CompactEvent& event) { return event.timestamp_ms < ms; });
    return static_cast<uint32_t>(at - events.begin());
  };
  const uint32_t validation = first_from(split.validation_from_ms), test = first_from(split.test_from_ms);
  training_end_.push_back(validation);
  const auto add = [&](data::HeldOut held_out, uint32_t begin, uint32_t end) {
    const absl::Span<const uint32_t> all = targets(user);
    const auto target = std::lower_bound(all.begin(), all.end(), std::max(begin, 1u));  // there is something before it
    if (target == all.end() || *target >= end) return;
    cases_[static_cast<size_t>(held_out)].push_back({static_cast<uint32_t>(user), *target});
  };
  add(data::HeldOut::kValidation, validation, test);
  add(data::HeldOut::kTest, test, static_cast<uint32_t>(events.size()));
}

absl::Status Corpus::CheckTraining() const {
  int64_t first = std::numeric_limits<int64_t>::max(), last = std::numeric_limits<int64_t>::min();
  for (int64_t user = 0; user < num_users(); ++user) {
    if (training_targets(user) > 0) return absl::OkStatus();
    for (const uint32_t target : targets(user)) {
      const int64_t at = dataset_->events(user)[target].timestamp_ms;
      first = std::min(first, at);
      last = std::max(last, at);
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "nothing to learn: the targets of this log are from ", DescribeMoment(first), " to ", DescribeMoment(last),
      ", none before ", DescribeMoment(options_.time_split->validation_from_ms), ", where it is split"));
}

std::string Corpus::WhyNoCases(data::HeldOut held_out) const {
  if (!options_.time_split) return "no user has three targets, which the split needs";
  const TimeSplit& split = *options_.time_split;
  const std::string when = held_out == data::HeldOut::kTest
                               ? absl::StrCat("at or after ", DescribeMoment(split.test_from_ms))
                               : absl::StrCat("from ", DescribeMoment(split.validation_from_ms), " to before ",
                                              DescribeMoment(split.test_from_ms));
  return absl::StrCat("no user has a target ", when, " and an event before it");
}

ItemSequences Corpus::TrainingTargetItems() const {
  ItemSequences training;
  training.num_items = target_items_.num_items;
  for (int64_t user = 0; user < num_users(); ++user) {
    training.Append(target_items_.user(user).subspan(0, training_targets(user)));
  }
  return training;
}

data::EvaluationCase Corpus::CountingCase(const CorpusCase& one) const {
  const absl::Span<const uint32_t> all = targets(one.user), items = target_items_.user(one.user);
  const auto target = static_cast<size_t>(std::lower_bound(all.begin(), all.end(), one.event) - all.begin());
  return {one.user, items[target], items.first(target)};
}

Corpus Corpus::EveryEvent() const {
  Corpus every({.target_labels = 0, .time_split = options_.time_split});
  every.dataset_ = dataset_;
  every.training_end_ = training_end_;
  every.target_items_ = dataset_->Sequences();
  every.target_offsets_ = every.target_items_.offsets;
  for (int64_t user = 0; user < num_users(); ++user) {
    for (uint32_t i = 0; i < dataset_->events(user).size(); ++i) every.targets_.push_back(i);
  }
  return every;
}

int64_t Corpus::training_targets(int64_t user) const {
  const absl::Span<const uint32_t> all = targets(user);
  return std::lower_bound(all.begin(), all.end(), training_end(user)) - all.begin();
}

runtime::Vocabulary Corpus::FitVocabulary() const {
  std::vector<ItemId> items;
  std::vector<uint64_t> authors;
  for (const uint32_t item : TrainingItems()) {
    items.push_back(dataset_->item_id(item));
    authors.push_back(dataset_->item_attributes(item).author);
  }
  runtime::Vocabulary vocabulary(std::move(items), std::move(authors));
  CountPopularity(vocabulary);
  return vocabulary;
}

void Corpus::CountPopularity(runtime::Vocabulary& vocabulary) const {
  const std::vector<uint32_t> popularity = TrainingPopularity();
  std::vector<ItemId> items;
  std::vector<uint32_t> counts;
  for (const uint32_t item : TrainingItems()) {
    items.push_back(dataset_->item_id(item));
    counts.push_back(popularity[item]);
  }
  vocabulary.SetPopularity(std::move(items), std::move(counts));  // ids are unique and ascending already
}

// Of all events, targets or not, ascending.
std::vector<uint32_t> Corpus::TrainingItems() const {
  std::vector<bool> used(dataset_->num_items());
  for (int64_t user = 0; user < num_users(); ++user) {
    for (const data::CompactEvent& event : dataset_->events(user).subspan(0, training_end(user)))
      used[event.item] = true;
  }
  std::vector<uint32_t> items;
  for (uint32_t item = 0; item < used.size(); ++item) {
    if (used[item]) items.push_back(item);
  }
  return items;
}

std::vector<uint32_t> Corpus::TrainingPopularity() const {
  std::vector<uint32_t> counts(dataset_->num_items());
  for (int64_t user = 0; user < num_users(); ++user) {
    for (uint32_t item : target_items_.user(user).subspan(0, training_targets(user))) ++counts[item];
  }
  return counts;
}

Event ToEvent(const data::Dataset& dataset, const data::CompactEvent& event) {
  return {.item = dataset.item_id(event.item),
          .timestamp_ms = event.timestamp_ms,
          .play_time_ms = event.play_time_ms,
          .duration_ms = event.duration_ms,
          .labels = event.labels};
}

}  // namespace beamline::train
