// SPDX-License-Identifier: Apache-2.0
#include "base/log_output.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <mutex>

#include <poll.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/utf8.h"
#include "spdlog/formatter.h"
#include "spdlog/sinks/base_sink.h"

namespace beamline {
namespace {

// A pipe that poll calls writable takes so much without waiting.
constexpr size_t kAtOnce = 4096;

Counter& Lost() {
  static auto* const lost = new Counter();
  return *lost;
}

absl::string_view LevelName(spdlog::level::level_enum level) {
  const spdlog::string_view_t name = spdlog::level::to_string_view(level);
  return {name.data(), name.size()};
}

void AppendMember(absl::string_view key, const LogField::Value& value, std::string* out) {
  absl::StrAppend(out, ",");
  AppendJsonString(key, out);
  absl::StrAppend(out, ":");
  if (const auto* flag = std::get_if<bool>(&value)) {
    absl::StrAppend(out, *flag ? "true" : "false");
  } else if (const auto* number = std::get_if<int64_t>(&value)) {
    absl::StrAppend(out, *number);
  } else if (const auto* real = std::get_if<double>(&value)) {
    absl::StrAppend(out, std::isfinite(*real) ? absl::StrCat(*real) : "null");
  } else {
    AppendJsonString(std::get<absl::string_view>(value), out);
  }
}

class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    std::string line = "{\"time\":";
    AppendJsonString(absl::FormatTime("%Y-%m-%d%ET%H:%M:%E3SZ", absl::FromChrono(message.time), absl::UTCTimeZone()),
                     &line);
    absl::StrAppend(&line, ",\"level\":\"", LevelName(message.level), "\"");
    if (const LogRecord* record = CurrentLogRecord()) {
      AppendMember("event", record->event, &line);
      for (const LogField& field : record->fields) AppendMember(field.key, field.value, &line);
      if (record->suppressed > 0) AppendMember("suppressed", static_cast<int64_t>(record->suppressed), &line);
    } else {
      AppendMember("message", absl::string_view(message.payload.data(), message.payload.size()), &line);
    }
    absl::StrAppend(&line, "}\n");
    out.append(line.data(), line.data() + line.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonFormatter>(); }
};

class DescriptorSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit DescriptorSink(int fd) : fd_(fd) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    // The rest of a line that was cut off before.
    const bool ended = !torn_ || Write("\n", 1);
    torn_ = !ended;
    if (!ended || !Write(line.data(), line.size())) Lost().Add();
  }
  void flush_() override {}

 private:
  bool Write(const char* data, size_t size) {
    for (size_t done = 0; done < size;) {
      pollfd ready{fd_, POLLOUT, 0};
      const bool writable = poll(&ready, 1, 0) == 1 && (ready.revents & POLLOUT) != 0;
      const ssize_t wrote = writable ? write(fd_, data + done, std::min(size - done, kAtOnce)) : -1;
      if (wrote < 0 && writable && errno == EINTR) continue;
      if (wrote <= 0) {
        torn_ = torn_ || done > 0;
        return false;
      }
      done += static_cast<size_t>(wrote);
    }
    return true;
  }

  const int fd_;
  bool torn_ = false;  // the last line lacks its end
};

}  // namespace

std::shared_ptr<spdlog::logger> MakeLogger(const std::string& name, const LogOptions& options) {
  auto sink = std::make_shared<DescriptorSink>(options.fd);
  if (options.json) sink->set_formatter(std::make_unique<JsonFormatter>());
  auto logger = std::make_shared<spdlog::logger>(name, std::move(sink));
  logger->set_level(options.level);
  return logger;
}

uint64_t LostLogLines() { return Lost().value(); }

void AppendJsonString(absl::string_view text, std::string* out) {
  const bool utf8 = IsUtf8(text);
  out->push_back('"');
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (byte < ' ' || byte == 0x7f) {
      absl::StrAppend(out, "\\u", absl::Hex(byte, absl::kZeroPad4));
    } else if (byte >= 0x80 && !utf8) {
      absl::StrAppend(out, "\\ufffd");
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

}  // namespace beamline
