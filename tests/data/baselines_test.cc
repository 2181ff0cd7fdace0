// SPDX-License-Identifier: Apache-2.0
#include "data/baselines.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/interrupt.h"
#include "data/leave_one_out.h"

namespace beamline::data {
namespace {

using ::testing::ElementsAre;
using Scores = std::vector<double>;
using Scorer = std::function<Scores(const ItemSequences&, absl::Span<const uint32_t>)>;

ItemSequences Make(uint32_t num_items, const std::vector<std::vector<uint32_t>>& users) {
  ItemSequences sequences;
  sequences.num_items = num_items;
  for (const auto& user : users) sequences.Append(user);
  return sequences;
}

ItemSequences MakeRandom(uint32_t seed) {
  std::mt19937 random(seed);
  const uint32_t num_items = 5 + random() % 40;
  ItemSequences sequences;
  sequences.num_items = num_items;
  for (uint32_t user = 0; user < 30; ++user) {
    std::vector<uint32_t> items(random() % 12);
    for (uint32_t& item : items) item = random() % (1 + random() % num_items);  // small indices are popular
    sequences.Append(items);
  }
  return sequences;
}

std::vector<bool> RandomMask(uint32_t num_items, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<bool> mask(num_items);
  for (uint32_t item = 0; item < num_items; ++item) mask[item] = random() % 3 != 0;
  return mask;
}

// The definitions of the header, written down naively.
Scores PopularityScores(const ItemSequences& training, absl::Span<const uint32_t>) {
  Scores scores(training.num_items, 0);
  for (const uint32_t item : training.items) ++scores[item];
  return scores;
}

Scores MarkovScores(const ItemSequences& training, absl::Span<const uint32_t> history) {
  Scores scores = PopularityScores(training, history);
  if (history.empty()) return scores;
  for (int64_t user = 0; user < training.users(); ++user) {
    for (size_t at = 1; at < training.user(user).size(); ++at) {
      if (training.user(user)[at - 1] == history.back()) scores[training.user(user)[at]] += 1e6;
    }
  }
  return scores;
}

Scores KnnScores(const ItemSequences& training, absl::Span<const uint32_t> history) {
  const uint32_t n = training.num_items;
  std::vector<std::vector<double>> together(n, Scores(n, 0));
  for (int64_t user = 0; user < training.users(); ++user) {
    const std::set<uint32_t> items(training.user(user).begin(), training.user(user).end());
    for (const uint32_t i : items) {
      for (const uint32_t j : items) ++together[i][j];
    }
  }
  Scores scores(n, 0);
  for (size_t age = 0; age < std::min<size_t>(20, history.size()); ++age) {
    const uint32_t i = history[history.size() - 1 - age];
    for (uint32_t j = 0; j < n; ++j) {
      if (i == j || together[i][j] == 0) continue;
      // float, like the stored similarity: so that equal sums are equal on both sides
      const float similarity = static_cast<float>(together[i][j] / std::sqrt(together[i][i] * together[j][j]));
      scores[j] += std::pow(0.9, age) * similarity;
    }
  }
  return scores;
}

double NaiveRank(const Scores& scores, absl::Span<const uint32_t> history, uint32_t target, SeenItems seen,
                 const std::vector<bool>& ranked) {
  const std::set<uint32_t> seen_items(history.begin(), history.end());
  const auto is_ranked = [&](uint32_t item) {
    return (ranked.empty() || ranked[item]) && !(seen == SeenItems::kRemove && seen_items.contains(item));
  };
  if (!is_ranked(target)) return kMissRank;
  double better = 0;
  double equal = 0;
  for (uint32_t item = 0; item < scores.size(); ++item) {
    if (item == target || !is_ranked(item)) continue;
    const bool tie = std::abs(scores[item] - scores[target]) < 1e-9;
    equal += tie;
    better += !tie && scores[item] > scores[target];
  }
  return better + 1 + equal / 2;
}

struct Baseline {
  const char* name;
  std::unique_ptr<CountingBaseline> (*make)();
  Scores (*naive)(const ItemSequences&, absl::Span<const uint32_t>);
};

class BaselineTest : public ::testing::TestWithParam<Baseline> {};

TEST_P(BaselineTest, RanksLikeTheDefinition) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const ItemSequences sequences = MakeRandom(seed);
    const ItemSequences training = TrainingPart(sequences);
    const std::unique_ptr<CountingBaseline> baseline = GetParam().make();
    const std::vector<bool> ranked = seed % 2 == 0 ? std::vector<bool>() : RandomMask(sequences.num_items, seed);
    ASSERT_TRUE(baseline->Fit(training, ranked).ok());
    for (const HeldOut held_out : {HeldOut::kTest, HeldOut::kValidation}) {
      for (const EvaluationCase& one : EvaluationCases(sequences, held_out)) {
        const Scores scores = GetParam().naive(training, one.history);
        for (const SeenItems seen : {SeenItems::kKeep, SeenItems::kRemove}) {
          for (uint32_t target = 0; target < sequences.num_items; ++target) {
            ASSERT_EQ(baseline->Rank(one.history, target, seen), NaiveRank(scores, one.history, target, seen, ranked))
                << "seed " << seed << " user " << one.user << " target " << target;
          }
        }
      }
    }
  }
}

