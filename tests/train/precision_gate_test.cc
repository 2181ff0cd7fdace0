// SPDX-License-Identifier: Apache-2.0
//
// The quality gate of the cpu backend's narrow precisions: on a model that was trained, bf16 and int8 return the lists
// of fp32 (overlap of the ten best) and are as good (R@10 of held-out items).
#include "train/precision_gate.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "train/walk_model.h"

namespace beamline::train {
namespace {

constexpr int kTop = 10;

struct Quality {
  double recall = 0;
  std::vector<std::vector<ItemId>> top;
};

Quality Measure(const TrainedModel& trained, const std::string& dtype) {
  const backend::Context ctx = *backend::MakeContext("cpu", dtype, "cpu");
  const auto model = model::MakeModel(trained.features->config(), trained.weights).value();
  const ItemRanker ranker = ItemRanker::Create(*trained.corpus, *trained.features, trained.snapshot).value();
  const RankOptions options{.beam = 32, .exclude_seen = false, .threads = 1};
  const std::vector<CorpusCase> cases = trained.corpus->Cases(data::HeldOut::kTest);
  const std::vector<double> ranks = ranker.Rank(ctx, *model, cases, options).value();
  Quality quality;
  quality.recall = static_cast<double>(std::count_if(ranks.begin(), ranks.end(), [](double r) { return r <= kTop; })) /
                   static_cast<double>(ranks.size());
  for (size_t i = 0; i < cases.size(); i += 3) {
    quality.top.push_back(ranker.Top(ctx, *model, cases[i], options, kTop).value());
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

TEST(PrecisionGate, NarrowPrecisionsAreAsGoodAsFp32) {
  const TrainedModel trained = TrainWalker({.name = "precision_gate"});
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

  rankings.narrow.lists.pop_back();
  EXPECT_EQ(ComparePrecisions("fp8", rankings).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ComparePrecisions("fp8", {}).status().message(), "the gate compares no request");
}

}  // namespace
}  // namespace beamline::train
