// SPDX-License-Identifier: Apache-2.0
//
// What one request leaves behind: its ids in log, flight recorder and trailing metadata, its times in the metrics, and
// nothing of its user anywhere.
#include <sstream>

#include "base/json.h"
#include "base/log.h"
#include "gmock/gmock.h"
#include "server/flight_recorder.h"
#include "server/loopback.h"
#include "server/process_stats.h"
#include "server/request_id.h"
#include "spdlog/sinks/ostream_sink.h"

namespace beamline::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kCaller[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
constexpr char kTraceId[] = "4bf92f3577b34da6a3ce929d0e0e4736";

class ObservabilityTest : public LoopbackTest {
 protected:
  void SetUp() override {
    LoopbackTest::SetUp();
    Log().sinks().push_back(sink_);
  }
  void TearDown() override {
    server_.reset();
    Log().sinks().pop_back();
  }

  // The call with these headers; what the trailer `traceresponse` says.
  std::optional<TraceParent> Call(const std::vector<std::string>& headers, grpc::Status* status = nullptr) {
    grpc::ClientContext context;
    SetTimeout(context);
    for (const std::string& header : headers) context.AddMetadata("traceparent", header);
    v1::RecommendRequest request = ValidRequest();
    request.set_request_id("request-1");
    request.set_user_id("canary-user");
    request.add_history()->set_item_id(424242);
    v1::RecommendResponse response;
    const grpc::Status ended = recommend_->Recommend(&context, request, &response);
    if (status != nullptr) *status = ended;
    const auto& trailers = context.GetServerTrailingMetadata();
    EXPECT_EQ(trailers.count("traceresponse"), 1u);
    const auto found = trailers.find("traceresponse");
    if (found == trailers.end()) return std::nullopt;
    return ParseTraceParent(absl::string_view(found->second.data(), found->second.size()));
  }
  std::string Recorded() const { return server_->recorder().ToJson(); }

  std::ostringstream log_;
  const std::shared_ptr<spdlog::sinks::ostream_sink_mt> sink_ =
      std::make_shared<spdlog::sinks::ostream_sink_mt>(log_, true);
};

TEST_F(ObservabilityTest, TheCallersTraceGoesOnWithASpanOfOurs) {
  const auto trace = Call({kCaller});
  ASSERT_TRUE(trace.has_value());
  EXPECT_EQ(trace->trace_id, kTraceId);
  EXPECT_NE(trace->span_id, "00f067aa0ba902b7");
  EXPECT_TRUE(trace->sampled);
  EXPECT_THAT(Recorded(), HasSubstr(absl::StrCat("\"trace_id\":\"", kTraceId, "\"")));
  EXPECT_THAT(Recorded(), HasSubstr(absl::StrCat("\"span_id\":\"", trace->span_id, "\"")));
}

TEST_F(ObservabilityTest, MalformedOrDoubleTraceparentsBeginANewTrace) {
  const std::string caller = kCaller;
  for (const std::vector<std::string>& headers :
       std::vector<std::vector<std::string>>{{},
                                             {""},
                                             {"nonsense"},
                                             {caller + "-more"},
                                             {"ff" + caller.substr(2)},
                                             {"00-" + std::string(32, '0') + caller.substr(35)},
                                             {"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"},
                                             {std::string(2000, '0')},
                                             {caller, caller}}) {
    const auto trace = Call(headers);
    ASSERT_TRUE(trace.has_value());
    EXPECT_NE(trace->trace_id, kTraceId);
    EXPECT_FALSE(trace->sampled);
  }
  EXPECT_EQ(Call({"01" + caller.substr(2) + "-what-a-later-version-adds"})->trace_id, kTraceId);
}

TEST_F(ObservabilityTest, FailuresAreLoggedWithTheirIdsAndErrorsHaveTheTrailerToo) {
  engine_.set_answer([](const RecommendRequest&) { return absl::InternalError("non_finite_logits: NaN at level 2"); });
  grpc::Status status;
  const auto trace = Call({kCaller}, &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  ASSERT_TRUE(trace.has_value());
  EXPECT_THAT(log_.str(), HasSubstr(absl::StrCat("request failed: request_id=request-1 trace_id=", kTraceId,
                                                 " span_id=", trace->span_id)));
  EXPECT_THAT(log_.str(), HasSubstr("error=\"INTERNAL: non_finite_logits: NaN at level 2\""));
  EXPECT_EQ(nlohmann::json::parse(Recorded())["failed"].size(), 1u);
  engine_.set_answer([](const RecommendRequest&) { return absl::InvalidArgumentError("top_k: wrong"); });
  log_.str("");
  Call({kCaller}, &status);
  EXPECT_EQ(log_.str(), "") << "callers' mistakes are told to callers";
}

TEST_F(ObservabilityTest, AFloodOfFailuresIsAFewLines) {
  engine_.set_mode(FakeEngine::Mode::kInline);
  engine_.set_answer([](const RecommendRequest&) { return absl::ResourceExhaustedError("the queue is full"); });
  const absl::Time start = absl::Now();
  grpc::Status status;
  for (int i = 0; i < 300; ++i) Call({}, &status);
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  const std::string log = log_.str();
  const auto lines = std::count(log.begin(), log.end(), '\n');
  EXPECT_GE(lines, 1);
  EXPECT_LE(static_cast<double>(lines), 10 + 10 * seconds + 1);
  EXPECT_LT(lines, 200) << "or this machine is too slow to show anything";
  EXPECT_GT(SuppressedLogLines(), 0u);
}

TEST_F(ObservabilityTest, NothingOfTheUserIsLeftBehind) {
  Call({});
  for (const absl::StatusCode code : {absl::StatusCode::kInternal, absl::StatusCode::kResourceExhausted,
                                      absl::StatusCode::kInvalidArgument, absl::StatusCode::kUnavailable}) {
    engine_.set_answer([code](const RecommendRequest&) { return absl::Status(code, "as it happens"); });
    Call({});
  }
  for (const std::string& text : {log_.str(), Recorded(), server_->RenderMetrics(true)}) {
    EXPECT_NE(text, "");
    EXPECT_THAT(text, Not(HasSubstr("canary")));
    EXPECT_THAT(text, Not(HasSubstr("424242")));
  }
}

TEST_F(ObservabilityTest, EveryStageAndStepHasAHistogram) {
  engine_.set_answer([](const RecommendRequest&) {
    RecommendResult result = FakeResult();
    result.context_cached = false;
    result.timings.prepare = absl::Milliseconds(2);
    result.timings.steps = {absl::Milliseconds(1), absl::Milliseconds(2)};
    return result;
  });
  Call({});
  const std::string page = server_->RenderMetrics(true);
  for (const char* stage : {"prepare", "queue", "encode", "decode", "resolve"}) {
    EXPECT_THAT(page, HasSubstr(absl::StrCat("beamline_stage_duration_seconds_count{stage=\"", stage, "\"} 1")));
  }
  EXPECT_THAT(page, HasSubstr("beamline_decode_step_duration_seconds_count{step=\"1\"} 1"));
  EXPECT_THAT(page, HasSubstr("beamline_decode_step_duration_seconds_count{step=\"2\"} 1"));
  EXPECT_THAT(page, HasSubstr("beamline_decode_step_duration_seconds_count{step=\"3\"} 0"));
  EXPECT_THAT(page, HasSubstr("beamline_decode_step_duration_seconds_bucket{step=\"2\",le=\"0.001\"} 0"));
  EXPECT_THAT(page, HasSubstr("beamline_decode_step_duration_seconds_bucket{step=\"2\",le=\"0.0025\"} 1"));
  for (const char* name :
       {"beamline_executing_beam_rows", "beamline_expired_requests_total", "beamline_last_success_timestamp_seconds",
        "beamline_catalogue_age_seconds", "beamline_context_cache_bytes", "beamline_log_lines_left_out_total",
        "process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total",
        "process_start_time_seconds"}) {
    EXPECT_THAT(page, HasSubstr(absl::StrCat("\n# TYPE ", name, " "))) << name;
  }
  EXPECT_THAT(page, Not(HasSubstr("process_resident_memory_bytes 0\n")));
  EXPECT_THAT(page, Not(HasSubstr("process_open_fds 0\n")));
  const double age = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()) - ReadProcessStats().start_seconds;
  EXPECT_GT(age, -3600) << "the kernel rounds when it booted, and clocks are set";
  EXPECT_LT(age, 24 * 3600) << "this process began lately";
  EXPECT_THAT(page, Not(HasSubstr("beamline_device_"))) << "there is no device";
}

TEST_F(ObservabilityTest, TheDevicesMemoryWhereThereIsOne) {
  engine_.set_device_memory({.total = int64_t{80} << 30, .free = int64_t{79} << 30});
  const std::string page = server_->RenderMetrics(true);
  EXPECT_THAT(page, HasSubstr("\nbeamline_device_memory_total_bytes 85899345920\n"));
  EXPECT_THAT(page, HasSubstr("\nbeamline_device_memory_free_bytes 84825604096\n"));
  EXPECT_THAT(page, HasSubstr("\nbeamline_device_memory_used_bytes 1073741824\n"));
}

TEST_F(ObservabilityTest, HowTheDeviceIsAskedWhereItHasPasses) {
  engine_.set_device_passes(
      {.graph = 900, .captured = 7, .enqueued = 31, .kernel_nodes = 2100, .memset_nodes = 4, .other_nodes = 1});
  const std::string page = server_->RenderMetrics(true);
  EXPECT_THAT(page, HasSubstr("\nbeamline_device_passes_total{by=\"graph\"} 900\n"));
  EXPECT_THAT(page, HasSubstr("\nbeamline_device_passes_total{by=\"capture\"} 7\n"));
  EXPECT_THAT(page, HasSubstr("\nbeamline_device_passes_total{by=\"ops\"} 31\n"));
  EXPECT_THAT(page, HasSubstr("\nbeamline_device_graph_nodes_total{kind=\"kernel\"} 2100\n"));
  EXPECT_THAT(page, HasSubstr("\nbeamline_device_graph_nodes_total{kind=\"memset\"} 4\n"));
  EXPECT_THAT(page, HasSubstr("\nbeamline_device_graph_nodes_total{kind=\"other\"} 1\n"));
}

}  // namespace
}  // namespace beamline::server
