// SPDX-License-Identifier: Apache-2.0
//
// Whole requests on the cuda backend beside the aten backend in fp32, from the same weights: the same lists in fp32,
// most of them in narrow types. Every batch runs three times, so that its passes are launched as graphs, too.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/cuda/cuda_batch.h"
#include "backend/test_context.h"
#include "beamline/request.h"
#include "decode/beam_search.h"
#include "decode/random_case.h"

namespace beamline::decode {
namespace {

using testing::TinyCatalogue;
using testing::UniformInt;

constexpr int kRequests = 4, kElements = 6, kRounds = 3, kWidest = 12;

// One where a search takes a second: on the emulator, and under a sanitizer.
int Catalogues() {
#if defined(BEAMLINE_EMULATED_CUBLASLT)
  return 1;
#else
  return std::getenv("BEAMLINE_SMALL_SHAPES") == nullptr ? 8 : 1;
#endif
}

model::ModelConfig OneRec(const std::vector<uint32_t>& level_sizes, bool experts) {
  model::ModelConfig config;
  config.level_sizes = level_sizes;
  config.d_model = 32;
  config.heads = 2;
  config.head_dim = 16;
  config.short_term.length = kElements;
  config.short_term.features = {{model::FeatureKind::kSid, 0, 0, true}};
  config.encoder = {.layers = 2, .ffn = {.width = 64}};
  config.decoder = {.layers = 2, .ffn = {.width = 64}};
  if (experts) config.decoder.ffn.experts = 4, config.decoder.ffn.top_k = 2;
  return config;
}

model::ModelConfig RankedOneRec(const std::vector<uint32_t>& level_sizes, bool experts) {
  model::ModelConfig config = OneRec(level_sizes, experts);
  config.ranker = {.width = 64, .heads = {{kLongView, 1.0}, {kLike, 3.0}}};
  return config;
}

model::ModelConfig T5(const std::vector<uint32_t>& level_sizes, bool score_end) {
  model::ModelConfig config;
  config.family = model::kT5;
  config.level_sizes = level_sizes;
  config.d_model = 32;
  config.heads = 2;
  config.head_dim = 16;
  config.encoder = {.layers = 2, .ffn = {.width = 64, .gated = false}};
  config.decoder = {.layers = 2, .ffn = {.width = 64, .gated = true}};
  const int codes = static_cast<int>(std::accumulate(level_sizes.begin(), level_sizes.end(), uint32_t{0}));
  config.t5 = {.vocabulary = codes + 2,
               .start = codes,
               .end = codes + 1,
               .score_end = score_end,
               .input = {.prefix = {}, .suffix = {codes + 1}, .max_items = kElements}};
  model::SetT5Pathway(config);
  return config;
}

struct Case {
  const char* name;
  model::ModelConfig (*config)(const std::vector<uint32_t>&, bool);
  bool variant;
};

std::unique_ptr<model::Model> MakeModel(backend::Context ctx, const model::ModelConfig& config, uint64_t seed) {
  auto made = model::MakeModel(config, testing::LargeWeights(ctx, config, seed));
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *std::move(made) : nullptr;
}

model::EncoderInput Histories(const model::ModelConfig& config, std::mt19937_64& random) {
  model::EncoderInput input = model::MakeEncoderInput(config, kRequests, config.short_term.length, 0);
  const int tokens = input.tokens(config), columns = model::FeatureColumns(config, config.short_term);
  for (int b = 0; b < kRequests; ++b) {
    for (int i = UniformInt(random, 0, tokens); i > 0; --i) {
      input.order[b * tokens + i - 1] = i - 1;
      for (int column = 0; column < columns; ++column) {
        const auto codes = config.is_t5() ? config.t5.vocabulary - 1 : int64_t{config.level_sizes[column]};
        input.pathways[model::kShortTerm].features[(b * tokens + i - 1) * columns + column] =
            UniformInt(random, 0, static_cast<int>(codes));
      }
    }
  }
  return input;
}

// Of requests with their own widths, rules and eligibilities; the last of the rounds, which are all the same.
std::vector<SearchResult> Lists(const backend::Context& shared, const model::Model& model,
                                const model::EncoderInput& input, absl::Span<const SearchRequest> requests) {
  std::vector<SearchResult> results;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<model::ContextHandle> handles;
    {
      backend::Context ctx = backend::BeginBatch(shared);
      handles = model::SplitContext(
          ctx, model::EncodePass(ctx, model, model::UploadEncoderInput(ctx, model.config(), input)), kRequests);
    }
    std::vector<const model::ContextHandle*> pointers;
    for (const model::ContextHandle& handle : handles) pointers.push_back(&handle);
    backend::Context ctx = backend::BeginBatch(shared);
    std::vector<SearchResult> again =
        BeamSearch(model).Run(ctx, model::PackContexts(ctx, pointers, backend::RoomFor(ctx, kRequests)), requests,
                              [](int) { return absl::OkStatus(); });
    for (const SearchResult& one : again) EXPECT_EQ(one.at_once, backend::SearchesOnDevice(ctx));
    if (round > 0 && backend::SearchesOnDevice(ctx)) {  // at the first, tables are brought to the host once
      auto& batch = static_cast<backend::cuda::CudaBatch&>(*ctx.resources);
      EXPECT_EQ(batch.counters().uploads, 1) << "what the search reads";
      EXPECT_EQ(batch.counters().downloads, 1) << "the beams";
      const backend::cuda::Graphs& graphs = batch.worker().graphs;
      EXPECT_EQ(graphs.captures() > 0, shared.graphs) << "of the second round";
      EXPECT_EQ(graphs.nodes().kernels > 0, shared.graphs);
      EXPECT_EQ(graphs.nodes().others, 0) << "kernels alone";
    }
    for (size_t b = 0; b < results.size(); ++b) {
      EXPECT_EQ(again[b].hypotheses.size(), results[b].hypotheses.size());
      for (size_t i = 0; i < std::min(again[b].hypotheses.size(), results[b].hypotheses.size()); ++i) {
        EXPECT_EQ(again[b].hypotheses[i].sid, results[b].hypotheses[i].sid) << "round " << round;
        EXPECT_EQ(again[b].hypotheses[i].score, results[b].hypotheses[i].score) << "round " << round;
        EXPECT_EQ(again[b].hypotheses[i].value, results[b].hypotheses[i].value) << "round " << round;
      }
    }
    results = std::move(again);
  }
  return results;
}

// What is common to lists.
struct Agreement {
  int lists = 0, same_order = 0;
  int hypotheses = 0, common = 0;
  double worst_score = 0, worst_value = 0, widest_values = 0;

