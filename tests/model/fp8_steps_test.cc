// SPDX-License-Identifier: Apache-2.0
//
// In FP8 the encoder and the steps over beams are rounded; the first step and the trunk, of a few rows, are bf16's to
// the bit.
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "model/model_test_util.h"

namespace beamline::model {
namespace {

constexpr int kWide = 32;  // what FP8 takes are multiples of 16
#if defined(BEAMLINE_TEST_CUDA)
constexpr const char* kBackend = "cuda";
#else
constexpr const char* kBackend = "aten";
#endif

struct StepsCase {
  std::string name;
  ModelConfig config;

  friend void PrintTo(const StepsCase& steps_case, std::ostream* out) { *out << steps_case.name; }
};

std::vector<StepsCase> StepsCases() {
  ModelConfig paper = TinyConfig();
  paper.encoder.ffn = DenseFfn(kWide);
  paper.decoder.ffn = DenseFfn(kWide);
  ModelConfig trunk = paper;
  trunk.decoder.trunk_layers = 2;
  trunk.decoder.tied_heads = false;
  ModelConfig t5;
  t5.family = kT5;
  t5.level_sizes = {4, 3, 5};
  t5.d_model = kWide;
  t5.heads = 2;
  t5.head_dim = 16;
  t5.encoder = {.layers = 1, .ffn = DenseFfn(kWide)};
  t5.decoder = {.layers = 2, .ffn = DenseFfn(kWide)};
  t5.t5 = {.vocabulary = 17,
           .padded = true,
           .relative_buckets = 4,
           .relative_max_distance = 9,
           .start = 12,
           .end = 13,
           .input = {.prefix = {14}, .suffix = {13}, .max_items = 3}};
  SetT5Pathway(t5);
  return {{"paper", paper}, {"trunk", trunk}, {"t5", t5}};
}

// One request whose features are 0, 1, 2 ... of every pathway.
EncoderInput OneRequest(const ModelConfig& config) {
  constexpr int kElements = 3;
  EncoderInput input = MakeEncoderInput(config, 1, kElements, config.positive.enabled() ? kElements : 0);
  for (PathwayInput& pathway : input.pathways) {
    for (size_t i = 0; i < pathway.features.size(); ++i) pathway.features[i] = static_cast<int32_t>(i % 3);
  }
  for (size_t i = 0; i < input.order.size(); ++i) input.order[i] = static_cast<int32_t>(i);
  return input;
}

class Fp8StepsTest : public testing::TestWithParam<StepsCase> {
 protected:
  struct Logits {
    std::vector<float> context, first, second;
  };

  // Of a context that bf16 encoded, so that steps alone differ.
  Logits StepsOf(const backend::Context& bf16_shared, const backend::Context& shared) {
    const ModelConfig& config = GetParam().config;
    backend::Context bf16 = backend::BeginBatch(bf16_shared), ctx = backend::BeginBatch(shared);
    const auto model = RandomModel(ctx, config, 3);
    const EncoderInput input = OneRequest(config);
    Logits logits{.context = backend::DownloadFloats(ctx, EncodeAll(ctx, *model, input).key_value[0])};
    EncodedContext context = EncodeAll(bf16, *model, input);
    backend::DownloadFloats(bf16, context.key_value.back());  // it is there: the other batch has a stream of its own
    DecodeState state = model->BeginDecode(ctx, std::move(context));
    logits.first = backend::DownloadFloats(ctx, FirstLogits(ctx, *model, state));
    const StepInput step{.level = 1,
                         .codes = backend::UploadInts(ctx, std::vector<int32_t>{1, 3}, {1, 2}),
                         .parents = backend::UploadInts(ctx, std::vector<int32_t>{0, 0}, {1, 2})};
    logits.second = backend::DownloadFloats(ctx, model->DecodeStep(ctx, state, step));
    EXPECT_FALSE(ctx.without_fp8) << "ends with the step";
    return logits;
  }
};

INSTANTIATE_TEST_SUITE_P(Models, Fp8StepsTest, testing::ValuesIn(StepsCases()));

TEST_P(Fp8StepsTest, FirstStepsAreThoseOfBf16) {
  ASSERT_TRUE(ValidateConfig(GetParam().config).ok()) << ValidateConfig(GetParam().config);
  const auto bf16 = backend::MakeTestContext("cpu", "bf16", kBackend);
  if (!bf16.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << bf16.status();
  ASSERT_TRUE(bf16.ok()) << bf16.status();
  const Logits wide = StepsOf(*bf16, *bf16);
  for (const char* dtype : {"fp8", "fp8_mixed"}) {
    const auto shared = backend::MakeTestContext("cpu", dtype, kBackend);
    ASSERT_TRUE(shared.ok()) << shared.status();
    // A GPU's timer chooses the order of sums: the one of before.
    ASSERT_TRUE(shared->backend->ImportTuning(bf16->backend->ExportTuning()).ok());
    const Logits narrow = StepsOf(*bf16, *shared);
    EXPECT_EQ(narrow.first, wide.first) << dtype;
    EXPECT_NE(narrow.second, wide.second) << dtype;
    EXPECT_NE(narrow.context, wide.context) << dtype;
  }
}

}  // namespace
}  // namespace beamline::model
