// SPDX-License-Identifier: Apache-2.0
#include "engine/request_check.h"

#include <algorithm>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/check_range.h"
#include "beamline/engine_limits.h"
#include "beamline/status.h"
#include "engine/narrowing.h"
#include "parallel/check_options.h"

namespace beamline::engine {
namespace {

absl::Status CheckEvent(const Event& event, int64_t latest, absl::string_view field, size_t index) {
  // Paths are put together only for an error: a history has thousands of fields.
  const auto path = [&](absl::string_view name) { return absl::StrCat(field, "[", index, "].", name); };
  if (event.timestamp_ms < 0 || event.timestamp_ms > kMaxTimestampMs) {
    return CheckRange(path("timestamp_ms"), event.timestamp_ms, {0, kMaxTimestampMs});
  }
  if (event.timestamp_ms != 0 && event.timestamp_ms < latest) {
    return absl::InvalidArgumentError(absl::StrCat(path("timestamp_ms"), ": ", event.timestamp_ms, " is earlier than ",
                                                   latest, " of an event before it; sort the history, oldest first"));
  }
  if (event.play_time_ms < 0 || event.play_time_ms > kMaxSpanMs) {
    return CheckRange(path("play_time_ms"), event.play_time_ms, {0, kMaxSpanMs});
  }
  if (event.duration_ms < 0 || event.duration_ms > kMaxSpanMs) {
    return CheckRange(path("duration_ms"), event.duration_ms, {0, kMaxSpanMs});
  }
  if ((event.labels & ~kAllLabels) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path("labels"), ": ", event.labels, " has bits that are no label; the labels are ", kAllLabels));
  }
  return absl::OkStatus();
}

absl::Status CheckAttributes(const std::vector<UserAttribute>& attributes) {
  BEAMLINE_RETURN_IF_ERROR(CheckRange("user_attributes", attributes.size(), {0, kMaxUserAttributes, "attributes"}));
  for (size_t i = 0; i < attributes.size(); ++i) {
    const std::string field = absl::StrCat("user_attributes[", i, "]");
    BEAMLINE_RETURN_IF_ERROR(
        CheckRange(absl::StrCat(field, ".name"), attributes[i].name.size(), {1, kMaxNameBytes, "bytes"}));
    BEAMLINE_RETURN_IF_ERROR(
        CheckRange(absl::StrCat(field, ".value"), attributes[i].value.size(), {0, kMaxValueBytes, "bytes"}));
  }
  return absl::OkStatus();
}

absl::Status CheckEligibility(const Eligibility& eligibility, int max_items) {
  BEAMLINE_RETURN_IF_ERROR(CheckRange("eligibility.rule", eligibility.rule.size(), {0, kMaxRuleClauses, "clauses"}));
  for (size_t i = 0; i < eligibility.rule.size(); ++i) {
    const TagClause& clause = eligibility.rule[i];
    const std::string field = absl::StrCat("eligibility.rule[", i, "]");
    BEAMLINE_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ".key"), clause.key.size(), {1, kMaxNameBytes, "bytes"}));
    BEAMLINE_RETURN_IF_ERROR(
        CheckRange(absl::StrCat(field, ".any_of"), clause.any_of.size(), {1, kMaxClauseValues, "values"}));
    for (size_t v = 0; v < clause.any_of.size(); ++v) {
      if (clause.any_of[v].size() <= kMaxValueBytes) continue;
      return CheckRange(absl::StrCat(field, ".any_of[", v, "]"), clause.any_of[v].size(), {0, kMaxValueBytes, "bytes"});
    }
  }
  BEAMLINE_RETURN_IF_ERROR(CheckRange("eligibility.deny", eligibility.deny.size(), {0, max_items, "items"}));
  BEAMLINE_RETURN_IF_ERROR(CheckRange("eligibility.allow", eligibility.allow.size(), {0, max_items, "items"}));
  if (!eligibility.restrict_to_allow && !eligibility.allow.empty()) {
    return absl::InvalidArgumentError(
        "eligibility.allow: is given, but restrict_to_allow is not set, so it would mean nothing; set both or neither");
  }
  return absl::OkStatus();
}