  void Add(const SearchResult& expected, const SearchResult& actual) {
    ASSERT_EQ(expected.status, actual.status);
    ++lists;
    hypotheses += static_cast<int>(expected.hypotheses.size());
    std::map<Sid, const Hypothesis*> known;
    for (const Hypothesis& one : expected.hypotheses) known[one.sid] = &one;
    bool same = expected.hypotheses.size() == actual.hypotheses.size();
    for (size_t i = 0; i < actual.hypotheses.size(); ++i) {
      same = same && expected.hypotheses[i].sid == actual.hypotheses[i].sid &&
             expected.hypotheses[i].leaf == actual.hypotheses[i].leaf;
      const auto found = known.find(actual.hypotheses[i].sid);
      if (found == known.end()) continue;
      ++common;
      const Hypothesis& same_sid = *found->second;
      worst_score = std::max(worst_score, std::abs(double{same_sid.score} - actual.hypotheses[i].score));
      worst_value = std::max(worst_value, std::abs(double{same_sid.value} - actual.hypotheses[i].value));
      widest_values = std::max(widest_values, std::abs(double{same_sid.value} - expected.hypotheses[0].value));
    }
    same_order += same ? 1 : 0;
  }
};

class CudaLists : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Families, CudaLists,
                         ::testing::Values(Case{"onerec_v1", OneRec, false}, Case{"onerec_v1_experts", OneRec, true},
                                           Case{"onerec_v1_ranked", RankedOneRec, false}, Case{"t5", T5, false},
                                           Case{"t5_scored_end", T5, true}),
                         [](const auto& info) { return info.param.name; });

