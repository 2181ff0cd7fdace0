// SPDX-License-Identifier: Apache-2.0
//
// The event table: TSV with a header line, plain or gzip, one event per line in any order. Columns, found by name:
//
//   user_id       required  opaque text of at most 256 bytes of UTF-8
//   item_id       required  whole number, 0 to 2^64 - 1
//   timestamp_ms  required  Unix time in milliseconds, 0 to 4102444800000 (the year 2100)
//   play_time_ms  optional  how long it was watched; empty or 0: unknown; at most 4294967295
//   duration_ms   optional  how long the video is; empty or 0: unknown; at most 4294967295
//   labels        optional  what the user did, names joined by '|', e.g. "click|long_view" (see labels.h); may be empty
//
// Further columns are ignored, empty lines skipped, bad rows counted (bad_rows.h). Readers stream in constant memory.
// Not thread-safe.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/progress.h"
#include "beamline/request.h"
#include "data/bad_rows.h"
#include "data/delimited_reader.h"
#include "data/table_writer.h"

namespace beamline::data {

struct EventRow {
  std::string_view user_id;  // valid until the next row is read
  Event event;
};

class EventTableReader {
 public:
  static absl::StatusOr<EventTableReader> Open(const std::filesystem::path& path, const BadRowPolicy& policy = {},
                                               Progress* progress = nullptr);
  // The next good row; false at the end; an error there if too many rows were bad.
  absl::StatusOr<bool> Next(EventRow* row);
  const BadRows& bad_rows() const { return reader_.bad_rows(); }

 private:
  explicit EventTableReader(DelimitedReader reader);
  absl::Status Parse(EventRow* row) const;

  DelimitedReader reader_;
  int user_, item_, timestamp_, play_time_, duration_, labels_;  // columns
};

class EventTableWriter {
 public:
  static absl::StatusOr<EventTableWriter> Create(const std::filesystem::path& path);
  absl::Status Write(std::string_view user_id, const Event& event);
  absl::Status Commit() { return writer_.Commit(); }
  int64_t rows() const { return writer_.rows(); }

 private:
  explicit EventTableWriter(TableWriter writer) : writer_(std::move(writer)) {}
  TableWriter writer_;
};

}  // namespace beamline::data
