// SPDX-License-Identifier: Apache-2.0
#include "server/translate.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "beamline/v1/admin.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "gtest/gtest.h"
#include "server/fake_engine.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

RequestLimits Limits() {
  RequestLimits limits;
  limits.levels = 3;
  limits.max_history = 5;
  limits.max_top_k = 20;
  limits.max_beam_width = 64;
  limits.max_eligibility_items = 4;
  return limits;
}

v1::RecommendRequest Valid() {
  v1::RecommendRequest request;
  request.set_user_id("u");
  return request;
}

TEST(FromProto, TakesEveryField) {
  v1::RecommendRequest message;
  message.set_request_id("r-1");
  message.set_user_id("user 7");
  auto* attribute = message.add_user_attributes();
  attribute->set_name("active_degree");
  attribute->set_value("full");
  auto* event = message.add_history();
  event->set_item_id(std::numeric_limits<uint64_t>::max());
  event->set_timestamp_ms(1650000000000);
  event->set_play_time_ms(9500);
  event->set_duration_ms(10000);
  event->add_labels(v1::LABEL_CLICK);
  event->add_labels(v1::LABEL_PROFILE_ENTER);
  event->add_labels(v1::LABEL_CLICK);
  message.add_history()->set_item_id(0);
  message.set_top_k(20);
  message.set_items_per_sid(2);
  message.set_max_per_author(3);
  for (uint32_t width : {16, 32, 64}) message.add_beam_widths(width);
  message.set_exclude_history(true);
  auto* clause = message.mutable_eligibility()->add_rule();
  clause->set_key("region");
  clause->add_any_of("DE");
  clause->add_any_of("AT");
  message.mutable_eligibility()->add_deny_item_ids(4);
  message.mutable_eligibility()->mutable_allow()->add_item_ids(6);
  message.set_priority(v1::PRIORITY_SHEDDABLE);

  const absl::StatusOr<RecommendRequest> request = FromProto(message, Limits());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->request_id, "r-1");
  EXPECT_EQ(request->user_id, "user 7");
  ASSERT_EQ(request->user_attributes.size(), 1u);
  EXPECT_EQ(request->user_attributes[0].name, "active_degree");
  EXPECT_EQ(request->user_attributes[0].value, "full");
  ASSERT_EQ(request->history.size(), 2u);
  EXPECT_EQ(request->history[0].item, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(request->history[0].timestamp_ms, 1650000000000);
  EXPECT_EQ(request->history[0].play_time_ms, 9500);
  EXPECT_EQ(request->history[0].duration_ms, 10000);
  EXPECT_EQ(request->history[0].labels, uint32_t{kClick | kProfileEnter});
  EXPECT_EQ(request->history[1].item, 0u);
  EXPECT_EQ(request->top_k, 20);
  EXPECT_EQ(request->items_per_sid, 2);
  EXPECT_EQ(request->max_per_author, 3);
  EXPECT_THAT(request->beam_widths, ElementsAre(16, 32, 64));
  EXPECT_TRUE(request->exclude_history);
  ASSERT_EQ(request->eligibility.rule.size(), 1u);
  EXPECT_EQ(request->eligibility.rule[0].key, "region");
  EXPECT_THAT(request->eligibility.rule[0].any_of, ElementsAre("DE", "AT"));
  EXPECT_THAT(request->eligibility.deny, ElementsAre(4));
  EXPECT_TRUE(request->eligibility.restrict_to_allow);
  EXPECT_THAT(request->eligibility.allow, ElementsAre(6));
  EXPECT_EQ(request->priority, Priority::kSheddable);
}

TEST(FromProto, DefaultsAreTheDocumentedOnes) {
  const absl::StatusOr<RecommendRequest> request = FromProto(Valid(), Limits());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->request_id.size(), 16u);
  EXPECT_EQ(request->top_k, 10);
  EXPECT_EQ(request->items_per_sid, 1);
  EXPECT_EQ(request->max_per_author, 0);
  EXPECT_TRUE(request->beam_widths.empty());
  EXPECT_TRUE(request->eligibility.unrestricted());
  EXPECT_EQ(request->priority, Priority::kDefault);
  EXPECT_EQ(request->deadline, absl::InfiniteFuture());
}

TEST(FromProto, AnEmptyAllowListIsNotNoAllowList) {
  v1::RecommendRequest message = Valid();
  message.mutable_eligibility()->mutable_allow();
  const absl::StatusOr<RecommendRequest> request = FromProto(message, Limits());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->eligibility.restrict_to_allow);
  EXPECT_TRUE(request->eligibility.allow.empty());
}

