// SPDX-License-Identifier: Apache-2.0
//
// A model that several ranks hold together computes what it computes alone. Ranks are threads; every kind of layer of
// both families, on both backends, over 2 and 4 ranks, whose shares of codes are unequal.
#include <cstring>
#include <functional>
#include <numeric>

#include "backend/communicator.h"
#include "base/safetensors.h"
#include "gmock/gmock.h"
#include "model/model_test_util.h"
#include "model/sharding.h"
#include "parallel/group_fixture.h"

namespace beamline::model {
namespace {

using ::testing::HasSubstr;

constexpr int kTargets = 3;

// Sizes that 4 ranks can share.
ModelConfig Shareable(ModelConfig config) {
  config.heads = 4;
  for (FeedForwardConfig* ffn : {&config.encoder.ffn, &config.decoder.ffn}) {
    ffn->width = ffn->experts > 0 ? 12 : 24;
    if (ffn->experts > 0) ffn->shared_experts = 2;
  }
  return config;
}

ModelConfig T5Shareable(bool tied) {
  ModelConfig config;
  config.family = kT5;
  config.level_sizes = {4, 3, 6};
  config.d_model = 8;
  config.heads = 4;
  config.head_dim = 3;
  config.encoder = {.layers = 2, .ffn = DenseFfn(12)};
  config.decoder = {.layers = 2, .ffn = {.width = 12, .gated = false}};
  config.decoder.tied_heads = tied;
  config.t5 = {.vocabulary = 18,
               .padded = true,
               .activation = T5Activation::kGelu,
               .relative_buckets = 4,
               .relative_max_distance = 9,
               .start = 13,
               .end = 14,
               .score_end = true,
               .input = {.prefix = {15}, .suffix = {14}, .max_items = 3}};
  SetT5Pathway(config);
  return config;
}

std::vector<ModelCase> ShareableCases() {
  std::vector<ModelCase> cases = ModelCases();
  for (ModelCase& one : cases) one.config = Shareable(one.config);
  for (const char* backend : {"aten", "cpu"}) {
    cases.push_back({absl::StrCat("t5_tied_", backend), T5Shareable(true), backend});
    cases.push_back({absl::StrCat("t5_untied_", backend), T5Shareable(false), backend});
  }
  return cases;
}

EncoderInput SomeInput(const ModelConfig& config, std::mt19937_64& random) {
  if (!config.is_t5()) return BatchOf(config, {RandomHistory(config, 9, random), RandomHistory(config, 2, random)});
  EncoderInput input = MakeEncoderInput(config, 2, 5, 0);
  for (int i = 0; i < 10; ++i) {
    input.pathways[kShortTerm].features[i] = static_cast<int32_t>(random() % config.t5.vocabulary);
    if (i < 8) input.order[i] = i % 5;
  }
  return input;
}

// Logits of teacher-forced targets, then those of decode steps along one of them, all that Encode, BeginDecode,
// DecodeStep and TeacherForced compute.
std::vector<std::vector<float>> AllLogits(backend::Context& ctx, const Model& model, uint64_t seed) {
  std::mt19937_64 random(seed);
  const ModelConfig& config = model.config();
  const EncodedContext context = EncodeAll(ctx, model, SomeInput(config, random));
  const std::vector<int32_t> codes = RandomCodes(config, 2 * kTargets, random);
  const std::vector<int32_t> limits(2 * kTargets, backend::kSeesAllOrders);
  std::vector<std::vector<float>> logits = Teacher(ctx, model, context, kTargets, codes, limits);

  DecodeState state = model.BeginDecode(ctx, context);
  for (int level = 0; level < config.steps(); ++level) {
    StepInput step{.level = level};
    if (level > 0) {
      std::vector<int32_t> chosen(2 * 2), parents(2 * 2);
      for (int32_t& code : chosen) code = static_cast<int32_t>(random() % config.level_sizes[level - 1]);
      for (int32_t& parent : parents) parent = level == 1 ? 0 : static_cast<int32_t>(random() % 2);
      step.codes = backend::UploadInts(ctx, chosen, {2, 2});
      step.parents = backend::UploadInts(ctx, parents, {2, 2});
    }
    logits.push_back(backend::DownloadFloats(ctx, model.DecodeStep(ctx, state, step)));
  }
  return logits;
}

// The ranks cut a sum of K products, and those sums alone, in parts. Alone or cut, a sum's rounding error is of the
// order sqrt(K) u times the magnitude of its terms (Higham and Mary 2019, with lambda = 1); the S such sums along a
// path through the network are rounded independently of each other, and norms keep what they feed at the magnitude of
// the logits.
double Bound(const ModelConfig& config, const std::vector<std::vector<float>>& logits) {
  const double sums = 2.0 * config.encoder.layers + 3.0 * config.decoder.layers;
  const double terms = std::max({config.inner(), config.encoder.ffn.width, config.decoder.ffn.width, config.d_model});
  double largest = 0;
  for (const auto& level : logits) {
    for (const float logit : level) largest = std::max(largest, std::abs(double{logit}));
  }
  return 2 * std::sqrt(terms) * 0x1p-24 * sums * largest;
}

class TensorParallel : public ::testing::TestWithParam<ModelCase> {};
INSTANTIATE_TEST_SUITE_P(Models, TensorParallel, ::testing::ValuesIn(ShareableCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(TensorParallel, RanksTogetherComputeWhatOneComputes) {
  const ModelConfig& config = GetParam().config;
  ASSERT_TRUE(ValidateConfig(config).ok()) << ValidateConfig(config);
  backend::Context alone = TestContext("fp32", GetParam().backend);
  const std::string path = absl::StrCat(::testing::TempDir(), "/tensor_parallel_", GetParam().name, ".safetensors");
  {
    const auto model = RandomModel(alone, config, 5);
    ASSERT_TRUE(SaveWeights(alone, config, model->weights(), path).ok());
  }
  const auto whole = *MakeModel(config, *LoadWeights(alone, config, path));
  const std::vector<std::vector<float>> expected = AllLogits(alone, *whole, 7);
  const double bound = Bound(config, expected);

  for (const int size : {2, 4}) {
    auto group = parallel::testing::JoinAll(size);
    std::vector<std::vector<std::vector<float>>> logits(size);
    parallel::testing::OnRanks(size, [&](int rank) {
      const backend::InferenceGuard guard;
      const auto communicator = backend::MakeTcpCommunicator(group[rank].get());
      backend::Context ctx = TestContext("fp32", GetParam().backend);
      ctx.communicator = communicator.get();
      auto weights = LoadWeights(ctx, config, path);
      ASSERT_TRUE(weights.ok()) << weights.status();
      logits[rank] = AllLogits(ctx, **MakeModel(config, *std::move(weights)), 7);
    });
    double worst = 0;
    for (size_t i = 0; i < expected.size(); ++i) worst = std::max(worst, MaxDifference(logits[0][i], expected[i]));
    EXPECT_LE(worst, bound) << size << " ranks";
    std::printf("%s, %d ranks: largest difference %.2g, bound %.2g\n", GetParam().name.c_str(), size, worst, bound);
    for (int rank = 1; rank < size; ++rank) EXPECT_EQ(logits[rank], logits[0]) << "rank " << rank << " to the last bit";
  }
}

// Every element of a whole tensor is kept by exactly one rank, and by all where the tensor is not split.
TEST(Sharding, RanksKeepEveryElementOnce) {
  for (const ModelCase& one : ShareableCases()) {
    for (const WeightSpec& spec : WeightSchema(one.config)) {
      std::vector<int> kept(spec.elements(), 0);
      for (int rank = 0; rank < 4; ++rank) {
        int64_t elements = 0, after = 0;
        ForEachRunOfRank(spec, {rank, 4}, [&](int64_t first, int64_t count) {
          EXPECT_GE(first, after) << spec.name;
          after = first + count;
          elements += count;
          for (int64_t i = first; i < after; ++i) ++kept[i];
        });
        const std::vector<int64_t> shape = ShapeOfRank(spec, {rank, 4});
        EXPECT_EQ(std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()), elements) << spec.name;
      }
      const int times = spec.split.axis < 0 ? 4 : 1;
      EXPECT_EQ(kept, std::vector<int>(spec.elements(), times)) << one.name << ": " << spec.name;
    }
  }
}

// Queries, keys and values of a rank are of the same heads.
TEST(Sharding, JoinedProjectionsAreSplitPartByPart) {
  const WeightSpec qkv{.name = "qkv", .shape = {12, 2}, .split = {.axis = 0, .parts = 3}};  // 2 heads of 2
  std::vector<std::pair<int64_t, int64_t>> runs;
  ForEachRunOfRank(qkv, {1, 2}, [&](int64_t first, int64_t count) { runs.emplace_back(first, count); });
  EXPECT_THAT(runs, ::testing::ElementsAre(::testing::Pair(4, 4), ::testing::Pair(12, 4), ::testing::Pair(20, 4)));
}

TEST(Sharding, AFilesPartsAreThoseOfTheRankAndItsDigestThatOfTheWhole) {
  const ModelConfig config = ShareableCases()[2].config;  // experts
  backend::Context ctx = TestContext();
  const std::string path = absl::StrCat(::testing::TempDir(), "/parts.safetensors");
  const auto model = RandomModel(ctx, config, 5);
  ASSERT_TRUE(SaveWeights(ctx, config, model->weights(), path).ok());
  const auto whole = SafetensorsFile::Read(path);
  int64_t bytes = 0;
  std::string digest;
  for (int rank = 0; rank < 4; ++rank) {
    const auto parts = SafetensorsFile::ReadParts(path, ChoosePartsOfRank(config, {rank, 4}));
    ASSERT_TRUE(parts.ok()) << parts.status();
    EXPECT_TRUE(parts->file.parts());
    if (rank == 0) digest = parts->sha256;
    EXPECT_EQ(parts->sha256, digest);
    for (const WeightSpec& spec : WeightSchema(config)) {
      const absl::Span<const float> all = whole->Get(spec.name)->as<float>();
      std::vector<float> expected;
      ForEachRunOfRank(spec, {rank, 4}, [&](int64_t first, int64_t count) {
        expected.insert(expected.end(), all.begin() + first, all.begin() + first + count);
      });
      const TensorView part = *parts->file.Get(spec.name);
      EXPECT_EQ(part.shape, ShapeOfRank(spec, {rank, 4})) << spec.name;
      EXPECT_EQ(std::vector<float>(part.as<float>().begin(), part.as<float>().end()), expected) << spec.name;
      if (spec.split.axis >= 0) bytes += static_cast<int64_t>(part.bytes.size());
    }
  }
  int64_t split = 0;
  for (const WeightSpec& spec : WeightSchema(config)) split += spec.split.axis < 0 ? 0 : spec.elements() * 4;
  EXPECT_EQ(bytes, split);

  ModelConfig other = config;
  other.d_model *= 2;
  EXPECT_THAT(std::string(SafetensorsFile::ReadParts(path, ChoosePartsOfRank(other, {0, 4})).status().message()),
              HasSubstr("must be ["));
}

TEST(Sharding, SizesThatRanksCannotShareAreNamed) {
  const auto refused = [](const std::function<void(ModelConfig&)>& spoil, int ranks) {
    ModelConfig config = Shareable(TinyConfig());
    spoil(config);
    return std::string(CheckRanks(config, ranks).message());
  };
  EXPECT_EQ(refused([](auto&) {}, 4), "");
  EXPECT_EQ(refused([](auto& c) { c.heads = 3; }, 2),
            "config.json: heads: 3 cannot be shared equally by parallel.size 2 ranks; use a size that divides it");
  EXPECT_THAT(refused([](auto& c) { c.encoder.ffn.width = 26; }, 4), HasSubstr("encoder.ffn.width: 26 cannot"));
  EXPECT_THAT(refused([](auto& c) { c.decoder.ffn.width = 26; }, 4), HasSubstr("decoder.ffn.width: 26 cannot"));
  EXPECT_THAT(refused([](auto& c) { c.level_sizes[1] = 3; }, 4), HasSubstr("level_sizes[1]: 3 are fewer than the 4"));
}

TEST(Sharding, ARankIsEstimatedAtItsShare) {
  const ModelConfig config = *PresetConfig({.name = "0.935B"});
  const int64_t one = EstimateWeightBytes(config, {.bytes = 4, .packed_bytes = 4});
  const int64_t four = EstimateWeightBytes(config, {.bytes = 4, .packed_bytes = 4, .ranks = 4});
  EXPECT_LT(four, one / 2);
  EXPECT_GT(four, one / 8);
}

}  // namespace
}  // namespace beamline::model
