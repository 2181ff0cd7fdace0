// SPDX-License-Identifier: Apache-2.0
#include "server/translate.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "beamline/status.h"
#include "server/request_id.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

constexpr size_t kMaxVersionTextBytes = 8192;

std::string Range(const Bounds& bounds) { return absl::StrCat(bounds.low, "..", bounds.high); }

// The path is put together only for an error: a history has thousands of fields.
absl::Status CheckEvent(int index, absl::string_view name, int64_t value, const Bounds& bounds) {
  if (value >= bounds.low && value <= bounds.high) return absl::OkStatus();
  return CheckValue(absl::StrCat("history[", index, "].", name), value, bounds);
}

absl::StatusOr<Event> EventFromProto(const v1::Event& message, int index) {
  BEAMLINE_RETURN_IF_ERROR(CheckEvent(index, "timestamp_ms", message.timestamp_ms(), {0, kMaxTimestampMs}));
  BEAMLINE_RETURN_IF_ERROR(CheckEvent(index, "play_time_ms", message.play_time_ms(), {0, kMaxSpanMs}));
  BEAMLINE_RETURN_IF_ERROR(CheckEvent(index, "duration_ms", message.duration_ms(), {0, kMaxSpanMs}));
  if (message.labels_size() > kMaxLabelsPerEvent) {
    return CheckCount(absl::StrCat("history[", index, "].labels"), message.labels_size(),
                      {0, kMaxLabelsPerEvent, "labels"});
  }
  Event event{message.item_id(), message.timestamp_ms(), message.play_time_ms(), message.duration_ms(), 0};
  for (int i = 0; i < message.labels_size(); ++i) {
    if (message.labels(i) < 1 || message.labels(i) > kNumLabels) {
      return CheckEvent(index, absl::StrCat("labels[", i, "]"), message.labels(i), {1, kNumLabels});
    }
    event.labels |= 1u << (message.labels(i) - 1);
  }
  return event;
}

absl::Status ReadHistory(const v1::RecommendRequest& message, const RequestLimits& limits,
                         std::vector<Event>* history) {
  BEAMLINE_RETURN_IF_ERROR(CheckCount("history", message.history_size(), {0, limits.max_history, "events"}));
  history->reserve(message.history_size());
  int64_t latest = 0;  // of the known times so far
  for (int i = 0; i < message.history_size(); ++i) {
    BEAMLINE_ASSIGN_OR_RETURN(const Event event, EventFromProto(message.history(i), i));
    if (event.timestamp_ms != 0 && event.timestamp_ms < latest) {
      return InvalidField({kFieldInvalid, absl::StrCat("history[", i, "].timestamp_ms"), absl::StrCat(">= ", latest),
                           absl::StrCat(event.timestamp_ms),
                           absl::StrCat(event.timestamp_ms, " is earlier than ", latest,
                                        " of an event before it; sort the history, oldest first")});
    }
    latest = std::max(latest, event.timestamp_ms);
    history->push_back(event);
  }
  return absl::OkStatus();
}

absl::Status ReadUser(const v1::RecommendRequest& message, RecommendRequest* request) {
  if (message.user_id().empty() && message.history_size() == 0) {
    return InvalidField({kFieldMissing, "user_id", "", "", "missing: give user_id, history or both"});
  }
  BEAMLINE_RETURN_IF_ERROR(CheckCount("user_id", message.user_id().size(), {0, kMaxUserIdBytes, "bytes"}));
  request->user_id = message.user_id();
  BEAMLINE_RETURN_IF_ERROR(
      CheckCount("user_attributes", message.user_attributes_size(), {0, kMaxUserAttributes, "attributes"}));
  for (int i = 0; i < message.user_attributes_size(); ++i) {
    const v1::UserAttribute& attribute = message.user_attributes(i);
    const std::string field = absl::StrCat("user_attributes[", i, "]");
    BEAMLINE_RETURN_IF_ERROR(
        CheckCount(absl::StrCat(field, ".name"), attribute.name().size(), {1, kMaxNameBytes, "bytes"}));
    BEAMLINE_RETURN_IF_ERROR(
        CheckCount(absl::StrCat(field, ".value"), attribute.value().size(), {0, kMaxValueBytes, "bytes"}));
    request->user_attributes.push_back({attribute.name(), attribute.value()});
  }
  return absl::OkStatus();
}

