// SPDX-License-Identifier: Apache-2.0
//
// Health, reflection, ports, draining and the watchdog, in one process. Signals: see process_test.cc.
#include "server/lifecycle.h"

#include <future>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/grpc_status.h"
#include "server/loopback.h"
#include "server/server_counters.h"
#include "server/status_detail.h"
#include "spdlog/sinks/ostream_sink.h"

namespace beamline::server {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

constexpr char kServing[] = "\x08\x01";  // grpc.health.v1.HealthCheckResponse
constexpr char kNotServing[] = "\x08\x02";
constexpr char kRecommendName[] = "beamline.v1.RecommendService";

class LifecycleTest : public LoopbackTest {
 protected:
  static std::string HealthRequest(const std::string& service) {
    return service.empty() ? "" : std::string("\x0a") + static_cast<char>(service.size()) + service;
  }
  std::string Health(const std::string& service) {
    std::string answer;
    const grpc::Status status = RawCall(channel_, "/grpc.health.v1.Health/Check", HealthRequest(service), &answer);
    return status.ok() ? answer : status.error_code() == grpc::StatusCode::NOT_FOUND ? "not found" : "failed";
  }
  std::string ListServices(grpc::Status* status) {
    std::string answer;  // list_services is field 7 of ServerReflectionRequest
    *status = RawCall(channel_, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x3a\x01*", &answer);
    return answer;
  }
  // ServeUntilStopped in a thread of its own.
  std::future<absl::Status> Run(int64_t drain_delay_ms, int64_t grace_ms) {
    config::v1::Lifecycle lifecycle;
    lifecycle.set_drain_delay_ms(drain_delay_ms);
    lifecycle.set_grace_ms(grace_ms);
    return std::async(std::launch::async, [this, lifecycle] {
      return ServeUntilStopped(lifecycle, *server_, engine_, {stop_, watchdog_});
    });
  }
  std::future<grpc::Status> Hold() {
    engine_.set_mode(FakeEngine::Mode::kHold);
    auto call = std::async(std::launch::async, [this] {
      v1::RecommendResponse response;
      return Recommend(ValidRequest(), &response);
    });
    EXPECT_TRUE(engine_.AwaitRequests(1));
    return call;
  }

  StopRequests stop_;
  std::atomic<int> watchdog_fired_{0};
  Watchdog watchdog_{[this] { watchdog_fired_.fetch_add(1); }};
};

TEST_F(LifecycleTest, HealthFollowsTheEnginesReadinessAndTheStop) {
  EXPECT_EQ(Health(""), kNotServing);
  std::future<absl::Status> run = Run(0, 1000);
  EXPECT_TRUE(Eventually([&] { return Health("") == kServing; }));
  for (const char* service : {kRecommendName, "beamline.v1.CatalogueService", "beamline.v1.ModelService"}) {
    EXPECT_EQ(Health(service), kServing) << service;
  }
  EXPECT_EQ(Health("unknown.Service"), "not found");
  engine_.set_ready(false);
  EXPECT_TRUE(Eventually([&] { return Health(kRecommendName) == kNotServing; }));
  engine_.set_ready(true);
  EXPECT_TRUE(Eventually([&] { return Health(kRecommendName) == kServing; }));
  stop_.Add();
  EXPECT_TRUE(run.get().ok());
  EXPECT_TRUE(engine_.drained());
}

TEST_F(LifecycleTest, WhoeverAsksIsToldThatItLeaves) {
  const auto ready = [this] {
    v1::GetStatusResponse status;
    grpc::ClientContext context;
    EXPECT_TRUE(model_->GetStatus(&context, {}, &status).ok());
    return status.ready();
  };
  std::future<absl::Status> run = Run(/*drain_delay_ms=*/60'000, 1000);
  EXPECT_TRUE(Eventually([&] { return Health("") == kServing; }));
  EXPECT_TRUE(ready());
  stop_.Add();
  EXPECT_TRUE(Eventually([&] { return Health("") == kNotServing; }));
  EXPECT_FALSE(ready());
  v1::RecommendResponse response;
  EXPECT_TRUE(Recommend(ValidRequest(), &response).ok()) << "who has not noticed yet is served";
  EXPECT_TRUE(Eventually([&] { return server_->in_flight() == 0; }));
  stop_.Add();
  EXPECT_TRUE(run.get().ok());
}

TEST_F(LifecycleTest, AnEngineThatIsNotReadyIsTested) {
  engine_.set_ready(false);
  engine_.set_answer([this](const RecommendRequest& request) -> absl::StatusOr<RecommendResult> {
    if (request.request_id == "self-test") engine_.set_ready(true);  // as a good batch does
    return FakeResult();
  });
  std::future<absl::Status> run = Run(0, 1000);
  EXPECT_TRUE(Eventually([&] { return Health("") == kServing; }));
  stop_.Add();
  EXPECT_TRUE(run.get().ok());
  for (const RecommendRequest& request : engine_.requests()) EXPECT_EQ(request.request_id, "self-test");
}

TEST_F(LifecycleTest, AnIdleEngineIsTestedAndABusyOneIsNot) {
  {
    std::future<absl::Status> run = Run(0, 1000);
    absl::SleepFor(absl::Milliseconds(600));  // more than two looks
    stop_.Add();
    EXPECT_TRUE(run.get().ok());
    EXPECT_TRUE(engine_.requests().empty());
  }
  Start(LoopbackConfig());
  engine_.set_last_success(absl::Now() - absl::Minutes(1));
  StopRequests stop;
  config::v1::Lifecycle lifecycle;
  auto run = std::async(std::launch::async, [&] {
    return ServeUntilStopped(lifecycle, *server_, engine_, {stop, watchdog_});
  });
  ASSERT_TRUE(engine_.AwaitRequests(1));
  EXPECT_EQ(engine_.requests()[0].request_id, "self-test");
  EXPECT_EQ(engine_.requests()[0].user_id, "") << "the context of a user is cached: the next test would not encode";
  EXPECT_TRUE(Eventually([&] { return Health("") == kServing; })) << "idle is not broken";
  stop.Add();
  EXPECT_TRUE(run.get().ok());
}

TEST_F(LifecycleTest, AnEngineThatStaysBrokenEndsTheProcess) {
  const auto run = [this](int64_t broken_exit_ms, StopRequests& stop) {
    config::v1::Lifecycle lifecycle;
    lifecycle.set_drain_delay_ms(60'000);
    lifecycle.set_broken_exit_ms(broken_exit_ms);
    return std::async(std::launch::async, [this, lifecycle, &stop] {
      return ServeUntilStopped(lifecycle, *server_, engine_, {stop, watchdog_});
    });
  };
  engine_.set_ready(false);
  const absl::Status ended = run(300, stop_).get();
  EXPECT_EQ(ended.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(ended.message()), HasSubstr("the last 3 batches failed"));
  EXPECT_TRUE(engine_.drained());

  Start(LoopbackConfig());
  std::future<absl::Status> patient = run(0, stop_);
  EXPECT_EQ(patient.wait_for(std::chrono::milliseconds(800)), std::future_status::timeout);
  stop_.Add();
  stop_.Add();
  EXPECT_TRUE(patient.get().ok());
}

TEST_F(LifecycleTest, AnEngineWithAFaultEndsTheProcessAtOnce) {
  std::ostringstream log;
  Log().sinks().push_back(std::make_shared<spdlog::sinks::ostream_sink_mt>(log, true));
  const absl::Cleanup no_more = [] { Log().sinks().pop_back(); };
  config::v1::Lifecycle lifecycle;
  lifecycle.set_drain_delay_ms(60'000);
  lifecycle.set_grace_ms(60'000);
  lifecycle.set_broken_exit_ms(0);
  std::future<absl::Status> run = std::async(std::launch::async, [this, lifecycle] {
    return ServeUntilStopped(lifecycle, *server_, engine_, {stop_, watchdog_});
  });
  std::future<grpc::Status> call = Hold();  // hangs in a history store, say
  engine_.set_fault(absl::UnavailableError("the device has failed: an illegal memory access"));
  const bool soon = run.wait_for(std::chrono::seconds(5)) == std::future_status::ready;
  EXPECT_TRUE(soon);
  for (int stops = soon ? 2 : 0; stops < 2; ++stops) stop_.Add();  // or the test hangs
  const absl::Status ended = run.get();
  EXPECT_EQ(ended.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(ended.message()), HasSubstr("an illegal memory access"));
  EXPECT_THAT(log.str(), ContainsRegex("critical.*engine broken, this process ends: .*an illegal memory access"));
  EXPECT_TRUE(engine_.drained());
  EXPECT_EQ(call.get().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(LifecycleTest, DuringTheDrainDelayNewCallsAreAnswered) {
  std::future<absl::Status> run = Run(/*drain_delay_ms=*/60'000, 1000);
  ASSERT_TRUE(Eventually([&] { return Health("") == kServing; }));
  stop_.Add();
  ASSERT_TRUE(Eventually([&] { return Health("") == kNotServing; }));
  v1::RecommendResponse response;
  const grpc::Status late = Recommend(ValidRequest(), &response);
  EXPECT_TRUE(late.ok()) << late.error_message() << ": from a caller that has not heard yet";
  EXPECT_EQ(run.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  EXPECT_TRUE(Eventually([&] { return server_->in_flight() == 0; }));
  stop_.Add();
  EXPECT_TRUE(run.get().ok());
}

TEST_F(LifecycleTest, TheDrainDelayEndsByItself) {
  std::future<absl::Status> run = Run(/*drain_delay_ms=*/100, 1000);
  stop_.Add();
  const bool ended = run.wait_for(absl::ToChronoSeconds(testing::kPatience)) == std::future_status::ready;
  EXPECT_TRUE(ended);
  if (!ended) stop_.Add();  // or the test hangs
  EXPECT_TRUE(run.get().ok());
  EXPECT_TRUE(engine_.drained());
}

TEST_F(LifecycleTest, WatchIsToldBeforeTheServerLeaves) {
  std::future<absl::Status> run = Run(/*drain_delay_ms=*/60'000, 1000);
  ASSERT_TRUE(Eventually([&] { return Health("") == kServing; }));
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  SetTimeout(context);
  grpc::CompletionQueue queue;
  const auto step = [&queue] {
    void* tag;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  auto stream = stub.PrepareCall(&context, "/grpc.health.v1.Health/Watch", &queue);
  stream->StartCall(nullptr);
  ASSERT_TRUE(step());
  const grpc::Slice request(HealthRequest(kRecommendName));
  stream->Write(grpc::ByteBuffer(&request, 1), nullptr);
  ASSERT_TRUE(step());
  const auto read = [&] {
    grpc::ByteBuffer message;
    grpc::Slice slice;
    stream->Read(&message, nullptr);
    if (!step() || !message.DumpToSingleSlice(&slice).ok()) return std::string();
    return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
  };
  EXPECT_EQ(read(), kServing);
  absl::SleepFor(absl::Milliseconds(600));  // two looks at readiness that find nothing new, of which nobody is told
  stop_.Add();
  EXPECT_EQ(read(), kNotServing);
  EXPECT_EQ(run.wait_for(std::chrono::seconds(0)), std::future_status::timeout) << "it has a minute to leave";
  stop_.Add();
  EXPECT_TRUE(run.get().ok());  // an open Watch does not hold the stop up
  context.TryCancel();
  queue.Shutdown();
}

// UNAVAILABLE, which clients try elsewhere; never CANCELLED, which they take for their own doing.
TEST_F(LifecycleTest, WhoeverCallsAsItEndsHearsThatItStops) {
  std::atomic<int> stopped{0};
  for (int round = 0; round < 8; ++round) {
    Start(LoopbackConfig());
    StopRequests stop;
    auto run = std::async(std::launch::async, [&] {
      return ServeUntilStopped(config::v1::Lifecycle(), *server_, engine_, {stop, watchdog_});
    });
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i) {
      callers.emplace_back([&] {
        const auto stub = v1::RecommendService::NewStub(Connect(server_->address()));
        grpc::Status status;
        while (status.ok()) {
          grpc::ClientContext context;
          SetTimeout(context);
          v1::RecommendResponse response;
          status = stub->Recommend(&context, ValidRequest(), &response);
        }
        const bool told = status.error_code() == grpc::StatusCode::UNAVAILABLE;
        EXPECT_TRUE(told) << status.error_code() << ": " << status.error_message();
        stopped += told ? 1 : 0;
      });
    }
    absl::SleepFor(absl::Milliseconds(100));
    stop.Add();
    EXPECT_TRUE(run.get().ok());
    for (std::thread& caller : callers) caller.join();
  }
  EXPECT_EQ(stopped, 32);
}

TEST_F(LifecycleTest, HealthCanBeSwitchedOff) {
  config::v1::ServerConfig config = LoopbackConfig();
  config.set_health(false);
  Start(config);
  server_->SetServing(true);
  EXPECT_EQ(Health(""), "failed");
}

TEST_F(LifecycleTest, ReflectionIsAChoice) {
  grpc::Status status;
  EXPECT_THAT(ListServices(&status), HasSubstr(kRecommendName));
  EXPECT_TRUE(status.ok()) << status.error_message();
  config::v1::ServerConfig config = LoopbackConfig();
  config.set_reflection(false);
  Start(config);
  ListServices(&status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(LifecycleTest, APortInUseIsAClearError) {
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_listen()->set_port(server_->port());
  const auto second = Server::ClaimPorts(config);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(server_->address()));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another process listens there"));
  EXPECT_EQ(Health(""), kNotServing);  // the first one is unhurt
}

bool ListensWithin(absl::Duration time, int port) {
  const std::shared_ptr<grpc::Channel> channel = Connect(HostPort("127.0.0.1", port));
  return channel->WaitForConnected(absl::ToChronoTime(absl::Now() + time));
}

// While the first still loads its model: nobody can connect, and nobody else gets the port.
TEST_F(LifecycleTest, AClaimedPortIsTakenBeforeAnybodyListens) {
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_listen()->set_port(server_->port());
  ASSERT_EQ(Health(""), kNotServing);  // a connection that the server closes, so that the port lingers
  server_.reset();
  absl::StatusOr<Listeners> first = Server::ClaimPorts(config);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = Server::ClaimPorts(config);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another process listens there"));
  EXPECT_FALSE(ListensWithin(absl::Milliseconds(500), config.listen().port()));
  const auto server = Server::Start(config, *std::move(first), &engine_, &clock_);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE(ListensWithin(testing::kPatience, config.listen().port()));
  EXPECT_FALSE(Server::ClaimPorts(config).ok());
}

TEST_F(LifecycleTest, AnAddressOfAnotherMachineIsAClearError) {
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_listen()->set_address("192.0.2.1");
  config.mutable_listen()->set_port(50999);
  const auto server = Server::ClaimPorts(config);
  ASSERT_FALSE(server.ok());
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("192.0.2.1:50999: "));
}

TEST_F(LifecycleTest, CallsInFlightAreFinishedAndNewOnesRefused) {
  std::future<absl::Status> run = Run(0, 10000);
  std::future<grpc::Status> call = Hold();
  stop_.Add();
  v1::RecommendResponse response;
  grpc::Status refused;
  EXPECT_TRUE(Eventually([&] {
    grpc::ClientContext context;
    SetTimeout(context, absl::Milliseconds(100));
    refused = recommend_->Recommend(&context, ValidRequest(), &response);
    return refused.error_code() == grpc::StatusCode::UNAVAILABLE;
  }));
  EXPECT_THAT(refused.error_message(), HasSubstr("stopping"));
  EXPECT_EQ(DetailOf(FromGrpcStatus(refused)).reason(), "STOPPING");
  engine_.Release(FakeResult());
  EXPECT_TRUE(call.get().ok());
  EXPECT_TRUE(run.get().ok());
  EXPECT_EQ(watchdog_fired_.load(), 0);
}

// A rolling restart is no incident, a device that fails is, and a call that the stop cut off, too.
TEST_F(LifecycleTest, WhomAStopRefusesIsCountedApartFromFailures) {
  std::ostringstream log;
  Log().sinks().push_back(std::make_shared<spdlog::sinks::ostream_sink_mt>(log, true));
  const absl::Cleanup no_more = [] { Log().sinks().pop_back(); };
  const ServerCounters& counters = server_->counters();
  v1::RecommendResponse response;
  engine_.set_answer([](const RecommendRequest&) { return absl::UnavailableError("the device has failed"); });
  EXPECT_FALSE(Recommend(ValidRequest(), &response).ok());
  EXPECT_EQ(counters.failed.value(), 1u);
  std::future<absl::Status> run = Run(0, 10000);
  std::future<grpc::Status> call = Hold();
  ASSERT_TRUE(engine_.AwaitRequests(2));
  stop_.Add();
  EXPECT_TRUE(Eventually([&] {
    grpc::ClientContext context;
    SetTimeout(context, absl::Milliseconds(100));  // it may be held, too, where it comes before the stop
    return recommend_->Recommend(&context, ValidRequest(), &response).error_code() == grpc::StatusCode::UNAVAILABLE;
  }));
  EXPECT_GE(counters.stopping.value(), 1u);
  EXPECT_EQ(counters.failed.value(), 1u);
  EXPECT_THAT(
      server_->RenderMetrics(false),
      HasSubstr(absl::StrCat("beamline_grpc_failed_calls_total{cause=\"stopping\"} ", counters.stopping.value())));
  EXPECT_TRUE(Eventually([&] { return server_->in_flight() == 1; }));  // the refused are not only told, but gone
  stop_.Add();                                                         // cuts the held call off
  EXPECT_EQ(call.get().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(run.get().ok());
  EXPECT_EQ(counters.failed.value(), 2u);
  EXPECT_THAT(log.str(), ContainsRegex("server stopped: .* stopping=[1-9][0-9]* failed=2 cut_off=1"));
}

TEST_F(LifecycleTest, TheGraceTimeIsALimit) {
  std::future<absl::Status> run = Run(0, 100);
  std::future<grpc::Status> call = Hold();
  const absl::Time start = absl::Now();
  stop_.Add();
  const absl::Status status = run.get();
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 calls"));
  const grpc::Status told = call.get();
  EXPECT_EQ(told.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(told.error_message(), "the engine stopped") << "and not what gRPC says of a call that was cancelled";
}

TEST_F(LifecycleTest, ASecondStopDoesNotWait) {
  std::future<absl::Status> run = Run(60000, 60000);
  std::future<grpc::Status> call = Hold();
  const absl::Time start = absl::Now();
  stop_.Add();
  stop_.Add();
  EXPECT_THAT(std::string(run.get().message()), HasSubstr("second signal"));
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  const grpc::Status told = call.get();
  EXPECT_EQ(told.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(told.error_message(), "the engine stopped") << "and not what gRPC says of a call that was cancelled";
}

TEST(StopRequests, ASignalSoonAfterAnotherIsTheSameWish) {
  StopRequests stop;
  const absl::Time now = absl::Now();
  EXPECT_TRUE(stop.NoteSignal(now));
  EXPECT_FALSE(stop.NoteSignal(now + kOneWish / 2));
  EXPECT_FALSE(stop.NoteSignal(now + kOneWish - absl::Milliseconds(1)));
  EXPECT_TRUE(stop.NoteSignal(now + kOneWish)) << "those in between do not put it off";
  EXPECT_EQ(stop.count(), 0) << "Add counts";
}

TEST(Watchdog, FiresOnceAfterItsTimeUnlessItIsGone) {
  std::atomic<int> fired{0};
  {
    Watchdog watchdog([&] { fired.fetch_add(1); });
    absl::SleepFor(absl::Milliseconds(30));
    EXPECT_EQ(fired.load(), 0);  // not armed
    watchdog.Arm(absl::Milliseconds(20));
    EXPECT_TRUE(Eventually([&] { return fired.load() == 1; }));
    absl::SleepFor(absl::Milliseconds(50));
  }
  {
    Watchdog watchdog([&] { fired.fetch_add(1); });
    watchdog.Arm(absl::Hours(1));
    watchdog.Arm(absl::Minutes(1));
  }
  EXPECT_EQ(fired.load(), 1);
}

TEST(HostPort, BracketsIpv6) {
  EXPECT_EQ(HostPort("127.0.0.1", 80), "127.0.0.1:80");
  EXPECT_EQ(HostPort("::1", 80), "[::1]:80");
}

}  // namespace
}  // namespace beamline::server
