// SPDX-License-Identifier: Apache-2.0
#include "train/corpus.h"

#include <algorithm>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/baselines.h"
#include "train/examples.h"
#include "train/train_test_util.h"

namespace beamline::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(CorpusTest, SplitsTargetsAndKeepsOtherEventsAsHistory) {
  const Log log = {{{1}, {2, "click"}, {3}, {4}, {5, "click"}, {6}}, {{1}, {2}}};
  const World world(log, "split");
  const Corpus& corpus = *world.corpus;
  EXPECT_THAT(corpus.targets(0), ElementsAre(0, 2, 3, 5));
  EXPECT_EQ(corpus.training_targets(0), 2);
  EXPECT_EQ(corpus.training_end(0), 3u);  // the validation item is event 3
  EXPECT_EQ(corpus.training_targets(1), 2) << "users with fewer than three targets train with all";
  const absl::Span<const CorpusCase> test = corpus.Cases(data::HeldOut::kTest);
  ASSERT_EQ(test.size(), 1u);
  EXPECT_EQ(test[0].event, 5u);
  EXPECT_EQ(corpus.Cases(data::HeldOut::kValidation)[0].event, 3u);
  // The same case as the counting baselines get.
  const data::EvaluationCase counting = corpus.CountingCase(test[0]);
  EXPECT_EQ(corpus.dataset().item_id(counting.target), 6u);
  EXPECT_EQ(counting.history.size(), 3u);
}

TEST(CorpusTest, SplitsAllUsersAtOneTime) {
  const Log log = {
      {{1, "long_view", 0}, {2, "click", 9}, {3, "long_view", 10}, {4, "long_view", 11}, {5, "long_view", 20}},
      {{6, "long_view", 3}, {7, "long_view", 4}},                          // nothing held out
      {{1, "long_view", 12}, {2, "long_view", 25}, {3, "long_view", 26}},  // came later
      {{2, "click", 5}, {3, "click", 15}, {4, "long_view", 30}}};
  const World world(log, "by_time", {}, {.time_split = TimeSplit{kLogStart + 10 * kMinute, kLogStart + 20 * kMinute}});
  const Corpus& corpus = *world.corpus;
  EXPECT_EQ(corpus.training_end(0), 2u);
  EXPECT_EQ(corpus.training_targets(0), 1);
  EXPECT_EQ(corpus.training_end(1), 2u);
  EXPECT_EQ(corpus.training_end(2), 0u);
  EXPECT_EQ(corpus.training_end(3), 1u);
  using Case = std::pair<uint32_t, uint32_t>;
  const auto cases = [&](data::HeldOut held_out) {
    std::vector<Case> all;
    for (const CorpusCase& one : corpus.Cases(held_out)) all.emplace_back(one.user, one.event);
    return all;
  };
  EXPECT_THAT(cases(data::HeldOut::kValidation), ElementsAre(Case(0, 2))) << "user 2's has nothing before it";
  EXPECT_THAT(cases(data::HeldOut::kTest), ElementsAre(Case(0, 4), Case(2, 1), Case(3, 2)));
  const data::EvaluationCase counting = corpus.CountingCase(corpus.Cases(data::HeldOut::kTest)[0]);
  EXPECT_EQ(corpus.dataset().item_id(counting.target), 5u);
  EXPECT_EQ(counting.history.size(), 3u) << "targets before it, those of the validation's time, too";
  EXPECT_THAT(corpus.TrainingTargetItems().items.size(), 3u);
  EXPECT_EQ(DescribeTargets(corpus.options()),
            "long_view, k-core 0, split at 2022-04-15T05:30:00Z,2022-04-15T05:40:00Z");
}

TEST(CorpusTest, ATimeBeforeEverythingLeavesNothingToLearn) {
  const auto dataset = MakeDataset({{{1}, {2}, {3}}}, "too_early");
  const auto corpus = Corpus::Create(dataset, {.time_split = TimeSplit{kLogStart, kLogStart + 2 * kMinute}});
  EXPECT_THAT(std::string(corpus.status().message()),
              HasSubstr("targets of this log are from 2022-04-15T05:21:00Z to 2022-04-15T05:23:00Z, none before "
                        "2022-04-15T05:20:00Z"));
  const auto late =
      Corpus::Create(dataset, {.time_split = TimeSplit{kLogStart + kMinute * 5, kLogStart + kMinute * 9}});
  ASSERT_TRUE(late.ok()) << late.status();
  EXPECT_TRUE(late->Cases(data::HeldOut::kTest).empty());
  EXPECT_EQ(late->WhyNoCases(data::HeldOut::kTest),
            "no user has a target at or after 2022-04-15T05:29:00Z and an event before it");
}

TEST(CorpusTest, RefusesALogWithoutTargets) {
  const auto dataset = MakeDataset({{{1, "click"}, {2, "like"}}}, "none");
  const absl::Status status = Corpus::Create(dataset).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("click|like"));
}