absl::StatusOr<TagClause> ClauseFromProto(const v1::Eligibility::TagClause& message, absl::string_view field) {
  BEAMLINE_RETURN_IF_ERROR(CheckCount(absl::StrCat(field, ".key"), message.key().size(), {1, kMaxNameBytes, "bytes"}));
  BEAMLINE_RETURN_IF_ERROR(
      CheckCount(absl::StrCat(field, ".any_of"), message.any_of_size(), {1, kMaxClauseValues, "values"}));
  for (int i = 0; i < message.any_of_size(); ++i) {
    BEAMLINE_RETURN_IF_ERROR(
        CheckCount(absl::StrCat(field, ".any_of[", i, "]"), message.any_of(i).size(), {0, kMaxValueBytes, "bytes"}));
  }
  return TagClause{message.key(), {message.any_of().begin(), message.any_of().end()}};
}

absl::StatusOr<Eligibility> EligibilityFromProto(const v1::Eligibility& message, const RequestLimits& limits) {
  Eligibility eligibility;
  BEAMLINE_RETURN_IF_ERROR(CheckCount("eligibility.rule", message.rule_size(), {0, kMaxRuleClauses, "clauses"}));
  for (int i = 0; i < message.rule_size(); ++i) {
    BEAMLINE_ASSIGN_OR_RETURN(TagClause clause,
                              ClauseFromProto(message.rule(i), absl::StrCat("eligibility.rule[", i, "]")));
    eligibility.rule.push_back(std::move(clause));
  }
  BEAMLINE_RETURN_IF_ERROR(CheckCount("eligibility.deny_item_ids", message.deny_item_ids_size(),
                                      {0, limits.max_eligibility_items, "items"}));
  eligibility.deny.assign(message.deny_item_ids().begin(), message.deny_item_ids().end());
  eligibility.restrict_to_allow = message.has_allow();
  BEAMLINE_RETURN_IF_ERROR(CheckCount("eligibility.allow.item_ids", message.allow().item_ids_size(),
                                      {0, limits.max_eligibility_items, "items"}));
  eligibility.allow.assign(message.allow().item_ids().begin(), message.allow().item_ids().end());
  return eligibility;
}

absl::Status ReadWidths(const v1::RecommendRequest& message, const RequestLimits& limits, std::vector<int>* widths) {
  const int count = message.beam_widths_size();
  if (count > 1 && count != limits.levels) {
    return InvalidField(
        {kFieldInvalid, "beam_widths", absl::StrCat("0, 1 or ", limits.levels), absl::StrCat(count),
         absl::StrCat(count, " widths; give none, one, or one per level (the model has ", limits.levels, " levels)")});
  }
  for (int i = 0; i < count; ++i) {
    BEAMLINE_RETURN_IF_ERROR(
        CheckValue(absl::StrCat("beam_widths[", i, "]"), message.beam_widths(i), {1, limits.max_beam_width}));
    widths->push_back(static_cast<int>(message.beam_widths(i)));
  }
  return absl::OkStatus();
}

absl::StatusOr<Priority> PriorityFromProto(v1::Priority priority, bool accept_critical) {
  switch (priority) {
    case v1::PRIORITY_UNSPECIFIED:
    case v1::PRIORITY_DEFAULT:
      return Priority::kDefault;
    case v1::PRIORITY_SHEDDABLE:
      return Priority::kSheddable;
    case v1::PRIORITY_CRITICAL:
      return accept_critical ? Priority::kCritical : Priority::kDefault;
    default:
      return CheckValue("priority", priority, {0, v1::PRIORITY_CRITICAL});
  }
}