TEST(FromProto, CriticalNeedsTrust) {
  v1::RecommendRequest message = Valid();
  message.set_priority(v1::PRIORITY_CRITICAL);
  EXPECT_EQ(FromProto(message, Limits())->priority, Priority::kDefault);
  RequestLimits trusting = Limits();
  trusting.accept_critical = true;
  EXPECT_EQ(FromProto(message, trusting)->priority, Priority::kCritical);
}

struct BadField {
  const char* field;
  const char* reason;
  const char* limit;
  const char* actual;
  std::function<void(v1::RecommendRequest&)> spoil;
};

// What a catalogue may hold can be asked for: one set of limits (beamline/limits.h).
TEST(FromProto, RulesOfACataloguesLargestTags) {
  v1::RecommendRequest message = Valid();
  for (int i = 0; i < kMaxRuleClauses; ++i) {
    auto* clause = message.mutable_eligibility()->add_rule();
    clause->set_key(std::string(kMaxNameBytes, 'k'));
    clause->add_any_of(std::string(kMaxValueBytes, 'v'));
  }
  for (int i = 1; i < kMaxClauseValues; ++i) message.mutable_eligibility()->mutable_rule(0)->add_any_of("v");
  EXPECT_TRUE(FromProto(message, Limits()).ok()) << FromProto(message, Limits()).status();
}

v1::Event* Event(v1::RecommendRequest& request) { return request.add_history(); }
v1::Eligibility::TagClause* Clause(v1::RecommendRequest& request) {
  auto* clause = request.mutable_eligibility()->add_rule();
  clause->set_key("k");
  clause->add_any_of("v");
  return clause;
}

const BadField kBadFields[] = {
    {"user_id", "FIELD_MISSING", "", "", [](auto& r) { r.clear_user_id(); }},
    {"user_id", "FIELD_OUT_OF_RANGE", "0..256", "257", [](auto& r) { r.set_user_id(std::string(257, 'x')); }},
    {"user_attributes", "FIELD_OUT_OF_RANGE", "0..64", "65",
     [](auto& r) {
       for (int i = 0; i < 65; ++i) r.add_user_attributes()->set_name("n");
     }},
    {"user_attributes[0].name", "FIELD_OUT_OF_RANGE", "1..128", "0", [](auto& r) { r.add_user_attributes(); }},
    {"user_attributes[0].value", "FIELD_OUT_OF_RANGE", "0..512", "600",
     [](auto& r) {
       r.add_user_attributes()->set_name("n");
       r.mutable_user_attributes(0)->set_value(std::string(600, 'v'));
     }},
    {"history", "FIELD_OUT_OF_RANGE", "0..5", "6",
     [](auto& r) {
       for (int i = 0; i < 6; ++i) Event(r);
     }},
    {"history[1].timestamp_ms", "FIELD_OUT_OF_RANGE", "0..253402300799999", "-1",
     [](auto& r) {
       Event(r);
       Event(r)->set_timestamp_ms(-1);
     }},
    {"history[0].timestamp_ms", "FIELD_OUT_OF_RANGE", "0..253402300799999", "9223372036854775807",
     [](auto& r) { Event(r)->set_timestamp_ms(std::numeric_limits<int64_t>::max()); }},
    {"history[0].timestamp_ms", "FIELD_OUT_OF_RANGE", "0..253402300799999", "-9223372036854775808",
     [](auto& r) { Event(r)->set_timestamp_ms(std::numeric_limits<int64_t>::min()); }},
    {"history[2].timestamp_ms", "FIELD_INVALID", ">= 2000", "1000",
     [](auto& r) {
       Event(r)->set_timestamp_ms(2000);
       Event(r);  // unknown: compares with nothing
       Event(r)->set_timestamp_ms(1000);
     }},
    {"history[0].play_time_ms", "FIELD_OUT_OF_RANGE", "0..4294967295", "-5",
     [](auto& r) { Event(r)->set_play_time_ms(-5); }},
    {"history[0].duration_ms", "FIELD_OUT_OF_RANGE", "0..4294967295", "4294967296",
     [](auto& r) { Event(r)->set_duration_ms(int64_t{1} << 32); }},
    {"history[0].labels[1]", "FIELD_OUT_OF_RANGE", "1..8", "9",
     [](auto& r) {
       Event(r)->add_labels(v1::LABEL_CLICK);
       r.mutable_history(0)->add_labels(static_cast<v1::Label>(9));
     }},
    {"history[0].labels[0]", "FIELD_OUT_OF_RANGE", "1..8", "0",
     [](auto& r) { Event(r)->add_labels(v1::LABEL_UNSPECIFIED); }},
    {"history[0].labels[0]", "FIELD_OUT_OF_RANGE", "1..8", "-3",
     [](auto& r) { Event(r)->add_labels(static_cast<v1::Label>(-3)); }},
    {"history[0].labels", "FIELD_OUT_OF_RANGE", "0..64", "65",
     [](auto& r) {
       auto* event = Event(r);
       for (int i = 0; i < 65; ++i) event->add_labels(v1::LABEL_LIKE);
     }},
    {"top_k", "FIELD_OUT_OF_RANGE", "1..20", "0", [](auto& r) { r.set_top_k(0); }},
    {"top_k", "FIELD_OUT_OF_RANGE", "1..20", "21", [](auto& r) { r.set_top_k(21); }},
    {"top_k", "FIELD_OUT_OF_RANGE", "1..20", "4294967295", [](auto& r) { r.set_top_k(-1); }},
    {"max_per_author", "FIELD_OUT_OF_RANGE", "0..20", "21", [](auto& r) { r.set_max_per_author(21); }},
    {"items_per_sid", "FIELD_OUT_OF_RANGE", "1..20", "0", [](auto& r) { r.set_items_per_sid(0); }},
    {"items_per_sid", "FIELD_OUT_OF_RANGE", "1..20", "2147483648", [](auto& r) { r.set_items_per_sid(1u << 31); }},
    {"beam_widths[0]", "FIELD_OUT_OF_RANGE", "1..64", "0", [](auto& r) { r.add_beam_widths(0); }},
    {"beam_widths[2]", "FIELD_OUT_OF_RANGE", "1..64", "65",
     [](auto& r) {
       for (int width : {1, 64, 65}) r.add_beam_widths(width);
     }},
    {"beam_widths", "FIELD_INVALID", "0, 1 or 3", "2",
     [](auto& r) {
       r.add_beam_widths(4);
       r.add_beam_widths(4);
     }},
    {"eligibility.rule", "FIELD_OUT_OF_RANGE", "0..64", "65",
     [](auto& r) {
       for (int i = 0; i < 65; ++i) Clause(r);
     }},
    {"eligibility.rule[0].key", "FIELD_OUT_OF_RANGE", "1..128", "0", [](auto& r) { Clause(r)->clear_key(); }},
    {"eligibility.rule[1].any_of", "FIELD_OUT_OF_RANGE", "1..4096", "0",
     [](auto& r) {
       Clause(r);
       Clause(r)->clear_any_of();
     }},
    {"eligibility.rule[0].any_of[1]", "FIELD_OUT_OF_RANGE", "0..512", "513",
     [](auto& r) { Clause(r)->add_any_of(std::string(513, 'x')); }},
    {"eligibility.deny_item_ids", "FIELD_OUT_OF_RANGE", "0..4", "5",
     [](auto& r) {
       for (int i = 0; i < 5; ++i) r.mutable_eligibility()->add_deny_item_ids(i);
     }},
    {"eligibility.allow.item_ids", "FIELD_OUT_OF_RANGE", "0..4", "5",
     [](auto& r) {
       for (int i = 0; i < 5; ++i) r.mutable_eligibility()->mutable_allow()->add_item_ids(i);
     }},
    {"priority", "FIELD_OUT_OF_RANGE", "0..3", "9", [](auto& r) { r.set_priority(static_cast<v1::Priority>(9)); }},
};

