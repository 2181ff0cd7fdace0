// SPDX-License-Identifier: Apache-2.0
//
// The search against a naive stepwise beam and against exhaustive scoring, on thousands of random tiny worlds.
#include "decode/beam_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "decode/random_case.h"
#include "decode/table_model.h"
#include "decode/trie_constraint.h"

namespace beamline::decode {
namespace {

using testing::kTolerance;
using testing::LogitsKind;
using testing::LogitsOf;
using testing::NaiveAnswer;
using testing::TinyCatalogue;

// One request of a test batch with everything it points to.
struct Case {
  Eligibility eligibility;
  std::shared_ptr<const catalogue::CompiledEligibility> compiled;
  std::vector<int> widths;
  ScoreRule score_rule = ScoreRule::kFull;
  LogitsOf logits;
  bool trace = false;

  SearchRequest Request() const { return {&compiled->view(), widths, score_rule, trace}; }
};

Case RandomCase(std::mt19937_64& random, const TinyCatalogue& catalogue, LogitsKind kind, int max_width) {
  Case request;
  request.eligibility = RandomEligibility(random, catalogue);
  request.compiled = Compile(catalogue, request.eligibility);
  request.widths = testing::RandomWidths(random, catalogue.snapshot->levels(), max_width);
  request.score_rule = testing::UniformInt(random, 0, 1) == 0 ? ScoreRule::kFull : ScoreRule::kLegal;
  request.logits = testing::RandomLogits(catalogue.level_sizes, random(), kind);
  return request;
}

NaiveAnswer Naive(const TinyCatalogue& catalogue, const Case& request) {
  return testing::NaiveBeam({catalogue.items, request.eligibility, request.score_rule, request.widths}, request.logits);
}

std::vector<SearchResult> Search(const TinyCatalogue& catalogue, const std::vector<Case>& cases,
                                 const PathScorer* scorer = nullptr) {
  std::vector<LogitsOf> logits;
  std::vector<SearchRequest> requests;
  for (const Case& request : cases) {
    logits.push_back(request.logits);
    requests.push_back(request.Request());
  }
  testing::TableModel model(catalogue.level_sizes, logits, catalogue.Prefixes());
  std::vector<int> all(cases.size());
  std::iota(all.begin(), all.end(), 0);
  backend::Context ctx = *backend::MakeContext("cpu", "fp32");
  return BeamSearch(model, scorer).Run(ctx, model.Context(all), requests, [](int) { return absl::OkStatus(); });
}

void ExpectSameList(const std::vector<Hypothesis>& actual, const NaiveAnswer& expected, const std::string& where) {
  ASSERT_EQ(actual.size(), expected.list.size()) << where;
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].sid.ToString(), expected.list[i].sid.ToString()) << where << " rank " << i;
    EXPECT_NEAR(actual[i].score, expected.list[i].score, kTolerance) << where << " rank " << i;
    float sum = 0;
    for (size_t level = 0; level < actual[i].log_probs.size(); ++level) {
      EXPECT_NEAR(actual[i].log_probs[level], expected.list[i].log_probs[level], kTolerance) << where;
      sum += actual[i].log_probs[level];
    }
    EXPECT_EQ(actual[i].score, sum) << where << ": the left-to-right sum, bit for bit";
  }
}

class RandomWorlds : public ::testing::TestWithParam<LogitsKind> {};

TEST_P(RandomWorlds, EqualTheNaiveStepwiseBeam) {
  int compared = 0;
  int failed = 0;
  int empty = 0;
  for (uint64_t seed = 0; seed < 1500; ++seed) {
    std::mt19937_64 random(seed * 4 + static_cast<uint64_t>(GetParam()));
    const TinyCatalogue catalogue = testing::RandomCatalogue(random, 40);
    const Case request = RandomCase(random, catalogue, GetParam(), 6);
    const NaiveAnswer naive = Naive(catalogue, request);
    if (naive.near_tie) continue;
    const std::vector<SearchResult> results = Search(catalogue, {request});
    if (naive.non_finite) {
      ++failed;
      EXPECT_EQ(results[0].status.code(), absl::StatusCode::kInternal) << seed;
      EXPECT_THAT(std::string(results[0].status.message()), ::testing::HasSubstr("non_finite_logits"));
      EXPECT_TRUE(results[0].hypotheses.empty());
      continue;
    }
    ASSERT_TRUE(results[0].status.ok()) << seed << ": " << results[0].status;
    ExpectSameList(results[0].hypotheses, naive, absl::StrCat("seed ", seed));
    for (const Hypothesis& hypothesis : results[0].hypotheses) {
      EXPECT_EQ(request.compiled->SidOf(hypothesis.leaf), hypothesis.sid);
    }
    empty += naive.list.empty();
    ++compared;
  }
  EXPECT_GT(compared, 700);
  EXPECT_GT(empty, 10);
  const bool finite = GetParam() == LogitsKind::kNormal || GetParam() == LogitsKind::kTied;
  EXPECT_TRUE(!finite || failed == 0);
  EXPECT_TRUE(GetParam() != LogitsKind::kSomeNonFinite || failed > 50);
}

