// SPDX-License-Identifier: Apache-2.0
//
// A request from the admin page: who may send it, what comes back, and that it holds nobody up.
#include "server/live_request.h"

#include <future>

#include "absl/strings/numbers.h"
#include "absl/strings/str_replace.h"
#include "base/json.h"
#include "base/program.h"
#include "gmock/gmock.h"
#include "httplib.h"
#include "server/admin_pages.h"
#include "server/loopback.h"

namespace beamline::server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kPath[] = "/debug/recommend";

RecommendResult TracedResult() {
  RecommendResult result = FakeResult();
  SearchTrace trace;
  trace.history = {{.item = 3, .timestamp_ms = 1000, .labels = kClick | kLongView}, {.item = 99}};
  trace.levels = {{{1, 0, -0.5f, -0.5f}, {0, 0, -1.0f, -1.0f}},
                  {{0, 0, -0.25f, -0.75f}, {1, 1, -0.5f, -1.5f}},
                  {{0, 0, -0.125f, -0.875f}, {0, 1, 0.0f, -1.5f}}};
  result.trace = std::make_shared<const SearchTrace>(std::move(trace));
  result.items[0].value = 2.5f;
  result.timings.steps = {absl::Microseconds(10), absl::Microseconds(11), absl::Microseconds(12)};
  return result;
}

class LiveRequestTest : public LoopbackTest {
 protected:
  void SetUp() override {
    LoopbackTest::SetUp();
    engine_.set_answer([](const RecommendRequest&) { return TracedResult(); });
    StartPages(true);
  }
  void TearDown() override { http_.reset(); }
  void StartPages(bool live_requests) {
    http_.reset();
    pages_ = std::make_unique<AdminPages>(AdminPages::Options{.live_requests = live_requests});
    auto http = AdminHttp::Start("127.0.0.1", 0, pages_->Pages(), pages_->Posts());
    ASSERT_TRUE(http.ok()) << http.status();
    http_ = *std::move(http);
    pages_->Serving(&engine_, server_.get());
  }
  httplib::Client Client() const {
    int port = 0;
    EXPECT_TRUE(absl::SimpleAtoi(http_->address().substr(http_->address().rfind(':') + 1), &port));
    httplib::Client client("127.0.0.1", port);
    client.set_read_timeout(20);
    return client;
  }
  struct Answer {
    int status;
    json body;
  };
  Answer Post(const std::string& body, const httplib::Headers& headers = {},
              const char* content_type = "application/json") const {
    const httplib::Result result = Client().Post(kPath, headers, body, content_type);
    if (!result) return {0, json()};
    return {result->status, json::parse(result->body, nullptr, false)};
  }

  std::unique_ptr<AdminPages> pages_;
  std::unique_ptr<AdminHttp> http_;
};

TEST_F(LiveRequestTest, TellsHistoryBeamsAndVideos) {
  const auto [status, body] = Post(R"({"userId": "u", "history": [{"itemId": "3"}], "topK": 5, "beamWidths": [4]})");
  ASSERT_EQ(status, 200) << body;
  const RecommendRequest request = engine_.requests().at(0);
  EXPECT_TRUE(request.trace);
  EXPECT_EQ(request.user_id, "u");
  EXPECT_EQ(request.top_k, 5);
  EXPECT_LT(request.deadline, absl::Now() + absl::Seconds(6));
  EXPECT_EQ(body["history"][0]["title"], "title 3");
  EXPECT_EQ(body["history"][0]["item"], "3");
  EXPECT_EQ(body["history"][0]["labels"], json({"click", "long view"}));
  EXPECT_FALSE(body["history"][1].contains("title")) << "not in the catalogue";
  ASSERT_EQ(body["levels"].size(), 3u);
  EXPECT_EQ(body["levels"][1]["width"], 4);
  EXPECT_EQ(body["levels"][1]["step_us"], 11.0);
  EXPECT_EQ(body["levels"][1]["beams"][1], json({{"code", 1}, {"parent", 1}, {"log_prob", -0.5}, {"score", -1.5}}));
  EXPECT_EQ(body["items"][0]["item"], "5");
  EXPECT_EQ(body["items"][0]["sid"], json({1, 0, 0}));
  EXPECT_EQ(body["items"][0]["score"], -0.875);
  EXPECT_EQ(body["items"][0]["value"], 2.5) << "what the list is ordered by";
  EXPECT_FALSE(body["items"][1].contains("value"));
  EXPECT_EQ(body["model_version"], "model-1");
}

TEST_F(LiveRequestTest, IsOffUnlessTheConfigurationAllowsIt) {
  StartPages(false);
  const auto [status, body] = Post(R"({"userId": "u"})");
  EXPECT_EQ(status, 403);
  EXPECT_THAT(body["error"].get<std::string>(), HasSubstr("admin.live_requests"));
  EXPECT_TRUE(engine_.requests().empty());
}

TEST_F(LiveRequestTest, OnlyOurOwnPageUnderALoopbackNameMaySendIt) {
  const std::string body = R"({"userId": "u"})";
  EXPECT_EQ(Post(body, {{"Host", "attacker.example:50053"}}).status, 403) << "a name that was made to point here";
  EXPECT_EQ(Post(body, {{"Host", "127.0.0.1.attacker.example"}}).status, 403);
  EXPECT_EQ(Post(body, {{"Origin", "https://attacker.example"}}).status, 403) << "another page in the same browser";
  EXPECT_EQ(Post(body, {{"Origin", "null"}}).status, 403);
  EXPECT_EQ(Post(body, {}, "text/plain").status, 403) << "what a form can send without asking";
  EXPECT_TRUE(engine_.requests().empty());
  EXPECT_EQ(Post(body, {{"Host", "localhost:1"}, {"Origin", "http://localhost:1"}}).status, 200);
  EXPECT_EQ(Post(body, {{"Host", "[::1]:1"}}).status, 200);
}

