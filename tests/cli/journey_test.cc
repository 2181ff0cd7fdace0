// SPDX-License-Identifier: Apache-2.0
//
// The journey of scripts/demo.sh up to its last table, on another log: a generated log, semantic IDs, a trained model,
// and a measurement in which the model passes the counting baselines beyond chance. About 80 CPU seconds, nearly all of
// them training: half the epochs do not yet pass item-KNN's N@10 beyond chance.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace beamline {
namespace {

int Beamline(const std::string& arguments) {
  return std::system(absl::StrCat(BEAMLINE_BINARY, " ", arguments, " >/dev/null 2>&1").c_str());
}

TEST(Journey, TheModelPassesTheCountingBaselinesOnTheGeneratedLog) {
  const std::string folder = ::testing::TempDir() + "/journey";
  std::filesystem::remove_all(folder);
  const std::string data = folder + "/data", tokenizer = folder + "/tokenizer", model = folder + "/model";
  const std::string report = folder + "/evaluation.json";
  ASSERT_EQ(Beamline(absl::StrCat("generate-data log --users 3000 --seed 2 --out ", data)), 0);
  ASSERT_EQ(Beamline(absl::StrCat("tokenize --preset demo --events ", data, " --out ", tokenizer)), 0);
  ASSERT_EQ(Beamline(absl::StrCat("train --preset demo --validation-users 0 --threads 1 --data ", data, " --tokenizer ",
                                  tokenizer, " --out ", model)),
            0);
  ASSERT_EQ(Beamline(absl::StrCat("evaluate --model ", model, " --data ", data, " --tokenizer ", tokenizer, " --out ",
                                  report)),
            0);

  const nlohmann::json evaluation = nlohmann::json::parse(std::ifstream(report));
  ASSERT_EQ(evaluation.at("split"), "test");
  const nlohmann::json& ranking = evaluation.at("rankings").at(0);
  ASSERT_EQ(ranking.at("seen_items"), "removed");
  int baselines = 0;
  for (const nlohmann::json& system : ranking.at("systems")) {
    if (system.at("name") == "model") continue;
    ++baselines;
    for (const char* metric : {"recall_10", "ndcg_10"}) {  // of the paired difference, the interval's lower end
      EXPECT_GT(system.at("model_minus").at(metric).at("low"), 0) << metric << ", " << system.at("name");
    }
  }
  EXPECT_EQ(baselines, 3) << "popularity, Markov, item-KNN";
}

}  // namespace
}  // namespace beamline
