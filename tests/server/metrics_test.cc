// SPDX-License-Identifier: Apache-2.0
#include "server/metrics.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "beamline/retry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/server_counters.h"

namespace beamline::server {
namespace {

std::string Page(const Metrics& metrics) {
  const EngineStatus engine;
  const ServerCounters server;
  return metrics.Render({.engine = engine, .server = server, .tls = {}, .device_memory = {}, .device_passes = {}});
}

// Of requests by status, without their values.
std::set<std::string> Series(const Metrics& metrics) {
  std::set<std::string> series;
  for (const absl::string_view line : absl::StrSplit(Page(metrics), '\n')) {
    if (absl::StartsWith(line, "beamline_requests_total{") || absl::StartsWith(line, "beamline_request_duration")) {
      series.emplace(line.substr(0, line.rfind(' ')));
    }
  }
  return series;
}

// A counter that came with its first events would have none of them to rate().
TEST(MetricsSeriesTest, WhatRulesLookAtIsThereFromTheBeginning) {
  Metrics metrics;
  const std::set<std::string> before = Series(metrics);
  EXPECT_GT(before.size(), 10u);
  const std::vector<absl::StatusOr<RecommendResult>> ends = {RecommendResult{},
                                                             absl::InternalError("non_finite_logits"),
                                                             absl::UnknownError("?"),
                                                             absl::DataLossError("?"),
                                                             absl::FailedPreconditionError("?"),
                                                             absl::DeadlineExceededError("too late"),
                                                             absl::CancelledError("gone"),
                                                             absl::UnavailableError("the engine is stopping"),
                                                             absl::ResourceExhaustedError("full"),
                                                             Refusal(kCannotFinish, "?", absl::Milliseconds(5)),
                                                             Refusal(kQueueFull, "?", absl::Milliseconds(5)),
                                                             Refusal(kPushedOut, "?", absl::Milliseconds(5))};
  for (const auto& end : ends) metrics.Ended(end, absl::Milliseconds(3));
  EXPECT_EQ(Series(metrics), before);
  EXPECT_THAT(Page(metrics),
              ::testing::AllOf(::testing::HasSubstr("beamline_requests_total{code=\"INTERNAL\",reason=\"INTERNAL\"} 1"),
                               ::testing::HasSubstr("beamline_requests_total{code=\"OK\",reason=\"\"} 1")));
}

}  // namespace
}  // namespace beamline::server