TEST(FromProto, EveryBadFieldIsNamedWithLimitAndValue) {
  for (const BadField& bad : kBadFields) {
    SCOPED_TRACE(std::string(bad.field) + " = " + bad.actual);
    v1::RecommendRequest message = Valid();
    bad.spoil(message);
    const absl::StatusOr<RecommendRequest> request = FromProto(message, Limits());
    ASSERT_FALSE(request.ok());
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
    const v1::ErrorDetail detail = DetailOf(request.status());
    EXPECT_EQ(detail.field(), bad.field);
    EXPECT_EQ(detail.reason(), bad.reason);
    EXPECT_EQ(detail.limit(), bad.limit);
    EXPECT_EQ(detail.actual(), bad.actual);
    EXPECT_THAT(std::string(request.status().message()), ::testing::StartsWith(std::string(bad.field) + ": "));
    EXPECT_THAT(std::string(request.status().message()), HasSubstr(bad.actual));
  }
}

TEST(FromProto, ErrorsDoNotRepeatTheRequestsText) {
  v1::RecommendRequest message = Valid();
  message.set_user_id(std::string(300, 'S'));
  EXPECT_THAT(std::string(FromProto(message, Limits()).status().message()), ::testing::Not(HasSubstr("SS")));
}

TEST(ToProto, CarriesEverythingOfAResult) {
  const v1::RecommendResponse message = ToProto(FakeResult(), "r-9");
  EXPECT_EQ(message.request_id(), "r-9");
  ASSERT_EQ(message.items_size(), 2);
  EXPECT_EQ(message.items(0).item_id(), 5u);
  EXPECT_THAT(message.items(0).sid().codes(), ElementsAre(1, 0, 0));
  EXPECT_THAT(message.items(0).log_probs(), ElementsAre(-0.5f, -0.25f, -0.125f));
  EXPECT_EQ(message.items(0).score(), -0.875f);
  EXPECT_FALSE(message.items(0).has_value()) << "of a model without a ranker";
  EXPECT_EQ(message.items(1).item_id(), 2u);
  EXPECT_EQ(message.short_reason(), v1::SHORT_REASON_BEAM_EXHAUSTED);
  for (int reason = v1::ShortReason_MIN; reason <= v1::ShortReason_MAX; ++reason) {
    RecommendResult result = FakeResult();
    result.short_reason = static_cast<ShortReason>(reason);
    EXPECT_EQ(ToProto(result, "").short_reason(), reason);
  }
  EXPECT_THAT(message.beam_widths(), ElementsAre(2, 4, 4));
  EXPECT_EQ(message.narrowing(), 2u);
  EXPECT_EQ(message.seen_events(), 5u);
  RecommendResult unseen = FakeResult();
  unseen.seen_events = 0;
  EXPECT_TRUE(ToProto(unseen, "r-9").has_seen_events()) << "none is not the same as an older server's silence";
  EXPECT_EQ(message.unknown_items(), 3u);
  EXPECT_EQ(message.dropped_events(), 7u);
  EXPECT_EQ(message.model_version(), "model-1");
  EXPECT_EQ(message.catalogue_version(), "catalogue-1");
  EXPECT_EQ(message.timings().queue_us(), 11);
  EXPECT_EQ(message.timings().encode_us(), 22);
  EXPECT_EQ(message.timings().decode_us(), 33);
  EXPECT_EQ(message.timings().resolve_us(), 44);
  EXPECT_EQ(message.timings().prepare_us(), 9);
  EXPECT_EQ(message.timings().total_us(), 110);
  EXPECT_TRUE(message.timings().context_cached());
  EXPECT_EQ(message.timings().encode_requests(), 2);
  EXPECT_EQ(message.timings().decode_requests(), 3);
}