v1::ShortReason ToProto(ShortReason reason) {
  switch (reason) {
    case ShortReason::kNone:
      return v1::SHORT_REASON_NONE;
    case ShortReason::kNoEligibleItems:
      return v1::SHORT_REASON_NO_ELIGIBLE_ITEMS;
    case ShortReason::kEligibleItemsExhausted:
      return v1::SHORT_REASON_ELIGIBLE_ITEMS_EXHAUSTED;
    case ShortReason::kBeamExhausted:
      return v1::SHORT_REASON_BEAM_EXHAUSTED;
    case ShortReason::kAuthorsExhausted:
      return v1::SHORT_REASON_AUTHORS_EXHAUSTED;
  }
  return v1::SHORT_REASON_NONE;
}

}  // namespace

absl::Status CheckValue(absl::string_view field, int64_t value, const Bounds& bounds) {
  if (value >= bounds.low && value <= bounds.high) return absl::OkStatus();
  return InvalidField({kFieldOutOfRange, std::string(field), Range(bounds), absl::StrCat(value), ""});
}

absl::Status CheckCount(absl::string_view field, int64_t count, const Bounds& bounds) {
  if (count >= bounds.low && count <= bounds.high) return absl::OkStatus();
  FieldProblem problem{kFieldOutOfRange, std::string(field), Range(bounds), absl::StrCat(count), ""};
  problem.text = bounds.low == bounds.high ? absl::StrCat(count, " ", bounds.unit, ", not exactly ", bounds.low)
                                           : absl::StrCat(count, " ", bounds.unit, " are outside ", problem.limit);
  return InvalidField(problem);
}

absl::StatusOr<RecommendRequest> FromProto(const v1::RecommendRequest& message, const RequestLimits& limits) {
  RecommendRequest request;
  request.request_id = message.request_id().empty() ? MakeRequestId() : CleanRequestId(message.request_id());
  BEAMLINE_RETURN_IF_ERROR(ReadUser(message, &request));
  BEAMLINE_RETURN_IF_ERROR(ReadHistory(message, limits, &request.history));
  const int64_t top_k = message.has_top_k() ? message.top_k() : std::min(kDefaultTopK, limits.max_top_k);
  BEAMLINE_RETURN_IF_ERROR(CheckValue("top_k", top_k, {1, limits.max_top_k}));
  request.top_k = static_cast<int>(top_k);
  const int64_t items_per_sid = message.has_items_per_sid() ? message.items_per_sid() : 1;
  BEAMLINE_RETURN_IF_ERROR(CheckValue("items_per_sid", items_per_sid, {1, limits.max_top_k}));
  request.items_per_sid = static_cast<int>(items_per_sid);
  BEAMLINE_RETURN_IF_ERROR(CheckValue("max_per_author", message.max_per_author(), {0, limits.max_top_k}));
  request.max_per_author = static_cast<int>(message.max_per_author());
  BEAMLINE_RETURN_IF_ERROR(ReadWidths(message, limits, &request.beam_widths));
  request.exclude_history = message.exclude_history();
  BEAMLINE_ASSIGN_OR_RETURN(request.eligibility, EligibilityFromProto(message.eligibility(), limits));
  BEAMLINE_ASSIGN_OR_RETURN(request.priority, PriorityFromProto(message.priority(), limits.accept_critical));
  return request;
}

void ToProto(const Sid& sid, v1::Sid* message) {
  message->mutable_codes()->Assign(sid.codes().begin(), sid.codes().end());
}

