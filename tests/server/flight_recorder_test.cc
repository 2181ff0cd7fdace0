// SPDX-License-Identifier: Apache-2.0
#include "server/flight_recorder.h"

#include <csignal>
#include <fstream>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "base/json.h"
#include "beamline/stage_timings.h"
#include "beamline/types.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const TraceParent kTrace{"4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", true};

RecommendRequest RequestNamed(const std::string& id) {
  RecommendRequest request;
  request.request_id = id;
  request.user_id = "canary-user";
  request.history = {{.item = 424242}, {.item = 434343}};
  request.top_k = 7;
  return request;
}

FlightRecord RecordOf(const std::string& id, const absl::StatusOr<RecommendResult>& result,
                      absl::Duration took = absl::Milliseconds(3)) {
  FlightRecord record = BeginRecord(RequestNamed(id), kTrace);
  EndRecord(result, took, absl::FromUnixMillis(1234567890123), &record);
  return record;
}

RecommendResult Answered() {
  RecommendResult result;
  result.items.resize(5);
  result.beam_widths = {4, 16, 8};
  result.model_version = "model-1";
  result.timings.decode_requests = 3;
  result.timings.decode_rows = 48;
  result.timings.queue = absl::Microseconds(11);
  result.timings.decode = absl::Microseconds(60);
  result.timings.steps = {absl::Microseconds(10), absl::Microseconds(20), absl::Microseconds(30)};
  return result;
}

nlohmann::json JsonOf(const FlightRecorder& recorder) { return nlohmann::json::parse(recorder.ToJson()); }

std::vector<std::string> Ids(const nlohmann::json& records) {
  std::vector<std::string> ids;
  for (const auto& record : records) ids.push_back(record.at("request_id"));
  return ids;
}

TEST(FlightRecorder, TellsIdsTimesSizesStatusBatchAndModel) {
  FlightRecorder recorder({});
  recorder.Add(RecordOf("a", Answered()));
  const nlohmann::json record = JsonOf(recorder)["recent"][0];
  EXPECT_EQ(record["request_id"], "a");
  EXPECT_EQ(record["trace_id"], kTrace.trace_id);
  EXPECT_EQ(record["span_id"], kTrace.span_id);
  EXPECT_EQ(record["ended_ms"], 1234567890123);
  EXPECT_EQ(record["code"], "OK");
  EXPECT_EQ(record["history_events"], 2);
  EXPECT_EQ(record["top_k"], 7);
  EXPECT_EQ(record["beam_width"], 16);
  EXPECT_EQ(record["items"], 5);
  EXPECT_EQ(record["batch_requests"], 3);
  EXPECT_EQ(record["batch_rows"], 48);
  EXPECT_EQ(record["model_version"], "model-1");
  EXPECT_EQ(record["queue_us"], 11);
  EXPECT_EQ(record["decode_us"], 60);
  EXPECT_EQ(record["step_us"], nlohmann::json({10, 20, 30}));
  EXPECT_EQ(record["total_us"], 3000);
}

// By a ladder, of 64 that were asked for.
TEST(FlightRecorder, TellsTheBeamsThatWereTaken) {
  RecommendRequest request;
  request.beam_widths = {64};
  FlightRecord record = BeginRecord(request, kTrace);
  EXPECT_EQ(record.beam_width, 64);
  RecommendResult answered = Answered();
  answered.narrowing = 2;
  EndRecord(answered, absl::Milliseconds(3), absl::Now(), &record);
  EXPECT_EQ(record.beam_width, 16);
  FlightRecorder recorder({});
  recorder.Add(record);
  EXPECT_EQ(JsonOf(recorder)["recent"][0]["narrowing"], 2);
}

TEST(FlightRecorder, TellsTheNewestAlone) {
  FlightRecorder recorder({.capacity = 16});
  for (const char* id : {"a", "b", "c"}) recorder.Add(RecordOf(id, Answered()));
  recorder.Add(RecordOf("broken", absl::InternalError("")));
  const nlohmann::json two = nlohmann::json::parse(recorder.ToJson(2));
  EXPECT_THAT(Ids(two["recent"]), ElementsAre("broken", "c"));
  EXPECT_THAT(Ids(two["failed"]), ElementsAre("broken"));
  EXPECT_TRUE(two["slow"].empty() && two["refused"].empty());
}

