// SPDX-License-Identifier: Apache-2.0
//
// The search over real, tiny onerec_v1 models: the naive beam on teacher-forced logits gives the same lists, and the
// same request alone and among others the same answer, by promise 4.
#include "model/model.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/test_context.h"
#if defined(BEAMLINE_TEST_CUDA)
#include "backend/cuda/cuda_batch.h"
#endif
#include "beamline/request.h"
#include "decode/beam_search.h"
#include "decode/random_case.h"

namespace beamline::decode {
namespace {

using testing::kTolerance;
using testing::LogitsOf;
using testing::NaiveAnswer;
using testing::TinyCatalogue;
using testing::UniformInt;

// Dense or MoE, causal or not, with or without a trunk; with a ranker where there are two levels. Embeddings are made
// large, so that logits are far from uniform.
model::ModelConfig RandomConfig(std::mt19937_64& random, const std::vector<uint32_t>& level_sizes) {
  model::ModelConfig config;
  config.level_sizes = level_sizes;
  config.d_model = 16;
  config.heads = 2;
  config.head_dim = 8;
  config.short_term.length = 6;
  config.short_term.features = {{model::FeatureKind::kSid, 0, 0, true},
                                {model::FeatureKind::kLabels, 0, backend::Fit(4), false}};
  config.encoder.layers = UniformInt(random, 0, 2);
  config.encoder.causal = UniformInt(random, 0, 1) == 1;
  config.encoder.ffn.width = 32;
  config.decoder.layers = 2;
  config.decoder.trunk_layers = UniformInt(random, 0, 1);
  config.decoder.tied_heads = UniformInt(random, 0, 1) == 1;
  config.decoder.ffn.width = 32;
  if (UniformInt(random, 0, 1) == 1) {
    config.decoder.ffn.experts = 4;
    config.decoder.ffn.top_k = 2;
  }
  if (config.levels() > 1) {
    config.ranker = {.width = 24, .heads = {{kLongView, 1.0}, {kLike, -0.5}, {kClick, 2.0}}, .score_weight = 0.125};
  }
  return config;
}

// The order of a sum may hang on a size. Where kernels are emulated each new one is slow: there they stay as they are.
void TakeAnySizes(std::mt19937_64& random, model::ModelConfig& config) {
  if (backend::kUnit > 1) return;
  config.d_model = UniformInt(random, 1, 40);
  config.heads = UniformInt(random, 1, 3);
  config.head_dim = UniformInt(random, 1, 20);
  for (model::FeatureConfig& feature : config.short_term.features) {
    if (!feature.shared) feature.width = UniformInt(random, 1, 40);
  }
  for (model::FeedForwardConfig* ffn : {&config.encoder.ffn, &config.decoder.ffn}) {
    ffn->width = UniformInt(random, 1, 80);
    if (ffn->experts == 0) continue;
    ffn->experts = UniformInt(random, 1, 9);
    ffn->top_k = UniformInt(random, 1, ffn->experts);
    ffn->shared_experts = UniformInt(random, 0, 2);
  }
}

std::unique_ptr<model::Model> MakeRandomModel(backend::Context& ctx, std::mt19937_64& random,
                                              const model::ModelConfig& config) {
  auto made = model::MakeModel(config, testing::LargeWeights(ctx, config, random()));
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *std::move(made) : nullptr;
}

std::unique_ptr<model::Model> RandomModel(backend::Context& ctx, std::mt19937_64& random,
                                          const std::vector<uint32_t>& level_sizes) {
  return MakeRandomModel(ctx, random, RandomConfig(random, level_sizes));
}

// A history of `length` random elements, in a batch of one.
model::ContextHandle RandomContext(backend::Context& ctx, const model::Model& model, std::mt19937_64& random,
                                   int length) {
  const model::ModelConfig& config = model.config();
  model::EncoderInput input = model::MakeEncoderInput(config, 1, std::max(1, length), 0);
  const int columns = model::FeatureColumns(config, config.short_term);
  for (int element = 0; element < length; ++element) {
    int32_t* features = input.pathways[model::kShortTerm].features.data() + element * columns;
    for (int level = 0; level < config.levels(); ++level) {
      features[level] = UniformInt(random, 0, static_cast<int>(config.level_sizes[level]));
    }
    features[config.levels()] = UniformInt(random, 0, 255);
    input.order[element] = element;
  }
  EXPECT_TRUE(model::CheckEncoderInput(config, input).ok());
  return model::SplitContext(ctx, model.Encode(ctx, model::UploadEncoderInput(ctx, config, input)))[0];
}

// Teacher-forced logits after every prefix of the catalogue, from one pass.
LogitsOf TeacherForcedLogits(backend::Context& ctx, const model::Model& model, const model::ContextHandle& handle,
                             const TinyCatalogue& catalogue) {
  const int levels = model.config().levels();
  std::vector<std::vector<Code>> prefixes = {{}};
  for (const std::vector<Code>& prefix : catalogue.Prefixes()) {
    if (static_cast<int>(prefix.size()) < levels) prefixes.push_back(prefix);
  }
  model::TeacherInput input;
  input.batch = 1;
  input.targets = static_cast<int>(prefixes.size());
  input.codes.assign(prefixes.size() * levels, 0);
  input.order_limit.assign(prefixes.size(), backend::kSeesAllOrders);
  for (size_t i = 0; i < prefixes.size(); ++i) {
    std::copy(prefixes[i].begin(), prefixes[i].end(), input.codes.begin() + i * levels);
  }
  const model::ContextHandle* const handles[] = {&handle};
  const std::vector<at::Tensor> per_level = model.TeacherForced(ctx, model::PackContexts(ctx, handles),
                                                                model::UploadTeacherInput(ctx, model.config(), input));
  std::map<std::vector<Code>, std::vector<float>> known;
  for (int level = 0; level < levels; ++level) {
    const std::vector<float> logits = backend::DownloadFloats(ctx, per_level[level]);
    const size_t size = model.config().level_sizes[level];
    for (size_t i = 0; i < prefixes.size(); ++i) {
      if (static_cast<int>(prefixes[i].size()) != level) continue;
      known[prefixes[i]].assign(logits.begin() + i * size, logits.begin() + (i + 1) * size);
    }
  }
  return [known](absl::Span<const Code> prefix) { return known.at({prefix.begin(), prefix.end()}); };
}

// The ranker's value of every list's SID as its header says it, in double precision, from the teacher-forced states.
std::vector<double> NaiveValues(backend::Context& ctx, const model::Model& model, const model::ContextHandle& handle,
                                const std::vector<Hypothesis>& list) {
  const int levels = model.config().levels();
  model::TeacherInput input;
  input.batch = 1;
  input.targets = static_cast<int>(list.size());
  input.order_limit.assign(list.size(), backend::kSeesAllOrders);
  for (const Hypothesis& one : list) {
    for (int level = 0; level < levels; ++level) input.codes.push_back(static_cast<int32_t>(one.sid[level]));
  }
  const model::ContextHandle* const handles[] = {&handle};
  const at::Tensor output = model.TeacherForcedOutput(ctx, model::PackContexts(ctx, handles),
                                                      model::UploadTeacherInput(ctx, model.config(), input));
  const auto weight = [&](const char* name) { return backend::DownloadFloats(ctx, model.weights().Get(name)); };
  const std::vector<float> states = backend::DownloadFloats(ctx, output), matrix = weight("ranker.state.weight"),
                           shift = weight("ranker.state.bias"), code = weight("ranker.code"),
                           head = weight("ranker.head.weight"), bias = weight("ranker.head.bias");
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  const size_t d = model.config().d_model, width = model.config().ranker.width;
  std::vector<double> values;
  for (size_t i = 0; i < list.size(); ++i) {
    const float* state = states.data() + (i * levels + levels - 1) * d;
    std::vector<double> hidden(width);
    for (size_t j = 0; j < width; ++j) {
      double x = double{shift[j]} + code[list[i].sid[levels - 1] * width + j];
      for (size_t k = 0; k < d; ++k) x += double{matrix[j * d + k]} * state[k];
      hidden[j] = x * sigmoid(x);
    }
    double value = model.config().ranker.score_weight * list[i].score;
    for (size_t h = 0; h < model.config().ranker.heads.size(); ++h) {
      double logit = bias[h];
      for (size_t j = 0; j < width; ++j) logit += head[h * width + j] * hidden[j];
      value += model.config().ranker.heads[h].weight * sigmoid(logit);
    }
    values.push_back(value);
  }
  return values;
}

struct Request {
  model::ContextHandle context;
  Eligibility eligibility;
  std::shared_ptr<const catalogue::CompiledEligibility> compiled;
  std::vector<int> widths;
  ScoreRule score_rule = ScoreRule::kFull;
};

std::vector<SearchResult> Search(backend::Context& ctx, const model::Model& model, absl::Span<const Request> requests,
                                 const PathScorer* scorer = nullptr) {
  std::vector<const model::ContextHandle*> handles;
  std::vector<SearchRequest> searches;
  for (const Request& request : requests) {
    handles.push_back(&request.context);
    searches.push_back({&request.compiled->view(), request.widths, request.score_rule});
  }
  const int64_t room = backend::RoomFor(ctx, static_cast<int64_t>(handles.size()));
  return BeamSearch(model, scorer).Run(ctx, model::PackContexts(ctx, handles, room), searches, [](int) {
    return absl::OkStatus();
  });
}

// Keeps the least probable of an expansion: rows are not where the search alone leaves them.
class LeastProbable : public PathScorer {
 public:
  int ExpandedWidth(int, int width) const override { return width + 2; }
  std::vector<float> Score(const PathCandidates& candidates) const override {
    std::vector<float> values;
    for (const float score : candidates.scores) values.push_back(-score);
    return values;
  }
};

// The order may differ only between scores closer than 2e-5.
void ExpectByPromise4(const SearchResult& alone, const SearchResult& together, const std::string& where) {
  ASSERT_EQ(alone.status, together.status) << where;
  ASSERT_EQ(alone.hypotheses.size(), together.hypotheses.size()) << where;
  std::map<Sid, float> scores;
  for (const Hypothesis& hypothesis : together.hypotheses) scores[hypothesis.sid] = hypothesis.score;
  for (size_t i = 0; i < alone.hypotheses.size(); ++i) {
    EXPECT_NEAR(alone.hypotheses[i].score, together.hypotheses[i].score, 2e-5) << where;
    const auto found = scores.find(alone.hypotheses[i].sid);
    ASSERT_NE(found, scores.end()) << where << ": " << alone.hypotheses[i].sid.ToString();
    EXPECT_NEAR(alone.hypotheses[i].score, found->second, kTolerance) << where;
  }
}

class RealModels : public ::testing::TestWithParam<const char*> {};
#if defined(BEAMLINE_TEST_CUDA)
constexpr int kWorlds = 2, kAnswers = 3;  // where kernels are emulated, a search takes a second
constexpr int kFewestLevels = 3;
INSTANTIATE_TEST_SUITE_P(Backends, RealModels, ::testing::Values("cuda"));
#else
constexpr int kWorlds = 80, kAnswers = 400;
constexpr int kFewestLevels = 1;
INSTANTIATE_TEST_SUITE_P(Backends, RealModels, ::testing::Values("aten", "cpu"));
#endif

TEST_P(RealModels, EqualTheNaiveBeamAloneAndInBatches) {
  const backend::Context shared = *backend::MakeTestContext("cpu", "fp32", GetParam());
  backend::SetThreads(1);
  const backend::InferenceGuard guard;
  int compared = 0;
  int near_ties = 0, chosen_others = 0;
  double widest_gap = 0, widest_values = 0;
  int worlds = 0;
  for (uint64_t seed = 0; worlds < kWorlds; ++seed) {
    std::mt19937_64 random(seed);
    const TinyCatalogue catalogue = testing::RandomCatalogue(random, 40);
    if (catalogue.snapshot->levels() < kFewestLevels) continue;
    ++worlds;
    backend::Context ctx = backend::BeginBatch(shared), loading = shared;
    const auto model = RandomModel(loading, random, catalogue.level_sizes);
    ASSERT_NE(model, nullptr);
    std::vector<Request> requests(UniformInt(random, 2, 16));
    for (Request& request : requests) {
      request.context = RandomContext(ctx, *model, random, UniformInt(random, 0, 6));
      request.eligibility = RandomEligibility(random, catalogue);
      request.compiled = Compile(catalogue, request.eligibility);
      request.widths = testing::RandomWidths(random, catalogue.snapshot->levels(), 10);
      request.score_rule = UniformInt(random, 0, 1) == 0 ? ScoreRule::kFull : ScoreRule::kLegal;
    }
    const std::vector<SearchResult> together = Search(ctx, *model, requests);
    for (size_t b = 0; b < requests.size(); ++b) {
      const std::string where = absl::StrCat("seed ", seed, " request ", b);
      const NaiveAnswer naive =
          testing::NaiveBeam({catalogue.items, requests[b].eligibility, requests[b].score_rule, requests[b].widths},
                             TeacherForcedLogits(ctx, *model, requests[b].context, catalogue));
      if (naive.near_tie) {
        ++near_ties;
        continue;
      }
      ASSERT_FALSE(naive.non_finite);
      ++compared;
      const SearchResult alone = Search(ctx, *model, absl::MakeConstSpan(&requests[b], 1))[0];
      ExpectByPromise4(alone, together[b], where);
      ASSERT_TRUE(alone.status.ok()) << alone.status;
      ASSERT_EQ(alone.hypotheses.size(), naive.list.size()) << where;
      for (size_t i = 0; i < naive.list.size(); ++i) {
        EXPECT_EQ(alone.hypotheses[i].sid.ToString(), naive.list[i].sid.ToString()) << where << " rank " << i;
        EXPECT_NEAR(alone.hypotheses[i].score, naive.list[i].score, kTolerance) << where << " rank " << i;
        for (size_t level = 0; level < naive.list[i].log_probs.size(); ++level) {
          EXPECT_NEAR(alone.hypotheses[i].log_probs[level], naive.list[i].log_probs[level], kTolerance) << where;
        }
      }
      if (model->ranker() != nullptr && !alone.hypotheses.empty()) {
        const LeastProbable scorer;
        const SearchResult chosen = Search(ctx, *model, absl::MakeConstSpan(&requests[b], 1), &scorer)[0];
        ASSERT_TRUE(chosen.status.ok()) << chosen.status;
        chosen_others += chosen.hypotheses[0].sid == alone.hypotheses[0].sid ? 0 : 1;
        for (const std::vector<Hypothesis>& list : {alone.hypotheses, chosen.hypotheses}) {
          const std::vector<double> values = NaiveValues(ctx, *model, requests[b].context, list);
          for (size_t i = 0; i < values.size(); ++i) {
            ASSERT_NEAR(list[i].value, values[i], kTolerance) << where << " rank " << i;
            widest_values = std::max(widest_values, std::abs(values[i] - values[0]));
          }
        }
      }
      if (!naive.list.empty()) widest_gap = std::max(widest_gap, naive.list.front().score - naive.list.back().score);
    }
  }
  EXPECT_GT(compared, kAnswers);
  EXPECT_LT(near_ties, compared / 10);
  EXPECT_GT(widest_gap, 1.0) << "the models prefer nothing: this test would not notice a wrong order";
  EXPECT_GT(widest_values, 0.1) << "the rankers prefer nothing: this test would not notice the value of another SID";
  EXPECT_GT(chosen_others, 0) << "the path scorer changed nothing";
}

// Histories of the given lengths, encoded in one batch, their later half as positive feedback, too, where the model has
// that; their first decode step with them or not.
std::vector<model::ContextHandle> EncodeBatch(backend::Context& ctx, const model::Model& model,
                                              const std::vector<std::vector<int32_t>>& histories, bool first_step) {
  const model::ModelConfig& config = model.config();
  const int columns = model::FeatureColumns(config, config.short_term);
  int longest = 1;
  for (const auto& history : histories) longest = std::max(longest, static_cast<int>(history.size()) / columns);
  const int batch = static_cast<int>(histories.size());
  const auto room = [&](int size) { return static_cast<int>(backend::RoomFor(ctx, size)); };
  longest = std::min(room(longest), config.short_term.length);
  const int positives = config.positive.enabled() ? longest / 2 : 0, tokens = longest + positives;
  model::EncoderInput input = model::MakeEncoderInput(config, room(batch), longest, positives);
  for (int b = 0; b < batch; ++b) {
    std::copy(histories[b].begin(), histories[b].end(),
              input.pathways[model::kShortTerm].features.begin() + b * longest * columns);
    const int length = static_cast<int>(histories[b].size()) / columns;
    for (int i = 0; i < length; ++i) input.order[b * tokens + i] = i;
    if (positives == 0) continue;
    const int half = length / 2;
    std::copy(histories[b].end() - half * columns, histories[b].end(),
              input.pathways[model::kPositive].features.begin() + b * positives * columns);
    for (int i = 0; i < half; ++i) input.order[b * tokens + longest + i] = length - half + i;
  }
  model::EncodedContext encoded = model::EncodePass(ctx, model, model::UploadEncoderInput(ctx, config, input));
  if (first_step) model::TakeFirstStep(ctx, model, encoded);
  return model::SplitContext(ctx, encoded, batch);
}

// Promise 4's goal on the fast backends, in every precision: lists and scores are the same bits alone and in mixed
// batches, on one thread and on two, encoded alone and together, their first step taken with the context or not.
class FastBackend : public ::testing::TestWithParam<const char*> {};
#if defined(BEAMLINE_TEST_CUDA)
constexpr const char* kFastBackend = "cuda";
constexpr int kBatched = 20;
INSTANTIATE_TEST_SUITE_P(Dtypes, FastBackend, ::testing::Values("fp32", "bf16", "fp16", "fp8"));
#else
constexpr const char* kFastBackend = "cpu";
constexpr int kBatched = 500;
INSTANTIATE_TEST_SUITE_P(Dtypes, FastBackend, ::testing::Values("fp32", "bf16", "int8"));
#endif

TEST_P(FastBackend, AnswersAreBitIdenticalInAnyCompany) {
  const backend::Context cpu = *backend::MakeTestContext("cpu", GetParam(), kFastBackend);
  const backend::InferenceGuard guard;
  int compared = 0;
  for (uint64_t seed = 0; compared < kBatched; ++seed) {
    std::mt19937_64 random(seed);
    backend::SetThreads(1 + static_cast<int>(seed % 2));
    const TinyCatalogue catalogue = testing::RandomCatalogue(random, 300);
    backend::Context loading = cpu;
    model::ModelConfig config = RandomConfig(random, catalogue.level_sizes);
    TakeAnySizes(random, config);
    if (seed % 2 == 0) config.positive = config.short_term;
    const auto model = MakeRandomModel(loading, random, config);
    ASSERT_NE(model, nullptr);
    std::vector<Request> requests(20);
    std::vector<std::vector<int32_t>> histories(requests.size());
    for (size_t b = 0; b < requests.size(); ++b) {
      for (int element = UniformInt(random, 0, 6); element > 0; --element) {
        for (const uint32_t size : catalogue.level_sizes) histories[b].push_back(UniformInt(random, 0, size));
        histories[b].push_back(UniformInt(random, 0, 255));
      }
      requests[b].eligibility = RandomEligibility(random, catalogue);
      requests[b].compiled = Compile(catalogue, requests[b].eligibility);
      requests[b].widths = testing::RandomWidths(random, catalogue.snapshot->levels(), 70);
      requests[b].score_rule = UniformInt(random, 0, 1) == 0 ? ScoreRule::kFull : ScoreRule::kLegal;
    }
    std::vector<SearchResult> alone;
    for (size_t b = 0; b < requests.size(); ++b) {
      backend::Context ctx = backend::BeginBatch(cpu);
      requests[b].context = EncodeBatch(ctx, *model, {histories[b]}, /*first_step=*/false)[0];
      alone.push_back(Search(ctx, *model, absl::MakeConstSpan(&requests[b], 1))[0]);
    }
    backend::SetThreads(2 - static_cast<int>(seed % 2));
    for (size_t begin = 0, size = 0; begin < requests.size(); begin += size) {
      size = std::min<size_t>(UniformInt(random, 1, 9), requests.size() - begin);
      backend::Context ctx = backend::BeginBatch(cpu);
      const auto contexts = EncodeBatch(ctx, *model, {histories.begin() + begin, histories.begin() + begin + size},
                                        /*first_step=*/size % 2 == 1);
      for (size_t i = 0; i < size; ++i) requests[begin + i].context = contexts[i];
      const auto together = Search(ctx, *model, absl::MakeConstSpan(requests).subspan(begin, size));
      for (size_t i = 0; i < size; ++i, ++compared) {
        const SearchResult &a = alone[begin + i], &b = together[i];
        ASSERT_EQ(a.status, b.status);
        ASSERT_EQ(a.hypotheses.size(), b.hypotheses.size()) << seed;
        for (size_t rank = 0; rank < a.hypotheses.size(); ++rank) {
          ASSERT_EQ(a.hypotheses[rank].sid, b.hypotheses[rank].sid) << seed << " rank " << rank;
          ASSERT_EQ(a.hypotheses[rank].score, b.hypotheses[rank].score) << seed << " rank " << rank;
          ASSERT_EQ(a.hypotheses[rank].value, b.hypotheses[rank].value) << seed << " rank " << rank;
          ASSERT_EQ(a.hypotheses[rank].log_probs, b.hypotheses[rank].log_probs) << seed << " rank " << rank;
        }
      }
    }
  }
  backend::SetThreads(1);
}

#if defined(BEAMLINE_TEST_CUDA)

// Passes that repeat are captured and launched again with other histories, widths, rules and eligibilities: the answers
// are those of the same ops enqueued one by one.
TEST(CudaGraphs, GiveTheAnswersOfTheirOps) {
  const backend::InferenceGuard guard;
  for (const char* dtype : {"fp32", "bf16", "fp8"}) {
    const absl::StatusOr<backend::Context> shared = backend::MakeTestContext("cuda", dtype, "cuda");
    if (!shared.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << shared.status();
    ASSERT_TRUE(shared.ok()) << shared.status();
    backend::Context loading = *shared;
    std::mt19937_64 random(4);
    const TinyCatalogue catalogue = testing::RandomCatalogue(random, 60);
    const auto model = RandomModel(loading, random, catalogue.level_sizes);
    ASSERT_NE(model, nullptr);
    const int levels = catalogue.snapshot->levels(), rounds = 5;
    std::vector<Sid> tops;
    int64_t launches = 0;
    for (int round = 0; round < rounds; ++round) {
      std::vector<Request> requests(3);
      std::vector<std::vector<int32_t>> histories(requests.size());
      for (size_t b = 0; b < requests.size(); ++b) {
        for (int element = b == 0 ? 6 : UniformInt(random, 0, 6); element > 0; --element) {
          for (const uint32_t size : catalogue.level_sizes) histories[b].push_back(UniformInt(random, 0, size));
          histories[b].push_back(UniformInt(random, 0, 255));
        }
        if (b > 0) requests[b].eligibility = RandomEligibility(random, catalogue);  // the first may have every item
        requests[b].compiled = Compile(catalogue, requests[b].eligibility);
        requests[b].widths = b == 0 ? std::vector<int>(levels, 9) : testing::RandomWidths(random, levels, 9);
        requests[b].score_rule = UniformInt(random, 0, 1) == 0 ? ScoreRule::kFull : ScoreRule::kLegal;
      }
      std::vector<SearchResult> answers[2];
      for (const bool graphs : {false, true}) {
        backend::Context ctx = backend::BeginBatch(*shared);
        ctx.graphs = graphs;
        auto& batch = static_cast<backend::cuda::CudaBatch&>(*ctx.resources);
        const int64_t before = batch.worker().graphs.launches();
        const auto contexts = EncodeBatch(ctx, *model, histories, /*first_step=*/false);
        for (size_t b = 0; b < requests.size(); ++b) requests[b].context = contexts[b];
        answers[graphs ? 1 : 0] = Search(ctx, *model, requests);
        launches += batch.worker().graphs.launches() - before;
        EXPECT_LE(batch.counters().uploads, 2) << "of the encoder's inputs and of the search's";
        EXPECT_EQ(batch.counters().downloads, 1) << "the beams";
      }
      for (size_t b = 0; b < requests.size(); ++b) {
        const SearchResult &a = answers[0][b], &g = answers[1][b];
        ASSERT_TRUE(a.status.ok() && g.status.ok()) << a.status << g.status;
        ASSERT_EQ(a.hypotheses.size(), g.hypotheses.size());
        for (size_t rank = 0; rank < a.hypotheses.size(); ++rank) {
          ASSERT_EQ(a.hypotheses[rank].sid, g.hypotheses[rank].sid) << dtype << " round " << round << " rank " << rank;
          ASSERT_EQ(a.hypotheses[rank].score, g.hypotheses[rank].score) << dtype << " round " << round;
          ASSERT_EQ(a.hypotheses[rank].value, g.hypotheses[rank].value) << dtype << " round " << round;
        }
      }
      ASSERT_FALSE(answers[1][0].hypotheses.empty());
      tops.push_back(answers[1][0].hypotheses[0].sid);
    }
    // An encoder's from the second round on, a decoder's from the third: the encoder's graph keeps storage that the
    // decoder must allocate anew.
    EXPECT_GE(launches, 2 * (rounds - 2));
    EXPECT_NE(std::count(tops.begin(), tops.end(), tops[0]), rounds) << "all rounds have the same answer";
  }
}

// Batches of nine and of ten requests, with nine beams or ten, run the same two graphs; and every request gets the
// answer it gets alone, from its ops one by one.
TEST(CudaGraphs, ServeSizesThatShareTheirRoom) {
  const backend::InferenceGuard guard;
  const absl::StatusOr<backend::Context> shared = backend::MakeTestContext("cuda", "bf16", "cuda");
  if (!shared.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << shared.status();
  ASSERT_TRUE(shared.ok()) << shared.status();
  backend::Context loading = *shared;
  std::mt19937_64 random(9);
  const TinyCatalogue catalogue = testing::RandomCatalogue(random, 200);
  const auto model = RandomModel(loading, random, catalogue.level_sizes);
  ASSERT_NE(model, nullptr);
  struct Sizes {
    int requests, width;
  };
  int64_t captures = 0, launches = 0;
  for (const Sizes& sizes : {Sizes{10, 10}, {10, 10}, {10, 10}, {9, 9}}) {
    std::vector<Request> requests(sizes.requests);
    std::vector<std::vector<int32_t>> histories(requests.size());
    for (size_t b = 0; b < requests.size(); ++b) {
      for (int element = b == 0 ? 6 : UniformInt(random, 0, 6); element > 0; --element) {
        for (const uint32_t size : catalogue.level_sizes) histories[b].push_back(UniformInt(random, 0, size));
        histories[b].push_back(UniformInt(random, 0, 255));
      }
      requests[b].compiled = Compile(catalogue, requests[b].eligibility);
      requests[b].widths.assign(catalogue.snapshot->levels(), sizes.width);
    }
    std::vector<SearchResult> together;
    {
      backend::Context ctx = backend::BeginBatch(*shared);
      const auto& graphs = static_cast<backend::cuda::CudaBatch&>(*ctx.resources).worker().graphs;
      const int64_t captured = graphs.captures(), launched = graphs.launches();
      const auto contexts = EncodeBatch(ctx, *model, histories, /*first_step=*/false);
      for (size_t b = 0; b < requests.size(); ++b) requests[b].context = contexts[b];
      together = Search(ctx, *model, requests);
      captures += graphs.captures() - captured;
      launches += graphs.launches() - launched;
    }
    for (const size_t b : {size_t{0}, requests.size() - 1}) {
      backend::Context ctx = backend::BeginBatch(*shared);
      ctx.graphs = false;
      requests[b].context = EncodeBatch(ctx, *model, {histories[b]}, /*first_step=*/false)[0];
      const SearchResult alone = Search(ctx, *model, absl::MakeConstSpan(&requests[b], 1))[0];
      ASSERT_TRUE(alone.status.ok() && together[b].status.ok()) << alone.status << together[b].status;
      ASSERT_EQ(alone.hypotheses.size(), together[b].hypotheses.size());
      ASSERT_LE(alone.hypotheses.size(), static_cast<size_t>(sizes.width));
      for (size_t rank = 0; rank < alone.hypotheses.size(); ++rank) {
        ASSERT_EQ(alone.hypotheses[rank].sid, together[b].hypotheses[rank].sid) << sizes.requests << " " << b;
        ASSERT_EQ(alone.hypotheses[rank].score, together[b].hypotheses[rank].score) << sizes.requests << " " << b;
      }
    }
  }
  EXPECT_EQ(captures, 2) << "an encoder's and a decoder's";
  EXPECT_GE(launches, 2 + 1 + 2) << "of the second round an encoder's, of the others both";
}

#endif  // BEAMLINE_TEST_CUDA

}  // namespace
}  // namespace beamline::decode
