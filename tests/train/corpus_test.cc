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
  const std::vector<CorpusCase> test = corpus.Cases(data::HeldOut::kTest);
  ASSERT_EQ(test.size(), 1u);
  EXPECT_EQ(test[0].event, 5u);
  EXPECT_EQ(corpus.Cases(data::HeldOut::kValidation)[0].event, 3u);
  // The same cases as the counting baselines get.
  const std::vector<data::EvaluationCase> counting = data::EvaluationCases(corpus.target_items(), data::HeldOut::kTest);
  ASSERT_EQ(counting.size(), 1u);
  EXPECT_EQ(corpus.dataset().item_id(counting[0].target), 6u);
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

Fitted Fit(const Log& log, const std::string& name) {
  const World world(log, name);
  Fitted fitted;
  const auto items = world.vocabulary->items();
  fitted.vocabulary.assign(items.begin(), items.end());
  const std::vector<uint32_t> popularity = world.corpus->TrainingPopularity();
  for (size_t i = 0; i < popularity.size(); ++i) {
    if (popularity[i] > 0) fitted.popularity.emplace_back(world.dataset->item_id(i), popularity[i]);
  }
  const ItemSequences training = data::TrainingPart(world.corpus->target_items());
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

}  // namespace
}  // namespace beamline::train
