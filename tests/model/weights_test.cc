// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <algorithm>
#include <fstream>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/safetensors.h"
#include "gmock/gmock.h"
#include "model/model_test_util.h"

namespace beamline::model {
namespace {

using testing::HasSubstr;

class WeightsTest : public testing::Test {
 protected:
  std::string Path() const {
    return testing::TempDir() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".safetensors";
  }

  // The file of `config`'s schema, after `change` had its way with names, shapes and values.
  struct FileTensor {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  void WriteFile(absl::FunctionRef<void(std::map<std::string, FileTensor>&)> change) {
    std::map<std::string, FileTensor> tensors;
    for (const WeightSpec& spec : WeightSchema(config_)) {
      tensors[spec.name] = {spec.shape, std::vector<float>(spec.elements(), 0.5f)};
    }
    change(tensors);
    SafetensorsWriter writer;
    for (const auto& [name, tensor] : tensors) ASSERT_TRUE(writer.Add<float>(name, tensor.shape, tensor.values).ok());
    ASSERT_TRUE(writer.Write(Path()).ok());
  }

  const ModelConfig config_ = TinyConfig();
  backend::Context ctx_ = TestContext();
};

TEST_F(WeightsTest, SchemaNamesAreUniqueAndCounted) {
  for (const ModelCase& model_case : ModelCases()) {
    std::set<std::string> names;
    int64_t total = 0;
    for (const WeightSpec& spec : WeightSchema(model_case.config)) {
      EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
      total += spec.elements();
    }
    const ParameterCount count = CountParameters(model_case.config);
    EXPECT_EQ(count.total, total);
    EXPECT_EQ(count.input + count.network, total);
    EXPECT_LE(count.active, count.network);
  }
}

TEST_F(WeightsTest, InitialisationIsSeededAndScaled) {
  const Weights a = InitWeights(ctx_, config_, 1), b = InitWeights(ctx_, config_, 1), c = InitWeights(ctx_, config_, 2);
  for (const WeightSpec& spec : WeightSchema(config_)) {
    const std::vector<float> values = backend::DownloadFloats(ctx_, a.Get(spec.name));
    EXPECT_EQ(values, backend::DownloadFloats(ctx_, b.Get(spec.name))) << spec.name;
    if (spec.initializer != Initializer::kNormal) continue;
    EXPECT_NE(values, backend::DownloadFloats(ctx_, c.Get(spec.name))) << spec.name;
    double mean = 0, square = 0;
    for (const float value : values) mean += value, square += double{value} * value;
    const double n = static_cast<double>(values.size());
    EXPECT_NEAR(mean / n, 0, 6 * spec.stddev / std::sqrt(n)) << spec.name;
    EXPECT_NEAR(std::sqrt(square / n), spec.stddev, 6 * spec.stddev / std::sqrt(n)) << spec.name;
  }
}

TEST_F(WeightsTest, SaveThenLoadIsExact) {
  const Weights weights = InitWeights(ctx_, config_, 3);
  ASSERT_TRUE(SaveWeights(ctx_, config_, weights, Path()).ok());
  const auto loaded = LoadWeights(ctx_, config_, Path());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  for (const auto& [name, tensor] : weights.tensors()) {
    EXPECT_EQ(backend::DownloadFloats(ctx_, tensor), backend::DownloadFloats(ctx_, loaded->Get(name))) << name;
  }
}

TEST_F(WeightsTest, LoadsIntoBf16WithFp32Buffers) {
  ModelConfig config = config_;
  config.decoder.ffn = Experts(4);
  ASSERT_TRUE(SaveWeights(ctx_, config, InitWeights(ctx_, config, 3), Path()).ok());
  backend::Context bf16 = TestContext("bf16");
  const auto loaded = LoadWeights(bf16, config, Path());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->Get("position").scalar_type(), c10::kBFloat16);
  EXPECT_EQ(loaded->Get("decoder.0.moe.bias").scalar_type(), c10::kFloat);
}

TEST_F(WeightsTest, AllDifferencesAreListedAtOnce) {
  WriteFile([](auto& tensors) {
    tensors.erase("decoder.norm");
    tensors["surplus"] = {{2}, {1, 2}};
    tensors["codes.0"] = {{16, 7}, std::vector<float>(16 * 7)};  // transposed
  });
  const auto loaded = LoadWeights(ctx_, config_, Path());
  ASSERT_FALSE(loaded.ok());
  const std::string message(loaded.status().message());
  for (const char* part : {"decoder.norm", "surplus", "codes.0", "[7,16]", "[16,7]"}) {
    EXPECT_THAT(message, HasSubstr(part));
  }
  EXPECT_THAT(message, HasSubstr(Path()));
}

TEST_F(WeightsTest, NonFiniteValuesAreRefusedAndCounted) {
  WriteFile([](auto& tensors) {
    tensors["bos"].values[3] = NAN;
    tensors["position"].values[0] = INFINITY;
    tensors["position"].values[1] = -INFINITY;
  });
  const auto loaded = LoadWeights(ctx_, config_, Path());
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("bos: 1 of 16 values"));
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("position: 2 of"));
}

