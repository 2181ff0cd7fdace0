// SPDX-License-Identifier: Apache-2.0
//
// What a backend does not compute with is refused by the configuration, before a weight is read, and nothing else is:
// random configurations about the limits are right by the check where and only where a request runs, over the emulator.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/test_context.h"
#include "base/run_catching.h"
#include "model/inputs.h"
#include "model/model.h"
#include "model/size_check.h"
#include "model/weights.h"
#include "runtime/bundle_folder.h"
#include "runtime/load_model.h"
#include "runtime/tiny_bundle.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using model::ModelConfig;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Short, for the emulator's sake.
testing::TinyBundleOptions Tiny() {
  return {.items = 40, .feature_width = 8, .change = [](ModelConfig& config) {
            config.short_term.length = config.positive.length = 2;
            config.decoder.layers = 1;
          }};
}

// Whether a pass and steps run, whatever the check says of it.
absl::Status Runs(const backend::Context& ctx, const ModelConfig& config) {
  backend::Context batch = backend::BeginBatch(ctx);
  return ReturnCatching("a request", [&]() -> absl::Status {
    const auto model = model::MakeModel(config, model::InitWeights(batch, config, 1));
    if (!model.ok()) return model.status();
    const model::EncoderInput input = model::MakeEncoderInput(config, 1, 2, 2);
    model::DecodeState state =
        (*model)->BeginDecode(batch, (*model)->Encode(batch, model::UploadEncoderInput(batch, config, input)));
    for (int level = 0; level < config.levels(); ++level) {
      model::StepInput step{.level = level};
      if (level > 0) {
        step.codes = backend::UploadInts(batch, {1, 0, 2}, {1, 3});
        step.parents = backend::UploadInts(batch, {0, 0, 0}, {1, 3});
      }
      (*model)->DecodeStep(batch, state, step);
    }
    backend::EndBatch(batch);
    return absl::OkStatus();
  });
}

struct Case {
  const char* problem;  // with one more than the limit
  std::function<void(ModelConfig&, int more)> change;
};
const std::vector<Case>& Cases() {
  static const auto* const cases = new std::vector<Case>{
      {"d_model: must be a multiple of 8, is 41", [](ModelConfig& c, int more) { c.d_model = 40 + more; }},
      {"head_dim: must be a multiple of 8, is 9", [](ModelConfig& c, int more) { c.head_dim = 8 + more; }},
      {"head_dim: must be at most 256, is 264", [](ModelConfig& c, int more) { c.head_dim = 256 + 8 * more; }},
      {"encoder.ffn.width: must be a multiple of 8, is 25",
       [](ModelConfig& c, int more) { c.encoder.ffn.width = 24 + more; }},
      {"decoder.ffn.experts: must be at most 256, is 257",
       [](ModelConfig& c, int more) { c.decoder.ffn = {.width = 8, .experts = 256 + more, .top_k = 2}; }},
      {"encoder.ffn.top_k: must be at most 16, is 17",
       [](ModelConfig& c, int more) { c.encoder.ffn = {.width = 8, .experts = 20, .top_k = 16 + more}; }},
      {"static.width: must be a multiple of 8, is 17", [](ModelConfig& c, int more) { c.user.width = 16 + more; }},
      {"static (attributes, and the user id): must be at most 32, is 33",
       [](ModelConfig& c, int more) {
         c.user.user_buckets = 10;
         while (c.user.columns() < 32 + more) c.user.attributes.push_back(absl::StrCat("a", c.user.columns()));
       }},
      {"positive.features[6].width: must be a multiple of 8, is 9", [](ModelConfig& c, int more) {
         for (model::PathwayConfig* pathway : {&c.short_term, &c.positive}) pathway->features[6].width = 8 + more;
       }}};
  return *cases;
}

class RandomConfig {
 public:
  explicit RandomConfig(uint64_t seed) : random_(seed) {}

