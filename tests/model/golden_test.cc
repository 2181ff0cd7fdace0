// SPDX-License-Identifier: Apache-2.0
//
// Logits against the PyTorch twin of tests/golden: every pathway alone and together, dense and MoE, bidirectional and
// causal, with and without a trunk. scripts/test.sh runs the twin again.
#include <filesystem>

#include "base/safetensors.h"
#include "model/model_test_util.h"
#include "testing/paths.h"

namespace beamline::model {
namespace {

namespace fs = std::filesystem;

fs::path GoldenFolder() { return fs::path(BEAMLINE_SOURCE_DIR) / "tests/golden/onerec_v1"; }

std::vector<std::string> GoldenCases() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(GoldenFolder())) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<int32_t> Ints(const SafetensorsFile& file, const std::string& name) {
  if (!file.contains(name)) return {};
  const absl::Span<const int32_t> values = file.Get(name)->as<int32_t>();
  return {values.begin(), values.end()};
}

class GoldenTest : public testing::TestWithParam<std::string> {};

TEST_P(GoldenTest, LogitsAgreeWithTheTwin) {
  const fs::path folder = GoldenFolder() / GetParam();
  const auto config = LoadConfig(folder / "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  backend::Context ctx = TestContext();
  auto weights = LoadWeights(ctx, *config, folder / "model.safetensors");
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto model = *MakeModel(*config, *std::move(weights));
  const auto golden = SafetensorsFile::Read(folder / "golden.safetensors");
  ASSERT_TRUE(golden.ok()) << golden.status();

  EncoderInput input;
  const std::vector<int64_t> codes_shape = golden->Get("codes")->shape;  // [batch, targets, levels]
  input.batch = static_cast<int>(codes_shape[0]);
  input.static_features = Ints(*golden, "static_features");
  input.pathways[kShortTerm] = {config->short_term.length, Ints(*golden, "short_term")};
  input.pathways[kPositive] = {config->positive.length, Ints(*golden, "positive")};
  input.positions = Ints(*golden, "positions");
  input.order = Ints(*golden, "order");
  const EncodedContext context = EncodeAll(ctx, *model, input);
  const auto logits = Teacher(ctx, *model, context, static_cast<int>(codes_shape[1]), Ints(*golden, "codes"),
                              Ints(*golden, "order_limit"));
  for (int level = 0; level < config->levels(); ++level) {
    const absl::Span<const float> expected = golden->Get(absl::StrCat("logits.", level))->as<float>();
    const double difference = MaxDifference(logits[level], {expected.begin(), expected.end()});
    EXPECT_LT(difference, 1e-4) << "level " << level;
    RecordProperty(absl::StrCat("max_difference_level_", level), std::to_string(difference));
  }
}

// The goldens can fail: a model whose weights differ a little does not pass.
TEST_P(GoldenTest, AChangedWeightShows) {
  const fs::path folder = GoldenFolder() / GetParam();
  const ModelConfig config = *LoadConfig(folder / "config.json");
  backend::Context ctx = TestContext();
  Weights weights = *LoadWeights(ctx, config, folder / "model.safetensors");
  std::vector<float> norm = backend::DownloadFloats(ctx, weights.Get("decoder.norm"));
  for (float& value : norm) value *= 1.02f;
  weights.Set("decoder.norm", backend::UploadWeight(ctx, norm, {config.d_model}));
  const auto changed = *MakeModel(config, std::move(weights));
  const auto original = *MakeModel(config, *LoadWeights(ctx, config, folder / "model.safetensors"));
  std::mt19937_64 rng(1);
  const EncoderInput input = BatchOf(config, {RandomHistory(config, 3, rng)});
  const std::vector<int32_t> codes = RandomCodes(config, 1, rng);
  const auto a = Teacher(ctx, *changed, EncodeAll(ctx, *changed, input), 1, codes, {backend::kSeesAllOrders});
  const auto b = Teacher(ctx, *original, EncodeAll(ctx, *original, input), 1, codes, {backend::kSeesAllOrders});
  EXPECT_GT(MaxDifference(a[0], b[0]), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Twin, GoldenTest, testing::ValuesIn(GoldenCases()),
                         [](const auto& info) { return info.param; });

TEST(GoldenFilesTest, CoverThePromisedCases) { EXPECT_GE(GoldenCases().size(), 9); }

}  // namespace
}  // namespace beamline::model
