// SPDX-License-Identifier: Apache-2.0
#include "cli/client_output.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/utf8.h"
#include "data/labels.h"

namespace beamline::cli {
namespace {

std::string FormatSid(const v1::Sid& sid) { return absl::StrCat("<", absl::StrJoin(sid.codes(), ","), ">"); }

constexpr size_t kMaxTitleBytes = 4096;

// Titles come from outside: control characters must not reach the terminal.
std::string Title(ItemId item, const ItemsById& items) {
  const auto found = items.find(item);
  if (found == items.end()) return "(not in the catalogue)";
  const std::string& title = found->second.title();
  return title.empty() ? "-" : PrintableUtf8(title, kMaxTitleBytes);
}

std::string Probabilities(const v1::RecommendedItem& item) {
  return absl::StrJoin(item.log_probs(), " ", [](std::string* out, float log_prob) {
    absl::StrAppendFormat(out, "%.3f", std::exp(static_cast<double>(log_prob)));
  });
}

const char* ShortText(v1::ShortReason reason) {
  switch (reason) {
    case v1::SHORT_REASON_NO_ELIGIBLE_ITEMS:
      return "no item of the catalogue is eligible for this request (--rule, --deny, --allow, --exclude-history)";
    case v1::SHORT_REASON_ELIGIBLE_ITEMS_EXHAUSTED:
      return "the list is short: every SID with an eligible item is in it; a SID may hold more (--items-per-sid)";
    case v1::SHORT_REASON_AUTHORS_EXHAUSTED:
      return "the list is short: every SID with an eligible item was found, the rest is of authors who are in it "
             "(--max-per-author); a SID may hold more (--items-per-sid)";
    case v1::SHORT_REASON_BEAM_EXHAUSTED:
      return "the list is short: more is eligible, but not under the beams kept; ask for wider ones (--beam)";
    default:
      return nullptr;
  }
}

std::string Milliseconds(int64_t us) { return absl::StrFormat("%.1f", static_cast<double>(us) / 1000); }

// Columns as wide as their widest cell; the last is not padded.
std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    absl::StrAppend(&text, " ");
    for (size_t i = 0; i < row.size(); ++i) {
      const size_t padding = i + 1 < row.size() ? widths[i] - row[i].size() : 0;
      absl::StrAppend(&text, " ", row[i], std::string(padding, ' '));
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

}  // namespace

std::string FormatHistory(const std::vector<Event>& history, size_t shown, const ItemsById& items) {
  const size_t count = std::min(shown, history.size());
  std::string text = absl::StrCat("history: ", history.size(), " events",
                                  count < history.size() ? absl::StrCat(", the newest ", count, ":") : "", "\n");
  if (count == 0) return text;
  std::vector<std::vector<std::string>> rows{{"video", "watched", "labels", "title"}};
  for (size_t i = history.size() - count; i < history.size(); ++i) {
    const Event& event = history[i];
    const std::string labels = data::FormatLabels(event.labels);
    rows.push_back({absl::StrCat(event.item),
                    event.play_time_ms > 0 ? absl::StrCat(Milliseconds(event.play_time_ms), " s") : "-",
                    labels.empty() ? "-" : labels, Title(event.item, items)});
  }
  return text + Table(rows);
}

std::string FormatRecommendations(const v1::RecommendResponse& response, const ItemsById& items) {
  std::vector<std::vector<std::string>> rows{{"rank", "video", "SID", "score", "p per code", "title"}};
  const bool ranked = response.items_size() > 0 && response.items(0).has_value();  // by the model's ranker
  const auto at_value = [](std::vector<std::string>& row) { return row.begin() + 3; };
  if (ranked) rows[0].insert(at_value(rows[0]), "value");
  int rank = 0;
  for (const v1::RecommendedItem& item : response.items()) {
    rows.push_back({absl::StrCat(++rank), absl::StrCat(item.item_id()), FormatSid(item.sid()),
                    absl::StrFormat("%.4f", item.score()), Probabilities(item), Title(item.item_id(), items)});
    if (ranked) rows.back().insert(at_value(rows.back()), absl::StrFormat("%.4f", item.value()));
  }
  std::string text = absl::StrCat("recommended: ", response.items_size(), " videos\n");
  if (rank > 0) absl::StrAppend(&text, Table(rows));
  if (const char* why = ShortText(response.short_reason())) absl::StrAppend(&text, why, "\n");
  const v1::StageTimings& timings = response.timings();
  if (response.narrowing() > 0) {
    absl::StrAppend(&text, "the server was loaded and kept fewer beams (step ", response.narrowing(), ")\n");
  }
  absl::StrAppend(&text, "model ", response.model_version(), ", catalogue ", response.catalogue_version(), ", beams ",
                  absl::StrJoin(response.beam_widths(), ","), ", request ", response.request_id(), "\n");
  if (response.unknown_items() > 0 || response.dropped_events() > 0) {
    absl::StrAppend(&text, response.unknown_items(), " events with unknown items, ", response.dropped_events(),
                    " others that the model does not look at",
                    response.has_seen_events() ? absl::StrCat(", ", response.seen_events(), " that it does") : "",
                    "\n");
  }
  absl::StrAppend(&text, "ms: prepare ", Milliseconds(timings.prepare_us()), ", queue ",
                  Milliseconds(timings.queue_us()), ", encode ",
                  timings.context_cached() ? "cached" : Milliseconds(timings.encode_us()), ", decode ",
                  Milliseconds(timings.decode_us()), ", resolve ", Milliseconds(timings.resolve_us()), ", total ",
                  Milliseconds(timings.total_us()), "\n");
  return text;
}

std::string FormatStatus(const v1::GetStatusResponse& status) {
  const v1::EngineCounts& engine = status.engine();
  const v1::ServerCounts& server = status.server();
  std::string versions;
  for (const v1::ModelVersion& version : status.versions()) {
    absl::StrAppend(&versions, "version ", version.id(), ": ", version.state(),
                    version.model_version().empty() ? "" : ", ", version.model_version(),
                    version.catalogue_version().empty() ? "" : ", catalogue ", version.catalogue_version(),
                    version.bundle().empty() ? "" : " from ", version.bundle(), version.error().empty() ? "" : ": ",
                    version.error(), "\n");
  }
  std::string windows;
  if (status.has_short_term_events() && status.has_positive_events()) {  // older servers do not tell
    windows = absl::StrCat("of a history it sees up to ", status.short_term_events(), " events of any kind and ",
                           status.positive_events(), " of positive feedback\n");
  }
  return absl::StrCat(
      status.ready() ? "ready" : "not ready", ", server ", status.server_version(),
      status.server_commit().empty() ? "" : absl::StrCat(" (", status.server_commit(), ")"), ", up ",
      Milliseconds(status.uptime_ms()), " s\n", "model ", status.model_version(), " (", status.family(), ", ",
      status.parameters(), " parameters", status.ranker() ? ", ranker" : "", ")\n", "catalogue ",
      status.catalogue_version(), ": ", status.items(), " items, ", status.sids(), " SIDs, levels ",
      absl::StrJoin(status.level_sizes(), " x "), ", codebook ", status.codebook_fingerprint(), "\n", windows,
      "requests: ", engine.completed(), " completed, ", engine.failed(), " failed, ", engine.rejected(), " rejected, ",
      engine.in_flight(), " in flight; contexts: ", engine.context_hits(), " cached, ", engine.context_misses(),
      " encoded\n", "calls: ", server.calls(), ", ", server.malformed(), " malformed, ", server.invalid(), " invalid, ",
      server.refused(), " refused, ", server.cancelled(), " cancelled, ", server.expired(), " expired, ",
      server.stopping(), " refused in a stop, ", server.failed(), " failed\n", versions);
}

}  // namespace beamline::cli
