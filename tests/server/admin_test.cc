// SPDX-License-Identifier: Apache-2.0
//
// What operators and their machines see: reload and rollback on the admin listener alone, pages over HTTP, metrics.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "absl/strings/numbers.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/program.h"
#include "beamline/v1/admin.grpc.pb.h"
#include "gmock/gmock.h"
#include "httplib.h"
#include "nlohmann/json.hpp"
#include "server/admin_http.h"
#include "server/admin_pages.h"
#include "server/grpc_status.h"
#include "server/loopback.h"
#include "server/metrics.h"
#include "server/raw_connection.h"
#include "server/server_counters.h"
#include "server/status_detail.h"
#include "testing/paths.h"

namespace beamline::server {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class AdminTest : public LoopbackTest {
 protected:
  void SetUp() override {
    config::v1::ServerConfig config = LoopbackConfig();
    config.mutable_admin()->set_port(0);
    Start(config);
    admin_channel_ = Connect(server_->admin_address());
    admin_ = v1::AdminService::NewStub(admin_channel_);
  }
  grpc::Status Reload(const std::string& bundle, v1::ReloadResponse* response) {
    grpc::ClientContext context;
    SetTimeout(context);
    v1::ReloadRequest request;
    request.set_bundle(bundle);
    return admin_->Reload(&context, request, response);
  }
  grpc::Status Rollback(v1::RollbackResponse* response) {
    grpc::ClientContext context;
    SetTimeout(context);
    return admin_->Rollback(&context, v1::RollbackRequest(), response);
  }

