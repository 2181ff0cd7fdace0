// SPDX-License-Identifier: Apache-2.0
//
// The admin page of a real server in a real browser, used as an operator would. BEAMLINE_SCREENSHOTS=DIR keeps
// pictures.
#include <cmath>
#include <csignal>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "deploy/browser.h"
#include "deploy/real_server.h"
#include "gmock/gmock.h"

namespace beamline::deploy {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class PageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (access(BEAMLINE_CHROMIUM, X_OK) != 0) GTEST_SKIP() << "chromium is not installed (scripts/setup.sh --dev)";
    ASSERT_TRUE(runtime::testing::WriteTinyBundle(::testing::TempDir() + "/bundle").ok());
    StartServer("live_requests: true slow_request_ms: 1");
    browser_ = std::make_unique<Browser>(BEAMLINE_CHROMIUM);
    SetWindow(1500, 1100);
  }
  void StartServer(const std::string& admin) {
    server_ = std::make_unique<RealServer>(
        LoopbackAddress(1),
        RealServerConfig{.engine = absl::StrCat("bundle: '", ::testing::TempDir(), "/bundle'"), .admin = admin});
    server_->Start();
    ASSERT_TRUE(server_->AwaitReady());
  }
  void SetWindow(int width, int height, bool dark = false) {
    browser_->Call("Emulation.setDeviceMetricsOverride",
                   {{"width", width}, {"height", height}, {"deviceScaleFactor", 1}, {"mobile", false}});
    browser_->Call("Emulation.setEmulatedMedia",
                   {{"features", {{{"name", "prefers-color-scheme"}, {"value", dark ? "dark" : "light"}}}}});
  }
  std::string Url() const { return absl::StrCat("http://", LoopbackAddress(1), ":50053/"); }
  void Open() {
    browser_->Open(Url());
    ASSERT_TRUE(browser_->Await("document.getElementById('ready').textContent === 'ready'"));
  }
  // Types a request and runs it; the beams of `beams` width have begun to grow when it returns.
  void Ask(const std::string& history, const std::string& beams, const std::string& top) {
    for (const auto& [field, text] :
         std::vector<std::pair<std::string, std::string>>{{"history", history}, {"beams", beams}, {"top", top}}) {
      browser_->Evaluate(absl::StrCat("document.getElementById('", field, "').value = ''"));
      browser_->Click("#" + field);
      browser_->Type(text);
    }
    browser_->Click("#run");
  }
  void Picture(const std::string& name) {
    if (const char* folder = std::getenv("BEAMLINE_SCREENSHOTS")) {
      absl::SleepFor(absl::Milliseconds(600));  // what moves comes to rest
      browser_->Screenshot(absl::StrCat(folder, "/", name, ".png"));
    }
  }
  static constexpr char kShown[] = "document.querySelectorAll('.column:not(.ahead)').length";

  std::unique_ptr<RealServer> server_;
  std::unique_ptr<Browser> browser_;
};

// Every number on the page is the server's: the same request over gRPC has the videos, and their log-probabilities the
// beams.
TEST_F(PageTest, ShowsARequestFromHistoryToVideos) {
  Open();
  browser_->Evaluate(absl::StrCat("window.seen = []; new MutationObserver(() => seen.push(stage.textContent + ': ' + ",
                                  kShown,
                                  " + ' columns')).observe(document.getElementById('stage'), {childList: true, "
                                  "characterData: true, subtree: true})"));
  Ask("1001, 1002 1003\n999999", "6", "5");
  ASSERT_TRUE(browser_->Await("!document.getElementById('result').hidden")) << server_->log();
  ASSERT_TRUE(browser_->Await(absl::StrCat(kShown, " === 5"))) << "history, three levels, videos";
  EXPECT_EQ(browser_->Evaluate("seen"),
            json({"the history: 1 columns", "level 1 of 3: 2 columns", "level 2 of 3: 3 columns",
                  "level 3 of 3: 4 columns", "the videos: 5 columns"}))
      << "level by level";
  Picture("grown");

  v1::RecommendRequest request;
  for (uint64_t item : {1001, 1002, 1003, 999999}) request.add_history()->set_item_id(item);
  request.add_beam_widths(6);
  request.set_top_k(5);
  v1::RecommendResponse answer;
  ASSERT_TRUE(deploy::Ask(*v1::RecommendService::NewStub(Connect(server_->target())), request, &answer).ok());
  ASSERT_EQ(answer.items_size(), 5);
  const json videos = browser_->Evaluate(
      "[...document.querySelectorAll('.video')].map(box => ({item: box.beam.item, sid: box.beam.sid, path: (() => {"
      " const way = []; for (let b = box.beam.up; b; b = b.up) way.unshift([b.code, b.log_prob]); return way; })()}))");
  ASSERT_EQ(videos.size(), 5u);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(videos[i]["item"], absl::StrCat(answer.items(i).item_id()));
    ASSERT_EQ(videos[i]["path"].size(), 3u) << "its beams are on the page";
    for (int level = 0; level < 3; ++level) {
      EXPECT_EQ(videos[i]["path"][level][0], answer.items(i).sid().codes(level));
      EXPECT_NEAR(videos[i]["path"][level][1].get<double>(), answer.items(i).log_probs(level), 1e-5);
    }
    const std::string text =
        browser_->Evaluate(absl::StrCat("document.querySelectorAll('.video')[", i, "].textContent")).get<std::string>();
    EXPECT_THAT(text, HasSubstr(absl::StrCat(i + 1, ". ")));
    EXPECT_THAT(text, HasSubstr(" %"));
  }
  EXPECT_EQ(browser_->Evaluate("document.querySelectorAll('.event').length"), 4);
  EXPECT_EQ(browser_->Evaluate("document.querySelectorAll('.event.unknown').length"), 1);
  const json beams = browser_->Evaluate(
      "[...document.querySelectorAll('.column.level')].map(c => c.querySelectorAll('.beam').length)");
  EXPECT_EQ(beams, json({6, 6, 6}));
  // A line to every beam and every video.
  EXPECT_EQ(browser_->Evaluate("document.querySelectorAll('#links path').length"), 6 + 6 + 6 + 5);
  EXPECT_THAT(browser_->problems(), IsEmpty());
}

