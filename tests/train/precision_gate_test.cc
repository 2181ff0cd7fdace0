// SPDX-License-Identifier: Apache-2.0
//
// The quality gate of the cpu backend's narrow precisions: on a model that was trained, bf16 and int8 return the lists
// of fp32 (overlap of the ten best) and are as good (R@10 of held-out items).
#include "train/precision_gate.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "catalogue/snapshot_builder.h"
#include "runtime/t5_vocabulary.h"
#include "train/item_ranker.h"
#include "train/train_test_util.h"

namespace beamline::train {
namespace {

constexpr int kItems = 240, kUsers = 600, kEvents = 24, kTop = 10;

// A user walks along a ring of items in steps of random length, now and then elsewhere: the next item is uncertain, so
// that the ten best of a list are close to each other.
Log WalkLog() {
  std::mt19937 random(7);
  std::geometric_distribution<int> step(0.25);
  Log log(kUsers);
  for (auto& events : log) {
    int item = static_cast<int>(random() % kItems);
    for (int i = 0; i < kEvents; ++i) {
      events.push_back({item});
      item = random() % 16 == 0 ? static_cast<int>(random() % kItems) : (item + 1 + step(random)) % kItems;
    }
  }
  return log;
}

std::shared_ptr<const catalogue::CatalogueSnapshot> WalkCatalogue(const Corpus& corpus) {
  auto builder =
      catalogue::SnapshotBuilder::Create({.codebook_fingerprint = std::string(64, 'b'), .level_sizes = {16, 16, 16}});
  EXPECT_TRUE(builder.ok()) << builder.status();
  for (int64_t i = 0; i < corpus.dataset().num_items(); ++i) {
    const ItemId item = corpus.dataset().item_id(i);
    const Code code = static_cast<Code>(item);
    EXPECT_TRUE(
        builder->Add(CatalogueItem{.item = item, .sid = Sid{code / 32, code / 2 % 16, (code * 5 + code / 32) % 16}})
            .ok());
  }
  auto snapshot = std::move(*builder).Build();
  EXPECT_TRUE(snapshot.ok()) << snapshot.status();
  return *std::move(snapshot);
}

struct TrainedModel {
  std::unique_ptr<Corpus> corpus;
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot;
  std::unique_ptr<runtime::FeatureBuilder> features;
  model::Weights weights;
};

model::ModelConfig OneRecConfig() {
  model::ModelConfig config;
  config.level_sizes = {16, 16, 16};
  config.d_model = 64;
  config.heads = 4;
  config.head_dim = 16;
  config.positive.length = kEvents;
  config.positive.fusion = model::InputFusion::kSum;
  config.positive.features = {{.kind = model::FeatureKind::kSid, .shared = true}};
  config.encoder = {.layers = 2, .causal = true, .ffn = {.width = 128}};
  config.decoder = {.layers = 2, .ffn = {.width = 128}};
  return config;
}

model::ModelConfig T5Config() {
  model::ModelConfig config;
  config.family = model::kT5;
  config.level_sizes = {16, 16, 16};
  config.d_model = 64;
  config.heads = 3;
  config.head_dim = 32;
  config.encoder = {.layers = 2, .ffn = {.width = 128, .gated = false}};
  config.decoder = {.layers = 2, .ffn = {.width = 128, .gated = false}};
  config.t5 = {.vocabulary = 50, .start = 48, .end = 49, .score_end = true, .input = {.suffix = {49}, .max_items = 4}};
  model::SetT5Pathway(config);
  return config;
}

struct Family {
  const char* name;
  model::ModelConfig (*config)();
  int epochs, windows, targets;  // a window of a bidirectional encoder has one target: more of them for as many steps
};

TrainedModel Train(const Family& family) {
  TrainedModel trained;
  trained.corpus = std::make_unique<Corpus>(
      Corpus::Create(MakeDataset(WalkLog(), absl::StrCat("precision_gate_", family.name))).value());
  trained.snapshot = WalkCatalogue(*trained.corpus);
  const model::ModelConfig config = family.config();
  const auto vocabulary = std::make_shared<const runtime::Vocabulary>(
      config.is_t5() ? runtime::Vocabulary::OfTokens(runtime::NewTokens(config)) : trained.corpus->FitVocabulary());
  trained.features = std::make_unique<runtime::FeatureBuilder>(config, vocabulary);
  TrainOptions options = QuickOptions();
  options.epochs = family.epochs;
  options.batch_windows = family.windows;
  options.targets_per_window = family.targets;
  options.learning_rate = 3e-3;
  options.validate_every = options.epochs;
  options.validation_users = 50;
  options.min_history = config.is_t5() ? 1 : 0;
  const auto trainer =
      Trainer::Create(CpuContext(), {trained.corpus.get(), trained.features.get(), trained.snapshot}, options).value();
  EXPECT_TRUE(trainer->Run("").ok());
  trained.weights = trainer->result();
  return trained;
}

struct Quality {
  double recall = 0;
  std::vector<std::vector<ItemId>> top;
};

Quality Measure(const TrainedModel& trained, const std::string& dtype) {
  const backend::Context ctx = *backend::MakeContext("cpu", dtype, "cpu");
  const auto model = model::MakeModel(trained.features->config(), trained.weights).value();
  const ItemRanker ranker = ItemRanker::Create(*trained.corpus, *trained.features, trained.snapshot).value();
  const RankOptions options{.beam = 32, .exclude_seen = false, .threads = 1, .list = kTop};
  const std::vector<CorpusCase> cases = trained.corpus->Cases(data::HeldOut::kTest);
  const CaseRankings rankings = ranker.Rank(ctx, *model, cases, options).value();
  const std::vector<double>& ranks = rankings.ranks;
  Quality quality;
  quality.recall = static_cast<double>(std::count_if(ranks.begin(), ranks.end(), [](double r) { return r <= kTop; })) /
                   static_cast<double>(ranks.size());
  for (size_t i = 0; i < cases.size(); i += 3) {
    quality.top.push_back(rankings.lists[i]);
  }
  return quality;
}

double Overlap(const Quality& a, const Quality& b) {
  double common = 0;
  for (size_t i = 0; i < a.top.size(); ++i) {
    const std::set<ItemId> items(a.top[i].begin(), a.top[i].end());
    common += static_cast<double>(
        std::count_if(b.top[i].begin(), b.top[i].end(), [&](ItemId id) { return items.count(id); }));
  }
  return common / (kTop * static_cast<double>(a.top.size()));
}

class PrecisionGate : public ::testing::TestWithParam<Family> {};
INSTANTIATE_TEST_SUITE_P(Families, PrecisionGate,
                         ::testing::Values(Family{"onerec_v1", OneRecConfig, 40, 16, 16},
                                           Family{"t5", T5Config, 16, 64, 1}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(PrecisionGate, NarrowPrecisionsAreAsGoodAsFp32) {
  const TrainedModel trained = Train(GetParam());
  const Quality fp32 = Measure(trained, "fp32");
  EXPECT_GT(fp32.recall, 0.3) << "an untrained model would not tell precisions apart: by chance it is .02";
  struct Gate {
    const char* dtype;
    double overlap;
  };
  for (const Gate& gate : {Gate{"bf16", 0.98}, Gate{"int8", 0.95}}) {
    const Quality narrow = Measure(trained, gate.dtype);
    const double overlap = Overlap(fp32, narrow);
    RecordProperty(absl::StrCat(gate.dtype, "_overlap"), absl::StrCat(overlap));
    RecordProperty(absl::StrCat(gate.dtype, "_recall"), absl::StrCat(narrow.recall, " of ", fp32.recall));
    EXPECT_GE(overlap, gate.overlap) << gate.dtype;
    EXPECT_GE(narrow.recall, fp32.recall - 0.01) << gate.dtype;
    EXPECT_NE(narrow.top, fp32.top) << gate.dtype << ": did it run in its own precision?";
  }
}

CaseRankings RankingsOf(std::vector<std::vector<ItemId>> lists, std::vector<double> ranks) {
  return {std::move(ranks), std::move(lists)};
}

TEST(PrecisionGate, EachOfItsLimitsCanBeMissed) {
  constexpr int kRequests = 200;
  std::vector<std::vector<ItemId>> lists(kRequests);
  for (int i = 0; i < kRequests; ++i) {
    for (int rank = 0; rank < kGateList; ++rank) lists[i].push_back(1000 * i + rank);
  }
  const std::vector<double> ranks(kRequests, 3);
  PrecisionRankings rankings{RankingsOf(lists, ranks), RankingsOf(lists, ranks), RankingsOf(lists, ranks)};
  const auto compare = [&] { return ComparePrecisions("fp8", rankings).value(); };
  EXPECT_TRUE(compare().passed());
  EXPECT_EQ(compare().top_1, 1);

  // 6 of 200 may have another first, 7 may not.
  for (int i = 0; i < 7; ++i) {
    std::swap(rankings.narrow.lists[i][0], rankings.narrow.lists[i][1]);
    EXPECT_EQ(compare().passed(), i < 6) << i;
  }
  EXPECT_EQ(compare().failures.size(), 1u);
  EXPECT_EQ(compare().failures[0], "the best item is bf16's for 0.9650 of the requests, less than 0.9700");
  rankings.narrow.lists = lists;

  // One item of 32 in every list is .03125, two are too many, unless bf16 has lost one itself.
  const auto lose = [&](CaseRankings& of, int items) {
    for (auto& list : of.lists) std::fill(list.end() - items, list.end(), ItemId{1});
  };
  lose(rankings.narrow, 1);
  EXPECT_TRUE(compare().passed());
  lose(rankings.narrow, 2);
  EXPECT_EQ(compare().failures.size(), 1u);
  lose(rankings.bf16, 1);
  EXPECT_TRUE(compare().passed());
  rankings.narrow.lists = rankings.bf16.lists = lists;

  // One lost target of 200 is .005; the interval of six reaches beyond .02, whichever way.
  for (CaseRankings* worse : {&rankings.narrow, &rankings.bf16}) {
    worse->ranks[0] = 11;
    EXPECT_TRUE(compare().passed());
    for (int i = 1; i < 6; ++i) worse->ranks[i] = data::kMissRank;
    EXPECT_EQ(compare().failures.size(), 1u);
    worse->ranks = ranks;
  }

  for (CaseRankings* all : {&rankings.fp32, &rankings.bf16, &rankings.narrow}) all->lists.assign(kRequests, {});
  EXPECT_EQ(ComparePrecisions("fp8", rankings).status().message(),
            "the gate compares empty lists: fp32 finds nothing for any request");
  rankings = {RankingsOf(lists, ranks), RankingsOf(lists, ranks), RankingsOf(lists, ranks)};

  rankings.narrow.lists.pop_back();
  EXPECT_EQ(ComparePrecisions("fp8", rankings).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ComparePrecisions("fp8", {}).status().message(), "the gate compares no request");
}

}  // namespace
}  // namespace beamline::train