  std::shared_ptr<grpc::Channel> admin_channel_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
};

TEST_F(AdminTest, ReloadsAndRollsBack) {
  v1::RollbackResponse back;
  EXPECT_EQ(Rollback(&back).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  v1::ReloadResponse loaded;
  const grpc::Status ok = Reload("models/2", &loaded);
  ASSERT_TRUE(ok.ok()) << ok.error_message();
  EXPECT_EQ(loaded.serving().bundle(), "models/2");
  EXPECT_EQ(loaded.serving().model_version(), "model-2");
  EXPECT_EQ(loaded.serving().state(), "serving");
  ASSERT_TRUE(Rollback(&back).ok());
  EXPECT_EQ(back.serving().model_version(), "model-1");
}

TEST_F(AdminTest, SaysWhyABundleWasRefused) {
  v1::ReloadResponse response;
  const grpc::Status bad = Reload("bad", &response);
  EXPECT_EQ(bad.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_THAT(bad.error_message(), HasSubstr("model.safetensors: was damaged"));
  EXPECT_EQ(DetailOf(FromGrpcStatus(bad)).reason(), "DATA_LOSS");
  EXPECT_EQ(DetailOf(FromGrpcStatus(bad)).field(), "");
  const v1::ErrorDetail none = DetailOf(FromGrpcStatus(Reload("none", &response)));
  EXPECT_EQ(none.reason(), "NOT_FOUND");
  EXPECT_EQ(none.field(), "bundle");
  const v1::ErrorDetail large = DetailOf(FromGrpcStatus(Reload("large", &response)));
  EXPECT_EQ(large.reason(), "OUT_OF_MEMORY");
  EXPECT_EQ(large.retry_after_ms(), 0) << "the same again would be too large, too";
  EXPECT_EQ(server_->counters().refused.value(), 0u);
  const grpc::Status longest = Reload(std::string(5000, 'x'), &response);
  EXPECT_EQ(longest.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(longest.error_message(), "bundle: 5000 bytes are outside 0..4096");
  for (const std::string& path : {std::string("models/2\0/../3", 13), std::string("models\n2"), std::string("\x7f")}) {
    const grpc::Status control = Reload(path, &response);
    EXPECT_EQ(control.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(control.error_message(), HasSubstr("bundle: holds control character "));
  }
  EXPECT_EQ(Reload("mod\xc3\xa8les/2", &response).error_code(), grpc::StatusCode::OK) << "a path of text";
}

TEST_F(AdminTest, OnlyABundleThatTheRequestNamesIsItsField) {
  v1::ReloadResponse response;
  engine_.set_reload_error(absl::InvalidArgumentError("models/3/bundle.json: is none"));
  EXPECT_EQ(DetailOf(FromGrpcStatus(Reload("models/3", &response))).field(), "bundle");
  EXPECT_EQ(DetailOf(FromGrpcStatus(Reload("", &response))).field(), "");
  engine_.set_reload_error(absl::NotFoundError("/data/items.cat: no such file"));  // engine.catalogue
  EXPECT_EQ(DetailOf(FromGrpcStatus(Reload("models/3", &response))).field(), "");
}

TEST_F(AdminTest, AReloadThatAStopGivesUpIsNoFailure) {
  engine_.set_reload_error(absl::UnavailableError("the engine is stopping"));
  v1::ReloadResponse response;
  for (const bool stops : {true, false}) {
    SetInterrupted(stops);
    EXPECT_EQ(DetailOf(FromGrpcStatus(Reload("models/2", &response))).reason(), stops ? "STOPPING" : "UNAVAILABLE");
  }
  EXPECT_EQ(server_->counters().stopping.value(), 1u);
}

TEST_F(AdminTest, ThePublicListenerOffersNoneOfIt) {
  EXPECT_EQ(RawCall(channel_, "/beamline.v1.AdminService/Reload", "").error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(RawCall(channel_, "/beamline.v1.AdminService/Rollback", "").error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(RawCall(admin_channel_, "/beamline.v1.RecommendService/Recommend", "").error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

// Paths and what is wrong with files are for operators.
TEST_F(AdminTest, BothListenersTellTheVersions) {
  for (const auto& channel : {channel_, admin_channel_}) {
    grpc::ClientContext context;
    SetTimeout(context);
    v1::GetStatusResponse status;
    ASSERT_TRUE(v1::ModelService::NewStub(channel)->GetStatus(&context, v1::GetStatusRequest(), &status).ok());
    ASSERT_EQ(status.versions_size(), 2);
    EXPECT_EQ(status.versions(0).state(), "serving");
    EXPECT_EQ(status.versions(1).state(), "refused");
    EXPECT_EQ(status.versions(1).error(), channel == admin_channel_ ? "broken/items: was damaged" : "");
    EXPECT_EQ(status.versions(0).bundle().empty(), channel == channel_);
  }
}

TEST_F(AdminTest, AServerWithoutTheSectionHasNoAdminListener) {
  Start(LoopbackConfig());
  EXPECT_EQ(server_->admin_address(), "");
}

int PortOf(const std::string& address) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port)) << address;
  return port;
}

// Status and body; status 0 when nobody answers.
std::pair<int, std::string> Get(const AdminHttp& http, const std::string& path) {
  httplib::Client client("127.0.0.1", PortOf(http.address()));
  const httplib::Result result = client.Get(path.c_str());
  if (!result) return {0, ""};
  return {result->status, result->body};
}

TEST(AdminHttpTest, ServesItsPagesAndNothingElse) {
  int made = 0;
  auto http = AdminHttp::Start("127.0.0.1", 0, {{"/page", [&] { return HttpPage{.body = absl::StrCat(++made)}; }}});
  ASSERT_TRUE(http.ok()) << http.status();
  EXPECT_EQ(Get(**http, "/page"), std::make_pair(200, std::string("1")));
  EXPECT_EQ(Get(**http, "/page"), std::make_pair(200, std::string("2")));
  EXPECT_EQ(Get(**http, "/other").first, 404);
  EXPECT_EQ(Get(**http, "/page/../../etc/passwd").first, 404);
  httplib::Client client("127.0.0.1", PortOf((*http)->address()));
  const auto posted = client.Post("/page", "body", "text/plain");
  EXPECT_EQ(posted->status, 405);
  EXPECT_EQ(posted->get_header_value("Allow"), "GET, HEAD");
  EXPECT_EQ(client.Options("/page")->status, 405) << "a proxy that checks so must not take it for health";
  EXPECT_EQ(client.Post("/other", "body", "text/plain")->status, 404);
}

TEST(AdminHttpTest, IdleConnectionsHoldNobodyUp) {
  auto http = AdminHttp::Start("127.0.0.1", 0, {{"/livez", [] { return HttpPage{.body = "alive\n"}; }}});
  ASSERT_TRUE(http.ok()) << http.status();
  std::vector<std::unique_ptr<httplib::Client>> browsers;
  for (int i = 0; i < 40; ++i) {
    browsers.push_back(std::make_unique<httplib::Client>("127.0.0.1", PortOf((*http)->address())));
    browsers.back()->set_keep_alive(true);
    ASSERT_TRUE(browsers.back()->Get("/livez"));
  }
  const absl::Time start = absl::Now();
  EXPECT_EQ(Get(**http, "/livez").first, 200);
  EXPECT_LT(absl::Now() - start, absl::Seconds(1));
}

// Sends `head` and then `more` over and over; how many bytes went out until the server closed the connection.
size_t SendUntilClosed(int port, const std::string& head, const std::string& more) {
  constexpr size_t kMost = 64 << 20;
  const RawConnection client(port);
  client.Send(head);
  size_t sent = head.size();
  while (sent < kMost && client.Send(more)) sent += more.size();
  return sent;
}

TEST(AdminHttpTest, RequestsWithoutAnEndAreCut) {
  size_t longest = 0;
  auto http = AdminHttp::Start("127.0.0.1", 0, {{"/page", [] { return HttpPage{.body = "page"}; }}},
                               {{"/post", [&](const HttpPost& post) {
                                   longest = std::max(longest, post.body.size());
                                   return HttpPage{.body = "posted"};
                                 }}});
  ASSERT_TRUE(http.ok()) << http.status();
  const int port = PortOf((*http)->address());
  const std::string chunk = "10000\r\n" + std::string(65536, 'x') + "\r\n";
  const std::pair<std::string, std::string> cases[] = {
      {"POST /post HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", chunk},
      {"POST /page HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", chunk},
      {"POST /post HTTP/1.1\r\nHost: x\r\n\r\n", chunk},
      {"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n", chunk},
      {"GET /page HTTP/1.1\r\n", "Header: " + std::string(1000, 'x') + "\r\n"},
      {"GET /", std::string(1000, 'x')}};
  for (const auto& [head, more] : cases) {
    EXPECT_LT(SendUntilClosed(port, head, more), 16u << 20) << head;  // most of it in the system's buffers
    EXPECT_EQ(Get(**http, "/page"), std::make_pair(200, std::string("page")));
  }
  EXPECT_LE(longest, AdminHttp::kMaxBodyBytes + AdminHttp::kMaxHeaderBytes);
}

// `curl -X POST` sends neither a length nor chunks, and keeps the connection open.
TEST(AdminHttpTest, APostWithoutALengthHasNoBodyAndIsAnsweredAtOnce) {
  auto http = AdminHttp::Start(
      "127.0.0.1", 0, {},
      {{"/post", [](const HttpPost& post) { return HttpPage{.body = absl::StrCat(post.body.size(), " bytes")}; }}});
  ASSERT_TRUE(http.ok()) << http.status();
  RawConnection client(PortOf((*http)->address()));
  const absl::Time begun = absl::Now();
  ASSERT_TRUE(client.Send("POST /post HTTP/1.1\r\nHost: x\r\n\r\n"));
  std::string heard;
  EXPECT_TRUE(client.ClosedWithin(absl::Seconds(20), &heard));
  EXPECT_LT(absl::Now() - begun, absl::Seconds(4)) << "it was read until the limit of 5 s";
  EXPECT_THAT(heard, HasSubstr("0 bytes"));
}

TEST(AdminHttpTest, NothingIsInflatedAndNothingRepeated) {
  size_t body = 0;
  auto http = AdminHttp::Start("127.0.0.1", 0, {{"/page", [] { return HttpPage{.body = std::string(50'000, 'p')}; }}},
                               {{"/post", [&](const HttpPost& post) {
                                   body = post.body.size();
                                   return HttpPage{};
                                 }}});
  ASSERT_TRUE(http.ok()) << http.status();
  httplib::Client client("127.0.0.1", PortOf((*http)->address()));
  const std::string deflated("\x78\x9c\x4b\x4c\x04\x02\x00\x0b\xf8\x03\x86", 11);  // "aaaaaaaaaa" and more
  ASSERT_TRUE(client.Post("/post", {{"Content-Encoding", "gzip"}}, deflated, "application/json"));
  EXPECT_EQ(body, deflated.size());
  std::string ranges = "bytes=0-";
  for (int i = 0; i < 2000; ++i) ranges += ",0-";
  const httplib::Result page = client.Get("/page", {{"Range", ranges}});
  ASSERT_TRUE(page);
  EXPECT_EQ(page->status, 200);
  EXPECT_EQ(page->body.size(), 50'000u);
}

// How many of twelve were answered within 2 s; a machine that is busy may lose one or two on the way.
int AnsweredOf12(const AdminHttp& http) {
  int answered = 0;
  for (int i = 0; i < 12; ++i) {
    const absl::Time start = absl::Now();
    answered += Get(http, "/livez").first == 200 && absl::Now() - start < absl::Seconds(2) ? 1 : 0;
    absl::SleepFor(absl::Milliseconds(50));
  }
  return answered;
}

// Threads are few: whoever keeps one without a request gives way.
TEST(AdminHttpTest, SlowClientsDoNotKeepASupervisorWaiting) {
  auto http = AdminHttp::Start("127.0.0.1", 0, {{"/livez", [] { return HttpPage{.body = "alive\n"}; }}});
  ASSERT_TRUE(http.ok()) << http.status();
  const int port = PortOf((*http)->address());
  std::atomic<bool> stop{false};
  std::thread slow([&] {
    std::vector<std::unique_ptr<RawConnection>> clients;
    for (int i = 0; i < 60; ++i) clients.push_back(std::make_unique<RawConnection>(port));
    for (const auto& client : clients) client->Send("GET /livez HTTP/1.1\r\n");
    while (!stop) {
      for (const auto& client : clients) client->Send("x");
      absl::SleepFor(absl::Milliseconds(20));
    }
  });
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_GE(AnsweredOf12(**http), 9);
  stop = true;
  slow.join();
}

// A browser opens connections ahead, and sends on them when it comes to it.
TEST(AdminHttpTest, WhoSendsLateIsWaitedForWhereThreadsAreFree) {
  auto http = AdminHttp::Start("127.0.0.1", 0, {{"/livez", [] { return HttpPage{.body = "alive\n"}; }}});
  ASSERT_TRUE(http.ok()) << http.status();
  RawConnection late(PortOf((*http)->address()));
  for (const absl::Time end = absl::Now() + absl::Seconds(1); absl::Now() < end;) {
    EXPECT_EQ(Get(**http, "/livez").first, 200);
  }
  ASSERT_TRUE(late.Send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"));
  std::string heard;
  EXPECT_TRUE(late.ClosedWithin(absl::Seconds(20), &heard));
  EXPECT_THAT(heard, HasSubstr("alive"));
}

// Some hundred new ones a second: whoever waits for the rest of a request does not keep those waiting who sent theirs.
TEST(AdminHttpTest, AStreamOfHalfRequestsDoesNotKeepASupervisorWaiting) {
  auto http = AdminHttp::Start("127.0.0.1", 0, {{"/livez", [] { return HttpPage{.body = "alive\n"}; }}});
  ASSERT_TRUE(http.ok()) << http.status();
  const int port = PortOf((*http)->address());
  std::atomic<bool> stop{false};
  std::thread flood([&] {
    std::deque<std::unique_ptr<RawConnection>> clients;
    while (!stop) {
      clients.push_back(std::make_unique<RawConnection>(port));
      clients.back()->Send("GET /livez HTTP/1.1\r\nA:");
      if (clients.size() > 500) clients.pop_front();
      absl::SleepFor(absl::Milliseconds(3));
    }
  });
  absl::SleepFor(absl::Seconds(1));
  EXPECT_GE(AnsweredOf12(**http), 9);
  stop = true;
  flood.join();
}

// How many connections may wait to be accepted on this port of this process.
int Backlog(int port) {
  for (int fd = 3; fd < 1024; ++fd) {
    sockaddr_in name{};
    socklen_t size = sizeof(name);
    int listens = 0;
    socklen_t int_size = sizeof(listens);
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0 || ntohs(name.sin_port) != port) continue;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &int_size) != 0 || listens == 0) continue;
    tcp_info info{};
    socklen_t info_size = sizeof(info);
    EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_size), 0);
    return static_cast<int>(info.tcpi_sacked);  // of a listening socket, as `ss -l` shows it
  }
  return -1;
}

TEST(AdminHttpTest, ManyWhoConnectAtOnceNeedNotTryAgain) {
  const auto http = AdminHttp::Start("127.0.0.1", 0, {});
  ASSERT_TRUE(http.ok()) << http.status();
  EXPECT_GE(Backlog(PortOf((*http)->address())), 128);
}

TEST(AdminHttpTest, SlowClientsDoNotHoldTheEndUp) {
  auto http = AdminHttp::Start("127.0.0.1", 0, {{"/livez", [] { return HttpPage{.body = "alive\n"}; }}});
  ASSERT_TRUE(http.ok()) << http.status();
  std::vector<std::unique_ptr<RawConnection>> clients;
  for (int i = 0; i < 60; ++i) {
    clients.push_back(std::make_unique<RawConnection>(PortOf((*http)->address())));
    clients.back()->Send("GET /livez HTTP/1.1\r\n");
  }
  const absl::Time start = absl::Now();
  http->reset();
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
}

TEST(AdminHttpTest, APortInUseIsAnError) {
  auto first = AdminHttp::Start("127.0.0.1", 0, {});
  ASSERT_TRUE(first.ok());
  const auto second = AdminHttp::Start("127.0.0.1", PortOf((*first)->address()), {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.status().message(), HasSubstr("admin.http_port"));
  EXPECT_FALSE(AdminHttp::Start("203.0.113.1", 0, {}).ok());
}

TEST(AdminHttpTest, StartsAndStopsAtOnce) {
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(AdminHttp::Start("127.0.0.1", 0, {}).ok());
}

class AdminPagesTest : public LoopbackTest {
 protected:
  void SetUp() override {
    LoopbackTest::SetUp();
    auto http = AdminHttp::Start("127.0.0.1", 0, pages_.Pages());
    ASSERT_TRUE(http.ok()) << http.status();
    http_ = *std::move(http);
  }
  void TearDown() override { http_.reset(); }
  std::string Metrics() {
    const auto [status, body] = Get(*http_, "/metrics");
    EXPECT_EQ(status, 200);
    return body;
  }

  AdminPages pages_;
  std::unique_ptr<AdminHttp> http_;
};

TEST_F(AdminPagesTest, AliveAlwaysReadyOnlyWhileServing) {
  using Page = std::pair<int, std::string>;
  EXPECT_EQ(Get(*http_, "/readyz"), Page(503, "loading\n"));
  EXPECT_THAT(Metrics(), AllOf(HasSubstr("\nbeamline_loading 1"), HasSubstr("\nbeamline_ready 0")));
  EXPECT_EQ(Get(*http_, "/livez"), Page(200, "alive\n"));
  pages_.Serving(&engine_, server_.get());
  EXPECT_THAT(Metrics(), AllOf(HasSubstr("\nbeamline_loading 0"), HasSubstr("\nbeamline_ready 1")));
  EXPECT_EQ(Get(*http_, "/readyz"), Page(200, "ready\n"));
  engine_.set_ready(false);
  EXPECT_EQ(Get(*http_, "/readyz"), Page(503, "the last 3 batches failed\n"));
  EXPECT_THAT(Metrics(), HasSubstr("\nbeamline_ready 0"));
  engine_.set_ready(true);
  pages_.Draining();
  EXPECT_EQ(Get(*http_, "/readyz"), Page(503, "draining\n"));
  EXPECT_EQ(Get(*http_, "/metrics").first, 200);
  EXPECT_EQ(Get(*http_, "/livez").first, 200);
  pages_.Gone();
  EXPECT_EQ(Get(*http_, "/readyz"), Page(503, "draining\n"));
  EXPECT_EQ(Get(*http_, "/metrics").first, 503);
}

TEST_F(AdminPagesTest, MetricsCountWhatHappened) {
  pages_.Serving(&engine_, server_.get());
  v1::RecommendResponse response;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Recommend(ValidRequest(), &response).ok());
  engine_.set_answer([](const RecommendRequest&) { return RecommendResult{}; });  // no model was asked
  ASSERT_TRUE(Recommend(ValidRequest(), &response).ok());
  engine_.set_answer([](const RecommendRequest&) {
    RecommendResult unseen = FakeResult();
    unseen.seen_events = 0;
    return unseen;
  });
  ASSERT_TRUE(Recommend(ValidRequest(), &response).ok());
  engine_.set_answer([](const RecommendRequest&) {
    RecommendResult without_history = FakeResult();
    without_history.seen_events = without_history.unknown_items = without_history.dropped_events = 0;
    return without_history;
  });
  ASSERT_TRUE(Recommend(ValidRequest(), &response).ok());
  engine_.set_answer([](const RecommendRequest&) { return absl::ResourceExhaustedError("full"); });
  EXPECT_FALSE(Recommend(ValidRequest(), &response).ok());
  EXPECT_TRUE(Eventually([&] { return server_->in_flight() == 0; }));
  const std::string page = Metrics();
  EXPECT_THAT(page, HasSubstr("beamline_requests_total{code=\"OK\",reason=\"\"} 6"));
  EXPECT_THAT(page, ContainsRegex("beamline_requests_total.code=\"RESOURCE_EXHAUSTED\",reason=\"[A-Z_]+\". 1"));
  EXPECT_THAT(page, HasSubstr("beamline_request_duration_seconds_count{code=\"OK\"} 6"));
  // The fake's answers waited 11 us and decoded for 33 us; one came without its model.
  EXPECT_THAT(page, HasSubstr("beamline_stage_duration_seconds_count{stage=\"queue\"} 5"));
  EXPECT_THAT(page, HasSubstr("beamline_stage_duration_seconds_count{stage=\"encode\"} 5"));
  EXPECT_THAT(page, HasSubstr("beamline_stage_duration_seconds_count{stage=\"prepare\"} 6"));
  EXPECT_THAT(page, ContainsRegex("beamline_stage_duration_seconds_sum.stage=\"decode\". 0[.]00016[45][0-9]*"));
  EXPECT_THAT(page, HasSubstr("beamline_model_info{model_version=\"model-1\",catalogue_version=\"catalogue-1\","
                              "family=\"fake\",device=\"fake\",dtype=\"bf16\",backend=\"none\"} 1"));
  EXPECT_THAT(page, HasSubstr(absl::StrCat("beamline_build_info{version=\"", ProgramVersion(), "\",commit=\"",
                                           ProgramCommit(), "\"} 1")));
  EXPECT_THAT(page, HasSubstr("beamline_models_refused_total 1"));
  EXPECT_THAT(page, HasSubstr("beamline_model_folder_unreadable 1"));
  EXPECT_THAT(page, HasSubstr("beamline_history_unknown_items_total 12"));
  EXPECT_THAT(page, HasSubstr("beamline_history_dropped_events_total 28"));
  EXPECT_THAT(page, HasSubstr("beamline_history_unseen_total 1"));
  EXPECT_THAT(page, HasSubstr("beamline_models_in_memory 1"));
  EXPECT_THAT(page, HasSubstr("\nbeamline_ready 1"));
  EXPECT_THAT(page, HasSubstr("beamline_grpc_calls_total 7"));
  EXPECT_THAT(page, HasSubstr("beamline_grpc_failed_calls_total{cause=\"refused\"} 1"));
}

// Alone or among others: what kept a request from the engine is counted as what the engine ends.
TEST_F(AdminPagesTest, RequestsWithABadFieldAreCountedAndRecorded) {
  pages_.Serving(&engine_, server_.get());
  v1::RecommendResponse response;
  EXPECT_FALSE(Recommend({}, &response).ok());
  v1::BatchRecommendRequest request;
  for (int i = 0; i < 3; ++i) *request.add_requests() = ValidRequest();
  request.mutable_requests(1)->set_top_k(-1);
  request.mutable_requests(1)->set_request_id("the bad one");
  v1::BatchRecommendResponse batch;
  grpc::ClientContext context;
  SetTimeout(context);
  ASSERT_TRUE(recommend_->BatchRecommend(&context, request, &batch).ok());
  EXPECT_THAT(Metrics(),
              AllOf(HasSubstr("beamline_requests_total{code=\"OK\",reason=\"\"} 2"),
                    HasSubstr("beamline_requests_total{code=\"INVALID_ARGUMENT\",reason=\"FIELD_MISSING\"} 1"),
                    HasSubstr("beamline_requests_total{code=\"INVALID_ARGUMENT\",reason=\"FIELD_OUT_OF_RANGE\"} 1")));
  const auto recorded = nlohmann::json::parse(Get(*http_, "/debug/requests").second);
  EXPECT_EQ(recorded["recent"].size(), 4u);
  EXPECT_THAT(recorded["recent"].dump(), HasSubstr("the_bad_one"));
  EXPECT_THAT(recorded["recent"].dump(), HasSubstr("\"top_k\":-1")) << "what it asked for";
  EXPECT_TRUE(recorded["failed"].empty() && recorded["refused"].empty());
  EXPECT_EQ(nlohmann::json::parse(Get(*http_, "/debug/requests/newest").second), recorded) << "so few are all";
}

TEST_F(AdminPagesTest, NarrowedAnswersAreCountedByStep) {
  pages_.Serving(&engine_, server_.get());
  v1::RecommendResponse response;
  for (const int step : {0, 2, 2, 1}) {
    engine_.set_answer([step](const RecommendRequest&) {
      RecommendResult result = FakeResult();
      result.narrowing = step;
      return result;
    });
    ASSERT_TRUE(Recommend(ValidRequest(), &response).ok());
  }
  EXPECT_THAT(Metrics(),
              AllOf(HasSubstr("beamline_narrowed_requests_total{step=\"1\"} 1"),
                    HasSubstr("beamline_narrowed_requests_total{step=\"2\"} 2"), Not(HasSubstr("step=\"0\""))));
}

TEST_F(AdminPagesTest, UsersAddNoSeries) {
  pages_.Serving(&engine_, server_.get());
  engine_.set_mode(FakeEngine::Mode::kInline);
  const auto ask = [&](int from, int to) {
    v1::RecommendRequest request;
    v1::RecommendResponse response;
    for (int i = from; i < to; ++i) {
      request.set_user_id(absl::StrCat("user ", i));
      request.set_request_id(absl::StrCat("request ", i));
      ASSERT_TRUE(Recommend(request, &response).ok());
    }
  };
  const auto series = [&] {
    std::set<std::string> names;
    std::istringstream page(Metrics());
    for (std::string line; std::getline(page, line);) names.insert(line.substr(0, line.rfind(' ')));
    return names;
  };
  ask(0, 1);
  const auto before = series();
  ask(1, 200);
  EXPECT_EQ(series(), before);
  for (const std::string& name : before) EXPECT_THAT(name, Not(HasSubstr("user ")));
}

void ExpectPromtoolIsSilent(const std::string& page) {
  const std::string file = ::testing::TempDir() + "metrics.txt";
  std::ofstream(file) << page;
  FILE* const promtool = popen(("promtool check metrics < " + file + " 2>&1").c_str(), "r");
  std::string said;
  for (int c; (c = std::fgetc(promtool)) != EOF;) said.push_back(static_cast<char>(c));
  EXPECT_EQ(pclose(promtool), 0) << said;
  EXPECT_EQ(said, "");
}

bool HasPromtool() { return std::system("command -v promtool >/dev/null") == 0; }

TEST_F(AdminPagesTest, PromtoolFindsNothingToSay) {
  if (!HasPromtool()) GTEST_SKIP() << "promtool (Debian: prometheus) is not here";
  ExpectPromtoolIsSilent(Metrics());
  pages_.Serving(&engine_, server_.get());
  v1::RecommendResponse response;
  ASSERT_TRUE(Recommend(ValidRequest(), &response).ok());
  ExpectPromtoolIsSilent(Metrics());
}

// All that the page can have.
std::string EveryMetric() {
  Metrics metrics;
  RecommendResult narrowed = FakeResult();
  narrowed.narrowing = 1;
  metrics.Ended(narrowed, absl::Milliseconds(3));
  const EngineStatus engine;
  const ServerCounters server;
  return metrics.Render(
      {.engine = engine,
       .server = server,
       .tls =
           TlsStatus{
               .expiry = absl::FromUnixSeconds(1'900'000'000), .reloads = 1, .refused = 2, .failed_handshakes = 3},
       .device_memory = DeviceMemory{.total = 80, .free = 30},
       .device_passes = DevicePasses{.graph = 9, .captured = 2, .enqueued = 1},
       .started = absl::FromUnixSeconds(1'800'000'000),
       .now = absl::FromUnixSeconds(1'800'000'005)});
}

TEST(MetricsTest, PromtoolFindsNothingToSayWithTlsADeviceAndNarrowing) {
  if (!HasPromtool()) GTEST_SKIP() << "promtool (Debian: prometheus) is not here";
  const std::string page = EveryMetric();
  EXPECT_THAT(page, AllOf(HasSubstr("beamline_tls_reloads_total{result=\"refused\"} 2"),
                          HasSubstr("beamline_device_memory_used_bytes 50"),
                          HasSubstr("beamline_narrowed_requests_total{step=\"1\"} 1")));
  ExpectPromtoolIsSilent(page);
}

// DashboardTest runs the queries, but where one ends in "or 0 * ..." they find data whatever stands before it.
TEST(MetricsTest, TheDashboardAsksForWhatThereIs) {
  const std::string page = EveryMetric();
  const auto dashboard = ReadFile(BEAMLINE_SOURCE_DIR + "/monitoring/grafana/beamline.json", 1 << 20);
  ASSERT_TRUE(dashboard.ok()) << dashboard.status();
  const std::regex pattern(R"(\bbeamline_[a-z0-9_]+)");
  std::set<std::string> names;
  for (std::sregex_iterator name(dashboard->begin(), dashboard->end(), pattern), end; name != end; ++name) {
    names.insert(name->str());
  }
  EXPECT_GE(names.size(), 15u);
  for (const std::string& name : names) EXPECT_THAT(page, HasSubstr(absl::StrCat("\n", name))) << name;
}

}  // namespace
}  // namespace beamline::server
