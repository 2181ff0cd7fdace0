// SPDX-License-Identifier: Apache-2.0
#include "sid/tokenizer_report.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "sid/residual_kmeans.h"
#include "sid/sid_test_util.h"

namespace beamline::sid {
namespace {

using ::testing::HasSubstr;

TEST(TokenizerReport, CountsByHand) {
  FloatMatrix first(2, 1);
  first.values = {0.0f, 10.0f};
  FloatMatrix second(3, 1);
  second.values = {-1.0f, 0.0f, 1.0f};
  const Codebook codebook = *Codebook::FromCentroids("x", {first, second});
  FloatMatrix vectors(4, 1);
  vectors.values = {0.0f, 1.0f, 1.0f, 10.5f};
  const std::vector<Sid> sids = {Sid{0, 1}, Sid{0, 2}, Sid{0, 2}, Sid{1, 1}};
  const auto report = ReportTokenizer(codebook, sids, &vectors);
  ASSERT_TRUE(report.ok()) << report.status();
  const AssignmentReport& t = report->tokenizer;
  EXPECT_EQ(t.items, 4);
  EXPECT_EQ(t.distinct_sids, 3);
  EXPECT_EQ(t.largest_sid, 2);
  EXPECT_EQ(t.colliding_items, 2);
  // Mean 3.125; spread = sum of squares - 4 * mean^2 = 112.25 - 39.0625.
  const double spread = 112.25 - 39.0625;
  EXPECT_NEAR(t.levels[0].error, (0 + 1 + 1 + 0.25) / spread, 1e-9);
  EXPECT_NEAR(t.error, 0.25 / spread, 1e-9);
  EXPECT_EQ(t.levels[0].used, 2u);
  EXPECT_EQ(t.levels[0].largest, 3);
  EXPECT_NEAR(t.levels[0].entropy, -(0.75 * std::log(0.75) + 0.25 * std::log(0.25)), 1e-12);
  EXPECT_EQ(t.levels[1].used, 2u);
  EXPECT_NEAR(t.levels[1].entropy, std::log(2.0), 1e-12);
}

TEST(TokenizerReport, ATokenizerBeatsRandomCodes) {
  const FloatMatrix vectors = ClusteredVectors(2000, 8, 20, 0.3f, 1);
  ResidualKMeansOptions options;
  options.level_sizes = {32, 32};
  const auto fit = FitResidualKMeans(vectors, options);
  const auto report = ReportTokenizer(fit->codebook, fit->sids, &vectors);
  EXPECT_LT(report->tokenizer.error, 0.2);
  EXPECT_GT(report->random.error, 0.9);
  EXPECT_LT(report->random.error, 1.0);
  EXPECT_GT(report->random.levels[0].entropy, report->tokenizer.levels[0].entropy);
  const auto json = nlohmann::json::parse(ReportJson(*report));
  EXPECT_EQ(json["tokenizer"]["items"], 2000);
  EXPECT_EQ(json["tokenizer"]["levels"].size(), 2u);
  EXPECT_NEAR(json["tokenizer"]["error"].get<double>(), report->tokenizer.error, 1e-12);
  EXPECT_THAT(ReportText(*report), HasSubstr("distinct SIDs"));
}

TEST(TokenizerReport, ForeignCodebooksHaveNoErrors) {
  const Codebook codebook = *Codebook::Foreign("x", {4, 4}, std::string(64, 'a'));
  const std::vector<Sid> sids = {Sid{0, 1}, Sid{3, 3}};
  const auto report = ReportTokenizer(codebook, sids, nullptr);
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(std::isnan(report->tokenizer.error));
  EXPECT_TRUE(nlohmann::json::parse(ReportJson(*report))["tokenizer"]["error"].is_null());
}

TEST(TokenizerReport, Refuses) {
  const Codebook codebook = *Codebook::FromCentroids("x", {FloatMatrix(2, 3)});
  FloatMatrix vectors(1, 3);
  EXPECT_FALSE(ReportTokenizer(codebook, {}, nullptr).ok());
  EXPECT_FALSE(ReportTokenizer(codebook, {Sid{2}}, nullptr).ok());
  EXPECT_FALSE(ReportTokenizer(codebook, {Sid{1}, Sid{1}}, &vectors).ok());
}

}  // namespace
}  // namespace beamline::sid