// What is read is a run of what was added, though others add while it is copied piece by piece.
TEST(FlightRecorder, IsReadWhileOthersAdd) {
  FlightRecorder recorder({.capacity = 256});
  std::jthread adds([&](const std::stop_token& stop) {
    FlightRecord record = RecordOf("a", Answered());
    for (record.top_k = 1; !stop.stop_requested(); ++record.top_k) recorder.Add(record);
  });
  int newest = 0;
  for (int moved = 0; moved < 100;) {
    const nlohmann::json recent = JsonOf(recorder)["recent"];
    if (!recent.empty() && std::exchange(newest, recent[0]["top_k"].get<int>()) != recent[0]["top_k"]) ++moved;
    for (size_t i = 1; i < recent.size(); ++i) {
      ASSERT_EQ(recent[i]["top_k"].get<int>(), recent[0]["top_k"].get<int>() - static_cast<int>(i)) << i;
    }
  }
  adds.request_stop();
  adds.join();
  EXPECT_EQ(JsonOf(recorder)["recent"].size(), 256u);
  EXPECT_GT(newest, 256) << "none was overwritten";
}

TEST(FlightRecorder, HoldsNothingOfTheUser) {
  FlightRecorder recorder({});
  recorder.Add(RecordOf("a", Answered()));
  recorder.Add(RecordOf("b", absl::InternalError("canary-user watched 424242")));
  EXPECT_THAT(recorder.ToJson(), Not(HasSubstr("canary")));
  EXPECT_THAT(recorder.ToJson(), Not(HasSubstr("4242")));
}

TEST(FlightRecorder, NoKindIsWashedOutByTheOthers) {
  FlightRecorder recorder({.capacity = 64, .slow = absl::Milliseconds(100)});
  recorder.Add(RecordOf("slow", Answered(), absl::Milliseconds(100)));
  recorder.Add(RecordOf("refused", absl::ResourceExhaustedError("full")));
  recorder.Add(RecordOf("broken", absl::InternalError("x")));
  for (int i = 0; i < 1000; ++i) recorder.Add(RecordOf(absl::StrCat("ok", i), Answered()));
  for (int i = 0; i < 1000; ++i) {
    recorder.Add(RecordOf(absl::StrCat("bad", i), InvalidField({kFieldInvalid, "x", "", "", "wrong"})));
  }
  const nlohmann::json all = JsonOf(recorder);
  EXPECT_THAT(Ids(all["slow"]), ElementsAre("slow"));
  EXPECT_THAT(Ids(all["refused"]), ElementsAre("refused")) << "callers' mistakes wash nothing out";
  EXPECT_EQ(all["refused"][0]["code"], "RESOURCE_EXHAUSTED");
  EXPECT_EQ(all["refused"][0]["reason"], "OVERLOADED");
  EXPECT_THAT(Ids(all["failed"]), ElementsAre("broken"));
  for (int i = 0; i < 1000; ++i) recorder.Add(RecordOf("flood", absl::ResourceExhaustedError("full")));
  EXPECT_THAT(Ids(JsonOf(recorder)["failed"]), ElementsAre("broken")) << "nor does an overload";
  ASSERT_EQ(all["recent"].size(), 64u) << "bounded";
  EXPECT_EQ(all["recent"][0]["request_id"], "bad999") << "newest first";
  EXPECT_EQ(all["recent"][63]["request_id"], "bad936");
}

TEST(FlightRecorder, TellsHowFarAFailedRequestCame) {
  absl::Status late = absl::DeadlineExceededError("too late");
  StageTimings timings;
  timings.prepare = absl::Microseconds(5);
  timings.queue = absl::Milliseconds(480);
  SetStageTimings(late, timings);
  FlightRecorder recorder({});
  recorder.Add(RecordOf("late", late));
  recorder.Add(RecordOf("refused", absl::ResourceExhaustedError("full")));
  const nlohmann::json refused = JsonOf(recorder)["refused"];
  EXPECT_EQ(refused[1]["prepare_us"], 5);
  EXPECT_EQ(refused[1]["queue_us"], 480000);
  EXPECT_EQ(refused[1]["decode_us"], 0);
  EXPECT_FALSE(refused[0].contains("queue_us")) << "it never came in";
}

TEST(FlightRecorder, KeepsNothingWhereNothingIsWanted) {
  FlightRecorder recorder({.capacity = 0});
  recorder.Add(RecordOf("a", absl::InternalError("x")));
  const nlohmann::json all = JsonOf(recorder);
  EXPECT_TRUE(all["recent"].empty() && all["slow"].empty() && all["failed"].empty());
}

