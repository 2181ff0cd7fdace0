// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <memory>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/log_limiter.h"
#include "base/log_output.h"
#include "base/metrics.h"

namespace beamline {

namespace {

constexpr char kName[] = "beamline";

thread_local const LogRecord* current_record = nullptr;

struct Limit {
  std::mutex mu;
  LogLimiter limiter;  // guarded by mu
  Counter suppressed;
};
Limit& TheLimit() {
  static auto* const limit = new Limit();  // never destroyed, as the logger
  return *limit;
}

// As it is where that is unambiguous, else in double quotes, on one line.
void AppendText(absl::string_view text, std::string* out) {
  bool plain = !text.empty();
  for (unsigned char c : text) plain = plain && c > ' ' && c != '"' && c != '\\' && c != 0x7f;
  if (plain) {
    absl::StrAppend(out, text);
    return;
  }
  out->push_back('"');
  for (char c : text) {
    const bool control = static_cast<unsigned char>(c) < ' ' || c == 0x7f;
    if (c == '"' || c == '\\') out->push_back('\\');
    if (control) {
      absl::StrAppend(out, "\\x", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

std::string RenderText(const LogRecord& record) {
  std::string line(record.event);
  const char* separator = ": ";
  const auto add = [&](absl::string_view key, const LogField::Value& value) {
    absl::StrAppend(&line, separator, key, "=");
    separator = " ";
    if (const auto* flag = std::get_if<bool>(&value)) {
      absl::StrAppend(&line, *flag ? "true" : "false");
    } else if (const auto* number = std::get_if<int64_t>(&value)) {
      absl::StrAppend(&line, *number);
    } else if (const auto* real = std::get_if<double>(&value)) {
      absl::StrAppend(&line, *real);
    } else {
      AppendText(std::get<absl::string_view>(value), &line);
    }
  };
  for (const LogField& field : record.fields) add(field.key, field.value);
  if (record.suppressed > 0) add("suppressed", static_cast<int64_t>(record.suppressed));
  return line;
}

}  // namespace

spdlog::logger& Log() {
  // Never destroyed: threads that end after main's last line may still write.
  static const auto* const logger = [] {
    if (std::shared_ptr<spdlog::logger> given = spdlog::get(kName)) return new std::shared_ptr<spdlog::logger>(given);
    return new std::shared_ptr<spdlog::logger>(MakeLogger(kName, {}));
  }();
  return **logger;
}

void LogEvent(spdlog::level::level_enum level, absl::string_view event, std::initializer_list<LogField> fields) {
  spdlog::logger& logger = Log();
  if (!logger.should_log(level)) return;
  LogRecord record{event, absl::MakeConstSpan(fields.begin(), fields.size()), 0};
  if (level < spdlog::level::critical) {
    Limit& limit = TheLimit();
    std::lock_guard lock(limit.mu);
    const std::optional<uint64_t> left_out = limit.limiter.Admit(event, ProcessClock().Now());
    if (!left_out.has_value()) {
      limit.suppressed.Add();
      return;
    }
    record.suppressed = *left_out;
  }
  current_record = &record;
  logger.log(level, spdlog::string_view_t(RenderText(record)));
  current_record = nullptr;
}

std::string LogText(const absl::Status& status) { return status.ToString(absl::StatusToStringMode::kWithNoExtraData); }

uint64_t SuppressedLogLines() { return TheLimit().suppressed.value(); }

const LogRecord* CurrentLogRecord() { return current_record; }

}  // namespace beamline