absl::Status CheckWidths(const std::vector<int>& widths, int max_width, int levels) {
  if (widths.size() > 1 && static_cast<int>(widths.size()) != levels) {
    return absl::InvalidArgumentError(absl::StrCat("beam_widths: has ", widths.size(),
                                                   " entries; give none, one, or one per level (the model has ", levels,
                                                   " levels)"));
  }
  for (size_t level = 0; level < widths.size(); ++level) {
    BEAMLINE_RETURN_IF_ERROR(CheckRange(absl::StrCat("beam_widths[", level, "]"), widths[level], {1, max_width}));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckOptions(const EngineOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(parallel::CheckOptions(options.parallel));
  const absl::flat_hash_map<absl::string_view, int64_t> values = {
      {"threads", options.threads},
      {"workers", options.workers},
      {"default_beam_width", options.default_beam_width},
      {"max_beam_width", options.max_beam_width},
      {"max_top_k", options.max_top_k},
      {"max_history", options.max_history},
      {"max_eligibility_items", options.max_eligibility_items},
      {"max_rules", options.max_rules},
      {"max_batch_rows", options.max_batch_rows},
      {"max_batch_requests", options.max_batch_requests},
      {"queue_capacity", options.queue_capacity},
      {"max_queue_delay_us", absl::ToInt64Microseconds(options.max_queue_delay)},
      {"context_cache_bytes", options.context_cache_bytes},
      {"model_poll_ms", absl::ToInt64Milliseconds(options.model_poll_period)},
      {"cost_measurement_ms", absl::ToInt64Milliseconds(options.cost_measurement)},
  };
  for (const OptionRange& range : kEngineOptionRanges) {
    BEAMLINE_RETURN_IF_ERROR(CheckRange(range.option, values.at(range.option), {range.low, range.high}));
  }
  for (const OptionOrder& order : kEngineOptionOrder) {
    if (values.at(order.option) <= values.at(order.other)) continue;
    return absl::InvalidArgumentError(absl::StrCat(order.option, ": ", values.at(order.option), " is more than ",
                                                   order.other, " (", values.at(order.other), ")"));
  }
  BEAMLINE_RETURN_IF_ERROR(
      CheckRange("score_rule", static_cast<int64_t>(options.score_rule),
                 {static_cast<int64_t>(ScoreRule::kFull), static_cast<int64_t>(ScoreRule::kLegal)}));
  BEAMLINE_RETURN_IF_ERROR(CheckNarrowing(options.narrowing, options.max_beam_width));
  return CheckRange(kDeadlineRangeMs.option, absl::ToInt64Milliseconds(options.default_deadline),
                    {kDeadlineRangeMs.low, kDeadlineRangeMs.high});
}

absl::Status CheckHistory(absl::Span<const Event> history, int max_events, absl::string_view field) {
  BEAMLINE_RETURN_IF_ERROR(CheckRange(field, history.size(), {0, max_events, "events"}));
  int64_t latest = 0;
  for (size_t i = 0; i < history.size(); ++i) {
    BEAMLINE_RETURN_IF_ERROR(CheckEvent(history[i], latest, field, i));
    latest = std::max(latest, history[i].timestamp_ms);
  }
  return absl::OkStatus();
}

absl::Status CheckRequest(const RecommendRequest& request, const EngineOptions& options, int levels) {
  BEAMLINE_RETURN_IF_ERROR(CheckRange("request_id", request.request_id.size(), {0, kMaxRequestIdBytes, "bytes"}));
  BEAMLINE_RETURN_IF_ERROR(CheckRange("user_id", request.user_id.size(), {0, kMaxUserIdBytes, "bytes"}));
  BEAMLINE_RETURN_IF_ERROR(CheckAttributes(request.user_attributes));
  BEAMLINE_RETURN_IF_ERROR(CheckHistory(request.history, options.max_history, "history"));
  BEAMLINE_RETURN_IF_ERROR(CheckRange("top_k", request.top_k, {1, options.max_top_k}));
  BEAMLINE_RETURN_IF_ERROR(CheckRange("items_per_sid", request.items_per_sid, {1, options.max_top_k}));
  BEAMLINE_RETURN_IF_ERROR(CheckRange("max_per_author", request.max_per_author, {0, options.max_top_k}));
  BEAMLINE_RETURN_IF_ERROR(CheckWidths(request.beam_widths, options.max_beam_width, levels));
  BEAMLINE_RETURN_IF_ERROR(CheckEligibility(request.eligibility, options.max_eligibility_items));
  return CheckRange("priority", static_cast<int64_t>(request.priority), {0, static_cast<int64_t>(Priority::kCritical)});
}

std::vector<int> BeamWidths(const RecommendRequest& request, const EngineOptions& options, int levels) {
  if (static_cast<int>(request.beam_widths.size()) == levels) return request.beam_widths;
  // A semantic ID may hold one item alone, however many of it are allowed.
  int width = std::max(options.default_beam_width, request.top_k);
  width = std::min(width, options.max_beam_width);
  if (!request.beam_widths.empty()) width = request.beam_widths[0];
  return std::vector<int>(levels, width);
}

}  // namespace beamline::engine
