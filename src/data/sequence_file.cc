// SPDX-License-Identifier: Apache-2.0
#include "data/sequence_file.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "data/parse.h"

namespace beamline::data {
namespace {

constexpr std::string_view kHeldOutHeader = "user_id\ttrain_tail\tval\ttest";
constexpr std::string_view kTailsHeader = "user_id\tlast_time_ms\twatch_seq\tlike_seq\tlong_watch_seq";
constexpr int64_t kLinesPerCheck = 1024;

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> pieces;
  while (true) {
    const size_t end = text.find(separator);
    pieces.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return pieces;
    text.remove_prefix(end + 1);
  }
}

// Appends the items of "12 7 12" or "12:1651328487418 7:..." to `events`; an empty text has none.
absl::Status AppendItems(std::string_view text, bool timed, uint32_t labels, std::vector<Event>* events) {
  if (text.empty()) return absl::OkStatus();
  for (std::string_view piece : Split(text, ' ')) {
    Event event;
    event.labels = labels;
    if (timed) {
      const size_t colon = piece.find(':');
      if (colon == std::string_view::npos) {
        return absl::InvalidArgumentError(absl::StrCat(Quoted(piece), " is not item:time_ms"));
      }
      BEAMLINE_ASSIGN_OR_RETURN(event.timestamp_ms,
                                ParseRangeField("time_ms", piece.substr(colon + 1), kMaxTimeMs, false));
      piece = piece.substr(0, colon);
    }
    BEAMLINE_ASSIGN_OR_RETURN(event.item, ParseIdField("item", piece));
    events->push_back(event);
  }
  if (events->size() > kMaxSequenceItems) {
    return absl::InvalidArgumentError(
        absl::StrCat(events->size(), " items are more than the limit of ", kMaxSequenceItems));
  }
  return absl::OkStatus();
}

// Times for the events that have none (0): backwards from what is known behind them.
void FillTimes(int64_t end_ms, std::vector<Event>* events) {
  int64_t next = end_ms + kSyntheticStepMs;
  for (auto event = events->rbegin(); event != events->rend(); ++event) {
    if (event->timestamp_ms == 0) event->timestamp_ms = std::max<int64_t>(0, next - kSyntheticStepMs);
    next = event->timestamp_ms;
  }
}

// Marks, from the newest backwards, the events of `trunk` that `items` names in the same order; what is left over is
// older than the trunk and goes to the front.
void LayOnto(const std::vector<Event>& items, uint32_t label, std::vector<Event>* trunk) {
  size_t left = trunk->size();
  size_t item = items.size();
  while (item > 0) {
    size_t at = left;
    while (at > 0 && (*trunk)[at - 1].item != items[item - 1].item) --at;
    if (at == 0) break;
    (*trunk)[at - 1].labels |= label;
    left = at - 1;
    --item;
  }
  trunk->insert(trunk->begin(), items.begin(), items.begin() + item);
}

absl::Status ParseTails(const std::vector<std::string_view>& fields, std::vector<Event>* events) {
  BEAMLINE_ASSIGN_OR_RETURN(const int64_t last_time, ParseRangeField("last_time_ms", fields[1], kMaxTimeMs, true));
  std::vector<Event> likes;
  std::vector<Event> long_watches;
  BEAMLINE_RETURN_IF_ERROR(AppendItems(fields[2], false, kClick, events));
  BEAMLINE_RETURN_IF_ERROR(AppendItems(fields[3], false, kClick | kLike, &likes));
  BEAMLINE_RETURN_IF_ERROR(AppendItems(fields[4], false, kClick | kLongView, &long_watches));
  LayOnto(long_watches, kLongView, events);
  LayOnto(likes, kLike, events);
  FillTimes(last_time == 0 ? kSyntheticEndMs : last_time, events);
  return absl::OkStatus();
}

}  // namespace

std::string_view LayoutName(SequenceFileReader::Layout layout) {
  switch (layout) {
    case SequenceFileReader::Layout::kSpaced:
      return "spaced";
    case SequenceFileReader::Layout::kTabbed:
      return "tabbed";
    case SequenceFileReader::Layout::kHeldOut:
      return "held out";
    case SequenceFileReader::Layout::kTails:
      return "tails";
  }
  return "unknown";
}

SequenceFileReader::SequenceFileReader(LineReader lines, const Options& options)
    : lines_(std::move(lines)), options_(options), bad_rows_(lines_.name(), options.bad_rows) {}

