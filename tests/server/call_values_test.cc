// SPDX-License-Identifier: Apache-2.0
//
// What is read from a call besides its message, and how errors go out: all pure.
#include <string>

#include "beamline/retry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/call.h"
#include "server/grpc_status.h"
#include "server/request_id.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

TEST(RequestId, IsCleanedAndCut) {
  EXPECT_EQ(CleanRequestId("abc-123_X.z"), "abc-123_X.z");
  EXPECT_EQ(CleanRequestId("a\nb\r\tc\x01"), "a_b__c_");
  EXPECT_EQ(CleanRequestId(std::string("a\0b", 3)), "a_b");
  EXPECT_EQ(CleanRequestId("x=\"y\" \\z'"), "x=_y___z_");
  EXPECT_EQ(CleanRequestId("\xc3\xa9\xff\x7f"), "____");
  EXPECT_EQ(CleanRequestId(std::string(1 << 20, 'x')).size(), 128u);
  EXPECT_EQ(MakeRequestId().size(), 16u);
  EXPECT_NE(MakeRequestId(), MakeRequestId());
}

TEST(TraceParent, ParsesTheStandardForm) {
  const auto trace = ParseTraceParent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  ASSERT_TRUE(trace.has_value());
  EXPECT_EQ(trace->trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(trace->span_id, "00f067aa0ba902b7");
  EXPECT_TRUE(trace->sampled);
  EXPECT_FALSE(ParseTraceParent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0a")->sampled);
  EXPECT_TRUE(ParseTraceParent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").has_value());
}

TEST(TraceParent, IgnoresWhatIsNotOne) {
  for (const char* header : {"", "00", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
                             "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                             "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                             "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                             "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                             "00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01",
                             "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                             "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}) {
    EXPECT_FALSE(ParseTraceParent(header).has_value()) << header;
  }
}

TEST(TraceParent, IsContinuedWithASpanOfOurOwn) {
  constexpr char kCaller[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  EXPECT_EQ(ParseTraceParent(kCaller)->ToString(), kCaller);
  const TraceParent ours = ContinueTrace(ParseTraceParent(kCaller));
  EXPECT_EQ(ours.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_NE(ours.span_id, "00f067aa0ba902b7");
  EXPECT_TRUE(ours.sampled);
  EXPECT_EQ(ParseTraceParent(ours.ToString())->span_id, ours.span_id) << "what we send is valid";
  const TraceParent fresh = ContinueTrace(std::nullopt);
  EXPECT_TRUE(ParseTraceParent(fresh.ToString()).has_value());
  EXPECT_FALSE(fresh.sampled);
  EXPECT_NE(fresh.trace_id, ContinueTrace(std::nullopt).trace_id);
}

TEST(BatchDeadline, LeavesTimeToPutTheAnswersTogether) {
  const absl::Time now = absl::FromUnixSeconds(1000);
  EXPECT_EQ(BatchDeadline(now, now + absl::Seconds(10)), now + absl::Milliseconds(9800));
  EXPECT_EQ(BatchDeadline(now, now + absl::Milliseconds(50)), now + absl::Milliseconds(48));
  EXPECT_EQ(BatchDeadline(now, now + absl::Milliseconds(2)), now + absl::Milliseconds(1));
}

TEST(ClampDeadline, DefaultsAndClamps) {
  CallLimits limits;
  limits.default_deadline = absl::Seconds(2);
  limits.max_deadline = absl::Seconds(60);
  const absl::Time now = absl::FromUnixSeconds(1000);
  EXPECT_EQ(ClampDeadline(now, std::nullopt, limits), now + absl::Seconds(2));
  EXPECT_EQ(ClampDeadline(now, now + absl::Seconds(5), limits), now + absl::Seconds(5));
  EXPECT_EQ(ClampDeadline(now, now + absl::Hours(99999), limits), now + absl::Seconds(60));
  EXPECT_EQ(ClampDeadline(now, now - absl::Seconds(1), limits), now - absl::Seconds(1));
}

TEST(GrpcStatus, CarriesCodeTextAndDetail) {
  const absl::Status status = InvalidField({kFieldOutOfRange, "top_k", "1..5", "9", ""});
  const grpc::Status sent = ToGrpcStatus(status, 50);
  EXPECT_EQ(sent.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(sent.error_message(), "top_k: 9 is outside 1..5");
  v1::StatusDetails details;
  ASSERT_TRUE(details.ParseFromString(sent.error_details()));
  EXPECT_EQ(details.code(), 3);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/beamline.v1.ErrorDetail");
  const absl::Status received = FromGrpcStatus(sent);
  EXPECT_EQ(received.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailOf(received).SerializeAsString(), DetailOf(status).SerializeAsString());
  EXPECT_EQ(DetailOf(received).retry_after_ms(), 0);
  EXPECT_EQ(DetailOf(FromGrpcStatus(ToGrpcStatus(absl::AbortedError("the bundle was replaced"), 50))).reason(),
            "ABORTED")
      << "no fault of ours";
}

TEST(GrpcStatus, OverloadHintsWhenToRetryAndCodesHaveReasons) {
  const absl::Status full = FromGrpcStatus(ToGrpcStatus(absl::ResourceExhaustedError("queue is full"), 70));
  EXPECT_EQ(DetailOf(full).reason(), "OVERLOADED");
  const absl::Status refused = FromGrpcStatus(ToGrpcStatus(Refusal(kQueueFull, "full", absl::Milliseconds(9)), 70));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(refused).reason(), "QUEUE_FULL");
  EXPECT_EQ(DetailOf(refused).retry_after_ms(), 70) << "at least what the server says, as the trailer";
  EXPECT_EQ(RetryPushback(Refusal(kQueueFull, "full", absl::Milliseconds(9)), 70), 70);
  const absl::Status late = Refusal(kCannotFinish, "too late", absl::Milliseconds(9));
  EXPECT_EQ(DetailOf(FromGrpcStatus(ToGrpcStatus(late, 70))).retry_after_ms(), 9) << "when this deadline would do";
  EXPECT_EQ(RetryPushback(late, 70), std::nullopt);
  EXPECT_EQ(DetailOf(full).retry_after_ms(), 70);
  absl::Status computed = absl::ResourceExhaustedError("queue is full");
  SetRetryAfter(computed, absl::Milliseconds(1234));
  EXPECT_EQ(DetailOf(FromGrpcStatus(ToGrpcStatus(computed, 70))).retry_after_ms(), 1234)
      << "what the scheduler worked out";
  EXPECT_EQ(ToBatchResult(PrefixField(computed, "requests[3]"), 70).error().retry_after_ms(), 1234);
  EXPECT_EQ(DetailOf(absl::InternalError("x")).reason(), "INTERNAL");
  EXPECT_EQ(DetailOf(absl::UnavailableError("x")).reason(), "UNAVAILABLE");
  // One line, but the heading of a list goes with its first entry.
  EXPECT_EQ(ToGrpcStatus(absl::InternalError("broken\n  at f()"), 70).error_message(), "broken");
  EXPECT_EQ(ToGrpcStatus(absl::InvalidArgumentError("m.safetensors:\na: 1 of 4 is NaN\nb: 2"), 70).error_message(),
            "m.safetensors: a: 1 of 4 is NaN");
  EXPECT_EQ(ToGrpcStatus(absl::InvalidArgumentError("field:"), 70).error_message(), "field:");
  EXPECT_EQ(ToGrpcStatus(absl::InternalError("an operation failed:\n  at f()"), 70).error_message(),
            "an operation failed:");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus(), 70).ok());
}

TEST(GrpcStatus, ClientsSeeOneBoundedLine) {
  EXPECT_EQ(ToGrpcStatus(absl::InternalError("decode failed\nstack frame 1\n"), 0).error_message(), "decode failed");
  EXPECT_LE(ToGrpcStatus(absl::InternalError(std::string(100000, 'x')), 0).error_message().size(), 1024u);
  // Text that is none would make the client drop the whole detail.
  std::string accents;
  for (int i = 0; i < 2000; ++i) accents += "\xc3\xa9";
  for (const std::string& text : {accents, "x" + accents, std::string("folder/\xff\x1b[2J.pt: is not listed")}) {
    const absl::Status status = InvalidField({kFieldInvalid, "bundle", "", "", text});
    EXPECT_EQ(DetailOf(FromGrpcStatus(ToGrpcStatus(status, 0))).field(), "bundle");
    v1::BatchRecommendResponse::Result entry;
    EXPECT_TRUE(entry.ParseFromString(ToBatchResult(status, 0).SerializeAsString()));
  }
}

TEST(PrefixField, PutsThePathInFront) {
  const absl::Status field = PrefixField(InvalidField({kFieldOutOfRange, "top_k", "1..5", "9", ""}), "requests[3]");
  EXPECT_EQ(DetailOf(field).field(), "requests[3].top_k");
  EXPECT_EQ(field.message(), "requests[3].top_k: 9 is outside 1..5");
  const absl::Status other = PrefixField(absl::ResourceExhaustedError("queue is full"), "requests[3]");
  EXPECT_EQ(DetailOf(other).field(), "requests[3]");
  EXPECT_EQ(other.message(), "requests[3]: queue is full");
}

}  // namespace
}  // namespace beamline::server