TEST(FlightRecorder, TheLongestRecordFits) {
  RecommendResult result = Answered();
  result.model_version = std::string(500, 'v');
  const absl::Duration longest = absl::Hours(2'000'000'000);
  result.timings = {
      longest, longest, longest, longest, longest, longest, std::vector<absl::Duration>(kMaxLevels + 5, longest)};
  FlightRecorder recorder({});
  recorder.Add(RecordOf(std::string(500, 'i'), result, longest));
  EXPECT_EQ(JsonOf(recorder)["recent"][0]["request_id"].get<std::string>().size(), 128u);
  EXPECT_EQ(JsonOf(recorder)["recent"][0]["step_us"].size(), kMaxLevels + 1u);
}

// What a request id can bring does not break the JSON.
TEST(FlightRecorder, HostileTextStaysText) {
  FlightRecorder recorder({});
  recorder.Add(RecordOf("\"},{\n\\\x01<b>\xff", Answered()));
  EXPECT_EQ(JsonOf(recorder)["recent"].size(), 1u);
}

void Fill(FlightRecorder* recorder) {
  for (int i = 0; i < 400; ++i) recorder->Add(RecordOf(absl::StrCat("r", i), Answered()));
}

// More than a pipe holds at once.
TEST(FlightRecorderWrite, WaitsForWhoeverReads) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  std::string text;
  std::thread reader([&] {
    absl::SleepFor(absl::Milliseconds(20));  // the pipe is full by now
    char some[1000];
    for (ssize_t got = 0; (got = read(ends[0], some, sizeof(some))) > 0;) text.append(some, got);
  });
  FlightRecorder recorder({.capacity = 400, .slow = absl::Milliseconds(100)});
  Fill(&recorder);
  recorder.Add(RecordOf("last", absl::InternalError("x"), absl::Seconds(1)));
  EXPECT_EQ(recorder.WriteTo(ends[1], absl::Seconds(60)), 0u);
  close(ends[1]);
  reader.join();
  close(ends[0]);
  std::vector<std::string> ids;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const nlohmann::json record = nlohmann::json::parse(line);
    EXPECT_EQ(record["level"], "info");
    EXPECT_EQ(record["time"].get<std::string>().size(), 24u);
    ids.push_back(absl::StrCat(record["ring"].get<std::string>(), " ", record["request_id"].get<std::string>()));
  }
  ASSERT_EQ(ids.size(), 402u);
  EXPECT_EQ(ids[0], "recent r1");
  EXPECT_THAT(absl::MakeSpan(ids).subspan(399), ElementsAre("recent last", "slow last", "failed last"));
}

TEST(FlightRecorderWrite, SaysHowManyDidNotGoOutWhereNobodyReads) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  FlightRecorder recorder({.capacity = 400, .slow = absl::Milliseconds(100)});
  Fill(&recorder);
  const size_t left = recorder.WriteTo(ends[1], absl::Milliseconds(10));
  close(ends[1]);
  std::string text;
  char some[1000];
  for (ssize_t got = 0; (got = read(ends[0], some, sizeof(some))) > 0;) text.append(some, got);
  close(ends[0]);
  EXPECT_GT(left, 0u);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n') + left, 400u);
}

class CrashDumpDeathTest : public ::testing::TestWithParam<int> {};

TEST_P(CrashDumpDeathTest, AFatalSignalLeavesAReadableDump) {
  const std::string file = ::testing::TempDir() + "/dump";
  EXPECT_EXIT(
      {
        const int fd = open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        FlightRecorder recorder({.capacity = 4, .slow = absl::Milliseconds(100)});
        for (int i = 0; i < 6; ++i) recorder.Add(RecordOf(absl::StrCat("r", i), Answered()));
        recorder.Add(RecordOf("last", absl::InternalError("x"), absl::Seconds(1)));
        const CrashDump dump(&recorder, fd);
        raise(GetParam());
      },
      ::testing::KilledBySignal(GetParam()), "");
  std::ifstream stream(file);
  std::vector<std::string> rings, ids;
  for (std::string line; std::getline(stream, line);) {
    const nlohmann::json record = nlohmann::json::parse(line);
    EXPECT_EQ(record["event"], "flight record");
    rings.push_back(record["ring"]);
    ids.push_back(record["request_id"]);
  }
  EXPECT_THAT(rings, ElementsAre("recent", "recent", "recent", "recent", "slow", "failed"));
  EXPECT_THAT(ids, ElementsAre("r3", "r4", "r5", "last", "last", "last"));
}

// Whoever reads standard error may be stuck; the process must end all the same.
TEST(CrashDumpPipeDeathTest, AFullPipeDoesNotHoldTheProcess) {
  EXPECT_EXIT(
      {
        int ends[2];
        if (pipe(ends) != 0) _exit(1);
        FlightRecorder recorder({.capacity = 400, .slow = absl::Milliseconds(100)});
        Fill(&recorder);
        const CrashDump dump(&recorder, ends[1]);
        alarm(20);
        raise(SIGSEGV);
      },
      ::testing::KilledBySignal(SIGSEGV), "");
}

INSTANTIATE_TEST_SUITE_P(Signals, CrashDumpDeathTest, ::testing::Values(SIGSEGV, SIGABRT, SIGBUS));

}  // namespace
}  // namespace beamline::server
