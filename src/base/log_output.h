// SPDX-License-Identifier: Apache-2.0
//
// A logger on a file descriptor: as text, or as JSON with one object per line (members "time" in RFC 3339 UTC, "level",
// "event" and its fields; "message" for lines that are no event). Writing never waits: a line that a pipe whose reader
// is stuck cannot take is lost and counted. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "spdlog/logger.h"

namespace beamline {

struct LogOptions {
  bool json = false;
  spdlog::level::level_enum level = spdlog::level::info;
  int fd = 2;  // stays the caller's
};

std::shared_ptr<spdlog::logger> MakeLogger(const std::string& name, const LogOptions& options);

// Lines lost so far, of all such loggers.
uint64_t LostLogLines();

// `text` as a JSON string with its quotes; what is not UTF-8 in it becomes U+FFFD.
void AppendJsonString(absl::string_view text, std::string* out);

}  // namespace beamline
