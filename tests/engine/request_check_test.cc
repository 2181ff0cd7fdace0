// SPDX-License-Identifier: Apache-2.0
//
// Rows C2.5-C2.8, C2.11, C2.12, C2.15 of the bad-input catalogue: each bad field, by its path.
#include "engine/request_check.h"

#include <climits>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::StartsWith;

RecommendRequest Good() {
  RecommendRequest request;
  request.user_id = std::string("../\0;", 5);  // opaque bytes
  request.user_attributes = {{"active_degree", ""}};
  request.history = {{.item = 0}, {.item = ~0ull, .timestamp_ms = 5}, {.item = 1}, {.item = 2, .timestamp_ms = 5}};
  request.eligibility.rule = {{"region", {"DE", "A.*T"}}};
  return request;
}

TEST(RequestCheckTest, GoodRequests) {
  EXPECT_TRUE(CheckRequest(Good(), {}, 3).ok());
  EXPECT_TRUE(CheckRequest({}, {}, 3).ok()) << "a user nobody knows";
  RecommendRequest full = Good();
  full.history.assign(4096, {.item = 3,
                             .timestamp_ms = kMaxTimestampMs,
                             .play_time_ms = kMaxSpanMs,
                             .duration_ms = kMaxSpanMs,
                             .labels = kAllLabels});
  full.top_k = full.items_per_sid = full.max_per_author = 1000;
  full.beam_widths = {1024, 1, 7};
  full.eligibility.allow.resize(50'000);
  full.eligibility.deny.resize(50'000);
  full.eligibility.restrict_to_allow = true;
  EXPECT_TRUE(CheckRequest(full, {}, 3).ok());
}

TEST(RequestCheckTest, EveryBadFieldIsNamed) {
  const struct {
    std::string message;  // how it begins
    std::function<void(RecommendRequest&)> spoil;
  } cases[] = {
      {"top_k: 0 is outside 1..1000", [](auto& r) { r.top_k = 0; }},
      {"top_k: -1", [](auto& r) { r.top_k = -1; }},
      {"top_k: 1001", [](auto& r) { r.top_k = 1001; }},
      {"top_k: 2147483647", [](auto& r) { r.top_k = INT_MAX; }},
      {"max_per_author: -1", [](auto& r) { r.max_per_author = -1; }},
      {"max_per_author: 1001", [](auto& r) { r.max_per_author = 1001; }},
      {"items_per_sid: 0", [](auto& r) { r.items_per_sid = 0; }},
      {"items_per_sid: -2147483648", [](auto& r) { r.items_per_sid = INT_MIN; }},
      {"beam_widths[0]: 0 is outside 1..1024", [](auto& r) { r.beam_widths = {0}; }},
      {"beam_widths[2]: 1025",
       [](auto& r) {
         r.beam_widths = {8, 8, 1025};
       }},
      {"beam_widths[1]: -5",
       [](auto& r) {
         r.beam_widths = {8, -5, 8};
       }},
      {"beam_widths: has 2 entries",
       [](auto& r) {
         r.beam_widths = {8, 8};
       }},
      {"beam_widths: has 1000000 entries", [](auto& r) { r.beam_widths.resize(1'000'000); }},
      {"history: 4097 events is outside 0..4096", [](auto& r) { r.history.resize(4097); }},
      {"history[1].timestamp_ms: -1", [](auto& r) { r.history[1].timestamp_ms = -1; }},
      {"history[3].timestamp_ms: -9223372036854775808", [](auto& r) { r.history[3].timestamp_ms = INT64_MIN; }},
      {"history[3].timestamp_ms: 9223372036854775807", [](auto& r) { r.history[3].timestamp_ms = INT64_MAX; }},
      {"history[3].timestamp_ms: 4 is earlier than 5", [](auto& r) { r.history[3].timestamp_ms = 4; }},
      {"history[3].play_time_ms: -1", [](auto& r) { r.history[3].play_time_ms = -1; }},
      {"history[0].play_time_ms: 9223372036854775807", [](auto& r) { r.history[0].play_time_ms = INT64_MAX; }},
      {"history[2].duration_ms: -3", [](auto& r) { r.history[2].duration_ms = -3; }},
      {"history[0].labels: 256", [](auto& r) { r.history[0].labels = 256; }},
      {"user_id: 257 bytes", [](auto& r) { r.user_id.assign(257, 'a'); }},
      {"request_id: 129 bytes", [](auto& r) { r.request_id.assign(129, 'a'); }},
      {"user_attributes: 65 attributes",
       [](auto& r) {
         r.user_attributes.resize(65, {"a", "b"});
       }},
      {"user_attributes[0].name: 0 bytes", [](auto& r) { r.user_attributes[0].name.clear(); }},
      {"user_attributes[0].value: 513 bytes", [](auto& r) { r.user_attributes[0].value.assign(513, 'v'); }},
      {"eligibility.deny: 50001 items", [](auto& r) { r.eligibility.deny.resize(50'001); }},
      {"eligibility.allow: 1000000 items",
       [](auto& r) {
         r.eligibility.allow.resize(1'000'000);
         r.eligibility.restrict_to_allow = true;
       }},
      {"eligibility.allow: is given, but", [](auto& r) { r.eligibility.allow = {1}; }},
      {"eligibility.rule: 65 clauses",
       [](auto& r) {
         r.eligibility.rule.resize(65, {"k", {"v"}});
       }},
      {"eligibility.rule[1].key: 0 bytes",
       [](auto& r) {
         r.eligibility.rule.push_back({"", {"v"}});
       }},
      {"eligibility.rule[1].any_of: 0 values",
       [](auto& r) {
         r.eligibility.rule.push_back({"k", {}});
       }},
      {"eligibility.rule[0].key: 129 bytes", [](auto& r) { r.eligibility.rule[0].key.assign(129, 'k'); }},
      {"eligibility.rule[0].any_of[1]: 600 bytes", [](auto& r) { r.eligibility.rule[0].any_of[1].assign(600, 'x'); }},
      {"priority: 9", [](auto& r) { r.priority = static_cast<Priority>(9); }},
  };
  for (const auto& c : cases) {
    RecommendRequest request = Good();
    c.spoil(request);
    const absl::Status status = CheckRequest(request, {}, 3);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_THAT(std::string(status.message()), StartsWith(c.message));
  }
}

TEST(RequestCheckTest, Options) {
  EXPECT_TRUE(CheckOptions({}).ok());
  const struct {
    std::string message;
    std::function<void(EngineOptions&)> spoil;
  } cases[] = {
      {"workers: 65 is outside 0..64", [](auto& o) { o.workers = 65; }},
      {"threads: -1", [](auto& o) { o.threads = -1; }},
      {"default_beam_width: 2000 is more than max_beam_width (1024)", [](auto& o) { o.default_beam_width = 2000; }},
      {"max_beam_width: 1024 is more than max_batch_rows (512)", [](auto& o) { o.max_batch_rows = 512; }},
      {"queue_capacity: 0", [](auto& o) { o.queue_capacity = 0; }},
      {"max_queue_delay_us: -1", [](auto& o) { o.max_queue_delay = absl::Microseconds(-1); }},
      {"default_deadline_ms: 0", [](auto& o) { o.default_deadline = absl::ZeroDuration(); }},
      {"threads: 1025 is outside 0..1024", [](auto& o) { o.threads = 1025; }},
      {"max_batch_requests: 3000 is more than max_batch_rows (2048)", [](auto& o) { o.max_batch_requests = 3000; }},
      {"model_poll_ms: 0 is outside 10..86400000", [](auto& o) { o.model_poll_period = absl::ZeroDuration(); }},
      {"context_cache_bytes: -1", [](auto& o) { o.context_cache_bytes = -1; }},
      {"score_rule: 9 is outside 0..1", [](auto& o) { o.score_rule = static_cast<ScoreRule>(9); }},
  };
  for (const auto& c : cases) {
    EngineOptions options;
    c.spoil(options);
    EXPECT_THAT(std::string(CheckOptions(options).message()), StartsWith(c.message));
  }
}

TEST(RequestCheckTest, Widths) {
  RecommendRequest request;
  EXPECT_THAT(BeamWidths(request, {}, 3), ElementsAre(32, 32, 32));
  request.top_k = 100;
  EXPECT_THAT(BeamWidths(request, {}, 3), ElementsAre(100, 100, 100)) << "top_k is more than the default";
  request.items_per_sid = 3;
  EXPECT_THAT(BeamWidths(request, {}, 2), ElementsAre(100, 100)) << "a semantic ID may hold one item alone";
  EXPECT_THAT(BeamWidths(request, {.default_beam_width = 8, .max_beam_width = 16}, 2), ElementsAre(16, 16));
  request.beam_widths = {5};
  EXPECT_THAT(BeamWidths(request, {}, 3), ElementsAre(5, 5, 5));
  request.beam_widths = {5, 6, 7};
  EXPECT_THAT(BeamWidths(request, {}, 3), ElementsAre(5, 6, 7));
}

}  // namespace
}  // namespace beamline::engine