v1::RecommendResponse ToProto(const RecommendResult& result, absl::string_view request_id) {
  v1::RecommendResponse message;
  message.set_request_id(std::string(request_id));
  message.mutable_items()->Reserve(static_cast<int>(result.items.size()));
  for (const RecommendedItem& item : result.items) {
    v1::RecommendedItem& out = *message.add_items();
    out.set_item_id(item.item);
    ToProto(item.sid, out.mutable_sid());
    out.mutable_log_probs()->Assign(item.log_probs.begin(), item.log_probs.end());
    out.set_score(item.score);
    if (item.value.has_value()) out.set_value(*item.value);
  }
  message.set_short_reason(ToProto(result.short_reason));
  message.mutable_beam_widths()->Assign(result.beam_widths.begin(), result.beam_widths.end());
  message.set_narrowing(result.narrowing);
  message.set_seen_events(result.seen_events);
  message.set_unknown_items(result.unknown_items);
  message.set_dropped_events(result.dropped_events);
  message.set_model_version(result.model_version);
  message.set_catalogue_version(result.catalogue_version);
  v1::StageTimings& timings = *message.mutable_timings();
  timings.set_queue_us(absl::ToInt64Microseconds(result.timings.queue));
  timings.set_encode_us(absl::ToInt64Microseconds(result.timings.encode));
  timings.set_decode_us(absl::ToInt64Microseconds(result.timings.decode));
  timings.set_resolve_us(absl::ToInt64Microseconds(result.timings.resolve));
  timings.set_prepare_us(absl::ToInt64Microseconds(result.timings.prepare));
  timings.set_total_us(absl::ToInt64Microseconds(result.timings.total));
  timings.set_context_cached(result.context_cached);
  timings.set_encode_requests(result.timings.encode_requests);
  timings.set_decode_requests(result.timings.decode_requests);
  return message;
}

v1::Item ToProto(const CatalogueItem& item) {
  v1::Item message;
  message.set_item_id(item.item);
  ToProto(item.sid, message.mutable_sid());
  message.set_author_id(item.attributes.author);
  message.set_duration_ms(item.attributes.duration_ms);
  message.set_created_ms(item.attributes.created_ms);
  message.set_relevance(item.attributes.relevance);
  message.set_title(item.attributes.title);
  for (const auto& [key, value] : item.attributes.tags) {
    v1::Item::Tag& tag = *message.add_tags();
    tag.set_key(key);
    tag.set_value(value);
  }
  return message;
}

v1::ModelVersion ToProto(const ModelVersion& version) {
  v1::ModelVersion message;
  message.set_id(version.id);
  // Paths and errors about them may hold any bytes, a message's text may not.
  message.set_bundle(PrintableUtf8(version.bundle, kMaxVersionTextBytes));
  message.set_model_version(version.model_version);
  message.set_catalogue_version(version.catalogue_version);
  message.set_state(version.state);
  message.set_error(PrintableUtf8(version.error, kMaxVersionTextBytes));
  message.set_since_ms(absl::ToUnixMillis(OnTheWall(version.since)));
  message.set_load_ms(absl::ToInt64Milliseconds(version.load_time));
  message.set_warm_up_ms(absl::ToInt64Milliseconds(version.warm_up_time));
  return message;
}

absl::StatusOr<Sid> SidFromProto(const v1::Sid& message, const Catalogue& catalogue, absl::string_view field) {
  const std::string codes = absl::StrCat(field, ".codes");
  BEAMLINE_RETURN_IF_ERROR(CheckCount(codes, message.codes_size(), {catalogue.levels(), catalogue.levels(), "codes"}));
  const std::vector<uint32_t> sizes = catalogue.level_sizes();
  Sid sid;
  for (int level = 0; level < message.codes_size(); ++level) {
    BEAMLINE_RETURN_IF_ERROR(CheckValue(absl::StrCat(codes, "[", level, "]"), message.codes(level),
                                        {0, static_cast<int64_t>(sizes[level]) - 1}));
    sid.push_back(message.codes(level));
  }
  return sid;
}

}  // namespace beamline::server
