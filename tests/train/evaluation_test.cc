// SPDX-License-Identifier: Apache-2.0
#include "train/evaluation.h"

#include <algorithm>
#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/batch_builder.h"
#include "train/train_test_util.h"

namespace beamline::train {
namespace {

using ::testing::HasSubstr;

Log RandomLog(int users, int items, uint64_t seed) {
  std::mt19937 generator(seed);
  Log log(users);
  for (auto& user : log) {
    const int length = 1 + generator() % 15;
    for (int i = 0; i < length; ++i) {
      user.push_back({static_cast<int>(generator() % items), generator() % 4 == 0 ? "click" : "long_view"});
    }
  }
  return log;
}

// log p of an item's codes after a case's history, by teacher forcing, one request at a time, in double precision.
double Score(backend::Context& ctx, const model::Model& model, const World& world, const CorpusCase& one,
             const Sid& sid) {
  std::vector<Event> history;
  for (uint32_t i = 0; i < one.event; ++i) {
    history.push_back(ToEvent(*world.dataset, world.dataset->events(one.user)[i]));
  }
  runtime::FeatureSource source;
  source.user_id = world.dataset->user_id(one.user);
  source.history = history;
  const runtime::EncodedRequest encoded = world.features->Build(source, *world.snapshot);
  const runtime::EncodedRequest* const inputs[] = {&encoded};
  const model::ModelConfig& config = model.config();
  const auto context =
      model.Encode(ctx, model::UploadEncoderInput(ctx, config, runtime::BuildEncoderBatch(config, inputs)));
  model::TeacherInput teacher{.batch = 1, .targets = 1, .order_limit = {backend::kSeesAllOrders}};
  for (Code code : sid.codes()) teacher.codes.push_back(static_cast<int32_t>(code));
  const auto logits = model.TeacherForced(ctx, context, model::UploadTeacherInput(ctx, config, teacher));
  double score = 0;
  for (int level = 0; level < sid.levels(); ++level) {
    const std::vector<float> row = Values(logits[level]);
    double total = 0;
    for (float logit : row) total += std::exp(static_cast<double>(logit));
    score += row[sid[level]] - std::log(total);
  }
  return score;
}

// The items of the catalogue, best first, by scoring all of them; inside a SID by training popularity, then id.
std::vector<ItemId> RankAll(backend::Context& ctx, const model::Model& model, const World& world, const CorpusCase& one,
                            bool exclude_seen) {
  struct Candidate {
    double score;
    uint32_t popularity;
    ItemId item;
    Sid sid;
  };
  const std::vector<uint32_t> popularity = world.corpus->TrainingPopularity();
  std::vector<Candidate> candidates;
  for (int64_t i = 0; i < world.dataset->num_items(); ++i) {
    bool seen = false;
    for (uint32_t target : world.corpus->targets(one.user)) {
      seen |= target < one.event && world.dataset->events(one.user)[target].item == i;
    }
    if (seen && exclude_seen) continue;
    const ItemId item = world.dataset->item_id(i);
    candidates.push_back({Score(ctx, model, world, one, SidOf(item)), popularity[i], item, SidOf(item)});
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    if (a.sid != b.sid) return a.score != b.score ? a.score > b.score : a.sid < b.sid;
    return a.popularity != b.popularity ? a.popularity > b.popularity : a.item < b.item;
  });
  std::vector<ItemId> items;
  for (const Candidate& candidate : candidates) items.push_back(candidate.item);
  return items;
}

TEST(ItemRankerTest, EqualsScoringEveryItem) {
  // 100 items over 64 SIDs: some SIDs hold two.
  const World world(RandomLog(25, 100, 3), "brute");
  backend::Context ctx = CpuContext();
  const backend::InferenceGuard no_gradients;
  model::Weights weights = model::InitWeights(ctx, world.features->config(), 11);
  for (const auto& [name, tensor] : weights.tensors()) at::Tensor(tensor).mul_(4);  // spread the scores
  const auto model = model::MakeModel(world.features->config(), weights).value();
  const ItemRanker ranker = ItemRanker::Create(*world.corpus, *world.features, world.snapshot).value();
  for (const bool exclude_seen : {true, false}) {
    for (const auto held_out : {data::HeldOut::kTest, data::HeldOut::kValidation}) {
      const std::vector<CorpusCase> cases = world.corpus->Cases(held_out);
      ASSERT_GT(cases.size(), 5u);
      const RankOptions options{.beam = 64, .exclude_seen = exclude_seen, .batch = 4, .threads = 2, .list = 1000};
      const absl::StatusOr<CaseRankings> rankings = ranker.Rank(ctx, *model, cases, options);
      ASSERT_TRUE(rankings.ok()) << rankings.status();
      for (size_t i = 0; i < cases.size(); ++i) {
        const std::vector<ItemId> all = RankAll(ctx, *model, world, cases[i], exclude_seen);
        EXPECT_EQ(rankings->lists[i], all);
        const ItemId target = world.dataset->item_id(world.dataset->events(cases[i].user)[cases[i].event].item);
        const auto found = std::find(all.begin(), all.end(), target);
        if (found == all.end()) {
          EXPECT_EQ(rankings->ranks[i], data::kMissRank);
        } else {
          EXPECT_EQ(rankings->ranks[i], found - all.begin() + 1);
        }
      }
    }
  }
}

TEST(ItemRankerTest, RanksDoNotDependOnThreadsOrBatches) {
  const World world(RandomLog(60, 50, 4), "threads");
  backend::Context ctx = CpuContext();
  const auto model =
      model::MakeModel(world.features->config(), model::InitWeights(ctx, world.features->config(), 1)).value();
  const ItemRanker ranker = ItemRanker::Create(*world.corpus, *world.features, world.snapshot).value();
  const std::vector<CorpusCase> cases = world.corpus->Cases(data::HeldOut::kTest);
  const auto one = ranker.Rank(ctx, *model, cases, {.beam = 20, .batch = 64, .threads = 1});
  const auto many = ranker.Rank(ctx, *model, cases, {.beam = 20, .batch = 3, .threads = 3});
  ASSERT_TRUE(one.ok() && many.ok());
  EXPECT_EQ(one->ranks, many->ranks);
}

TEST(EvaluationTest, ReportsModelAndBaselinesAndReadsBack) {
  const World world(RandomLog(60, 50, 5), "report");
  backend::Context ctx = CpuContext();
  const auto model =
      model::MakeModel(world.features->config(), model::InitWeights(ctx, world.features->config(), 1)).value();
  const ItemRanker ranker = ItemRanker::Create(*world.corpus, *world.features, world.snapshot).value();
  EvaluationOptions options;
  options.beam = 20;
  options.bootstrap.resamples = 50;
  const auto report = Evaluate(ctx, *model, ranker, options);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->rankings.size(), 2u);
  EXPECT_EQ(report->rankings[0].systems.size(), 4u);
  // The paired difference is the difference of the means.
  const std::vector<SystemScores>& systems = report->rankings[0].systems;
  EXPECT_FALSE(systems[0].model_minus.has_value());
  for (size_t i = 1; i < systems.size(); ++i) {
    ASSERT_TRUE(systems[i].model_minus.has_value()) << systems[i].name;
    EXPECT_NEAR(systems[i].model_minus->recall_10.mean,
                systems[0].intervals.recall_10.mean - systems[i].intervals.recall_10.mean, 1e-12);
  }
  const std::string table = EvaluationTable(*report);
  for (const char* part : {"model", "popularity", "markov", "item-knn", "R@10", "seen items removed",
                           "model - popularity", "model - item-knn"}) {
    EXPECT_THAT(table, HasSubstr(part));
  }
  const auto again = EvaluationFromJson(EvaluationToJson(*report), "evaluation.json");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(EvaluationTable(*again), table);
  nlohmann::json broken = EvaluationToJson(*report);
  broken.erase("beam");
  EXPECT_THAT(std::string(EvaluationFromJson(broken, "evaluation.json").status().message()), HasSubstr("beam"));
}

}  // namespace
}  // namespace beamline::train