absl::StatusOr<SequenceFileReader> SequenceFileReader::Open(const std::filesystem::path& path, const Options& options) {
  BEAMLINE_ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(path, kMaxLineBytes));
  SequenceFileReader reader(std::move(lines), options);
  BEAMLINE_RETURN_IF_ERROR(reader.Recognise());
  StartProgress(options.progress, absl::StrCat("reading ", path.filename().string()),
                static_cast<int64_t>(reader.lines_.file_bytes()), "bytes");
  return reader;
}

absl::Status SequenceFileReader::Recognise() {
  std::string_view line;
  BEAMLINE_ASSIGN_OR_RETURN(const bool any, lines_.Next(&line));
  if (!any) return absl::InvalidArgumentError(absl::StrCat(lines_.name(), ": empty"));
  if (line == kHeldOutHeader || line == kTailsHeader) {
    layout_ = line == kTailsHeader ? Layout::kTails : Layout::kHeldOut;
    return absl::OkStatus();
  }
  const size_t tab = line.find('\t');
  const std::string_view items = line.substr(std::min(line.find_first_of("\t "), line.size() - 1) + 1);
  if (line.empty() || items.empty() || items.find_first_not_of("0123456789 ") != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        lines_.name(), ":1: ", Quoted(line), " is not the start of a sequence file; known are 'user item item ...', ",
        "'user<TAB>item item ...' and the headers ", Quoted(kHeldOutHeader), " and ", Quoted(kTailsHeader)));
  }
  layout_ = tab == std::string_view::npos ? Layout::kSpaced : Layout::kTabbed;
  first_line_ = std::string(line);
  has_first_line_ = true;
  return absl::OkStatus();
}

absl::Status SequenceFileReader::ParseLine(std::string_view line, UserSequence* user) const {
  user->events.clear();
  std::vector<std::string_view> fields;
  if (layout_ == Layout::kSpaced) {
    const size_t blank = std::min(line.find(' '), line.size());
    fields = {line.substr(0, blank), line.substr(std::min(blank + 1, line.size()))};
  } else {
    fields = Split(line, '\t');
  }
  const size_t expected = layout_ == Layout::kTails ? 5 : layout_ == Layout::kHeldOut ? 4 : 2;
  if (fields.size() != expected) {
    return absl::InvalidArgumentError(absl::StrCat(fields.size(), " fields where ", expected, " are expected"));
  }
  BEAMLINE_ASSIGN_OR_RETURN(const std::string_view id, ParseUserField("user", fields[0]));
  user->user_id = std::string(id);
  if (layout_ == Layout::kTails) return ParseTails(fields, &user->events);
  for (size_t field = 1; field < fields.size(); ++field) {
    const bool timed = layout_ == Layout::kHeldOut && field > 1;
    BEAMLINE_RETURN_IF_ERROR(AppendItems(fields[field], timed, options_.sequence_labels, &user->events));
  }
  FillTimes(kSyntheticEndMs, &user->events);
  return absl::OkStatus();
}

absl::StatusOr<bool> SequenceFileReader::Next(UserSequence* user) {
  while (true) {
    if (bad_rows_.rows() % kLinesPerCheck == 0) {
      BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
      UpdateProgress(options_.progress, static_cast<int64_t>(lines_.bytes_read()));
    }
    std::string_view line = first_line_;
    if (!std::exchange(has_first_line_, false)) {
      const absl::StatusOr<bool> more = lines_.Next(&line);
      if (absl::IsOutOfRange(more.status())) {
        bad_rows_.CountBad(lines_.line_number(), absl::StrCat("longer than ", kMaxLineBytes, " bytes"));
        continue;
      }
      if (!more.ok()) return more.status();
      if (!*more) {
        FinishProgress(options_.progress);
        BEAMLINE_RETURN_IF_ERROR(bad_rows_.Verdict());
        return false;
      }
    }
    if (line.empty()) continue;
    absl::Status parsed = ParseLine(line, user);
    if (parsed.ok() && !seen_.insert(user->user_id).second) {
      parsed = absl::InvalidArgumentError(absl::StrCat("user ", Quoted(user->user_id), " appears a second time"));
    }
    if (!parsed.ok()) {
      bad_rows_.CountBad(lines_.line_number(), std::string(parsed.message()));
      continue;
    }
    bad_rows_.CountGood();
    return true;
  }
}

}  // namespace beamline::data
