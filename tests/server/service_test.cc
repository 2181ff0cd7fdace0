// SPDX-License-Identifier: Apache-2.0
//
// The services over real gRPC on the loopback interface, with a fake engine behind.
#include <new>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/program.h"
#include "beamline/retry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/grpc_status.h"
#include "server/loopback.h"
#include "server/server_counters.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kRecommend[] = "/beamline.v1.RecommendService/Recommend";

class ServiceTest : public LoopbackTest {
 protected:
  static v1::ErrorDetail Detail(const grpc::Status& status) { return DetailOf(FromGrpcStatus(status)); }
};

TEST_F(ServiceTest, RecommendAnswersWithAllTheEngineSaid) {
  v1::RecommendRequest request = ValidRequest();
  request.set_request_id("r 1");
  v1::RecommendResponse response;
  const grpc::Status status = Recommend(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.request_id(), "r_1");
  ASSERT_EQ(response.items_size(), 2);
  EXPECT_THAT(response.items(0).sid().codes(), ElementsAre(1, 0, 0));
  EXPECT_EQ(response.model_version(), "model-1");
  EXPECT_EQ(response.timings().total_us(), 110);
  EXPECT_EQ(server_->counters().calls.value(), 1u);
  EXPECT_TRUE(Eventually([&] { return server_->in_flight() == 0; }));
}

TEST_F(ServiceTest, AnswersFromInsideSubmitToo) {
  engine_.set_mode(FakeEngine::Mode::kInline);
  v1::RecommendResponse response;
  EXPECT_TRUE(Recommend(ValidRequest(), &response).ok());
  engine_.set_answer([](const RecommendRequest&) { return absl::ResourceExhaustedError("the queue is full"); });
  const grpc::Status status = Recommend(ValidRequest(), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Detail(status).reason(), "OVERLOADED");
  EXPECT_EQ(Detail(status).retry_after_ms(), 50);
  EXPECT_EQ(server_->counters().refused.value(), 1u);
  EXPECT_EQ(server_->counters().failed.value(), 0u);
}

// Memory that runs out in gRPC's thread is this call's error: not that of a method which nobody knows, nor a call that
// is in flight for ever.
TEST_F(ServiceTest, WhatIsThrownEndsItsCall) {
  engine_.set_mode(FakeEngine::Mode::kInline);
  engine_.set_answer([](const RecommendRequest&) -> absl::StatusOr<RecommendResult> { throw std::bad_alloc(); });
  v1::RecommendResponse response;
  const grpc::Status status = Recommend(ValidRequest(), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_THAT(status.error_message(), HasSubstr("out of memory"));
  EXPECT_TRUE(Eventually([&] { return server_->in_flight() == 0; }));
  EXPECT_EQ(server_->counters().failed.value(), 1u);
  engine_.set_answer([](const RecommendRequest&) { return FakeResult(); });
  EXPECT_TRUE(Recommend(ValidRequest(), &response).ok());
}

TEST_F(ServiceTest, BadFieldsAreNamedAndNeverReachTheEngine) {
  v1::RecommendRequest request = ValidRequest();
  request.set_top_k(1001);
  v1::RecommendResponse response;
  grpc::Status status = Recommend(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "top_k: 1001 is outside 1..1000");
  EXPECT_EQ(Detail(status).field(), "top_k");
  status = Recommend(v1::RecommendRequest(), &response);  // an empty message
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Detail(status).field(), "user_id");
  EXPECT_EQ(server_->counters().invalid.value(), 2u);
  EXPECT_EQ(server_->counters().malformed.value(), 0u);
  EXPECT_TRUE(engine_.requests().empty());
}

TEST_F(ServiceTest, LevelsComeFromTheCatalogue) {
  v1::RecommendRequest request = ValidRequest();
  for (int width : {1, 2, 3}) request.add_beam_widths(width);
  v1::RecommendResponse response;
  EXPECT_TRUE(Recommend(request, &response).ok());
  request.add_beam_widths(4);
  EXPECT_EQ(Detail(Recommend(request, &response)).field(), "beam_widths");
}