  ModelConfig Make() {
    ModelConfig config = testing::TinyConfig(Tiny());
    config.encoder.layers = Pick({0, 1});
    config.decoder.layers = Pick({1, 2});
    config.decoder.trunk_layers = config.decoder.layers - 1;
    config.encoder.causal = Pick({0, 1}) == 1;
    config.decoder.tied_heads = Pick({0, 1}) == 1;
    config.d_model = Pick({8, 24, 32, 72});
    config.heads = Pick({1, 2, 3});
    config.head_dim = Pick({8, 24, 32, 200, 256});
    config.encoder.ffn = FeedForward();
    config.decoder.ffn = FeedForward();
    config.user.width = Pick({8, 24});
    const int attributes = Pick({1, 5, 31, 32});
    for (int i = 1; i < attributes; ++i) config.user.attributes.push_back(absl::StrCat("a", i));
    if (attributes == 31) config.user.user_buckets = 100;
    for (int out = Pick({0, 0, 1, 2}); out > 0; --out) BeyondALimit(config);
    if (Pick({0, 0, 1}) == 1) config.positive = {};
    return config;
  }

 private:
  int Pick(std::vector<int> of) { return of[random_() % of.size()]; }
  model::FeedForwardConfig FeedForward() {
    model::FeedForwardConfig ffn{.width = Pick({8, 24, 64}), .gated = Pick({0, 1}) == 1};
    if (Pick({0, 1}) == 0) return ffn;
    ffn.gated = true;
    ffn.experts = Pick({1, 4, 255, 256});
    ffn.top_k = std::min(ffn.experts, Pick({1, 2, 15, 16}));
    ffn.shared_experts = Pick({0, 1, 3});
    return ffn;
  }
  void BeyondALimit(ModelConfig& config) {
    model::FeedForwardConfig& ffn = Pick({0, 1}) == 0 ? config.encoder.ffn : config.decoder.ffn;
    switch (Pick({0, 1, 2, 3, 4, 5, 6, 7})) {
      case 0:
        config.d_model = Pick({4, 12, 33});
        break;
      case 1:
        config.head_dim = Pick({4, 12, 257, 264});
        break;
      case 2:
        ffn.width = Pick({4, 12, 33});
        break;
      case 3:
        ffn.gated = true;
        ffn.experts = Pick({257, 300});
        ffn.top_k = 2;
        break;
      case 4:
        ffn.gated = true;
        ffn.experts = Pick({17, 40});
        ffn.top_k = 17;
        break;
      case 5:
        config.user.width = Pick({4, 12});
        break;
      case 6:
        while (config.user.columns() < 33) config.user.attributes.push_back(absl::StrCat("b", config.user.columns()));
        break;
      default:  // of a table that both pathways share
        for (model::PathwayConfig* pathway : {&config.short_term, &config.positive}) pathway->features[2].width = 12;
    }
  }

  std::mt19937_64 random_;
};

absl::Status Load(const fs::path& bundle, const backend::Context& ctx) {
  ModelRunner::Parts parts;
  parts.context = ctx;
  return LoadRunnerOn({.bundle = bundle, .tuning_folder = bundle.string() + ".tuning"}, std::move(parts)).status();
}

TEST(SizesTest, EachLimitIsAskedBeforeAWeightIsRead) {
  const fs::path folder = fs::path(::testing::TempDir()) / absl::StrCat("sizes_", ::getpid());
  const backend::Context ctx = *backend::MakeCudaTestContext("fp32");
  for (const Case& of : Cases()) {
    SCOPED_TRACE(of.problem);
    for (const int more : {0, 1}) {
      testing::TinyBundleOptions options = Tiny();
      options.change = [&, shorten = options.change](ModelConfig& config) {
        shorten(config);
        of.change(config, more);
      };
      ASSERT_TRUE(testing::WriteTinyBundle(folder, options).ok());
      if (more == 0) {
        const absl::Status loads = Load(folder, ctx), runs = Runs(ctx, testing::TinyConfig(options));
        EXPECT_TRUE(loads.ok() && runs.ok()) << loads << runs;
        continue;
      }
      // Whoever reads the weights finds them damaged.
      std::fstream(folder / kWeightsFile, std::ios::in | std::ios::out | std::ios::binary).write("?", 1);
      const size_t before = emulator::allocations;
      const absl::Status refused = Load(folder, ctx);
      EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_THAT(std::string(refused.message()),
                  AllOf(HasSubstr(absl::StrCat(folder.string(), ": config.json: backend cuda ")),
                        HasSubstr(absl::StrCat("\n", of.problem, "\n"))));
      EXPECT_EQ(emulator::allocations, before);
      EXPECT_EQ(CheckBundleSizes(folder, backend::CudaModelLimits(), 1), refused) << "without a device";
    }
  }
  fs::remove_all(folder);
}

