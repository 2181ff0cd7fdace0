// SPDX-License-Identifier: Apache-2.0
//
// Rows of the bad-input catalogue (tests/bad_input.tsv) against `beamline serve` as a process with a real model: each
// is refused as it should be, or answered as documented, and after every one the server gives the same correct requests
// the same bytes as before.
#include <cstdlib>
#include <functional>
#include <limits>

#include <sys/resource.h>

#include "beamline/v1/admin.grpc.pb.h"
#include "beamline/v1/catalogue.grpc.pb.h"
#include "deploy/raw_http2.h"
#include "deploy/real_server.h"
#include "gmock/gmock.h"
#include "httplib.h"
#include "testing/raw_call.h"

namespace beamline::deploy {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kRecommend[] = "/beamline.v1.RecommendService/Recommend";

v1::ErrorDetail DetailOf(const grpc::Status& status) {
  v1::StatusDetails details;
  v1::ErrorDetail detail;
  if (details.ParseFromString(status.error_details()) && details.details_size() == 1) {
    EXPECT_TRUE(detail.ParseFromString(details.details(0).value()));
  }
  return detail;
}

class BadInputTest : public ::testing::Test {
 protected:
  void SetUp() override {
    KeepLittleOfWhatIsFreed();
    ASSERT_TRUE(runtime::testing::WriteTinyBundle(bundle_).ok());
    server_ = std::make_unique<RealServer>(
        address_, RealServerConfig{.engine = absl::StrCat("bundle: '", bundle_, "'"), .lifecycle = ""});
    server_->Start();
    ASSERT_TRUE(server_->AwaitReady());
    channel_ = Connect(server_->target());
    stub_ = v1::RecommendService::NewStub(channel_);
    expected_ = Answers();
    ASSERT_EQ(expected_.size(), 3u);
  }
  void TearDown() override {
    ASSERT_NE(server_, nullptr);
    EXPECT_EQ(server_->Stop(SIGTERM), 0) << server_->log();
  }

  // AddressSanitizer holds back up to 256 MiB of freed memory, which the tests below would take for a leak.
  static void KeepLittleOfWhatIsFreed() {
    const char* options = std::getenv("ASAN_OPTIONS");
    const std::string all = absl::StrCat(options == nullptr ? "" : options, ":quarantine_size_mb=8");
    ASSERT_EQ(setenv("ASAN_OPTIONS", all.c_str(), 1), 0);
  }

  // Of requests of three kinds, as bytes.
  std::vector<std::string> Answers() {
    std::vector<std::string> answers;
    for (const int i : {0, 3, 7}) {
      v1::RecommendResponse response;
      const grpc::Status status = Ask(*stub_, FixedRequests()[i], &response);
      EXPECT_TRUE(status.ok()) << status.error_message() << "\n" << server_->log();
      EXPECT_GT(response.items_size(), 0);
      answers.push_back(Essence(response));
    }
    return answers;
  }
  void ExpectServesAsBefore() { ASSERT_EQ(Answers(), expected_) << server_->log(); }

  v1::ServerCounts Counters() {
    grpc::ClientContext context;
    v1::GetStatusResponse status;
    EXPECT_TRUE(v1::ModelService::NewStub(channel_)->GetStatus(&context, {}, &status).ok());
    return status.server();
  }
  // Resident memory in MiB.
  int64_t Memory() const {
    std::ifstream status(absl::StrCat("/proc/", server_->pid(), "/status"));
    for (std::string line; std::getline(status, line);) {
      if (line.rfind("VmRSS:", 0) == 0) return std::strtoll(line.c_str() + 6, nullptr, 10) >> 10;
    }
    return -1;
  }