TEST_F(ServiceTest, MalformedBytesAreInvalidArgumentAndCounted) {
  std::string groups;  // 200,000 nested groups of an unknown field
  for (int i = 0; i < 200000; ++i) groups += "\xfb\x07";
  const std::vector<std::pair<const char*, std::string>> cases = {
      {"truncated varint", "\x28\xff"},
      {"truncated string", std::string("\x12\x05"
                                       "ab")},
      {"length beyond the end", std::string("\x22\xff\xff\xff\x0f")},
      {"length over 2 GiB", std::string("\x22\xff\xff\xff\xff\x0f")},
      {"wire type 7", std::string("\x0f\x01", 2)},
      {"wire type 6", std::string("\x0e\x01", 2)},
      {"field number 0", std::string("\x00\x01", 2)},
      {"varint of eleven bytes", std::string("\x28") + std::string(10, '\xff') + "\x01"},
      {"not UTF-8", std::string("\x12\x02\xc3\x28")},
      {"stray end group", std::string("\x0c")},
      {"unclosed group", std::string("\xfb\x07")},
      {"deep groups", groups},
      {"garbage", "GET / HTTP/1.1\r\n\r\n"},
  };
  uint64_t malformed = 0;
  for (const auto& [name, bytes] : cases) {
    const grpc::Status status = RawCall(channel_, kRecommend, bytes);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << name << ": " << status.error_message();
    EXPECT_EQ(Detail(status).reason(), "MALFORMED_MESSAGE") << name;
    EXPECT_EQ(server_->counters().malformed.value(), ++malformed) << name;
  }
  EXPECT_TRUE(engine_.requests().empty());
  v1::RecommendResponse response;
  EXPECT_TRUE(Recommend(ValidRequest(), &response).ok());
}

// As when a client gives up while its message is on the way: nothing was malformed.
TEST_F(ServiceTest, CallsThatEndBeforeTheirMessageCameCountAsCancelled) {
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  SetTimeout(context);
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, kRecommend, &queue);
  void* tag;
  bool ok;
  call->StartCall(nullptr);
  ASSERT_TRUE(queue.Next(&tag, &ok) && ok);
  call->WritesDone(nullptr);
  ASSERT_TRUE(queue.Next(&tag, &ok));
  grpc::Status status;
  call->Finish(&status, nullptr);
  ASSERT_TRUE(queue.Next(&tag, &ok));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
  EXPECT_EQ(Detail(status).reason(), "MESSAGE_MISSING");
  EXPECT_EQ(server_->counters().malformed.value(), 0u);
  EXPECT_EQ(server_->counters().cancelled.value(), 1u);
}

TEST_F(ServiceTest, RepeatedScalarsTakeTheLastAsProtobufSays) {
  v1::RecommendRequest first = ValidRequest(), second;
  first.set_top_k(3);
  second.set_top_k(4);
  ASSERT_TRUE(RawCall(channel_, kRecommend, first.SerializeAsString() + second.SerializeAsString()).ok());
  EXPECT_EQ(engine_.requests().at(0).top_k, 4);
}

TEST_F(ServiceTest, UnknownFieldsAreToleratedUpToALimit) {
  const auto with_unknown = [](size_t bytes) {
    std::string text = ValidRequest().SerializeAsString();
    text += "\xa2\x06";  // field 100, length-delimited
    for (size_t length = bytes; true; length >>= 7) {
      text += static_cast<char>((length & 0x7f) | (length > 0x7f ? 0x80 : 0));
      if (length <= 0x7f) break;
    }
    return text + std::string(bytes, 'x');
  };
  EXPECT_TRUE(RawCall(channel_, kRecommend, with_unknown(65000)).ok());
  const grpc::Status status = RawCall(channel_, kRecommend, with_unknown(1 << 20));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Detail(status).reason(), "UNKNOWN_FIELDS");
  EXPECT_EQ(Detail(status).limit(), "65536");
  EXPECT_EQ(Detail(status).actual(), absl::StrCat((1 << 20) + 5));  // with its tag and length
  EXPECT_EQ(server_->counters().malformed.value(), 1u);
}