TEST_F(WeightsTest, OfVeryManyNonFiniteTensorsTheFirstAreShown) {
  WriteFile([](auto& tensors) {
    for (auto& [name, tensor] : tensors) tensor.values[0] = NAN;
  });
  const size_t tensors = WeightSchema(config_).size();
  ASSERT_GT(tensors, 20u);
  const std::string message(LoadWeights(ctx_, config_, Path()).status().message());
  EXPECT_THAT(message, HasSubstr(absl::StrCat("\nand ", tensors - 20, " more")));
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 21) << message;
}

TEST_F(WeightsTest, MissingFileAndMissingTensorAreErrors) {
  EXPECT_FALSE(LoadWeights(ctx_, config_, Path() + ".missing").ok());
  EXPECT_THAT(std::string(MakeModel(config_, Weights()).status().message()), HasSubstr("is missing"));
}

TEST_F(WeightsTest, MemoryIsEstimatedBeforeAllocation) {
  const ModelConfig big = *PresetConfig({.name = "2.633B"});
  const int64_t bytes = EstimateWeightBytes(big, {.bytes = 2});
  EXPECT_GT(bytes, CountParameters(big).total * 2);
  EXPECT_LT(bytes, CountParameters(big).total * 3);
  // Tensors and packed copies: all but tables and norms twice.
  const int64_t packed = EstimateWeightBytes(big, {.bytes = 4, .packed_bytes = 4});
  EXPECT_GT(packed, CountParameters(big).total * 7);
  EXPECT_LT(packed, CountParameters(big).total * 9);
  const absl::Status refused = CheckMemory(big, {.bytes = 2}, int64_t{1} << 30);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("1.07 GB is the limit"));
  EXPECT_TRUE(CheckMemory(config_, {}, 0).ok());
}

TEST(InputsTest, CheckNamesFieldAndIndex) {
  const ModelConfig config = TinyConfig();
  std::mt19937_64 rng(1);
  const EncoderInput good = BatchOf(config, {RandomHistory(config, 3, rng)});
  ASSERT_TRUE(CheckEncoderInput(config, good).ok());
  const auto message = [&](const EncoderInput& input) {
    return std::string(CheckEncoderInput(config, input).message());
  };
  EncoderInput bad = good;
  bad.pathways[kPositive].features[2] = 12;  // codes of the third level are 0..11
  EXPECT_THAT(message(bad), HasSubstr("positive.features[2]: must lie in [0, 12), is 12"));
  bad = good;
  bad.static_features[0] = -1;
  EXPECT_THAT(message(bad), HasSubstr("static_features[0]"));
  bad = good;
  bad.positions.back() = config.max_tokens();
  EXPECT_THAT(message(bad), HasSubstr("positions["));
  bad = good;
  bad.order.pop_back();
  EXPECT_THAT(message(bad), HasSubstr("order: must hold"));
  bad = good;
  bad.pathways[kShortTerm].length = 5;
  EXPECT_THAT(message(bad), HasSubstr("short_term.length: must lie in [0, 4], is 5"));
  bad = good;
  bad.batch = 0;
  EXPECT_THAT(message(bad), HasSubstr("batch"));
}

TEST(FeatureIndexTest, BucketsStayInsideTheirTables) {
  for (const int64_t buckets : {2, 3, 8, 64, 1000}) {
    int32_t last = 0;
    for (const double seconds : {0.0, 0.5, 3.0, 60.0, 3600.0, 86400.0, 1e7, 1e9, 1e300}) {
      const int32_t bucket = LogBucket(seconds, buckets);
      EXPECT_GE(bucket, std::max(1, last));
      EXPECT_LT(bucket, buckets);
      last = bucket;
    }
    EXPECT_EQ(last, buckets - 1);
    for (const char* text : {"", "a", "region=DE", "\xff"}) {
      EXPECT_GE(HashBucket(text, buckets), 1);
      EXPECT_LT(HashBucket(text, buckets), buckets);
    }
  }
  EXPECT_EQ(LogBucket(-1, 8), 0);
  EXPECT_EQ(LogBucket(NAN, 8), 0);
  EXPECT_EQ(HourIndex(0), 0);
  EXPECT_EQ(HourIndex(3600000), 2);
  EXPECT_EQ(HourIndex(int64_t{25} * 3600000), 2);
}

}  // namespace
}  // namespace beamline::model
