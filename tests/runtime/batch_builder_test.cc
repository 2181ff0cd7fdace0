// SPDX-License-Identifier: Apache-2.0
#include "runtime/batch_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/ops.h"

namespace beamline::runtime {
namespace {

using ::testing::Each;
using ::testing::ElementsAreArray;

model::ModelConfig TwoPathways() {
  model::ModelConfig config;
  config.level_sizes = {4, 4};
  config.short_term.features = {{model::FeatureKind::kItem, 9, 4, false}};
  config.positive.features = config.short_term.features;
  config.short_term.length = 11;
  config.positive.length = 40;
  return config;
}

EncodedRequest Request(int short_term, int positive) {
  EncodedRequest request;
  const int lengths[] = {short_term, positive};
  for (int p = 0; p < model::kPathways; ++p) {
    request.pathways[p].length = lengths[p];
    for (int i = 0; i < lengths[p]; ++i) {
      request.pathways[p].features.push_back(1 + i % 8);
      request.pathways[p].order.push_back(i);
    }
  }
  return request;
}

// Room behind the requests and behind their elements is padding; nobody gets more than the model's window.
TEST(BatchBuilder, RoomIsFilledWithPadding) {
  const model::ModelConfig config = TwoPathways();
  const EncodedRequest a = Request(10, 3), b = Request(2, 9);
  const model::EncoderInput tight = BuildEncoderBatch(config, {&a, &b});
  const model::EncoderInput roomy = BuildEncoderBatch(config, {&a, &b}, [](int64_t size, int64_t) { return size + 3; });
  EXPECT_EQ(tight.batch, 2);
  EXPECT_EQ(roomy.batch, 5);
  EXPECT_EQ(roomy.pathways[0].length, 11) << "the window";
  EXPECT_EQ(roomy.pathways[1].length, 12);
  EXPECT_TRUE(model::CheckEncoderInput(config, roomy).ok()) << model::CheckEncoderInput(config, roomy);
  const int tokens = roomy.tokens(config), tight_tokens = tight.tokens(config);
  for (int request = 0; request < 2; ++request) {
    std::vector<int32_t> seen, expected;
    for (int i = 0; i < tokens; ++i) seen.push_back(roomy.order[request * tokens + i]);
    for (int i = 0; i < tight_tokens; ++i) expected.push_back(tight.order[request * tight_tokens + i]);
    std::erase(seen, backend::kPaddingOrder);
    std::erase(expected, backend::kPaddingOrder);
    EXPECT_THAT(seen, ElementsAreArray(expected));
  }
  EXPECT_THAT(std::vector<int32_t>(roomy.order.begin() + 2 * tokens, roomy.order.end()), Each(backend::kPaddingOrder));
}

}  // namespace
}  // namespace beamline::runtime