TEST_F(PageTest, IsUsedByKeyboardStepByStep) {
  Open();
  Ask("1001 1002 1003", "6", "5");
  ASSERT_TRUE(browser_->Await(absl::StrCat(kShown, " === 5")));
  browser_->Click("#first");
  EXPECT_EQ(browser_->Evaluate(kShown), 1);
  browser_->Click("#forward");
  EXPECT_EQ(browser_->Evaluate(kShown), 2);
  Picture("growing");
  browser_->Evaluate("document.querySelector('.column.level .beam').focus()");
  browser_->Press("ArrowDown");
  EXPECT_EQ(browser_->Evaluate("document.activeElement.beam.row"), 1);
  browser_->Press("ArrowRight");
  EXPECT_EQ(browser_->Evaluate("document.activeElement.beam.depth"), 0) << "what is not shown is not reached";
  browser_->Click("#play");
  ASSERT_TRUE(browser_->Await(absl::StrCat(kShown, " === 5")));
  browser_->Evaluate("document.querySelector('.video').focus()");
  EXPECT_EQ(browser_->Evaluate("document.querySelectorAll('.beam.on').length"), 3) << "its way is marked";
  EXPECT_THAT(browser_->Evaluate("document.getElementById('path').textContent").get<std::string>(), HasSubstr(" × "));
  browser_->Press("ArrowLeft");
  EXPECT_EQ(browser_->Evaluate("document.activeElement.beam.depth"), 2);
  EXPECT_EQ(browser_->Evaluate("[...document.querySelectorAll('button, input, textarea')].filter(e =>"
                               " !(e.textContent.trim() || e.labels && e.labels.length || e.title)).length"),
            0)
      << "everything that can be used has a name";
  EXPECT_THAT(browser_->problems(), IsEmpty());
}

TEST_F(PageTest, SaysWhatIsWrongWithARequest) {
  Open();
  Ask("abc", "6", "5");
  ASSERT_TRUE(browser_->Await("!document.getElementById('error').hidden"));
  EXPECT_EQ(browser_->Evaluate("document.getElementById('error').textContent"),
            "history: \"abc\" is not an item id; give numbers");
  Ask("1001", "2000", "5");  // the page allows what another server might
  ASSERT_TRUE(browser_->Await("document.getElementById('error').textContent.startsWith('beam_widths[0]')"));
  EXPECT_EQ(browser_->Evaluate("document.getElementById('result').hidden"), true);
  // The browser itself notes the server's 400; nothing else.
  for (const std::string& problem : browser_->problems()) EXPECT_THAT(problem, HasSubstr("400 (Bad Request)"));
}

