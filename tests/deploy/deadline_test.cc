// SPDX-License-Identifier: Apache-2.0
//
// Of the real server: what is out of time is not executed. The server stands still (SIGSTOP) while calls wait in its
// queue and their deadlines pass; when it goes on it executes none of them, and serves the next caller as ever.
#include <algorithm>
#include <atomic>
#include <csignal>
#include <thread>

#include <nlohmann/json.hpp>

#include "deploy/real_server.h"
#include "gmock/gmock.h"
#include "httplib.h"
#include "testing/eventually.h"

namespace beamline::deploy {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr int kWaiting = 20;  // calls in flight when the server is stopped, at least

class DeadlineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string bundle = ::testing::TempDir() + "/bundle";
    ASSERT_TRUE(runtime::testing::WriteTinyBundle(bundle, {.level_sizes = {64, 64, 64}, .items = 20000}).ok());
    server_ = std::make_unique<RealServer>(
        LoopbackAddress(1), RealServerConfig{.engine = absl::StrCat("bundle: '", bundle, "' max_batch_requests: 1"),
                                             .admin = "recorded_requests: 10000"});
    server_->Start();
    ASSERT_TRUE(server_->AwaitReady());
    request_ = FixedRequests()[3];
    request_.set_beam_widths(0, 1024);
    stub_ = v1::RecommendService::NewStub(Connect(server_->target()));
  }
  grpc::Status AskOnce(v1::RecommendResponse* response, absl::Duration deadline = kPatience) const {
    return Ask(*stub_, request_, response, deadline);
  }
  // A value of the metrics page, by its name and labels as they stand there.
  static int64_t Metric(const std::string& sample) {
    httplib::Client admin(absl::StrCat("http://", LoopbackAddress(1), ":50053"));
    const httplib::Result page = admin.Get("/metrics");
    if (!page) return -1;
    const size_t at = page->body.find("\n" + sample + " ");
    return at == std::string::npos ? -1 : std::stoll(page->body.substr(at + sample.size() + 2));
  }
  static int64_t Decoded() { return Metric("beamline_batched_requests_total{stage=\"decode\"}"); }

  // The requests in the flight recorder that were decoded, none of which may have begun after `deadline`. (Its answer
  // may come too late: what was under way when the server stood still.)
  static int64_t Executed(absl::Duration deadline) {
    httplib::Client admin(absl::StrCat("http://", LoopbackAddress(1), ":50053"));
    const httplib::Result page = admin.Get("/debug/requests");
    EXPECT_TRUE(page);
    int64_t executed = 0;
    const nlohmann::json records = nlohmann::json::parse(page ? page->body : "{}");
    for (const nlohmann::json& record : records.value("recent", nlohmann::json::array())) {
      if (record.value("decode_us", int64_t{0}) == 0) continue;
      ++executed;
      int64_t began = 0;
      for (const char* stage : {"prepare_us", "queue_us", "encode_us"}) began += record.value(stage, int64_t{0});
      EXPECT_LT(began, absl::ToInt64Microseconds(deadline)) << record;
    }
    return executed;
  }
  // `calls` at once, of which some wait while the server stands still until all are out of time. Returns how many were.
  int StandStill(int calls, absl::Duration deadline) const {
    const int64_t decoded_before = Decoded(), executed_before = Executed(deadline);
    EXPECT_GE(decoded_before, 2);
    std::atomic<int> late{0}, ended{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < calls; ++i) {
      callers.emplace_back([&] {
        v1::RecommendResponse response;
        const grpc::Status status = AskOnce(&response, deadline);
        late += status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ? 1 : 0;
        ++ended;
      });
    }
    while (Metric("beamline_in_flight_requests") < kWaiting && ended < calls) absl::SleepFor(absl::Milliseconds(1));
    server_->process().Signal(SIGSTOP);
    absl::SleepFor(deadline + absl::Milliseconds(100));
    server_->process().Signal(SIGCONT);
    for (std::thread& caller : callers) caller.join();
    // Calls whose clients are gone may still lie unread in the server's sockets, to come in and end at once.
    int64_t executed = 0, decoded = 0;
    EXPECT_TRUE(testing::Eventually([&] {
      if (Metric("beamline_in_flight_requests") != 0) return false;
      executed = Executed(deadline) - executed_before;
      decoded = Decoded() - decoded_before;
      return executed == decoded;
    })) << executed
        << " of " << decoded << " decoded requests are on record";
    return late;
  }

  std::unique_ptr<RealServer> server_;
  std::unique_ptr<v1::RecommendService::Stub> stub_;
  v1::RecommendRequest request_;
};

TEST_F(DeadlineTest, WhatWaitedPastItsDeadlineIsNotExecuted) {
  v1::RecommendResponse before;
  absl::Duration one = kPatience;
  for (int i = 0; i < 4; ++i) {
    const absl::Time begin = absl::Now();
    ASSERT_TRUE(AskOnce(&before).ok());
    one = std::min(one, absl::Now() - begin);
  }
  const absl::Duration deadline = std::max(absl::Seconds(3), 4 * kWaiting * one);
  const int calls = static_cast<int>(std::min(absl::FDivDuration(deadline, one), 400.0));
  // On a machine that is busy with others admission may take too few for any to wait: then once more.
  int late = 0;
  for (int i = 0; i < 6 && late < kWaiting / 2; ++i) late = StandStill(calls, deadline);
  EXPECT_GE(late, kWaiting / 2) << "calls waited when the server stood still";

  v1::RecommendResponse after;
  ASSERT_TRUE(AskOnce(&after).ok());
  EXPECT_EQ(Essence(after), Essence(before));
  EXPECT_EQ(server_->Stop(SIGTERM), 0);
}

}  // namespace
}  // namespace beamline::deploy
