// SPDX-License-Identifier: Apache-2.0
//
// What goes into the encoder of a batch with padding, and that what comes out does not show it.
#include <algorithm>

#include "gmock/gmock.h"
#include "model/model_test_util.h"

namespace beamline::model {
namespace {

using KeyValues = std::vector<std::vector<float>>;  // of each layer

class PackingTest : public testing::TestWithParam<ModelCase> {
 protected:
  PackingTest() { ctx_.graphs = false; }  // few sizes are packed for these

  KeyValues Download(const ContextHandle& handle) {
    KeyValues values;
    for (const at::Tensor& layer : handle.key_value) values.push_back(backend::DownloadFloats(ctx_, layer));
    return values;
  }
  std::vector<History> Histories(const std::vector<int>& lengths) {
    std::vector<History> histories;
    for (const int events : lengths) histories.push_back(RandomHistory(config_, events, rng_));
    return histories;
  }
  bool packs() const { return GetParam().backend != std::string("aten"); }

  const ModelConfig config_ = GetParam().config;
  backend::Context ctx_ = TestContext("fp32", GetParam().backend);
  std::mt19937_64 rng_{7};
};

INSTANTIATE_TEST_SUITE_P(Models, PackingTest, testing::ValuesIn(ModelCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(PackingTest, OnlyWhereThereIsPadding) {
  const std::vector<History> same = Histories({4, 4}), others = Histories({4, 1});
  EXPECT_FALSE(UploadEncoderInput(ctx_, config_, BatchOf(config_, same)).packing.from.defined());
  const EncoderInput input = BatchOf(config_, others);
  const EncoderBatch batch = UploadEncoderInput(ctx_, config_, input);
  ASSERT_EQ(batch.packing.packed(), packs());
  if (!packs()) return;
  EXPECT_EQ(batch.packing.from.size(0), std::count_if(input.order.begin(), input.order.end(),
                                                      [](int32_t o) { return o < backend::kPaddingOrder; }));
}

// The padded way is the oracle's: everything where it stands, over all the padding.
TEST_P(PackingTest, GivesThePaddedOnesContext) {
  if (!packs()) GTEST_SKIP() << "the oracle packs nothing";
  const auto model = RandomModel(ctx_, config_, 4);
  const EncoderInput input = BatchOf(config_, Histories({9, 1, 0, 6}), 3);
  EncoderBatch batch = UploadEncoderInput(ctx_, config_, input);
  ASSERT_TRUE(batch.packing.packed());
  const std::vector<ContextHandle> packed = SplitContext(ctx_, model->Encode(ctx_, batch));
  batch.packing = {};
  batch.order = backend::UploadInts(ctx_, input.order, {input.batch, input.tokens(config_)});
  const std::vector<ContextHandle> padded = SplitContext(ctx_, model->Encode(ctx_, batch));
  for (size_t b = 0; b < packed.size(); ++b) {
    EXPECT_EQ(backend::DownloadInts(ctx_, packed[b].order), backend::DownloadInts(ctx_, padded[b].order));
    const KeyValues own = Download(packed[b]), expected = Download(padded[b]);
    for (size_t layer = 0; layer < own.size(); ++layer) {
      EXPECT_LT(MaxDifference(own[layer], expected[layer]), kTolerance) << "history " << b << " layer " << layer;
    }
  }
}

TEST_P(PackingTest, NothingButPadding) {
  const auto model = RandomModel(ctx_, config_, 4);
  EncoderInput input = BatchOf(config_, Histories({3, 2}));
  std::fill(input.order.begin(), input.order.end(), backend::kPaddingOrder);
  for (const ContextHandle& handle : SplitContext(ctx_, EncodeAll(ctx_, *model, input))) {
    EXPECT_EQ(handle.tokens(), 0);
  }
}

// Passes of a few sizes that repeat, of which a GPU makes graphs: each history has the context that it has alone.
TEST_P(PackingTest, PassesOfFewSizes) {
  if (!packs()) GTEST_SKIP() << "the oracle packs nothing";
  ctx_.graphs = true;
  ModelConfig config = config_;
  config.positive.length = 64;
  const auto model = RandomModel(ctx_, config, 5);
  const int batch = static_cast<int>(backend::RoomFor(ctx_, 17));
  for (int round = 0; round < 4; ++round) {
    std::vector<History> histories = {RandomHistory(config, 64, rng_)};
    while (static_cast<int>(histories.size()) < batch) {
      histories.push_back(RandomHistory(config, static_cast<int>(rng_() % (round == 3 ? 64 : 30)), rng_));
    }
    const EncoderInput input = BatchOf(config, histories);
    const EncoderBatch together = UploadEncoderInput(ctx_, config, input);
    ASSERT_TRUE(together.packing.packed());
    const std::vector<ContextHandle> handles = SplitContext(ctx_, EncodePass(ctx_, *model, together));
    for (const int b : {0, 1, batch - 1}) {
      const EncoderInput own = BatchOf(config, {histories[b]});
      const std::vector<ContextHandle> alone =
          SplitContext(ctx_, EncodePass(ctx_, *model, UploadEncoderInput(ctx_, config, own)));
      EXPECT_EQ(Download(handles[b]), Download(alone[0])) << "round " << round << " history " << b;
    }
  }
}

}  // namespace
}  // namespace beamline::model
