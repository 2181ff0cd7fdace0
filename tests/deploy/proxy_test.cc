// SPDX-License-Identifier: Apache-2.0
//
// docker/proxy/haproxy.cfg: a real HAProxy before two real servers, which are restarted and killed under load. Every
// answer that comes through is compared with the server's own.
#include <fstream>
#include <iostream>
#include <map>

#include "deploy/load.h"
#include "deploy/raw_http2.h"
#include "deploy/real_server.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "testing/eventually.h"
#include "testing/paths.h"

namespace beamline::deploy {
namespace {

// What a flood may cost two servers together. AddressSanitizer gives nothing back before it has kept 256 MB of each.
#ifdef __SANITIZE_ADDRESS__
constexpr int64_t kMostMegabytes = 512;
#else
constexpr int64_t kMostMegabytes = 64;
#endif

// Of 100 KB, of which the proxy holds 32 at a time: it denies 20,000 items that the catalogue does not have.
v1::RecommendRequest LargeRequest() {
  v1::RecommendRequest request = FixedRequests().back();
  for (int64_t i = 0; i < 20'000; ++i) request.mutable_eligibility()->add_deny_item_ids((int64_t{1} << 32) + i);
  return request;
}

// How a call of nothing ends; `trailers` gets what came with it.
grpc::StatusCode CallMethod(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                            std::multimap<std::string, std::string>* trailers = nullptr) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
  grpc::CompletionQueue queue;
  const grpc::Slice nothing;
  const auto call = stub.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&nothing, 1), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  if (trailers != nullptr) {
    for (const auto& [name, value] : context.GetServerTrailingMetadata()) {
      trailers->emplace(std::string(name.data(), name.size()), std::string(value.data(), value.size()));
    }
  }
  return status.error_code();
}

// Go's and Java's clients believe a grpc-status only beside this content type; gRPC for C++ does not show it.
std::string ContentType(const std::string& address, const std::string& method) {
  RawHttp2 connection(address, 50050);
  connection.Send(Http2Hello() +
                  Http2Frame(kHttp2Headers, kEndHeaders | kEndStream, 1, HpackLiterals(GrpcHeaders(method))));
  return connection.Await("application/grpc") ? "application/grpc" : "";
}

// Floods of frames that gRPC 1.51 would pay for with memory or time (rows C1.2, C1.3, C1.4 and C1.9).
std::vector<std::pair<std::string, std::string>> Floods() {
  const std::string block = HpackLiterals(GrpcHeaders("/beamline.v1.RecommendService/Recommend"));
  const auto repeat = [](int times, const std::string& frames) {
    std::string flood;
    for (int i = 0; i < times; ++i) flood += frames;
    return flood;
  };
  const auto dribble = [&](const std::string& first, char filling) {
    return Http2Frame(kHttp2Headers, kEndStream, 1, block + first) +
           repeat(2000, Http2Frame(kHttp2Continuation, 0, 1, std::string(4096, filling)));
  };
  std::string resets, priorities;
  for (uint32_t stream = 1; stream < 100'000; stream += 2) {
    resets += Http2Frame(kHttp2Headers, kEndHeaders | kEndStream, stream, block) +
              Http2Frame(kHttp2Reset, 0, stream, BigEndian(8, 4));
    priorities += Http2Frame(kHttp2Priority, 0, stream, BigEndian(0, 4) + "w");
  }
  return {{"rapid reset of 50,000 streams", resets},
          // A literal whose name claims 300 MB; then integers whose every byte says that another follows.
          {"a header dribbled over 8 MB", dribble(std::string("\0\x7f\x81\x97\x86\x8f\x01", 7), 'a')},
          {"an HPACK integer of 8 MB", dribble(std::string("\0\x7f", 2), '\x80')},
          {"200,000 pings", repeat(200'000, Http2Frame(kHttp2Ping, 0, 0, "12345678"))},
          {"200,000 settings", repeat(200'000, Http2Frame(kHttp2Settings, 0, 0, ""))},
          {"50,000 priorities", priorities},
          {"200,000 empty frames of data",
           Http2Frame(kHttp2Headers, kEndHeaders, 1, block) + repeat(200'000, Http2Frame(kHttp2Data, 0, 1, ""))}};
}

int64_t ResidentMegabytes(pid_t pid) {
  std::ifstream statm(absl::StrCat("/proc/", pid, "/statm"));
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE) >> 20;
}

class ProxyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (access(BEAMLINE_HAPROXY, X_OK) != 0) GTEST_SKIP() << "haproxy is not installed (scripts/setup.sh --dev)";
    const std::string bundle = ::testing::TempDir() + "/bundle";
    ASSERT_TRUE(runtime::testing::WriteTinyBundle(bundle).ok());
    for (int i = 0; i < 2; ++i) {
      servers_.push_back(std::make_unique<RealServer>(
          LoopbackAddress(1 + i), RealServerConfig{.engine = absl::StrCat("bundle: '", bundle, "'")}));
      servers_.back()->Start();
    }
    for (const auto& server : servers_) ASSERT_TRUE(server->AwaitReady());
    StartProxy();
    expected_ = Answers(*servers_[0], requests_);
    ASSERT_FALSE(expected_.empty());
  }

  // With more of its environment than the addresses, until it listens.
  void StartProxy(std::vector<std::string> environment = {}) {
    for (const std::string& setting :
         {"BEAMLINE_BIND=" + target_, "BEAMLINE_1=" + LoopbackAddress(1), "BEAMLINE_2=" + LoopbackAddress(2)}) {
      environment.push_back(setting);
    }
    proxy_ = std::make_unique<testing::Process>(
        std::vector<std::string>{BEAMLINE_HAPROXY, "-db", "-f", BEAMLINE_SOURCE_DIR + "/docker/proxy/haproxy.cfg"},
        environment);
    const auto channel = Connect(target_);
    EXPECT_TRUE(channel->WaitForConnected(absl::ToChronoTime(absl::Now() + absl::Seconds(30)))) << proxy_->Log();
  }

  const std::string target_ = LoopbackAddress(3) + ":50050";
  std::vector<std::unique_ptr<RealServer>> servers_;
  std::unique_ptr<testing::Process> proxy_;
  std::vector<v1::RecommendRequest> requests_ = FixedRequests();
  std::vector<std::string> expected_;
};

class ProxyWithLargeRequestsTest : public ProxyTest {
 protected:
  ProxyWithLargeRequestsTest() { requests_.push_back(LargeRequest()); }
};

TEST_F(ProxyWithLargeRequestsTest, ARollingRestartUnderLoadLosesNothing) {
  Load load([this] { return Connect(target_); }, requests_, expected_);
  for (const auto& server : servers_) ASSERT_TRUE(GetsTraffic(*server)) << proxy_->Log();
  for (const auto& server : servers_) {
    EXPECT_EQ(server->Stop(SIGTERM), 0) << server->log();
    EXPECT_THAT(server->log(), ::testing::HasSubstr("cut_off=0"));
    server->Start();
    ASSERT_TRUE(server->AwaitReady());
    ASSERT_TRUE(GetsTraffic(*server)) << proxy_->Log();
  }
  EXPECT_TRUE(testing::Eventually([&] { return load.calls() > 500; }));
  load.Stop();
  std::cout << load.calls() << " calls over two restarts, " << load.failures().size() << " failed\n";
  EXPECT_THAT(load.failures(), ::testing::IsEmpty());
}

TEST_F(ProxyTest, AKilledServerCostsNoCall) {
  Load load([this] { return Connect(target_); }, requests_, expected_);
  for (const auto& server : servers_) ASSERT_TRUE(GetsTraffic(*server)) << proxy_->Log();
  for (const auto& server : servers_) {
    EXPECT_EQ(server->Stop(SIGKILL), -SIGKILL);
    absl::SleepFor(absl::Seconds(1));
    server->Start();
    ASSERT_TRUE(server->AwaitReady());
    ASSERT_TRUE(GetsTraffic(*server)) << proxy_->Log();
  }
  load.Stop();
  std::cout << load.calls() << " calls over two kills, " << load.failures().size() << " failed\n";
  EXPECT_THAT(load.failures(), ::testing::IsEmpty());
}

// What a hostile client sends ends at the proxy: the servers' memory does not grow, nobody else's call fails. Streams
// that are opened and reset are calls, of which the proxy passes on as many as an address may make.
TEST_F(ProxyTest, FloodsOfFramesDoNotReachTheServers) {
  Load load([this] { return Connect(target_); }, requests_, expected_);
  for (const auto& server : servers_) ASSERT_TRUE(GetsTraffic(*server)) << proxy_->Log();
  const auto memory = [&] { return ResidentMegabytes(servers_[0]->pid()) + ResidentMegabytes(servers_[1]->pid()); };
  for (const auto& [name, flood] : Floods()) {
    const int64_t before = memory(), proxy_before = ResidentMegabytes(proxy_->pid());
    RawHttp2 connection(LoopbackAddress(3), 50050, /*from=*/LoopbackAddress(4));
    const size_t sent = connection.Send(Http2Hello() + flood);
    for (const auto& server : servers_) EXPECT_TRUE(GetsTraffic(*server)) << name;
    std::cout << name << ": " << sent << " of " << flood.size() + Http2Hello().size() << " bytes taken, servers "
              << memory() - before << " MB more, proxy " << ResidentMegabytes(proxy_->pid()) - proxy_before
              << " MB, the longest call of others " << load.TakeLongest() << "\n";
    EXPECT_LT(memory() - before, kMostMegabytes) << name;
  }
  load.Stop();
  EXPECT_THAT(load.failures(), ::testing::IsEmpty());
}

TEST_F(ProxyTest, OnlyThePublicServicesAreReachable) {
  const auto channel = Connect(target_);
  grpc::ClientContext context;
  v1::GetStatusResponse status;
  EXPECT_TRUE(v1::ModelService::NewStub(channel)->GetStatus(&context, {}, &status).ok());
  for (const char* method : {"/beamline.v1.AdminService/Reload", "/grpc.reflection.v1alpha.ServerReflection/x", "/"}) {
    EXPECT_EQ(CallMethod(channel, method), grpc::StatusCode::PERMISSION_DENIED) << method;
    EXPECT_EQ(ContentType(LoopbackAddress(3), method), "application/grpc") << method;
  }
}

TEST_F(ProxyTest, WhoCallsTooOftenIsToldSoInGrpc) {
  proxy_.reset();
  StartProxy({"BEAMLINE_CLIENT_RATE=5"});  // few enough for a slow machine to exceed
  const auto channel = Connect(target_);
  std::multimap<std::string, std::string> trailers;
  grpc::StatusCode code = grpc::StatusCode::OK;
  for (int i = 0; i < 500 && code != grpc::StatusCode::RESOURCE_EXHAUSTED; ++i) {
    trailers.clear();
    code = CallMethod(channel, "/grpc.health.v1.Health/Check", &trailers);
  }
  EXPECT_EQ(code, grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(trailers, ::testing::Contains(::testing::Pair("grpc-retry-pushback-ms", "1000")));
  EXPECT_EQ(ContentType(LoopbackAddress(3), "/grpc.health.v1.Health/Check"), "application/grpc")
      << "refused by the rate";
  absl::SleepFor(absl::Milliseconds(2500));
  EXPECT_EQ(CallMethod(channel, "/grpc.health.v1.Health/Check"), grpc::StatusCode::OK) << "a second later";
}

// Who stays above the rate is served at the rate.
TEST_F(ProxyTest, WhoGoesOnCallingTooOftenIsServedAtTheRate) {
  proxy_.reset();
  StartProxy({"BEAMLINE_CLIENT_RATE=20"});
  const auto channel = Connect(target_);
  const absl::Time start = absl::Now(), settled = start + absl::Seconds(1.5), end = start + absl::Seconds(4.5);
  int answered = 0, refused = 0;
  while (absl::Now() < end) {
    const grpc::StatusCode code = CallMethod(channel, "/grpc.health.v1.Health/Check");
    if (absl::Now() < settled) continue;
    ++(code == grpc::StatusCode::OK ? answered : refused);
    EXPECT_THAT(code, ::testing::AnyOf(grpc::StatusCode::OK, grpc::StatusCode::RESOURCE_EXHAUSTED));
  }
  EXPECT_GE(answered, 30) << "of 60 in three seconds, beside " << refused;
  EXPECT_LE(answered, 90);
  EXPECT_GT(refused, 0);
}

// As long as `timeout client` says: between calls HAProxy would take the time for a request's headers, 5 s.
TEST_F(ProxyTest, AConnectionMayBeIdleForLongerThanARequestsHeaders) {
  const auto channel = Connect(target_);
  ASSERT_EQ(CallMethod(channel, "/grpc.health.v1.Health/Check"), grpc::StatusCode::OK);
  EXPECT_FALSE(channel->WaitForStateChange(GRPC_CHANNEL_READY, absl::ToChronoTime(absl::Now() + absl::Seconds(6.5))));
}

TEST_F(ProxyTest, SaysInGrpcThatNobodyIsReady) {
  for (const auto& server : servers_) EXPECT_EQ(server->Stop(SIGKILL), -SIGKILL);
  const auto stub = v1::RecommendService::NewStub(Connect(target_));
  v1::RecommendResponse response;
  grpc::Status status;
  for (int i = 0; i < 100 && status.error_message() != "no server is ready"; ++i) {
    status = Ask(*stub, FixedRequests()[0], &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
    absl::SleepFor(absl::Milliseconds(50));
  }
  EXPECT_EQ(status.error_message(), "no server is ready");
}

}  // namespace
}  // namespace beamline::deploy