TEST_P(BaselineTest, ThreadsDoNotChangeRanks) {
  const ItemSequences sequences = MakeRandom(7);
  const std::unique_ptr<CountingBaseline> baseline = GetParam().make();
  ASSERT_TRUE(baseline->Fit(TrainingPart(sequences)).ok());
  const std::vector<EvaluationCase> cases = EvaluationCases(sequences, HeldOut::kTest);
  ThreadPool pool(3);
  EXPECT_EQ(RankTargets(*baseline, cases, SeenItems::kKeep), RankTargets(*baseline, cases, SeenItems::kKeep, &pool));
}

TEST_P(BaselineTest, RefusesItemsOutOfRange) {
  EXPECT_FALSE(GetParam().make()->Fit(Make(2, {{0, 1, 2}})).ok());
  EXPECT_FALSE(GetParam().make()->Fit(Make(3, {{0, 1, 2}}), {true, false}).ok());
}

// Where all items are ranked, saying so changes nothing.
TEST_P(BaselineTest, RankingAllItemsIsTheDefault) {
  for (uint32_t seed = 0; seed < 10; ++seed) {
    const ItemSequences sequences = MakeRandom(seed);
    const auto all = GetParam().make(), by_default = GetParam().make();
    ASSERT_TRUE(all->Fit(TrainingPart(sequences), std::vector<bool>(sequences.num_items, true)).ok());
    ASSERT_TRUE(by_default->Fit(TrainingPart(sequences)).ok());
    const std::vector<EvaluationCase> cases = EvaluationCases(sequences, HeldOut::kTest);
    for (const SeenItems seen : {SeenItems::kKeep, SeenItems::kRemove}) {
      EXPECT_EQ(RankTargets(*all, cases, seen), RankTargets(*by_default, cases, seen));
    }
  }
}

TEST_P(BaselineTest, EmptyTrainingRanksEverythingEqual) {
  const std::unique_ptr<CountingBaseline> baseline = GetParam().make();
  ASSERT_TRUE(baseline->Fit(Make(4, {})).ok());
  const std::vector<uint32_t> history = {2};
  EXPECT_EQ(baseline->Rank(history, 1, SeenItems::kKeep), 2.5);
  EXPECT_EQ(baseline->Rank(history, 1, SeenItems::kRemove), 2.0);
  EXPECT_EQ(baseline->Rank({}, 1, SeenItems::kRemove), 2.5);
}

INSTANTIATE_TEST_SUITE_P(All, BaselineTest,
                         ::testing::Values(Baseline{"popularity", MakePopularity, PopularityScores},
                                           Baseline{"markov", MakeMarkov, MarkovScores},
                                           Baseline{"knn", [] { return MakeItemKnn(); }, KnnScores}),
                         [](const auto& info) { return std::string(info.param.name); });

// However many rows are kept, none, some or all.
TEST(ItemKnnTest, MemoryDoesNotChangeRanks) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const ItemSequences sequences = MakeRandom(seed);
    const auto all = MakeItemKnn();
    ASSERT_TRUE(all->Fit(TrainingPart(sequences)).ok());
    const std::vector<EvaluationCase> cases = EvaluationCases(sequences, HeldOut::kTest);
    for (const size_t entries : {0, 5, 40}) {
      const auto some = MakeItemKnn({.kept_entries = entries});
      ASSERT_TRUE(some->Fit(TrainingPart(sequences)).ok());
      for (const SeenItems seen : {SeenItems::kKeep, SeenItems::kRemove}) {
        EXPECT_EQ(RankTargets(*some, cases, seen), RankTargets(*all, cases, seen)) << entries << " of seed " << seed;
      }
    }
  }
}

TEST(BaselinesTest, AnInterruptIsToldByFit) {
  SetInterrupted(true);
  EXPECT_EQ(MakeItemKnn()->Fit(Make(3, {{0, 1, 2}, {0, 1}})).code(), absl::StatusCode::kCancelled);
  SetInterrupted(false);
}

TEST(SplitTest, LeavesOutTheLastTwo) {
  const ItemSequences sequences = Make(9, {{1, 2, 3, 4}, {5, 6}, {}, {7, 8, 0}});
  const std::vector<EvaluationCase> test = EvaluationCases(sequences, HeldOut::kTest);
  ASSERT_EQ(test.size(), 2u);
  EXPECT_EQ(test[0].user, 0u);
  EXPECT_EQ(test[0].target, 4u);
  EXPECT_THAT(test[0].history, ElementsAre(1, 2, 3));
  EXPECT_EQ(test[1].user, 3u);
  const std::vector<EvaluationCase> validation = EvaluationCases(sequences, HeldOut::kValidation);
  EXPECT_EQ(validation[1].target, 8u);
  EXPECT_THAT(validation[1].history, ElementsAre(7));
  const ItemSequences training = TrainingPart(sequences);
  EXPECT_THAT(training.items, ElementsAre(1, 2, 5, 6, 7));
  EXPECT_THAT(training.offsets, ElementsAre(0, 2, 4, 4, 5));
  EXPECT_THAT(TrainingPart(sequences, 1).items, ElementsAre(1, 2, 3, 5, 6, 7, 8));
}

}  // namespace
}  // namespace beamline::data