// With several times as many SIDs as there are beams.
TinyCatalogue LargeCatalogue(std::mt19937_64& random) {
  for (;;) {
    TinyCatalogue catalogue = testing::RandomCatalogue(random, 300);
    const size_t levels = catalogue.snapshot->levels();
    const auto prefixes = catalogue.Prefixes();
    const auto sids = std::count_if(prefixes.begin(), prefixes.end(),
                                    [&](const std::vector<Code>& prefix) { return prefix.size() == levels; });
    if (levels > 1 && sids >= 4 * kWidest) return catalogue;
  }
}

Agreement Compare(const Case& one, const char* dtype) {
  Agreement agreement;
  const backend::Context aten = *backend::MakeTestContext("cpu", "fp32", "aten");
  const absl::StatusOr<backend::Context> cuda = backend::MakeTestContext("cuda", dtype, "cuda");
  EXPECT_TRUE(cuda.ok()) << cuda.status();
  if (!cuda.ok()) return agreement;
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(Catalogues()); ++seed) {
    std::mt19937_64 random(seed);
    const TinyCatalogue catalogue = LargeCatalogue(random);
    const model::ModelConfig config = one.config(catalogue.level_sizes, one.variant);
    const auto oracle = MakeModel(aten, config, seed), model = MakeModel(*cuda, config, seed);
    if (oracle == nullptr || model == nullptr) return agreement;
    const model::EncoderInput input = Histories(config, random);
    std::vector<std::shared_ptr<const catalogue::CompiledEligibility>> compiled;
    std::vector<std::vector<int>> widths;
    std::vector<SearchRequest> requests;
    for (int b = 0; b < kRequests; ++b) {
      compiled.push_back(Compile(catalogue, b == 0 ? Eligibility() : RandomEligibility(random, catalogue)));
      const int levels = catalogue.snapshot->levels();
      widths.push_back(b == 0 ? std::vector<int>(levels, kWidest) : testing::RandomWidths(random, levels, kWidest));
    }
    for (int b = 0; b < kRequests; ++b) {
      requests.push_back({&compiled[b]->view(), widths[b], b % 2 == 0 ? ScoreRule::kFull : ScoreRule::kLegal});
    }
    const std::vector<SearchResult> expected = Lists(aten, *oracle, input, requests);
    const std::vector<SearchResult> actual = Lists(*cuda, *model, input, requests);
    for (int b = 0; b < kRequests; ++b) agreement.Add(expected[b], actual[b]);
  }
  return agreement;
}

bool LacksGpu() {
  return std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr && !backend::MakeTestContext("cuda", "fp32", "cuda").ok();
}

// Scores are sums of some hundred terms of size 1 in fp32 over four levels: 1e-4 is ten times what was seen.
TEST_P(CudaLists, Fp32GivesTheListsOfAten) {
  if (LacksGpu()) GTEST_SKIP() << "no GPU";
  const backend::InferenceGuard guard;
  const Agreement found = Compare(GetParam(), "fp32");
  EXPECT_EQ(found.lists, Catalogues() * kRequests);
  EXPECT_EQ(found.same_order, found.lists);
  EXPECT_EQ(found.common, found.hypotheses);
  EXPECT_GT(found.hypotheses, 3 * found.lists) << "the lists are too short to say anything";
  EXPECT_LT(found.worst_score, 1e-4);
  EXPECT_LT(found.worst_value, 1e-4);
  EXPECT_EQ(found.widest_values > 0.05, GetParam().config == RankedOneRec) << found.widest_values;
}

// Random models of width 32 are worse than trained ones: near ties are many. A wrong product finds next to nothing.
TEST_P(CudaLists, NarrowTypesFindMostOfThem) {
  if (LacksGpu()) GTEST_SKIP() << "no GPU";
  const backend::InferenceGuard guard;
#if defined(BEAMLINE_EMULATED_CUBLASLT)
  for (const char* dtype : {"bf16"}) {
#else
  for (const char* dtype : {"bf16", "fp16", "fp8"}) {
#endif
    const Agreement found = Compare(GetParam(), dtype);
    std::cout << dtype << ": " << found.common << " of " << found.hypotheses << ", scores within " << found.worst_score
              << "\n";
    EXPECT_GE(found.common, (std::string(dtype) == "fp8" ? 0.7 : 0.85) * found.hypotheses) << dtype;
    EXPECT_GT(found.worst_score, 1e-4) << dtype << ": computed in fp32?";
  }
}

}  // namespace
}  // namespace beamline::decode
