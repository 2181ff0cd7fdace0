// SPDX-License-Identifier: Apache-2.0
#include "data/event_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "data/labels.h"
#include "data/parse.h"

namespace beamline::data {

EventTableReader::EventTableReader(DelimitedReader reader)
    : reader_(std::move(reader)),
      user_(reader_.Column("user_id")),
      item_(reader_.Column("item_id")),
      timestamp_(reader_.Column("timestamp_ms")),
      play_time_(reader_.Column("play_time_ms")),
      duration_(reader_.Column("duration_ms")),
      labels_(reader_.Column("labels")) {}

absl::StatusOr<EventTableReader> EventTableReader::Open(const std::filesystem::path& path, const BadRowPolicy& policy,
                                                        Progress* progress) {
  BEAMLINE_ASSIGN_OR_RETURN(DelimitedReader reader,
                            DelimitedReader::OpenTsv(path, {"user_id", "item_id", "timestamp_ms"}, policy, progress));
  return EventTableReader(std::move(reader));
}

absl::Status EventTableReader::Parse(EventRow* row) const {
  Event& event = row->event;
  BEAMLINE_ASSIGN_OR_RETURN(row->user_id, ParseUserField("user_id", reader_.field(user_)));
  BEAMLINE_ASSIGN_OR_RETURN(event.item, ParseIdField("item_id", reader_.field(item_)));
  BEAMLINE_ASSIGN_OR_RETURN(event.timestamp_ms,
                            ParseRangeField("timestamp_ms", reader_.field(timestamp_), kMaxTimeMs, false));
  BEAMLINE_ASSIGN_OR_RETURN(event.play_time_ms,
                            ParseRangeField("play_time_ms", reader_.field(play_time_), kMaxDurationMs, true));
  BEAMLINE_ASSIGN_OR_RETURN(event.duration_ms,
                            ParseRangeField("duration_ms", reader_.field(duration_), kMaxDurationMs, true));
  BEAMLINE_ASSIGN_OR_RETURN(event.labels, ParseLabels(reader_.field(labels_)));
  return absl::OkStatus();
}

absl::StatusOr<bool> EventTableReader::Next(EventRow* row) {
  return reader_.NextAccepted([&] { return Parse(row); });
}

absl::StatusOr<EventTableWriter> EventTableWriter::Create(const std::filesystem::path& path) {
  BEAMLINE_ASSIGN_OR_RETURN(TableWriter writer, TableWriter::Create(path, {"user_id", "item_id", "timestamp_ms",
                                                                           "play_time_ms", "duration_ms", "labels"}));
  return EventTableWriter(std::move(writer));
}

absl::Status EventTableWriter::Write(std::string_view user_id, const Event& event) {
  BEAMLINE_RETURN_IF_ERROR(ParseUserField("user_id", user_id).status());
  const std::string item = absl::StrCat(event.item);
  const std::string time = absl::StrCat(event.timestamp_ms);
  const std::string play = absl::StrCat(event.play_time_ms);
  const std::string duration = absl::StrCat(event.duration_ms);
  return writer_.Row({user_id, item, time, play, duration, FormatLabels(event.labels)});
}

}  // namespace beamline::data