TEST_F(ServiceTest, MessagesOverTheLimitAreRefusedAndTheServerLives) {
  const grpc::Status status = RawCall(channel_, kRecommend, std::string(4194305, '\0'));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  v1::RecommendResponse response;
  EXPECT_TRUE(Recommend(ValidRequest(), &response).ok());
}

// gRPC would count it as answered and tell the client RESOURCE_EXHAUSTED: to try again.
TEST_F(ServiceTest, AnAnswerOverTheLimitIsTheRequestsFault) {
  engine_.set_answer([](const RecommendRequest& request) -> absl::StatusOr<RecommendResult> {
    RecommendResult result = FakeResult();
    result.items.assign(request.top_k, result.items[0]);
    return result;
  });
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_limits()->set_max_send_bytes(1024);
  Start(config);
  v1::RecommendRequest request = ValidRequest();
  request.set_top_k(100);
  v1::RecommendResponse response;
  const grpc::Status status = Recommend(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Detail(status).reason(), "ANSWER_TOO_LARGE");
  EXPECT_EQ(Detail(status).limit(), "1024");
  EXPECT_THAT(status.error_message(), HasSubstr("limits.max_send_bytes"));
  EXPECT_EQ(server_->counters().invalid.value(), 1);
  request.set_top_k(2);
  EXPECT_TRUE(Recommend(request, &response).ok());
}

TEST_F(ServiceTest, CompressedMessagesAreNotInflated) {
  grpc::ClientContext context;
  SetTimeout(context);
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  v1::RecommendRequest request = ValidRequest();
  for (int i = 0; i < 1000; ++i) request.mutable_eligibility()->add_deny_item_ids(7);
  v1::RecommendResponse response;
  EXPECT_EQ(recommend_->Recommend(&context, request, &response).error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ServiceTest, MetadataOverTheLimitIsRefused) {
  grpc::ClientContext context;
  SetTimeout(context);
  context.AddMetadata("x-filler", std::string(20000, 'x'));
  v1::RecommendResponse response;
  // gRPC 1.51 refuses the call, or the whole connection with it.
  EXPECT_THAT(recommend_->Recommend(&context, ValidRequest(), &response).error_code(),
              ::testing::AnyOf(grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::UNAVAILABLE));
  EXPECT_TRUE(engine_.requests().empty());
  EXPECT_TRUE(Eventually([&] { return Recommend(ValidRequest(), &response).ok(); }));
}

TEST_F(ServiceTest, DeadlinesAreTakenClampedOrDefaulted) {
  v1::RecommendResponse response;
  const auto expect_deadline = [&](std::optional<absl::Duration> timeout, absl::Duration expected) {
    const absl::Time before = absl::Now();
    grpc::ClientContext context;
    if (timeout) SetTimeout(context, *timeout);
    EXPECT_TRUE(recommend_->Recommend(&context, ValidRequest(), &response).ok());
    const absl::Time deadline = engine_.requests().back().deadline;
    EXPECT_GT(deadline, before + expected - absl::Seconds(1)) << "gRPC rounds timeouts";
    EXPECT_LT(deadline, absl::Now() + expected + absl::Seconds(1));
  };
  expect_deadline(absl::Seconds(30), absl::Seconds(30));
  expect_deadline(std::nullopt, absl::Seconds(2));
  expect_deadline(absl::Hours(5000), absl::Seconds(60));
}

// The system's clock may be set while the server runs; its own goes on as it did (base/clock.h).
TEST_F(ServiceTest, DeadlinesOutliveAStepOfTheSystemsClock) {
  for (const absl::Duration step : {-absl::Hours(1), absl::Hours(1)}) {
    const FakeClock clock(absl::Now() - step);
    server_.reset();
    absl::StatusOr<std::unique_ptr<Server>> server = StartServer(LoopbackConfig(), &engine_, &clock);
    ASSERT_TRUE(server.ok()) << server.status();
    const auto stub = v1::RecommendService::NewStub(Connect((*server)->address()));
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(20));
    v1::RecommendResponse response;
    const grpc::Status status = stub->Recommend(&context, ValidRequest(), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_NEAR(absl::ToDoubleSeconds(engine_.requests().back().deadline - clock.Now()), 20, 2);
  }
}

TEST_F(ServiceTest, MalformedTraceParentIsIgnored) {
  for (const std::string& header : {std::string("garbage"), std::string(1000, '0'), std::string("00-1-2-3")}) {
    grpc::ClientContext context;
    SetTimeout(context);
    context.AddMetadata("traceparent", header);
    v1::RecommendResponse response;
    EXPECT_TRUE(recommend_->Recommend(&context, ValidRequest(), &response).ok());
  }
}

TEST_F(ServiceTest, BatchGivesEveryUserItsOwnStatusInOrder) {
  engine_.set_answer([](const RecommendRequest& request) -> absl::StatusOr<RecommendResult> {
    if (request.user_id == "u2") return absl::InternalError("non_finite_logits");
    RecommendResult result = FakeResult();
    result.model_version = request.user_id;
    return result;
  });
  v1::BatchRecommendRequest request;
  for (int i = 0; i < 5; ++i) request.add_requests()->set_user_id(absl::StrCat("u", i));
  request.mutable_requests(1)->add_beam_widths(0);
  request.mutable_requests(4)->set_user_id("u0");  // the same user twice
  v1::BatchRecommendResponse response;
  grpc::ClientContext context;
  SetTimeout(context);
  const grpc::Status status = recommend_->BatchRecommend(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), 5);
  for (int i : {0, 3, 4}) {
    EXPECT_EQ(response.results(i).code(), 0) << i;
    EXPECT_EQ(response.results(i).response().model_version(), i == 4 ? "u0" : absl::StrCat("u", i));
    EXPECT_FALSE(response.results(i).has_error());
  }
  EXPECT_EQ(response.results(1).code(), 3);
  EXPECT_EQ(response.results(1).error().field(), "requests[1].beam_widths[0]");
  EXPECT_FALSE(response.results(1).has_response());
  EXPECT_EQ(response.results(2).code(), 13);
  EXPECT_THAT(response.results(2).message(), HasSubstr("non_finite_logits"));
  const std::vector<RecommendRequest> requests = engine_.requests();
  ASSERT_EQ(requests.size(), 4u);
}