  const std::string address_ = LoopbackAddress(1);
  const std::string bundle_ = ::testing::TempDir() + "/bundle";
  std::unique_ptr<RealServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::RecommendService::Stub> stub_;
  std::vector<std::string> expected_;
};

struct BadRequest {
  const char* row;
  const char* field;
  const char* reason;
  const char* limit;
  const char* actual;
  std::function<void(v1::RecommendRequest&)> spoil;
};

v1::Event& AddEvent(v1::RecommendRequest& request) { return *request.add_history(); }

void AddClause(v1::RecommendRequest& request, const std::string& key, int values, const std::string& value) {
  auto& clause = *request.mutable_eligibility()->add_rule();
  clause.set_key(key);
  for (int i = 0; i < values; ++i) clause.add_any_of(value);
}

const BadRequest kBadRequests[] = {
    {"C2.1", "user_id", "FIELD_MISSING", "", "", [](auto& r) { r.Clear(); }},
    {"C2.5", "history", "FIELD_OUT_OF_RANGE", "0..4096", "4097",
     [](auto& r) {
       for (int i = 0; i < 4097; ++i) AddEvent(r).set_item_id(1000);
     }},
    {"C2.7", "history[0].timestamp_ms", "FIELD_OUT_OF_RANGE", "0..253402300799999", "-1",
     [](auto& r) { AddEvent(r).set_timestamp_ms(-1); }},
    {"C2.7", "history[0].timestamp_ms", "FIELD_OUT_OF_RANGE", "0..253402300799999", "9223372036854775807",
     [](auto& r) { AddEvent(r).set_timestamp_ms(std::numeric_limits<int64_t>::max()); }},
    {"C2.7", "history[0].timestamp_ms", "FIELD_OUT_OF_RANGE", "0..253402300799999", "-9223372036854775808",
     [](auto& r) { AddEvent(r).set_timestamp_ms(std::numeric_limits<int64_t>::min()); }},
    {"C2.7", "history[1].timestamp_ms", "FIELD_INVALID", ">= 1650000000000", "1650000000",
     [](auto& r) {  // the second in seconds
       AddEvent(r).set_timestamp_ms(1'650'000'000'000);
       AddEvent(r).set_timestamp_ms(1'650'000'000);
     }},
    {"C2.9", "history[0].play_time_ms", "FIELD_OUT_OF_RANGE", "0..4294967295", "-1",
     [](auto& r) { AddEvent(r).set_play_time_ms(-1); }},
    {"C2.9", "history[0].duration_ms", "FIELD_OUT_OF_RANGE", "0..4294967295", "9223372036854775807",
     [](auto& r) { AddEvent(r).set_duration_ms(std::numeric_limits<int64_t>::max()); }},
    {"C2.10", "history[0].labels[0]", "FIELD_OUT_OF_RANGE", "1..8", "99",
     [](auto& r) { AddEvent(r).add_labels(static_cast<v1::Label>(99)); }},
    {"C2.10", "priority", "FIELD_OUT_OF_RANGE", "0..3", "-1",
     [](auto& r) { r.set_priority(static_cast<v1::Priority>(-1)); }},
    {"C2.11", "top_k", "FIELD_OUT_OF_RANGE", "1..1000", "0", [](auto& r) { r.set_top_k(0); }},
    {"C2.11", "top_k", "FIELD_OUT_OF_RANGE", "1..1000", "1001", [](auto& r) { r.set_top_k(1001); }},
    {"C2.11", "top_k", "FIELD_OUT_OF_RANGE", "1..1000", "4294967295", [](auto& r) { r.set_top_k(-1); }},
    {"C2.11", "max_per_author", "FIELD_OUT_OF_RANGE", "0..1000", "1001", [](auto& r) { r.set_max_per_author(1001); }},
    {"C2.11", "items_per_sid", "FIELD_OUT_OF_RANGE", "1..1000", "2147483647",
     [](auto& r) { r.set_items_per_sid(std::numeric_limits<int32_t>::max()); }},
    {"C2.12", "beam_widths[0]", "FIELD_OUT_OF_RANGE", "1..1024", "0", [](auto& r) { r.set_beam_widths(0, 0); }},
    {"C2.12", "beam_widths[0]", "FIELD_OUT_OF_RANGE", "1..1024", "2147483648",
     [](auto& r) { r.set_beam_widths(0, 1u << 31); }},
    {"C2.13", "beam_widths", "FIELD_INVALID", "0, 1 or 3", "4",
     [](auto& r) {
       for (int i = 0; i < 3; ++i) r.add_beam_widths(16);
     }},
    {"C2.15", "eligibility.deny_item_ids", "FIELD_OUT_OF_RANGE", "0..50000", "400000",
     [](auto& r) {
       for (int i = 0; i < 400'000; ++i) r.mutable_eligibility()->add_deny_item_ids(i);
     }},
    {"C2.15", "eligibility.allow.item_ids", "FIELD_OUT_OF_RANGE", "0..50000", "50001",
     [](auto& r) {
       for (int i = 0; i < 50'001; ++i) r.mutable_eligibility()->mutable_allow()->add_item_ids(i);
     }},
    {"C2.15", "eligibility.rule", "FIELD_OUT_OF_RANGE", "0..64", "65",
     [](auto& r) {
       for (int i = 0; i < 65; ++i) AddClause(r, "k", 1, "v");
     }},
    {"C2.15", "eligibility.rule[0].any_of", "FIELD_OUT_OF_RANGE", "1..4096", "4097",
     [](auto& r) { AddClause(r, "k", 4097, "v"); }},
    {"C2.17", "user_id", "FIELD_OUT_OF_RANGE", "0..256", "1000000",
     [](auto& r) { r.set_user_id(std::string(1'000'000, '/')); }},
};

TEST_F(BadInputTest, BadFieldsAreNamedWithLimitAndValue) {
  int64_t invalid = static_cast<int64_t>(Counters().invalid());
  for (const BadRequest& bad : kBadRequests) {
    SCOPED_TRACE(absl::StrCat(bad.row, " ", bad.field, " = ", bad.actual));
    v1::RecommendRequest request = FixedRequests()[0];
    bad.spoil(request);
    v1::RecommendResponse response;
    const grpc::Status status = Ask(*stub_, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    const v1::ErrorDetail detail = DetailOf(status);
    EXPECT_EQ(detail.field(), bad.field);
    EXPECT_EQ(detail.reason(), bad.reason);
    EXPECT_EQ(detail.limit(), bad.limit);
    EXPECT_EQ(detail.actual(), bad.actual);
    EXPECT_THAT(status.error_message(), StartsWith(absl::StrCat(bad.field, ": ")));
    EXPECT_THAT(status.error_message(), HasSubstr(bad.actual));
    EXPECT_EQ(static_cast<int64_t>(Counters().invalid()), ++invalid) << "one counter moves";
    ExpectServesAsBefore();
  }
}

TEST_F(BadInputTest, OddButLegalRequestsAreAnsweredAsDocumented) {
  struct Odd {
    const char* row;
    std::function<void(v1::RecommendRequest&)> make;
    std::function<void(const v1::RecommendResponse&)> check;
  };
  const auto any = [](const v1::RecommendResponse&) {};
  const std::string id_bytes = "a\nb\r\x01\"c";
  const Odd cases[] = {
      {"C2.4 last wins", [](auto& r) { ASSERT_TRUE(r.MergeFromString("\x28\x07")); },  // top_k once more
       [](const auto& a) { EXPECT_LE(a.items_size(), 7); }},
      {"C2.5 empty", [](auto& r) { r.clear_history(); }, any},
      {"C2.5 max",
       [](auto& r) {
         while (r.history_size() < 4096) AddEvent(r).set_item_id(1000 + r.history_size() % 150);
       },
       [](const auto& a) { EXPECT_GT(a.dropped_events(), 4000u); }},
      {"C2.7 all equal, and in 10 years",
       [](auto& r) {
         for (int i = 0; i < 5; ++i) AddEvent(r).set_timestamp_ms(2'100'000'000'000);
       },
       any},
      {"C2.8 unknown, 0, largest",
       [](auto& r) {
         r.clear_history();
         for (const uint64_t item : {uint64_t{0}, ~uint64_t{0}, uint64_t{999}}) AddEvent(r).set_item_id(item);
       },
       [](const auto& a) { EXPECT_EQ(a.unknown_items(), 3u); }},
      {"C2.8 one item over and over",
       [](auto& r) {
         r.clear_history();
         for (int i = 0; i < 4000; ++i) AddEvent(r).set_item_id(1001);
       },
       [](const auto& a) { EXPECT_EQ(a.unknown_items(), 0u); }},
      {"C2.11 more than the catalogue has",
       [](auto& r) {
         r.set_top_k(1000);
         r.set_items_per_sid(1000);
         r.set_beam_widths(0, 1024);
       },
       [](const auto& a) {
         EXPECT_EQ(a.items_size(), 150);
         EXPECT_EQ(a.short_reason(), v1::SHORT_REASON_ELIGIBLE_ITEMS_EXHAUSTED);
       }},
      {"C2.12 beam below top_k",
       [](auto& r) {
         r.set_top_k(50);
         r.set_beam_widths(0, 1);
       },
       [](const auto& a) {
         EXPECT_EQ(a.items_size(), 1);
         EXPECT_EQ(a.short_reason(), v1::SHORT_REASON_BEAM_EXHAUSTED);
       }},
      {"C2.15 allowed and denied",
       [](auto& r) {
         for (const uint64_t item : {1003, 1004}) {
           r.mutable_eligibility()->mutable_allow()->add_item_ids(item);
           r.mutable_eligibility()->add_deny_item_ids(item);
         }
       },
       [](const auto& a) {
         EXPECT_EQ(a.items_size(), 0);
         EXPECT_EQ(a.short_reason(), v1::SHORT_REASON_NO_ELIGIBLE_ITEMS);
       }},
      {"C2.15 empty allow list", [](auto& r) { r.mutable_eligibility()->mutable_allow(); },
       [](const auto& a) { EXPECT_EQ(a.short_reason(), v1::SHORT_REASON_NO_ELIGIBLE_ITEMS); }},
      {"C2.15 unknown region, C5.9 nothing left", [](auto& r) { AddClause(r, "region", 1, "XX"); },
       [](const auto& a) { EXPECT_EQ(a.short_reason(), v1::SHORT_REASON_NO_ELIGIBLE_ITEMS); }},
      {"C2.15 like a pattern", [](auto& r) { AddClause(r, "region", 1, ".*"); },
       [](const auto& a) { EXPECT_EQ(a.items_size(), 0) << "text is text"; }},
      {"C2.16", [&](auto& r) { r.set_request_id(id_bytes); },
       [](const auto& a) { EXPECT_EQ(a.request_id(), "a_b___c"); }},
      {"C2.16 a megabyte", [](auto& r) { r.set_request_id(std::string(1 << 20, 'x')); },
       [](const auto& a) { EXPECT_EQ(a.request_id().size(), 128u); }},
      {"C2.17", [](auto& r) { r.set_user_id(std::string("../../etc/passwd\0'; DROP TABLE users;--\r\nFLUSHALL", 49)); },
       any},
      {"C2.22 forged", [](auto& r) { r.set_priority(v1::PRIORITY_CRITICAL); }, any},
  };
  for (const Odd& odd : cases) {
    SCOPED_TRACE(odd.row);
    v1::RecommendRequest request = FixedRequests()[3];
    odd.make(request);
    v1::RecommendResponse response;
    const grpc::Status status = Ask(*stub_, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    odd.check(response);
    for (int i = 0; i < response.items_size(); ++i) EXPECT_LE(response.items(i).item_id(), 1149u) << "no such item";
    ExpectServesAsBefore();
  }
  EXPECT_THAT(server_->log(), ::testing::Not(HasSubstr("FLUSHALL"))) << "what users send stays out of the log";
}

TEST_F(BadInputTest, MalformedBytesAreInvalidArgumentOnEveryMethod) {
  std::string groups, long_unknown = "\xa2\x06\x80\x80\x40" + std::string(1 << 20, 'u');
  for (int i = 0; i < 200'000; ++i) groups += "\xfb\x07";
  const std::pair<const char*, std::string> cases[] = {
      {"C2.2 truncated", std::string("\x12\x05"
                                     "ab")},
      {"C2.2 wire type 7", std::string("\x0f\x01")},
      {"C2.2 field number 0", std::string("\x00\x01", 2)},
      {"C2.2 over-long varint", "\x28" + std::string(10, '\xff') + "\x01"},
      {"C2.2 length beyond the end", std::string("\x22\xff\xff\xff\xff\x0f")},
      {"C2.3 nested groups", groups},
      {"C2.4 a megabyte of unknown fields", long_unknown},
      {"C2.2 garbage", "GET / HTTP/1.1\r\n\r\n"},
  };
  int64_t malformed = static_cast<int64_t>(Counters().malformed());
  for (const auto& [row, bytes] : cases) {
    for (const char* method : {kRecommend, "/beamline.v1.RecommendService/BatchRecommend",
                               "/beamline.v1.CatalogueService/Encode", "/beamline.v1.CatalogueService/Resolve",
                               "/beamline.v1.CatalogueService/GetItem", "/beamline.v1.ModelService/GetStatus"}) {
      SCOPED_TRACE(absl::StrCat(row, " to ", method));
      const grpc::Status status = testing::RawCall(channel_, method, bytes);
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
      EXPECT_THAT(DetailOf(status).reason(), AnyOf("MALFORMED_MESSAGE", "UNKNOWN_FIELDS"));
      EXPECT_EQ(static_cast<int64_t>(Counters().malformed()), ++malformed);
    }
    ExpectServesAsBefore();
  }
  const grpc::Status not_text = testing::RawCall(channel_, kRecommend, std::string("\x12\x02\xc3\x28"));
  EXPECT_EQ(not_text.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << "C2.2 not UTF-8";
  ExpectServesAsBefore();
}

TEST_F(BadInputTest, HeadersAreBoundedAndDistrusted) {
  v1::RecommendResponse response;
  const auto call = [&](const Headers& headers, absl::Duration timeout = absl::Seconds(10)) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    for (const auto& [name, value] : headers) context.AddMetadata(name, value);
    return stub_->Recommend(&context, FixedRequests()[0], &response);
  };
  const grpc::Status large = call({{"x-filler", std::string(40'000, 'x')}});  // C1.10
  EXPECT_EQ(large.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailOf(large).reason(), "METADATA_TOO_LARGE");
  EXPECT_EQ(DetailOf(large).retry_after_ms(), 0) << "the same would be as large again";
  EXPECT_EQ(DetailOf(large).limit(), "16384");
  EXPECT_GT(std::stoi(DetailOf(large).actual()), 40'000);
  EXPECT_THAT(large.error_message(), HasSubstr("more than the limit of 16384"));
  ExpectServesAsBefore();
  for (const Headers& headers : {Headers{{"traceparent", "garbage"}},  // C2.23
                                 Headers{{"traceparent", "00-00000000000000000000000000000000-0000000000000000-00"}},
                                 Headers{{"tracestate", std::string(10'240, 't')}},
                                 Headers{{"x-criticality", "critical"}, {"priority", "u=0"}}}) {  // C2.19, C2.22
    EXPECT_TRUE(call(headers).ok());
    EXPECT_EQ(Essence(response), expected_[0]);
  }
  // C2.24. gRPC counts in milliseconds: in the one that is left it may be answered, or the admission may say that it
  // does not do, before it is over.
  const grpc::Status tiny = call({}, absl::Microseconds(1));
  EXPECT_THAT(tiny.error_code(),
              AnyOf(grpc::StatusCode::DEADLINE_EXCEEDED, grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::OK));
  if (tiny.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
    EXPECT_EQ(DetailOf(tiny).reason(), "CANNOT_FINISH");
  }
  if (tiny.ok()) {
    EXPECT_EQ(Essence(response), expected_[0]);
  }
  EXPECT_EQ(call({}, -absl::Seconds(1)).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  grpc::ClientContext without_deadline;
  EXPECT_TRUE(stub_->Recommend(&without_deadline, FixedRequests()[0], &response).ok());
  EXPECT_EQ(Essence(response), expected_[0]);
  grpc::ClientContext compressed;  // C1.11
  compressed.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  v1::RecommendRequest bomb = FixedRequests()[0];
  bomb.set_request_id(std::string(4 << 20, 'x'));
  EXPECT_EQ(stub_->Recommend(&compressed, bomb, &response).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  ExpectServesAsBefore();
}

TEST_F(BadInputTest, FramesThatLieAreRefusedAndCostNothing) {
  const std::string message = FixedRequests()[0].SerializeAsString();
  struct Wire {
    const char* row;
    std::function<void(Headers&)> headers;
    std::string body;
    std::vector<int> statuses;  // of gRPC; -1: the connection was closed
  };
  const auto with = [](const std::string& name, const std::string& value) {
    return [=](Headers& headers) {
      for (auto& [known, text] : headers) {
        if (known == name) return void(text = value);
      }
      headers.emplace_back(name, value);
    };
  };
  const auto plain = [](Headers&) {};
  const Wire cases[] = {
      {"correct", plain, GrpcMessage(message), {0}},
      {"C1.12 length of 2 GiB", plain, GrpcMessage(message, 0x7fffffff), {3, 8}},
      {"C1.12 length of 4 GiB", plain, GrpcMessage(message, 0xffffffff), {3, 8}},
      {"C1.12 length above the data", plain, GrpcMessage(message, 1000), {3}},
      {"C1.12 no message", plain, "", {3}},
      {"C1.12 two messages", plain, GrpcMessage(message) + GrpcMessage(message), {0, 12, 13}},
      {"C1.12 a flag that is none", plain, GrpcMessage(message, std::nullopt, 7), {3}},
      {"C1.11 compressed, without saying how", plain, GrpcMessage(message, std::nullopt, 1), {0, 12, 13}},
      {"C1.13 no such method", with(":path", "/beamline.v1.RecommendService/Nothing"), GrpcMessage(message), {12}},
      {"C1.13 no such service", with(":path", "/x.y.Z/W"), GrpcMessage(message), {12}},
      {"C1.13 a path that is none", with(":path", "../../etc/passwd"), GrpcMessage(message), {12, 13}},
      {"C1.13 timeout of 0", with("grpc-timeout", "0m"), GrpcMessage(message), {4}},
      {"C1.13 timeout below 0", with("grpc-timeout", "-1S"), GrpcMessage(message), {0, 4, 13, -1}},
      {"C1.13 timeout without unit", with("grpc-timeout", "12"), GrpcMessage(message), {0, 4, 13, -1}},
      {"C1.13 timeout of ten millennia", with("grpc-timeout", "99999999H"), GrpcMessage(message), {0}},
      {"C1.13 content type", with("content-type", "text/html"), GrpcMessage(message), {0, 12, 13, -1}},
      {"C1.6 te", with("te", "x"), GrpcMessage(message), {2, 13}},
      {"C1.6 scheme", with(":scheme", "x"), GrpcMessage(message), {2, 13}},
      {"C1.5 not base64", with("x-bin", "!"), GrpcMessage(message), {14, -1}},
  };
  const int64_t memory = Memory();
  for (const Wire& wire : cases) {
    SCOPED_TRACE(wire.row);
    Headers headers = GrpcHeaders(kRecommend);
    wire.headers(headers);
    RawHttp2 connection(address_, 50051);
    connection.Send(Http2Hello() + Http2Frame(kHttp2Headers, kEndHeaders, 1, HpackLiterals(headers)) +
                    Http2Frame(kHttp2Data, kEndStream, 1, wire.body));
    EXPECT_THAT(connection.AwaitGrpcStatus(), ::testing::AnyOfArray(wire.statuses));
    ExpectServesAsBefore();
  }
  EXPECT_LT(Memory() - memory, 64) << "nothing is allocated for what a prefix claims";
}

TEST_F(BadInputTest, AFloodOfOneMessageIsNotKept) {  // C1.12
  const int64_t memory = Memory();
  RawHttp2 connection(address_, 50051);
  connection.Send(Http2Hello() + Http2Frame(kHttp2Headers, kEndHeaders, 1, HpackLiterals(GrpcHeaders(kRecommend))));
  const int64_t sent = connection.Flood(1, GrpcMessage("", 0x7fffffff), int64_t{256} << 20);
  const int64_t grown = Memory() - memory;
  std::cout << (sent >> 20) << " MiB of a message of 2 GiB sent, " << grown << " MiB more memory\n";
  EXPECT_LT(grown, 64);
  ExpectServesAsBefore();
}

TEST_F(BadInputTest, ManyIdleAndSilentConnectionsDisturbNobody) {  // C1.8
  const auto slowest = [&] {
    absl::Duration most = absl::ZeroDuration();
    for (int i = 0; i < 50; ++i) {
      const absl::Time start = absl::Now();
      v1::RecommendResponse response;
      EXPECT_TRUE(Ask(*stub_, FixedRequests()[0], &response).ok());
      most = std::max(most, absl::Now() - start);
    }
    return most;
  };
  slowest();
  std::vector<std::unique_ptr<RawHttp2>> idle;
  for (int i = 0; i < 400; ++i) {
    idle.push_back(std::make_unique<RawHttp2>(address_, 50051));
    if (i % 2 == 0) idle.back()->Send(Http2Hello());
    if (i % 4 == 1) idle.back()->Send("PRI");
  }
  EXPECT_LT(slowest(), absl::Seconds(1));
  idle.clear();
  ExpectServesAsBefore();
}

TEST_F(BadInputTest, MoreConnectionsThanOpenFilesAreForgottenWhenTheyGo) {  // C1.7
  rlimit before{};
  ASSERT_EQ(prlimit(server_->pid(), RLIMIT_NOFILE, nullptr, &before), 0);
  const rlimit few{64, before.rlim_max};
  ASSERT_EQ(prlimit(server_->pid(), RLIMIT_NOFILE, &few, nullptr), 0);
  std::vector<std::unique_ptr<RawHttp2>> connections;
  for (int i = 0; i < 100; ++i) connections.push_back(std::make_unique<RawHttp2>(address_, 50051));
  ExpectServesAsBefore();  // on the connection from before
  connections.clear();
  const auto late = v1::RecommendService::NewStub(Connect(server_->target()));
  v1::RecommendResponse response;
  const grpc::Status status = Ask(*late, FixedRequests()[0], &response);
  EXPECT_TRUE(status.ok()) << status.error_message() << "\n" << server_->log();
  ASSERT_EQ(prlimit(server_->pid(), RLIMIT_NOFILE, &before, nullptr), 0);
}

TEST_F(BadInputTest, AScrapeStormDisturbsNoRequest) {  // C7.9
  const int64_t memory = Memory();
  std::vector<std::unique_ptr<RawHttp2>> never_read;
  for (int i = 0; i < 40; ++i) {
    never_read.push_back(std::make_unique<RawHttp2>(address_, 50053));
    if (i % 2 == 0) never_read.back()->Send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  ExpectServesAsBefore();
  never_read.clear();
  httplib::Client scraper(address_, 50053);
  scraper.set_read_timeout(20);
  scraper.set_keep_alive(true);
  int scrapes = 0;
  for (const absl::Time end = absl::Now() + absl::Seconds(1); absl::Now() < end; ++scrapes) {
    const httplib::Result page = scraper.Get("/metrics");
    ASSERT_TRUE(page) << "scrape " << scrapes;
    ASSERT_EQ(page->status, 200);
    if (scrapes % 50 == 0) ExpectServesAsBefore();
  }
  std::cout << scrapes << " scrapes in a second\n";
  EXPECT_EQ(scraper.Get("/livez")->status, 200);
  EXPECT_LT(Memory() - memory, 64);
}

// C4.11, C4.13, C4.15 and "nothing is half loaded": a thousand damaged copies of what is served and of another model.
TEST_F(BadInputTest, DamagedBundlesAreRefusedOneByOneAndTheOldOneServes) {
  const std::string other = ::testing::TempDir() + "/other";
  ASSERT_TRUE(runtime::testing::WriteTinyBundle(other, {.seed = 2}).ok());
  const auto admin = v1::AdminService::NewStub(Connect(absl::StrCat(address_, ":50052")));
  const auto reload = [&](const std::string& bundle) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
    v1::ReloadRequest request;
    request.set_bundle(bundle);
    v1::ReloadResponse response;
    return admin->Reload(&context, request, &response);
  };
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(other)) files.push_back(entry.path().filename().string());
  ASSERT_EQ(files.size(), 6u);
  std::sort(files.begin(), files.end());
  std::mt19937_64 random(1);
  for (int turn = 0; turn < 1000; ++turn) {
    const std::string copy = turn % 2 == 0 ? other : bundle_;  // 'bundle_' is in memory already
    const fs::path file = fs::path(copy) / files[turn / 2 % files.size()];
    const std::string good = *ReadFile(file, 1 << 30);
    std::string bad = good;
    if (turn % 3 == 0) {
      bad.resize(random() % good.size());
    } else {
      bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
    }
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bad;
    const grpc::Status status = reload(copy);
    ASSERT_THAT(status.error_code(), AnyOf(grpc::StatusCode::DATA_LOSS, grpc::StatusCode::INVALID_ARGUMENT))
        << "turn " << turn << " " << file << ": " << status.error_message();
    ASSERT_THAT(status.error_message(), HasSubstr(file.filename().string())) << "turn " << turn;
    std::ofstream(file, std::ios::binary | std::ios::trunc) << good;
    if (turn % 50 == 0) ExpectServesAsBefore();
  }
  // C2.18: paths are paths, and what is no bundle is none.
  EXPECT_EQ(reload("").error_code(), grpc::StatusCode::OK) << "the configured one, which serves";
  EXPECT_EQ(reload("/nowhere/../nothing").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(reload(std::string(5000, 'x')).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(reload(bundle_ + std::string("\0/../other", 10)).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(reload(bundle_ + "/items").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  ExpectServesAsBefore();
  EXPECT_TRUE(reload(other).ok()) << "whole, it is taken";
  EXPECT_NE(Answers(), expected_);
  EXPECT_TRUE(reload(bundle_).ok());
  ExpectServesAsBefore();
}

// A file's name may hold any bytes; the answer that tells of it stays one that clients can read.
TEST_F(BadInputTest, NamesOfAnyBytesBreakNoAnswer) {
  const std::string copy = ::testing::TempDir() + "/copy";
  fs::copy(bundle_, copy);
  std::ofstream(copy + "/\xff\x1b[2J.pt") << "PK";
  const auto admin = v1::AdminService::NewStub(Connect(absl::StrCat(address_, ":50052")));
  grpc::ClientContext context;
  v1::ReloadRequest request;
  request.set_bundle(copy);
  v1::ReloadResponse response;
  const grpc::Status status = admin->Reload(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("??[2J.pt: is not listed"));
  Counters();  // GetStatus tells the same refusal
  ExpectServesAsBefore();
}

}  // namespace
}  // namespace beamline::deploy
