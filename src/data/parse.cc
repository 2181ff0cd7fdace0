// SPDX-License-Identifier: Apache-2.0
#include "data/parse.h"

#include <charconv>
#include <cmath>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/utf8.h"

namespace beamline::data {
namespace {

template <typename T>
std::optional<T> ParseWhole(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Bytes of the character at the start of `text`; 0 if there is none or if it is a control character.
size_t CleanLength(std::string_view text) {
  const absl::string_view start(text.data(), text.size());
  const size_t length = Utf8Length(start);
  return length > 0 && IsControl(start) ? 0 : length;
}

}  // namespace

std::optional<uint64_t> ParseUnsigned(std::string_view text) { return ParseWhole<uint64_t>(text); }
std::optional<int64_t> ParseInteger(std::string_view text) { return ParseWhole<int64_t>(text); }

std::optional<double> ParseNumber(std::string_view text) {
  const std::optional<double> value = ParseWhole<double>(text);
  return value.has_value() && std::isfinite(*value) ? value : std::nullopt;
}

bool IsCleanText(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = CleanLength(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

std::string CleanText(std::string_view text, size_t max_bytes, std::string_view forbidden) {
  std::string clean;
  while (!text.empty()) {
    const size_t bytes = CleanLength(text);
    const bool keep = bytes > 0 && forbidden.find(text[0]) == std::string_view::npos;
    const std::string_view piece = keep ? text.substr(0, bytes) : std::string_view(" ");
    if (clean.size() + piece.size() > max_bytes) break;
    clean += piece;
    text.remove_prefix(bytes == 0 ? 1 : bytes);
  }
  return clean;
}

std::string Quoted(std::string_view text) {
  constexpr size_t kShown = 40;
  const std::string_view shown = text.substr(0, kShown);
  return absl::StrCat("'", absl::CHexEscape(absl::string_view(shown.data(), shown.size())),
                      text.size() > kShown ? "...'" : "'");
}

absl::StatusOr<uint64_t> ParseIdField(std::string_view name, std::string_view text) {
  if (const std::optional<uint64_t> value = ParseUnsigned(text)) return *value;
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(name), " ", Quoted(text), " is not a whole number from 0 to 2^64 - 1"));
}

absl::StatusOr<int64_t> ParseRangeField(std::string_view name, std::string_view text, int64_t max, bool optional) {
  if (optional && text.empty()) return 0;
  const std::optional<int64_t> value = ParseInteger(text);
  if (value.has_value() && *value >= 0 && *value <= max) return *value;
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(name), " ", Quoted(text), " is not a whole number from 0 to ", max));
}

absl::StatusOr<std::string_view> ParseUserField(std::string_view name, std::string_view text) {
  if (text.empty()) return absl::InvalidArgumentError(absl::StrCat(std::string(name), " is empty"));
  if (text.size() > kMaxUserIdBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(name), " has ", text.size(), " bytes, more than the limit of ", kMaxUserIdBytes));
  }
  if (!IsCleanText(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(name), " ", Quoted(text), " is not UTF-8 without control characters"));
  }
  return text;
}

}  // namespace beamline::data