// The engine would wait for nobody.
TEST_F(ServiceTest, TheGoodUsersOfABatchAreACompany) {
  v1::BatchRecommendRequest request;
  for (int i = 0; i < 4; ++i) *request.add_requests() = ValidRequest();
  for (const int i : {1, 3}) request.mutable_requests(i)->add_beam_widths(0);
  v1::BatchRecommendResponse response;
  grpc::ClientContext context;
  SetTimeout(context);
  ASSERT_TRUE(recommend_->BatchRecommend(&context, request, &response).ok());
  for (int i = 0; i < 4; ++i) EXPECT_EQ(response.results(i).code(), i % 2 == 0 ? 0 : 3) << i;
  const std::vector<RecommendRequest> requests = engine_.requests();
  ASSERT_EQ(requests.size(), 2u);
  ASSERT_NE(requests[0].company, nullptr);
  EXPECT_EQ(requests[0].company, requests[1].company);
  EXPECT_FALSE(requests[0].company->Meet());
  EXPECT_TRUE(requests[0].company->Meet()) << "of two";
}

TEST_F(ServiceTest, UsersOfABatchEndBeforeItsDeadline) {
  engine_.set_answer([](const RecommendRequest& request) -> absl::StatusOr<RecommendResult> {
    if (request.user_id == "late") {
      absl::SleepFor(request.deadline - absl::Now());
      return absl::DeadlineExceededError("out of time");
    }
    return FakeResult();
  });
  v1::BatchRecommendRequest request;
  *request.add_requests() = ValidRequest();
  *request.add_requests() = ValidRequest();
  request.mutable_requests(1)->set_user_id("late");
  v1::BatchRecommendResponse response;
  grpc::Status status;
  // A fiftieth of the time is for the answer: 100 ms, or more where a busy machine took longer.
  for (const absl::Duration time : {absl::Seconds(5), absl::Seconds(15), absl::Seconds(40)}) {
    grpc::ClientContext context;
    SetTimeout(context, time);
    status = recommend_->BatchRecommend(&context, request, &response);
    if (status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED) break;
  }
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(response.results(0).has_response());
  EXPECT_EQ(response.results(1).code(), 4);
}