INSTANTIATE_TEST_SUITE_P(Logits, RandomWorlds,
                         ::testing::Values(LogitsKind::kNormal, LogitsKind::kTied, LogitsKind::kSomeMinusInf,
                                           LogitsKind::kSomeNonFinite));

TEST(BeamSearch, TheTraceIsTheWayToEveryAnswer) {
  int traced = 0, dropped = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    std::mt19937_64 random(seed);
    const TinyCatalogue catalogue = testing::RandomCatalogue(random, 40);
    Case request = RandomCase(random, catalogue, LogitsKind::kNormal, 6);
    const SearchResult plain = Search(catalogue, {request})[0];
    EXPECT_TRUE(plain.traced.empty()) << "not asked for";
    request.trace = true;
    const SearchResult result = Search(catalogue, {request})[0];
    ASSERT_TRUE(result.status.ok()) << result.status;
    ASSERT_EQ(result.hypotheses.size(), plain.hypotheses.size());
    if (result.hypotheses.empty()) continue;
    ASSERT_EQ(result.traced.size(), request.widths.size());
    std::vector<std::vector<Sid>> prefixes(result.traced.size());
    for (size_t level = 0; level < result.traced.size(); ++level) {
      const std::vector<TracedBeam>& beams = result.traced[level];
      EXPECT_LE(beams.size(), static_cast<size_t>(request.widths[level]));
      std::set<int> parents;
      for (size_t row = 0; row < beams.size(); ++row) {
        const TracedBeam& beam = beams[row];
        if (row > 0) {
          EXPECT_GE(beams[row - 1].score, beam.score);
        }
        Sid prefix;
        float score = 0;
        if (level > 0) {
          ASSERT_LT(static_cast<size_t>(beam.parent), prefixes[level - 1].size());
          prefix = prefixes[level - 1][beam.parent];
          score = result.traced[level - 1][beam.parent].score;
          parents.insert(beam.parent);
        }
        EXPECT_EQ(beam.score, score + beam.log_prob);
        prefix.push_back(beam.code);
        prefixes[level].push_back(prefix);
      }
      if (level > 0) dropped += static_cast<int>(result.traced[level - 1].size() - parents.size());
    }
    ASSERT_EQ(prefixes.back().size(), result.hypotheses.size());
    for (size_t i = 0; i < result.hypotheses.size(); ++i) {
      EXPECT_EQ(prefixes.back()[i], result.hypotheses[i].sid);
      EXPECT_EQ(prefixes.back()[i], plain.hypotheses[i].sid) << "being watched changes nothing";
      EXPECT_EQ(result.traced.back()[i].score, plain.hypotheses[i].score);
    }
    ++traced;
  }
  EXPECT_GT(traced, 200);
  EXPECT_GT(dropped, 50) << "beams that lead nowhere are told too";
}

TEST(BeamSearch, IsExhaustiveWhereTheWidthsCoverEveryEligiblePrefix) {
  int compared = 0;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    std::mt19937_64 random(seed);
    const TinyCatalogue catalogue = testing::RandomCatalogue(random, 40);
    Case request = RandomCase(random, catalogue, seed % 2 == 0 ? LogitsKind::kNormal : LogitsKind::kSomeMinusInf, 1);
    std::fill(request.widths.begin(), request.widths.end(), 64);
    request.widths.back() = testing::UniformInt(random, 1, 64);
    const NaiveAnswer naive =
        testing::NaiveExhaustive({catalogue.items, request.eligibility, request.score_rule, request.widths},
                                 request.logits, request.widths.back());
    if (naive.near_tie || naive.non_finite) continue;
    const std::vector<SearchResult> results = Search(catalogue, {request});
    ASSERT_TRUE(results[0].status.ok() || naive.list.empty()) << results[0].status;
    if (results[0].status.ok()) ExpectSameList(results[0].hypotheses, naive, absl::StrCat("seed ", seed));
    ++compared;
  }
  EXPECT_GT(compared, 400);
}