// A client could parse no message that holds such a path, so none of the status.
TEST(ToProto, CarriesTheRankersValue) {
  RecommendResult result = FakeResult();
  result.items[0].value = 0.0f;
  result.items[1].value = -1.5f;
  const v1::RecommendResponse message = ToProto(result, "r-9");
  EXPECT_TRUE(message.items(0).has_value());
  EXPECT_EQ(message.items(1).value(), -1.5f);
}

TEST(ToProto, PathsOfAnyBytesMakeMessagesOfText) {
  ModelVersion version;
  version.bundle = "models/\xff";
  version.error = "models/\xff/\xc3(.pt: is not listed";
  version.catalogue_version = "c-1";
  v1::ModelVersion message;
  ASSERT_TRUE(message.ParseFromString(ToProto(version).SerializeAsString()));
  EXPECT_EQ(message.bundle(), "models/?");
  EXPECT_EQ(message.error(), "models/?/?(.pt: is not listed");
  EXPECT_EQ(message.catalogue_version(), "c-1");
}

TEST(SidFromProto, ChecksCountAndEachCode) {
  const FakeCatalogue catalogue;
  v1::Sid message;
  for (uint32_t code : {3, 1, 0}) message.add_codes(code);
  const absl::StatusOr<Sid> sid = SidFromProto(message, catalogue, "sids[0]");
  ASSERT_TRUE(sid.ok()) << sid.status();
  EXPECT_EQ(*sid, (Sid{3, 1, 0}));
  message.set_codes(1, 2);
  EXPECT_EQ(DetailOf(SidFromProto(message, catalogue, "sids[0]").status()).field(), "sids[0].codes[1]");
  message.add_codes(0);
  EXPECT_EQ(DetailOf(SidFromProto(message, catalogue, "sids[0]").status()).field(), "sids[0].codes");
  EXPECT_FALSE(SidFromProto(v1::Sid(), catalogue, "sids[0]").ok());
}

// Without them no client can be generated in Go, and Java's classes of a file hide in one.
TEST(Protos, SayWhereGeneratedClientsGo) {
  for (const google::protobuf::Descriptor* message :
       {v1::Sid::descriptor(), v1::RecommendRequest::descriptor(), v1::GetItemRequest::descriptor(),
        v1::GetStatusRequest::descriptor(), v1::ReloadRequest::descriptor()}) {
    const google::protobuf::FileOptions& options = message->file()->options();
    EXPECT_EQ(options.go_package(), "beamline/v1;beamlinev1") << message->file()->name();
    EXPECT_EQ(options.java_package(), "beamline.v1") << message->file()->name();
    EXPECT_TRUE(options.java_multiple_files()) << message->file()->name();
  }
}

}  // namespace
}  // namespace beamline::server
