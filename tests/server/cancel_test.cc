// SPDX-License-Identifier: Apache-2.0
//
// Calls that end early: the client cancels, disappears or runs out of time, at any moment and with any engine.
#include <future>
#include <random>
#include <thread>
#include <vector>

#include "deploy/raw_http2.h"
#include "gtest/gtest.h"
#include "server/loopback.h"
#include "server/server_counters.h"

namespace beamline::server {
namespace {

// A Recommend or BatchRecommend under way in a thread of its own.
class CallInThread {
 public:
  CallInThread(v1::RecommendService::Stub& stub, const v1::BatchRecommendRequest& request,
               absl::Duration timeout = absl::Seconds(10)) {
    SetTimeout(context_, timeout);
    result_ = std::async(std::launch::async, [this, &stub, request] {
      v1::BatchRecommendResponse response;
      return stub.BatchRecommend(&context_, request, &response);
    });
  }
  void Cancel() { context_.TryCancel(); }
  grpc::Status Await() { return result_.get(); }

 private:
  grpc::ClientContext context_;
  std::future<grpc::Status> result_;
};

class CancelTest : public LoopbackTest {
 protected:
  static v1::BatchRecommendRequest Users(int users) {
    v1::BatchRecommendRequest request;
    for (int i = 0; i < users; ++i) *request.add_requests() = ValidRequest();
    return request;
  }
  bool Idle() {
    return Eventually([&] { return server_->in_flight() == 0; });
  }
};

TEST_F(CancelTest, CancellationReachesTheEngineForEveryUser) {
  engine_.set_mode(FakeEngine::Mode::kHold);
  CallInThread call(*recommend_, Users(3));
  ASSERT_TRUE(engine_.AwaitRequests(3));
  EXPECT_EQ(engine_.cancelled(), 0);
  call.Cancel();
  EXPECT_EQ(call.Await().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return engine_.cancelled() == 3; }));
  EXPECT_TRUE(Idle());
  EXPECT_TRUE(Eventually([&] { return server_->counters().cancelled.value() == 1; }));
  call.Cancel();  // after the end
}

TEST_F(CancelTest, AnEngineThatIgnoresCancellationHoldsNothingUp) {
  engine_.set_mode(FakeEngine::Mode::kStuck);
  CallInThread call(*recommend_, Users(2));
  ASSERT_TRUE(engine_.AwaitRequests(2));
  call.Cancel();
  EXPECT_EQ(call.Await().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Idle());
  const absl::Time start = absl::Now();
  server_.reset();  // Shutdown does not wait for the engine
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  engine_.Release(FakeResult());  // too late, and harmless
}

TEST_F(CancelTest, ShutdownCutsCallsOffWhoseEngineIsStuck) {
  engine_.set_mode(FakeEngine::Mode::kStuck);
  CallInThread call(*recommend_, Users(1));
  ASSERT_TRUE(engine_.AwaitRequests(1));
  const absl::Time start = absl::Now();
  server_->Shutdown();
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_FALSE(call.Await().ok());
  EXPECT_EQ(server_->in_flight(), 0);
}

// Though the client's own timer may win the race and reset the stream before the server's deadline, by the request's
// way here: for which, of 3 s, there are 150 ms. This client has no timer, and resets within them or later, never
// before.
TEST_F(CancelTest, ADeadlineThatPassesIsToldFromACancellation) {
  engine_.set_mode(FakeEngine::Mode::kHold);
  deploy::RawHttp2 connection("127.0.0.1", server_->port());
  deploy::Headers headers = deploy::GrpcHeaders("/beamline.v1.RecommendService/Recommend");
  headers.emplace_back("grpc-timeout", "3S");
  connection.Send(deploy::Http2Hello());
  connection.Send(deploy::Http2Frame(deploy::kHttp2Headers, deploy::kEndHeaders, 1, deploy::HpackLiterals(headers)));
  connection.Send(deploy::Http2Frame(deploy::kHttp2Data, deploy::kEndStream, 1,
                                     deploy::GrpcMessage(ValidRequest().SerializeAsString())));
  ASSERT_TRUE(engine_.AwaitRequests(1));
  absl::SleepFor(engine_.requests()[0].deadline - absl::Milliseconds(100) - clock_.Now());
  constexpr uint32_t kCancel = 8;
  connection.Send(deploy::Http2Frame(deploy::kHttp2Reset, 0, 1, deploy::BigEndian(kCancel, 4)));
  const ServerCounters& counters = server_->counters();
  EXPECT_TRUE(Eventually([&] { return counters.expired.value() == 1; }));
  EXPECT_EQ(counters.cancelled.value(), 0);
  EXPECT_TRUE(Idle());
  EXPECT_TRUE(Eventually([&] { return engine_.cancelled() == 1; }));
}