TEST(BeamSearch, AnswersAloneAndInABatchAreTheSame) {
  int failed = 0;
  for (uint64_t seed = 0; seed < 150; ++seed) {
    std::mt19937_64 random(seed);
    const TinyCatalogue catalogue = testing::RandomCatalogue(random, 60);
    std::vector<Case> cases;
    const int batch = testing::UniformInt(random, 2, 16);
    for (int b = 0; b < batch; ++b) {
      cases.push_back(RandomCase(random, catalogue, static_cast<LogitsKind>(testing::UniformInt(random, 0, 3)), 12));
    }
    const std::vector<SearchResult> together = Search(catalogue, cases);
    for (int b = 0; b < batch; ++b) {
      const SearchResult alone = Search(catalogue, {cases[b]})[0];
      ASSERT_EQ(alone.status, together[b].status) << "seed " << seed << " request " << b;
      failed += !alone.status.ok();
      ASSERT_EQ(alone.hypotheses.size(), together[b].hypotheses.size());
      for (size_t i = 0; i < alone.hypotheses.size(); ++i) {
        EXPECT_EQ(alone.hypotheses[i].sid, together[b].hypotheses[i].sid);
        EXPECT_EQ(alone.hypotheses[i].score, together[b].hypotheses[i].score);
        EXPECT_EQ(alone.hypotheses[i].leaf, together[b].hypotheses[i].leaf);
      }
    }
  }
  EXPECT_GT(failed, 10);  // bad requests among good ones
}

TEST(BeamSearch, WholeSnapshotNeedsNoEligibility) {
  std::mt19937_64 random(5);
  const TinyCatalogue catalogue = testing::RandomCatalogue(random, 40);
  Case request = RandomCase(random, catalogue, LogitsKind::kNormal, 6);
  request.eligibility = {};
  const kernels::ConstraintView view = *MakeConstraint(*catalogue.snapshot, nullptr);
  testing::TableModel model(catalogue.level_sizes, {request.logits}, catalogue.Prefixes());
  backend::Context ctx = *backend::MakeContext("cpu", "fp32");
  const SearchRequest requests[] = {{&view, request.widths, request.score_rule}};
  const auto results = BeamSearch(model).Run(ctx, model.Context({0}), requests, [](int) { return absl::OkStatus(); });
  ExpectSameList(results[0].hypotheses, Naive(catalogue, request), "whole snapshot");
}

TEST(BeamSearch, EligibilityOfAnotherSnapshotIsRefused) {
  std::mt19937_64 random(6);
  const TinyCatalogue one = testing::RandomCatalogue(random, 10);
  const TinyCatalogue other = testing::RandomCatalogue(random, 10);
  const auto compiled = Compile(one, {});
  EXPECT_TRUE(MakeConstraint(*one.snapshot, compiled.get()).ok());
  EXPECT_EQ(MakeConstraint(*other.snapshot, compiled.get()).status().code(), absl::StatusCode::kInternal);
}