TEST_F(PageTest, ShowsTheFlightRecorderAndTrustsNoText) {
  const auto stub = v1::RecommendService::NewStub(Connect(server_->target()));
  v1::RecommendRequest request = FixedRequests()[2];
  request.set_request_id("<img/src=x/onerror=alert(1)>");
  v1::RecommendResponse answer;
  ASSERT_TRUE(deploy::Ask(*stub, request, &answer).ok());
  EXPECT_FALSE(deploy::Ask(*stub, request, &answer, -absl::Seconds(1)).ok());
  Open();
  ASSERT_TRUE(browser_->Await("document.querySelectorAll('#requests tbody tr').length >= 1"));
  EXPECT_EQ(browser_->Evaluate("document.querySelectorAll('#requests img').length"), 0);
  EXPECT_THAT(browser_->Evaluate("document.getElementById('requests').textContent").get<std::string>(),
              HasSubstr("<img/src=x/onerror=alert(1)>"));
  Picture("requests");
  browser_->Click("#tab-slow");
  ASSERT_TRUE(
      browser_->Await("document.getElementById('tab-slow').getAttribute('aria-selected') === 'true' &&"
                      " document.querySelectorAll('#requests tbody tr').length >= 1"));
  browser_->Click("#tab-refused");  // the request whose deadline was over never came in, or ended here
  ASSERT_TRUE(browser_->Await("document.getElementById('tab-refused').getAttribute('aria-selected') === 'true'"));
  EXPECT_THAT(browser_->Evaluate("document.getElementById('models').textContent").get<std::string>(),
              HasSubstr("serving"));
  EXPECT_THAT(browser_->problems(), IsEmpty());
  for (const std::string& asked : browser_->requests()) {
    EXPECT_TRUE(absl::StartsWith(asked, Url())) << asked;
    EXPECT_FALSE(absl::EndsWith(asked, "debug/requests")) << "all that is recorded may be 40 MB";
  }
  // The policy is in force: a script that got into the page would not run.
  browser_->Evaluate(
      "(() => { const s = document.createElement('script'); s.textContent = 'window.broken = 1';"
      " document.body.append(s); })()");
  EXPECT_EQ(browser_->Evaluate("window.broken === undefined"), true);
  EXPECT_THAT(browser_->problems(), ElementsAre(HasSubstr("Content Security Policy")));
}

TEST_F(PageTest, SaysThatAServerNoLongerAnswers) {
  Open();
  kill(server_->pid(), SIGSTOP);  // it still takes connections, and says nothing
  EXPECT_TRUE(browser_->Await("document.getElementById('ready').textContent === 'no answer'"));
  kill(server_->pid(), SIGCONT);
  EXPECT_TRUE(browser_->Await("document.getElementById('ready').textContent === 'ready'"));
  EXPECT_EQ(server_->Stop(SIGTERM), 0);
  EXPECT_TRUE(browser_->Await("document.getElementById('ready').textContent === 'no answer'"));
  server_->Start();
  ASSERT_TRUE(server_->AwaitReady());
  EXPECT_TRUE(browser_->Await("document.getElementById('ready').textContent === 'ready'"));
}

// The recorder keeps what failed or was slow for as long as it takes to be more than a ring of it.
TEST_F(PageTest, TellsADayThatIsNotThisOne) {
  Open();
  const std::string row =
      "requestRow({ended_ms: %s, request_id: '', trace_id: '', code: 'OK', total_us: 1,"
      " history_events: 0}).cells[0].textContent";
  const json now = browser_->Evaluate(absl::StrReplaceAll(row, {{"%s", "Date.now()"}}));
  const json before = browser_->Evaluate(absl::StrReplaceAll(row, {{"%s", "Date.UTC(2019, 5, 15)"}}));
  const std::string year = browser_->Evaluate("String(new Date().getFullYear())").get<std::string>();
  EXPECT_THAT(now.get<std::string>(), Not(HasSubstr(year)));
  EXPECT_THAT(before.get<std::string>(), HasSubstr("2019"));
}

TEST_F(PageTest, OffersNoLiveRequestsUnlessAllowed) {
  server_ = nullptr;
  StartServer("");
  Open();
  EXPECT_EQ(browser_->Evaluate("document.getElementById('form').hidden"), true);
  EXPECT_EQ(browser_->Evaluate("document.getElementById('live-off').hidden"), false);
  EXPECT_THAT(browser_->problems(), IsEmpty());
}

TEST_F(PageTest, FitsBothSchemesAndASmallScreen) {
  SetWindow(1500, 1100, /*dark=*/true);
  Open();
  Ask("1001 1002 1003 1004 1005 1006 1007 1008", "40", "12");
  ASSERT_TRUE(browser_->Await(absl::StrCat(kShown, " === 5")));
  EXPECT_EQ(browser_->Evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(16, 19, 26)");
  Picture("dark");
  for (const int width : {420, 360}) {  // the latter is a small phone
    SetWindow(width, 900);
    EXPECT_TRUE(browser_->Await("getComputedStyle(document.body).backgroundColor === 'rgb(246, 247, 249)'"));
    EXPECT_EQ(browser_->Evaluate("document.documentElement.scrollWidth <= innerWidth"), true)
        << "the page itself does not scroll sideways; beyond the edge: "
        << browser_->Evaluate(
               "[...document.querySelectorAll('body *')].filter(e => !e.closest('#scroll, #requests, #models') &&"
               " e.getBoundingClientRect().right > innerWidth).map(e => `${e.tagName}#${e.id}.${e.className} "
               "${e.getBoundingClientRect().right}`).join('; ') + ' of ' + innerWidth");
    EXPECT_EQ(browser_->Evaluate("[...document.querySelectorAll('.key')].every(key => key.getBoundingClientRect().width"
                                 " > 10)"),
              true)
        << "a colour of a legend is not squeezed away";
  }
  Picture("small");
  EXPECT_THAT(browser_->problems(), IsEmpty());
}

}  // namespace
}  // namespace beamline::deploy
