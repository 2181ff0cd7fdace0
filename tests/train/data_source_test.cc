// SPDX-License-Identifier: Apache-2.0
#include "train/data_source.h"

#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace beamline::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// At the right: what a conversion would quietly make of them.
TEST(DataSource, WhatARecordSaysOfItsTargetsIsReadExactly) {
  const auto load = [](const std::string& corpus) {
    TrainedModel model;
    model.folder = "model";
    model.training.emplace(nlohmann::json::object());
    (*model.training)["corpus"] = nlohmann::json::parse(corpus);
    return std::string(LoadModelData({"no_data", "no_tokenizer"}, model, {}, nullptr).status().message());
  };
  const std::pair<const char*, const char*> cases[] = {
      {"4294967298", "corpus.k_core: must lie in [-2147483648, 2147483647], is 4294967298"},  // 2
      {"true", "corpus.k_core: must be an integer, is true"},                                 // 1
      {"2.9", "corpus.k_core: must be an integer, is 2.9"},                                   // 2
      {"-1", "corpus.k_core: must be 0 or more, is -1"},                                      // none
      {"\"2\"", "corpus.k_core: must be an integer, is \"2\""},
  };
  for (const auto& [k_core, why] : cases) {
    EXPECT_THAT(load(std::string(R"({"target_labels":"like","k_core":)") + k_core + "}"),
                AllOf(HasSubstr("model/training.json: not written by `beamline train`: "), HasSubstr(why)));
  }
  EXPECT_THAT(load(R"({"target_labels":7})"),
              AllOf(HasSubstr("corpus.target_labels: must be a string"), HasSubstr("corpus.k_core: is missing")));
  EXPECT_THAT(load(R"({"target_labels":"lke","k_core":0})"),
              AllOf(HasSubstr("model/training.json: corpus.target_labels: "), HasSubstr("lke")));
  EXPECT_THAT(load(R"({"target_labels":"like","k_core":0,"split_at":"2022-05-01"})"),
              HasSubstr("corpus.split_at: has 1 moment"));
  EXPECT_THAT(load(R"({"target_labels":"like","k_core":0,"split_at":7})"),
              HasSubstr("corpus.split_at: must be a string"));
  EXPECT_THAT(load("[]"), HasSubstr("corpus: must be an object"));
  EXPECT_THAT(load(R"({"target_labels":"like","k_core":2})"), HasSubstr("no_data"));
}

}  // namespace
}  // namespace beamline::train