// What would take the emulator too long, or more memory than tests have.
TEST(SizesTest, TheLargestOnes) {
  const auto problems = [](const backend::ModelLimits& limits, int ranks, const auto& change) {
    ModelConfig config = testing::TinyConfig(Tiny());
    change(config);
    return std::string(model::CheckSizes(config, limits, ranks).message());
  };
  const backend::ModelLimits cuda = backend::CudaModelLimits(), scales = backend::CudaModelLimits(true),
                             int8 = backend::Int8ModelLimits();
  for (const int more : {0, 1}) {
    const auto shared = [&](ModelConfig& config) {
      config.decoder.ffn = {.width = 1 << 18, .experts = 2, .top_k = 1, .shared_experts = 4 + more};
    };
    const auto half = [&](ModelConfig& config) {
      shared(config);
      config.decoder.ffn.width /= 2;
    };
    const auto users = [&](ModelConfig& config) { config.user.user_buckets = (int64_t{1} << 31) - 1 + more; };
    const auto width = [&](ModelConfig& config) { config.decoder.ffn.width = 65536 + more; };
    const auto heads = [&](ModelConfig& config) { config.heads = 256, config.head_dim = 256 + more; };
    const auto both = [&](ModelConfig& config) { config.encoder.ffn.width = config.decoder.ffn.width = 32 + 8 * more; };
    const auto expect = [&](const std::string& is, const char* problem) {
      EXPECT_THAT(is, more == 0 ? ::testing::Matcher<std::string>("") : HasSubstr(problem));
    };
    expect(problems(cuda, 1, shared), "decoder.ffn.shared_experts * width: must be at most 1048576, is 1310720");
    expect(problems(scales, 1, half), "decoder.ffn.shared_experts * width: must be at most 524288, is 655360");
    EXPECT_EQ(problems(cuda, 1, half), "");
    EXPECT_EQ(problems(cuda, 2, shared), "");
    expect(problems(cuda, 1, users), "static.user_buckets: must be at most 2147483647, is 2147483648");
    expect(problems(int8, 1, width), "decoder.ffn.width: must be at most 65536, is 65537");
    expect(problems(int8, 1, heads), "heads * head_dim: must be at most 65536, is 65792");
    expect(problems(cuda, 2, both), "encoder.ffn.width (of each of 2 ranks): must be a multiple of 8, is 20");
    EXPECT_EQ(problems({}, 1, heads), "") << "aten";
  }
}

TEST(SizesTest, AreRefusedWhereAndOnlyWhereNoRequestRuns) {
  int refused = 0, ran = 0;
  for (uint64_t seed = 0; seed < 24; ++seed) {
    // Most of the time in which the emulator is fast.
    const char* const dtype = seed % 12 == 5 ? "bf16" : seed % 12 == 11 ? "fp8_scaled_after" : "fp32";
    const ModelConfig config = RandomConfig(seed).Make();
    ASSERT_TRUE(model::ValidateConfig(config).ok()) << model::ValidateConfig(config);
    const backend::Context ctx = *backend::MakeCudaTestContext(dtype);
    const absl::Status check = model::CheckSizes(config, ctx.backend->GetModelLimits(), 1), runs = Runs(ctx, config);
    EXPECT_EQ(check.ok(), runs.ok()) << dtype << ", seed " << seed << "\n"
                                     << check << "\n"
                                     << runs << "\n"
                                     << model::ConfigToJson(config);
    ++(check.ok() ? ran : refused);
  }
  EXPECT_GT(refused, 6);
  EXPECT_GT(ran, 6);
}

}  // namespace
}  // namespace beamline::runtime
