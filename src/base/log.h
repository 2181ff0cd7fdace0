// SPDX-License-Identifier: Apache-2.0
//
// Where the library writes its log: the spdlog logger that the program registered as "beamline" before the first line,
// else one of our own on standard error (log_output.h). Never standard output, which belongs to the program that embeds
// us. A line is an event, a constant phrase, with fields: ids, paths and numbers, never what a user is or did.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "spdlog/spdlog.h"

namespace beamline {

// Thread-safe; the same logger for the life of the process.
spdlog::logger& Log();

// A named value, valid for the one call it is made in.
struct LogField {
  using Value = std::variant<bool, int64_t, double, absl::string_view>;

  template <typename T>
  LogField(absl::string_view field_key, const T& field_value)  // NOLINT(google-explicit-constructor): for braces
      : key(field_key), value(ValueOf(field_value)) {}

  absl::string_view key;
  Value value;

 private:
  template <typename T>
  static Value ValueOf(const T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      return value;
    } else if constexpr (std::is_integral_v<T>) {
      return static_cast<int64_t>(value);
    } else if constexpr (std::is_floating_point_v<T>) {
      return static_cast<double>(value);
    } else {
      return absl::string_view(value);
    }
  }
};

// LogEvent(spdlog::level::info, "model loading", {{"id", 7}, {"path", path}}) writes
//   model loading: id=7 path=/srv/models/7
// or, where the log is JSON, an object with the members "event", "id" and "path". One line, whatever the values hold.
// Of each event at most ten lines a second are written, what is critical excepted; the next one then says how many were
// left out (`suppressed`). Thread-safe.
void LogEvent(spdlog::level::level_enum level, absl::string_view event, std::initializer_list<LogField> fields = {});

// Text of a status for a field of that name: code and message, no payloads.
std::string LogText(const absl::Status& status);

// On a status that the log has told already, so that whoever ends the program over it need not say it again.
inline constexpr char kLoggedPayload[] = "beamline/logged";

// Lines left out so far, by LogEvent's limit.
uint64_t SuppressedLogLines();

// The fields of the line that this thread is writing through LogEvent, for a formatter; null: another line.
struct LogRecord {
  absl::string_view event;
  absl::Span<const LogField> fields;
  uint64_t suppressed = 0;
};
const LogRecord* CurrentLogRecord();

}  // namespace beamline