TEST_F(LiveRequestTest, BadInputNamesItsField) {
  for (const auto& [body, error] :
       std::vector<std::pair<std::string, std::string>>{{"", "JSON"},
                                                        {"{", "JSON"},
                                                        {"[]", "JSON"},
                                                        {R"({"unknown": 1})", "unknown"},
                                                        {R"({"userId": 7e400})", "JSON"},
                                                        {R"({})", "user_id"},
                                                        {R"({"userId": "u", "topK": 0})", "top_k"},
                                                        {R"({"userId": "u", "beamWidths": [99999]})", "beam_widths[0]"},
                                                        {R"({"history": [{"itemId": "-1"}]})", "JSON"},
                                                        {std::string(100000, '['), "JSON"}}) {
    const Answer answer = Post(body);
    EXPECT_EQ(answer.status, 400) << body.substr(0, 50);
    EXPECT_THAT(answer.body.value("error", ""), HasSubstr(error));
  }
  EXPECT_EQ(Post(std::string(AdminHttp::kMaxBodyBytes + 1, 'x')).status, 413);
  EXPECT_TRUE(engine_.requests().empty());
  EXPECT_EQ(Post(R"({"userId": "u"})").status, 200);
}

TEST_F(LiveRequestTest, ErrorsOfTheEngineAreTold) {
  engine_.set_answer([](const RecommendRequest&) { return absl::ResourceExhaustedError("the queue is full"); });
  const auto [status, body] = Post(R"({"userId": "u"})");
  EXPECT_EQ(status, 503);
  EXPECT_EQ(body["error"], "the queue is full");
}

TEST_F(LiveRequestTest, ASlowOneHoldsNobodyUpAndFewRunAtOnce) {
  engine_.set_mode(FakeEngine::Mode::kHold);
  std::vector<std::future<Answer>> held;
  for (int i = 0; i < 2; ++i) {
    held.push_back(std::async(std::launch::async, [this] { return Post(R"({"userId": "u"})"); }));
  }
  ASSERT_TRUE(engine_.AwaitRequests(2));
  EXPECT_EQ(Post(R"({"userId": "u"})").status, 429);
  for (const char* page : {"/livez", "/readyz", "/metrics", "/debug/requests", "/debug/status"}) {
    const absl::Time start = absl::Now();
    const httplib::Result result = Client().Get(page);
    ASSERT_TRUE(result) << page;
    EXPECT_EQ(result->status, 200) << page;
    EXPECT_LT(absl::Now() - start, absl::Seconds(2)) << page;
  }
  auto gone = std::async(std::launch::async, [this] { pages_->Gone(); });
  EXPECT_EQ(gone.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout) << "they use the engine";
  engine_.Release(TracedResult());
  gone.get();
  for (auto& answer : held) EXPECT_EQ(answer.get().status, 200);
  EXPECT_EQ(Post(R"({"userId": "u"})").status, 503);
}

TEST_F(LiveRequestTest, PagesForbidWhatIsNotTheirOwn) {
  for (const char* page : {"/", "/page.css", "/page.js", "/page.svg", "/debug/status"}) {
    const httplib::Result result = Client().Get(page);
    ASSERT_TRUE(result) << page;
    EXPECT_EQ(result->status, 200) << page;
    EXPECT_THAT(result->get_header_value("Content-Security-Policy"), HasSubstr("default-src 'none'"));
    EXPECT_EQ(result->get_header_value("Content-Security-Policy").find("unsafe"), std::string::npos);
    EXPECT_EQ(result->get_header_value("X-Content-Type-Options"), "nosniff");
    EXPECT_EQ(result->get_header_value("Cache-Control"), "no-store");
    // The name of a namespace is no address.
    const std::string body = absl::StrReplaceAll(result->body, {{"http://www.w3.org/2000/svg", ""}});
    EXPECT_EQ(body.find("http://"), std::string::npos) << page;
    EXPECT_EQ(body.find("https://"), std::string::npos) << page;
  }
}

TEST_F(LiveRequestTest, TheStatusIsToldWhileLoadingToo) {
  const httplib::Result serving = Client().Get("/debug/status");
  EXPECT_EQ(json::parse(serving->body)["not_ready"], "");
  EXPECT_EQ(json::parse(serving->body)["ranker"], true);
  EXPECT_EQ(json::parse(serving->body)["server_commit"], ProgramCommit());
  EXPECT_EQ(json::parse(serving->body)["versions"][1]["error"], "broken/items: was damaged");
  pages_ = nullptr;
  http_ = nullptr;
  AdminPages loading;
  auto http = AdminHttp::Start("127.0.0.1", 0, loading.Pages(), loading.Posts());
  http_ = *std::move(http);
  EXPECT_EQ(json::parse(Client().Get("/debug/status")->body)["not_ready"], "loading");
  EXPECT_EQ(Client().Get("/debug/requests")->status, 503);
  http_ = nullptr;
}

}  // namespace
}  // namespace beamline::server