// Without a word: the connection breaks with one call being answered and another half written.
TEST_F(CancelTest, ABrokenConnectionFreesItsCalls) {
  engine_.set_mode(FakeEngine::Mode::kHold);
  {
    deploy::RawHttp2 connection("127.0.0.1", server_->port());
    const std::string headers = deploy::HpackLiterals(deploy::GrpcHeaders("/beamline.v1.RecommendService/Recommend"));
    const std::string message = deploy::GrpcMessage(ValidRequest().SerializeAsString());
    connection.Send(deploy::Http2Hello());
    for (const uint32_t stream : {1, 3}) {
      connection.Send(deploy::Http2Frame(deploy::kHttp2Headers, deploy::kEndHeaders, stream, headers));
    }
    connection.Send(deploy::Http2Frame(deploy::kHttp2Data, deploy::kEndStream, 1, message));
    connection.Send(deploy::Http2Frame(deploy::kHttp2Data, 0, 3, message.substr(0, message.size() / 2)));
    ASSERT_TRUE(engine_.AwaitRequests(1));
  }
  EXPECT_TRUE(Eventually([&] { return engine_.cancelled() == 1; }));
  EXPECT_TRUE(Idle());
  EXPECT_EQ(engine_.requests().size(), 1u);
}

// Its machine lost power: nothing comes any more, not even the answer to a ping, and no end of the connection.
TEST_F(CancelTest, AClientThatFallsSilentFreesItsCalls) {
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_limits()->set_keepalive_time_ms(1000);
  config.mutable_limits()->set_keepalive_timeout_ms(1000);
  Start(config);
  engine_.set_mode(FakeEngine::Mode::kHold);
  deploy::RawHttp2 connection("127.0.0.1", server_->port());
  connection.Send(deploy::Http2Hello());
  connection.Send(
      deploy::Http2Frame(deploy::kHttp2Headers, deploy::kEndHeaders, 1,
                         deploy::HpackLiterals(deploy::GrpcHeaders("/beamline.v1.RecommendService/Recommend"))));
  connection.Send(deploy::Http2Frame(deploy::kHttp2Data, deploy::kEndStream, 1,
                                     deploy::GrpcMessage(ValidRequest().SerializeAsString())));
  ASSERT_TRUE(engine_.AwaitRequests(1));
  EXPECT_EQ(engine_.cancelled(), 0);
  EXPECT_TRUE(Eventually([&] { return engine_.cancelled() == 1; }));
  EXPECT_TRUE(Idle());
}

TEST_F(CancelTest, HeldCallsDoNotBlockOthers) {
  engine_.set_mode(FakeEngine::Mode::kHold);
  std::vector<std::unique_ptr<CallInThread>> calls;
  for (int i = 0; i < 64; ++i) calls.push_back(std::make_unique<CallInThread>(*recommend_, Users(1)));
  ASSERT_TRUE(engine_.AwaitRequests(64));
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(2));
  v1::GetStatusResponse status;
  EXPECT_TRUE(model_->GetStatus(&context, {}, &status).ok());
  EXPECT_EQ(status.server().in_flight(), 65);
  engine_.Release(FakeResult());
  for (auto& call : calls) EXPECT_TRUE(call->Await().ok());
  EXPECT_TRUE(Idle());
}

// Answers, cancellations and expiries race at every point; under AddressSanitizer this finds uses after free.
TEST_F(CancelTest, RandomCancellationsLeaveNothingBehind) {
  engine_.set_answer([](const RecommendRequest&) {
    absl::SleepFor(absl::Microseconds(200));
    return FakeResult();
  });
  std::vector<std::thread> clients;
  for (unsigned seed = 0; seed < 4; ++seed) {
    clients.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 100; ++i) {
        CallInThread call(*recommend_, Users(1 + static_cast<int>(random() % 4)),
                          random() % 4 == 0 ? absl::Microseconds(random() % 3000) : absl::Seconds(10));
        if (random() % 3 != 0) {
          absl::SleepFor(absl::Microseconds(random() % 2000));
          call.Cancel();
        }
        call.Await();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(Idle());
  engine_.set_mode(FakeEngine::Mode::kThread);
  v1::RecommendResponse response;
  EXPECT_TRUE(Recommend(ValidRequest(), &response).ok());
}

}  // namespace
}  // namespace beamline::server