// Two levels of two codes, all four SIDs present; a batch of two whose gate ends one of them.
TEST(BeamSearch, AsksTheGateBetweenStepsAndDropsDeadRequests) {
  const TinyCatalogue catalogue = testing::MakeCatalogue(
      {2, 2, 2}, {{1, {0, 0, 0}, {}}, {2, {0, 1, 1}, {}}, {3, {1, 0, 0}, {}}, {4, {1, 1, 1}, {}}});
  const LogitsOf logits = testing::RandomLogits({2, 2, 2}, 3, LogitsKind::kNormal);
  testing::TableModel model({2, 2, 2}, {logits, logits}, catalogue.Prefixes());
  const auto compiled = Compile(catalogue, {});
  const std::vector<int> widths = {2, 4, 4};
  const std::vector<int> narrow = {1, 1, 1};
  const SearchRequest requests[] = {{&compiled->view(), widths}, {&compiled->view(), narrow}};
  backend::Context ctx = *backend::MakeContext("cpu", "fp32");
  std::vector<int> asked;
  const auto results = BeamSearch(model).Run(ctx, model.Context({0, 1}), requests, [&](int request) {
    asked.push_back(request);
    return request == 0 && asked.size() > 2 ? absl::CancelledError("gone") : absl::OkStatus();
  });
  EXPECT_THAT(asked, ::testing::ElementsAre(0, 1, 0, 1));
  EXPECT_EQ(results[0].status, absl::CancelledError("gone"));
  EXPECT_TRUE(results[0].hypotheses.empty());
  ASSERT_TRUE(results[1].status.ok());
  EXPECT_EQ(results[1].hypotheses.size(), 1);
  EXPECT_THAT(model.rows, ::testing::ElementsAre(1, 2, 1)) << "the last step is as wide as the live request";

  model.steps = 0;
  const auto cancelled = BeamSearch(model).Run(ctx, model.Context({0, 1}), requests,
                                               [](int) { return absl::DeadlineExceededError("late"); });
  EXPECT_EQ(model.steps, 1) << "nothing left to decode";
  for (const SearchResult& result : cancelled) EXPECT_EQ(result.status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(BeamSearch, RequestsThatDoNotFitTheModelFailAlone) {
  const TinyCatalogue two = testing::MakeCatalogue({2, 2}, {{1, {0, 0}, {}}, {2, {1, 1}, {}}});
  const TinyCatalogue three = testing::MakeCatalogue({2, 2, 2}, {{1, {0, 0, 0}, {}}});
  const LogitsOf logits = testing::RandomLogits({2, 2}, 3, LogitsKind::kNormal);
  testing::TableModel model({2, 2}, {logits, logits, logits, logits, logits}, two.Prefixes());
  const auto good = Compile(two, {});
  const auto other = Compile(three, {});
  const std::vector<int> widths = {2, 2};
  const std::vector<int> short_widths = {2};
  const std::vector<int> zero = {2, 0};
  const SearchRequest requests[] = {{&good->view(), widths},
                                    {&other->view(), widths},
                                    {&good->view(), short_widths},
                                    {&good->view(), zero},
                                    {nullptr, widths}};
  backend::Context ctx = *backend::MakeContext("cpu", "fp32");
  const auto results =
      BeamSearch(model).Run(ctx, model.Context({0, 1, 2, 3, 4}), requests, [](int) { return absl::OkStatus(); });
  EXPECT_TRUE(results[0].status.ok());
  EXPECT_EQ(results[0].hypotheses.size(), 2);
  for (int b = 1; b < 5; ++b) EXPECT_EQ(results[b].status.code(), absl::StatusCode::kInvalidArgument) << b;
  EXPECT_THAT(std::string(results[3].status.message()), ::testing::HasSubstr("beam_widths[1]"));
}

// Values a path by its first code alone, so the kept prefixes are easily foretold.
class FirstCodeScorer : public PathScorer {
 public:
  int ExpandedWidth(int level, int width) const override { return level == 0 ? width + 2 : 0; }
  std::vector<float> Score(const PathCandidates& candidates) const override {
    std::vector<float> values;
    for (const Sid& prefix : candidates.prefixes) values.push_back(static_cast<float>(prefix[0]));
    EXPECT_TRUE(std::is_sorted(candidates.scores.rbegin(), candidates.scores.rend()));
    return values;
  }
};

TEST(BeamSearch, APathScorerChoosesAmongAWiderExpansion) {
  const TinyCatalogue catalogue =
      testing::MakeCatalogue({4, 1}, {{1, {0, 0}, {}}, {2, {1, 0}, {}}, {3, {2, 0}, {}}, {4, {3, 0}, {}}});
  Case request;
  request.compiled = Compile(catalogue, {});
  request.widths = {2, 2};
  request.logits = [](absl::Span<const Code> prefix) {
    return prefix.empty() ? std::vector<float>{3, 2, 1, 0} : std::vector<float>{0};
  };
  const FirstCodeScorer scorer;
  const SearchResult with = Search(catalogue, {request}, &scorer)[0];
  ASSERT_TRUE(with.status.ok()) << with.status;
  ASSERT_EQ(with.hypotheses.size(), 2);
  EXPECT_EQ(with.hypotheses[0].sid, (Sid{2, 0})) << "kept for its value, ordered by its probability";
  EXPECT_EQ(with.hypotheses[1].sid, (Sid{3, 0}));
  const SearchResult without = Search(catalogue, {request})[0];
  EXPECT_EQ(without.hypotheses[0].sid, (Sid{0, 0}));
  EXPECT_NEAR(with.hypotheses[0].score - without.hypotheses[0].score, -2, 1e-6) << "probabilities are the model's own";
}

class BadScorer : public PathScorer {
 public:
  int ExpandedWidth(int, int) const override { return 4; }
  std::vector<float> Score(const PathCandidates&) const override { return {1.0f}; }
};

TEST(BeamSearch, APathScorerThatMiscountsFailsTheRequest) {
  const TinyCatalogue catalogue = testing::MakeCatalogue({4}, {{1, {0}, {}}, {2, {1}, {}}, {3, {2}, {}}});
  Case request;
  request.compiled = Compile(catalogue, {});
  request.widths = {1};
  request.logits = testing::RandomLogits({4}, 1, LogitsKind::kNormal);
  const BadScorer scorer;
  EXPECT_EQ(Search(catalogue, {request}, &scorer)[0].status.code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace beamline::decode