TEST_F(ServiceTest, BatchSizeIsLimited) {
  v1::BatchRecommendRequest request;
  v1::BatchRecommendResponse response;
  const auto call = [&] {
    grpc::ClientContext context;
    SetTimeout(context);
    return recommend_->BatchRecommend(&context, request, &response);
  };
  EXPECT_EQ(Detail(call()).field(), "requests");
  for (int i = 0; i < 256; ++i) *request.add_requests() = ValidRequest();
  EXPECT_TRUE(call().ok());
  EXPECT_EQ(response.results_size(), 256);
  *request.add_requests() = ValidRequest();
  EXPECT_EQ(Detail(call()).limit(), "1..256");
}

TEST_F(ServiceTest, CatalogueEncodesResolvesAndDescribes) {
  v1::EncodeRequest encode;
  for (ItemId item : {5, 99, 2}) encode.add_item_ids(item);
  v1::EncodeResponse encoded;
  grpc::ClientContext encode_context, resolve_context, item_context, missing_context;
  ASSERT_TRUE(catalogue_->Encode(&encode_context, encode, &encoded).ok());
  ASSERT_EQ(encoded.items_size(), 3);
  EXPECT_TRUE(encoded.items(0).known());
  EXPECT_THAT(encoded.items(0).sid().codes(), ElementsAre(1, 0, 0));
  EXPECT_FALSE(encoded.items(1).known());
  EXPECT_FALSE(encoded.items(1).has_sid());
  EXPECT_EQ(encoded.catalogue_version(), "catalogue-1");

  v1::ResolveRequest resolve;
  *resolve.add_sids() = encoded.items(0).sid();

  resolve.set_max_items_per_sid(1);
  v1::ResolveResponse resolved;
  ASSERT_TRUE(catalogue_->Resolve(&resolve_context, resolve, &resolved).ok());
  EXPECT_THAT(resolved.sids(0).item_ids(), ElementsAre(4));
  EXPECT_EQ(resolved.sids(0).total_items(), 2u);

  v1::GetItemRequest get;
  get.set_item_id(5);
  v1::GetItemResponse item;
  ASSERT_TRUE(catalogue_->GetItem(&item_context, get, &item).ok());
  EXPECT_EQ(item.item().title(), "title 5");
  EXPECT_EQ(item.item().author_id(), 75u);
  EXPECT_EQ(item.item().tags(0).value(), "39");
  get.set_item_id(99);
  const grpc::Status missing = catalogue_->GetItem(&missing_context, get, &item);
  EXPECT_EQ(missing.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Detail(missing).field(), "item_id");
}