TEST(CorpusTest, CoreKeepsFrequentUsersAndItems) {
  // Item 9 occurs once; user 2 has one target left without it.
  const Log log = {{{1}, {2}, {9}}, {{1}, {2}}, {{9, "click"}, {1}}};
  absl::StatusOr<Corpus> corpus = Corpus::Create(MakeDataset(log, "core"), {.k_core = 2});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_THAT(corpus->targets(0), ElementsAre(0, 1));
  EXPECT_THAT(corpus->targets(1), ElementsAre(0, 1));
  EXPECT_TRUE(corpus->targets(2).empty());
}

// What is fitted on a corpus, in a form that can be compared.
struct Fitted {
  std::vector<ItemId> vocabulary;
  std::vector<std::pair<ItemId, uint32_t>> popularity;
  std::vector<std::vector<ItemId>> knn, markov;  // best items after fixed histories
  std::vector<int32_t> features, codes;          // of every training batch
  std::vector<int64_t> labels;

  friend bool operator==(const Fitted&, const Fitted&) = default;
};

Fitted Fit(const Log& log, const std::string& name, const CorpusOptions& split = {}) {
  const World world(log, name, {}, split);
  Fitted fitted;
  const auto items = world.vocabulary->items();
  fitted.vocabulary.assign(items.begin(), items.end());
  const std::vector<uint32_t> popularity = world.corpus->TrainingPopularity();
  for (size_t i = 0; i < popularity.size(); ++i) {
    if (popularity[i] > 0) fitted.popularity.emplace_back(world.dataset->item_id(i), popularity[i]);
  }
  const ItemSequences training = world.corpus->TrainingTargetItems();
  const auto knn = data::MakeItemKnn(), markov = data::MakeMarkov();
  EXPECT_TRUE(knn->Fit(training).ok());
  EXPECT_TRUE(markov->Fit(training).ok());
  for (ItemId item : fitted.vocabulary) {
    const uint32_t history[] = {*world.dataset->FindItem(item)};
    for (const auto& [baseline, lists] : {std::pair{knn.get(), &fitted.knn}, std::pair{markov.get(), &fitted.markov}}) {
      std::vector<std::pair<double, uint32_t>> by_rank;
      for (uint32_t other = 0; other < popularity.size(); ++other) {
        if (popularity[other] > 0) by_rank.emplace_back(baseline->Rank(history, other, data::SeenItems::kKeep), other);
      }
      std::sort(by_rank.begin(), by_rank.end());
      lists->emplace_back();
      for (const auto& [rank, other] : by_rank) lists->back().push_back(world.dataset->item_id(other));
    }
  }
  const ExampleBuilder examples(*world.corpus, *world.features, *world.snapshot, QuickOptions());
  for (const std::vector<Window>& windows : examples.Plan(0)) {
    const ExampleBatch batch = examples.Build(windows, 7);
    const auto& columns = batch.encoder.pathways[model::kPositive].features;
    fitted.features.insert(fitted.features.end(), columns.begin(), columns.end());
    fitted.codes.insert(fitted.codes.end(), batch.teacher.codes.begin(), batch.teacher.codes.end());
    fitted.labels.insert(fitted.labels.end(), batch.labels.begin(), batch.labels.end());
  }
  return fitted;
}

TEST(LeakageTest, TheLastTwoTargetsOfUsersChangeNothingThatIsFitted) {
  std::mt19937 generator(5);
  Log log(30);
  for (auto& user : log) {
    const int length = 3 + generator() % 12;
    for (int i = 0; i < length; ++i) user.push_back({static_cast<int>(generator() % 40)});
  }
  const Fitted before = Fit(log, "leak_before");
  Log changed = log;
  for (auto& user : changed) {
    for (size_t i = user.size() - 2; i < user.size(); ++i) user[i].item = 40 + static_cast<int>(generator() % 20);
  }
  EXPECT_EQ(Fit(changed, "leak_after"), before);

  // The test can fail: an event before the validation item does change what is fitted.
  changed = log;
  changed[0][0].item = 39 - changed[0][0].item;
  EXPECT_NE(Fit(changed, "leak_control"), before);
}

TEST(LeakageTest, NothingFromTheSplitOnChangesWhatIsFitted) {
  std::mt19937 generator(6);
  const CorpusOptions split = {.time_split = TimeSplit{kLogStart + 500 * kMinute, kLogStart + 700 * kMinute}};
  Log log(30);
  for (auto& user : log) {
    const int length = 1 + generator() % 12;
    for (int i = 0; i < length; ++i) {
      user.push_back({static_cast<int>(generator() % 40), "long_view", static_cast<int>(generator() % 1000)});
    }
    std::sort(user.begin(), user.end(), [](const LogEvent& a, const LogEvent& b) { return a.minute < b.minute; });
  }
  const auto change = [&](int from, int to) {
    Log changed = log;
    for (auto& user : changed) {
      for (LogEvent& event : user) {
        if (from <= *event.minute && *event.minute < to) event.item = 40 + static_cast<int>(generator() % 20);
      }
    }
    return changed;
  };
  const Fitted before = Fit(log, "time_before", split);
  EXPECT_EQ(Fit(change(500, 1000), "time_after", split), before);
  EXPECT_NE(Fit(change(490, 500), "time_control", split), before);
}

}  // namespace
}  // namespace beamline::train
