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
      const absl::Span<const CorpusCase> cases = world.corpus->Cases(held_out);
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
  const absl::Span<const CorpusCase> cases = world.corpus->Cases(data::HeldOut::kTest);
  const auto one = ranker.Rank(ctx, *model, cases, {.beam = 20, .batch = 64, .threads = 1});
  const auto many = ranker.Rank(ctx, *model, cases, {.beam = 20, .batch = 3, .threads = 3});
  ASSERT_TRUE(one.ok() && many.ok());
  EXPECT_EQ(one->ranks, many->ranks);
}

std::shared_ptr<const catalogue::CatalogueSnapshot> SnapshotOf(const std::vector<ItemId>& items) {
  auto builder =
      catalogue::SnapshotBuilder::Create({.codebook_fingerprint = std::string(64, 'a'), .level_sizes = {4, 4, 4}});
  for (const ItemId item : items) EXPECT_TRUE(builder->Add(CatalogueItem{.item = item, .sid = SidOf(item)}).ok());
  return std::move(*builder).Build().value();
}

// R@10 of the popularity of the training part among these items, by its definition.
double NaivePopularityRecall(const World& world, const std::vector<ItemId>& items) {
  const std::vector<uint32_t> counts = world.corpus->TrainingPopularity();
  const auto count = [&](ItemId item) {
    const auto index = world.dataset->FindItem(item);
    return index.has_value() ? counts[*index] : 0;
  };
  double hits = 0;
  const absl::Span<const CorpusCase> cases = world.corpus->Cases(data::HeldOut::kTest);
  for (const CorpusCase& one : cases) {
    const ItemId target = world.dataset->item_id(world.dataset->events(one.user)[one.event].item);
    if (std::find(items.begin(), items.end(), target) == items.end()) continue;
    double rank = 0.5;
    for (const ItemId item : items) {
      rank += count(item) > count(target) ? 1 : count(item) == count(target) ? 0.5 : 0;  // the target itself is equal
    }
    hits += rank <= 10;
  }
  return hits / static_cast<double>(cases.size());
}

TEST(EvaluationTest, BaselinesRankWhatTheModelRanks) {
  const World world(RandomLog(60, 50, 6), "catalogue");
  backend::Context ctx = CpuContext();
  const auto model =
      model::MakeModel(world.features->config(), model::InitWeights(ctx, world.features->config(), 1)).value();
  EvaluationOptions options;
  options.beam = 20;
  options.bootstrap.resamples = 10;
  std::vector<ItemId> all, some = {1000, 1001, 1002};  // three that the log does not name
  for (int64_t i = 0; i < world.dataset->num_items(); ++i) all.push_back(world.dataset->item_id(i));
  some.insert(some.end(), all.begin(), all.begin() + 15);
  ASSERT_NE(NaivePopularityRecall(world, all), NaivePopularityRecall(world, some));
  for (const std::vector<ItemId>& items : {all, some}) {
    const ItemRanker ranker = ItemRanker::Create(*world.corpus, *world.features, SnapshotOf(items)).value();
    const auto report = Evaluate(ctx, *model, ranker, options);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->catalogue_items, static_cast<int64_t>(items.size()));
    const SystemScores& popularity = report->rankings[1].systems[1];  // seen items kept
    ASSERT_EQ(popularity.name, "popularity");
    EXPECT_NEAR(popularity.intervals.recall_10.mean, NaivePopularityRecall(world, items), 1e-12);
    if (items.size() == all.size()) {
      EXPECT_EQ(report->targets_without_sid, 0);
      EXPECT_TRUE(report->warnings.empty());
      continue;
    }
    const double possible = 1 - static_cast<double>(report->targets_without_sid) / static_cast<double>(report->users);
    EXPECT_GT(report->targets_without_sid, report->users / 2);
    for (const SystemScores& system : report->rankings[1].systems) {
      EXPECT_LE(system.intervals.recall_10.mean, possible) << system.name;
    }
    ASSERT_EQ(report->warnings.size(), 1u);
    EXPECT_THAT(report->warnings[0],
                HasSubstr(absl::StrCat(report->targets_without_sid, " of ", report->users, " targets")));
    EXPECT_THAT(EvaluationTable(*report), HasSubstr("have no semantic ID"));
    EXPECT_EQ(EvaluationToJson(*report).at("targets_without_sid"), report->targets_without_sid);
  }
}