TEST_F(ServiceTest, CatalogueRequestsAreChecked) {
  const auto field = [&](const std::string& method, const google::protobuf::Message& message) {
    return Detail(RawCall(channel_, "/beamline.v1.CatalogueService/" + method, message.SerializeAsString())).field();
  };
  v1::EncodeRequest encode;
  EXPECT_EQ(field("Encode", encode), "item_ids");
  for (int i = 0; i < 1001; ++i) encode.add_item_ids(i);
  EXPECT_EQ(field("Encode", encode), "item_ids");
  v1::ResolveRequest resolve;
  EXPECT_EQ(field("Resolve", resolve), "sids");
  resolve.add_sids()->add_codes(1);
  EXPECT_EQ(field("Resolve", resolve), "sids[0].codes");
  resolve.mutable_sids(0)->add_codes(1);
  resolve.mutable_sids(0)->add_codes(1);
  EXPECT_EQ(field("Resolve", resolve), "sids[0].codes[2]");
  resolve.mutable_sids(0)->set_codes(2, 0);
  resolve.set_max_items_per_sid(0);
  EXPECT_EQ(field("Resolve", resolve), "max_items_per_sid");
  EXPECT_EQ(field("GetItem", v1::GetItemRequest()), "item_id");
  EXPECT_EQ(RawCall(channel_, "/beamline.v1.CatalogueService/GetItem", "\xff").error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServiceTest, StatusTellsWhatIsLoadedAndCounted) {
  v1::RecommendResponse ignored;
  Recommend(ValidRequest(), &ignored);
  Recommend(v1::RecommendRequest(), &ignored);
  EXPECT_TRUE(Eventually([&] { return server_->in_flight() == 0; }));
  v1::GetStatusResponse status;
  grpc::ClientContext context;
  ASSERT_TRUE(model_->GetStatus(&context, {}, &status).ok());
  EXPECT_TRUE(status.ready());
  EXPECT_EQ(status.model_version(), "model-1");
  EXPECT_EQ(status.codebook_fingerprint(), "abc123-of-the-status");
  EXPECT_TRUE(status.ranker());
  EXPECT_THAT(status.level_sizes(), ElementsAre(4, 2, 1));
  EXPECT_EQ(status.items(), 8u);
  EXPECT_EQ(status.sids(), 6u);
  EXPECT_EQ(status.engine().completed(), 17u);
  EXPECT_EQ(status.server().calls(), 3u);
  EXPECT_EQ(status.server().invalid(), 1u);
  EXPECT_EQ(status.server().in_flight(), 1);
  EXPECT_EQ(status.server_version(), ProgramVersion());
  EXPECT_EQ(status.server_commit(), ProgramCommit());
  EXPECT_TRUE(status.has_short_term_events() && status.has_positive_events());
  EXPECT_EQ(status.short_term_events(), 20u);
  EXPECT_EQ(status.positive_events(), 256u);
}

// gRPC's retry policies wait as long as the trailer says, or give up.
TEST_F(ServiceTest, RefusalsTellGrpcsRetriesHowLongToWait) {
  const auto pushback = [this](const absl::Status& answer, const std::string& metadata = "") {
    engine_.set_answer([answer](const RecommendRequest&) { return answer; });
    grpc::ClientContext context;
    SetTimeout(context);
    context.AddMetadata("x-filler", metadata);
    v1::RecommendResponse response;
    EXPECT_FALSE(recommend_->Recommend(&context, ValidRequest(), &response).ok());
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto found = trailers.find("grpc-retry-pushback-ms");
    return found == trailers.end() ? "none" : std::string(found->second.data(), found->second.size());
  };
  EXPECT_EQ(pushback(Refusal(kQueueFull, "full", absl::Milliseconds(70))), "70");
  EXPECT_EQ(pushback(absl::ResourceExhaustedError("full")), "50") << "limits.retry_after_ms";
  EXPECT_EQ(pushback(Refusal(kQueueFull, "full", absl::Milliseconds(2))), "50") << "not all attempts at once";
  EXPECT_EQ(pushback(Refusal(kCannotFinish, "late", absl::Milliseconds(70))), "none") << "another replica may be free";
  EXPECT_EQ(pushback(absl::InternalError("broken")), "none");
  EXPECT_EQ(pushback(absl::InternalError(""), std::string(40'000, 'x')), "-1") << "the same would be as large again";
  EXPECT_EQ(RetryPushback(absl::ResourceExhaustedError("full"), /*retry_after_ms=*/0), std::nullopt);
  EXPECT_EQ(RetryPushback(WithReason(absl::ResourceExhaustedError("memory"), kOutOfMemory), 50), -1);
}

TEST_F(ServiceTest, UnknownMethodsAreUnimplemented) {
  EXPECT_EQ(RawCall(channel_, "/beamline.v1.RecommendService/Nothing", "").error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

}  // namespace
}  // namespace beamline::server
