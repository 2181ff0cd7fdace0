// SPDX-License-Identifier: Apache-2.0
//
// Strict parsing of table fields: the whole field must be the value, with no blanks, signs or suffixes beyond it, and
// the same in every locale. Limits of tables alone stand here, the others in limits.h. Pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "beamline/limits.h"

namespace beamline::data {

inline constexpr uint64_t kMaxLineBytes = 1 << 20;        // sequences files hold a user per line
inline constexpr int64_t kMaxTimeMs = 4'102'444'800'000;  // 2100-01-01
inline constexpr int64_t kMaxDurationMs = kMaxSpanMs;

// Decimal digits only.
std::optional<uint64_t> ParseUnsigned(std::string_view text);
std::optional<int64_t> ParseInteger(std::string_view text);
// Finite decimal numbers, e.g. "87433.0" or "1e3".
std::optional<double> ParseNumber(std::string_view text);

// Well-formed UTF-8 without control characters.
bool IsCleanText(std::string_view text);
// The same text with control characters, bytes that are not UTF-8, and those of `forbidden` replaced by a blank, cut at
// a character's border to at most `max_bytes`: for importers of foreign files.
std::string CleanText(std::string_view text, size_t max_bytes, std::string_view forbidden = {});

// A field's value for a message: quoted, escaped, cut to 40 bytes.
std::string Quoted(std::string_view text);

// Field values with the field's name in the error: "timestamp_ms '-1' is not a whole number from 0 to 4102444800000".
// An empty text is 0 where `optional`.
absl::StatusOr<uint64_t> ParseIdField(std::string_view name, std::string_view text);
absl::StatusOr<int64_t> ParseRangeField(std::string_view name, std::string_view text, int64_t max, bool optional);
absl::StatusOr<std::string_view> ParseUserField(std::string_view name, std::string_view text);

}  // namespace beamline::data