TEST(EvaluationTest, TheTableSaysWhereAnIntervalIsTheExactOne) {
  EvaluationReport report;
  report.rankings.push_back({.systems = {{.name = "model"}}});
  report.rankings[0].systems[0].intervals = data::BootstrapMetrics(std::vector<double>(100, data::kMissRank));
  EXPECT_THAT(EvaluationTable(report), HasSubstr("[ 0.0000,  0.0362]"));
  EXPECT_THAT(EvaluationTable(report), HasSubstr("Clopper"));
  report.rankings[0].systems[0].intervals = data::BootstrapMetrics(std::vector<double>(100, 2));
  EXPECT_THAT(EvaluationTable(report), ::testing::Not(HasSubstr("Clopper")));
}

// Of --show: whoever wrote the file does not command the terminal.
TEST(EvaluationTest, TheTableIsPrintableWhateverAFileHolds) {
  EvaluationReport report;
  report.split = "te\x1b[2Jst\n";
  report.warnings = {"it's \"fine\"\x1b]0;title\x07\nwarning: none", std::string(1 << 20, 'w')};
  report.rankings.push_back({.systems = {{.name = "mo\x1b[31mdel"},
                                         {.name = "k\xc2\x9bnn", .model_minus = data::MetricIntervals()},
                                         {.name = std::string(1 << 20, 'n')}}});
  const auto read = EvaluationFromJson(EvaluationToJson(report), "evaluation.json");
  ASSERT_TRUE(read.ok()) << read.status();
  const std::string table = EvaluationTable(*read);
  for (const char* part : {"te?[2Jst? split", "\nmo?[31mdel", "\nk?nn", "\nmodel - k?nn",
                           "\nwarning: it's \"fine\"?]0;title??warning: none\n"}) {
    EXPECT_THAT(table, HasSubstr(part));
  }
  for (const char* control : {"\x1b", "\x07", "\xc2\x9b"}) EXPECT_THAT(table, ::testing::Not(HasSubstr(control)));
  EXPECT_LT(table.size(), 20'000u);
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
  options.bootstrap.seed = 7;
  options.max_users = 40;
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
  EXPECT_EQ(EvaluationToJson(*again), EvaluationToJson(*report));
  EXPECT_EQ(again->resamples, 50);
  EXPECT_EQ(again->seed, 7u);
  EXPECT_EQ(again->max_users, 40);
  EXPECT_EQ(again->targets, "long_view, k-core 0");
  EXPECT_EQ(again->codebook_fingerprint, std::string(64, 'a'));
  EXPECT_EQ(again->catalogue_version, world.snapshot->version());
}

// Every mistake with its path, and none is passed over.
TEST(EvaluationTest, AFileOfAnotherLayoutIsRefused) {
  EvaluationReport report;
  report.split = "test";
  report.rankings.push_back(
      {.systems = {{.name = "model"}, {.name = "item-knn", .model_minus = data::MetricIntervals()}}});
  const nlohmann::json good = EvaluationToJson(report);
  const auto message = [](const nlohmann::json& json) {
    return std::string(EvaluationFromJson(json, "evaluation.json").status().message());
  };
  ASSERT_TRUE(EvaluationFromJson(good, "evaluation.json").ok()) << message(good);
  nlohmann::json first = good;  // as the first reports were
  for (const char* later :
       {"targets", "targets_without_sid", "catalogue_version", "codebook_fingerprint", "weights_sha256",
        "config_sha256", "by_value", "max_users", "resamples", "seed", "warnings"}) {
    first.erase(later);
  }
  EXPECT_TRUE(EvaluationFromJson(first, "evaluation.json").ok()) << message(first);

  nlohmann::json broken = good;
  broken.erase("beam");
  broken["rankings"][0]["model_minus_item_knn"] = broken["rankings"][0]["systems"][1]["model_minus"];
  broken["rankings"][0]["systems"][0]["metrics"]["ndcg_5"]["low"] = "none";
  broken["rankings"][0]["systems"][1]["better"] = true;
  broken["rankings"][0]["seen_items"] = "hidden";
  for (const char* part :
       {"evaluation.json: ", "beam: is missing", "rankings[0].model_minus_item_knn: is of an older layout",
        "rankings[0].systems[1].better: is unknown", "rankings[0].systems[0].metrics.ndcg_5.low: must be a number",
        "rankings[0].seen_items: must be removed or kept", "evaluate again"}) {
    EXPECT_THAT(message(broken), HasSubstr(part));
  }
  EXPECT_THAT(message(nlohmann::json::array({good})), HasSubstr("must be an object, is array"));
}

}  // namespace
}  // namespace beamline::train
