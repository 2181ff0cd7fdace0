// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "beamline/status.h"

template class nlohmann::basic_json<>;

namespace beamline {
namespace {

using nlohmann::json;

// Printable and short, whatever a hostile file put into a key.
std::string Printable(absl::string_view text, size_t longest = 64) {
  std::string out;
  for (const char c : text.substr(0, longest)) out += (c >= 0x20 && c < 0x7f) ? c : '?';
  return text.size() > longest ? absl::StrCat(out, "...") : out;
}

// Enforces the limits and passes the events on. nlohmann's parser is iterative; the depth is ours to bound.
class LimitedHandler final : public nlohmann::json_sax<json> {
 public:
  LimitedHandler(absl::string_view text, absl::string_view source, JsonHandler& next, const JsonLimits& limits)
      : text_(text), source_(source), next_(next), limits_(limits) {}

  const absl::Status& error() const { return error_; }

  bool null() override { return Count() && next_.null(); }
  bool boolean(bool value) override { return Count() && next_.boolean(value); }
  bool number_integer(int64_t value) override { return Count() && next_.number_integer(value); }
  bool number_unsigned(uint64_t value) override { return Count() && next_.number_unsigned(value); }
  bool number_float(double value, const std::string& text) override {
    return Count() && next_.number_float(value, text);
  }
  bool string(std::string& value) override { return Count() && CheckString(value) && next_.string(value); }
  bool binary(json::binary_t& value) override { return next_.binary(value); }
  bool start_object(size_t size) override { return Count() && Descend() && next_.start_object(size); }
  bool key(std::string& value) override { return CheckString(value) && next_.key(value); }
  bool end_object() override { return --depth_, next_.end_object(); }
  bool start_array(size_t size) override { return Count() && Descend() && next_.start_array(size); }
  bool end_array() override { return --depth_, next_.end_array(); }

  bool parse_error(size_t position, const std::string& last_token, const nlohmann::detail::exception& error) override {
    // The library's text says what was expected; its own prefix and position are replaced by ours.
    std::string what = error.what();
    if (const size_t end = what.find("] "); end != std::string::npos) what = what.substr(end + 2);
    if (const size_t colon = what.find(": "); colon != std::string::npos && absl::StartsWith(what, "parse error")) {
      what = what.substr(colon + 2);
    }
    return Fail(absl::StrCat(LineAndColumn(text_, position == 0 ? 0 : position - 1), ": not valid JSON near '",
                             Printable(last_token), "': ", Printable(what, 200)));
  }

 private:
  bool Fail(const std::string& message) {
    error_ = absl::InvalidArgumentError(absl::StrCat(source_, ":", message));
    return false;
  }
  bool Count() {
    if (++elements_ <= limits_.max_elements) return true;
    return Fail(absl::StrCat(" more than the limit of ", limits_.max_elements, " JSON values"));
  }
  bool Descend() {
    if (++depth_ <= limits_.max_depth) return true;
    return Fail(absl::StrCat(" JSON nested deeper than the limit of ", limits_.max_depth));
  }
  bool CheckString(const std::string& value) {
    if (value.size() <= limits_.max_string_bytes) return true;
    return Fail(
        absl::StrCat(" a JSON string of ", value.size(), " bytes is over the limit of ", limits_.max_string_bytes));
  }

  absl::string_view text_;
  absl::string_view source_;
  JsonHandler& next_;
  const JsonLimits& limits_;
  uint64_t elements_ = 0;
  int depth_ = 0;
  absl::Status error_;
};

// Builds the tree and refuses duplicate keys, which the library's own builder would silently overwrite.
class TreeBuilder final : public JsonHandler {
 public:
  absl::Status status() const override { return status_; }
  json Take() { return std::move(root_); }

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(int64_t value) override { return Add(value); }
  bool number_unsigned(uint64_t value) override { return Add(value); }
  bool number_float(double value, const std::string&) override { return Add(value); }
  bool string(std::string& value) override { return Add(std::move(value)); }
  bool binary(json::binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(json::object()); }
  bool start_array(size_t) override { return Open(json::array()); }
  bool end_object() override { return open_.pop_back(), true; }
  bool end_array() override { return open_.pop_back(), true; }
  bool key(std::string& value) override {
    if (open_.back()->contains(value)) {
      status_ = absl::InvalidArgumentError(absl::StrCat("duplicate JSON key \"", Printable(value), "\""));
      return false;
    }
    key_ = std::move(value);
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  json* Place(json value) {
    if (open_.empty()) return root_ = std::move(value), &root_;
    json& parent = *open_.back();
    if (parent.is_array()) return parent.push_back(std::move(value)), &parent.back();
    return &(parent[key_] = std::move(value));
  }
  bool Add(json value) { return Place(std::move(value)) != nullptr; }
  // A container's address is stable while it is open: only the innermost open container grows.
  bool Open(json value) { return open_.push_back(Place(std::move(value))), true; }

  json root_;
  std::vector<json*> open_;
  std::string key_;
  absl::Status status_;
};

}  // namespace

absl::Status ReadJsonInto(const std::string& path, JsonHandler& handler, const JsonLimits& limits) {
  constexpr uint64_t kStartBytes = 4096;
  BEAMLINE_ASSIGN_OR_RETURN(const std::string start, ReadFileStart(path, kStartBytes));
  // No JSON has such a byte, and all binary files do; the parser says what is wrong there.
  const bool binary = std::any_of(start.begin(), start.end(), [](char c) {
    return static_cast<unsigned char>(c) < ' ' && !absl::ascii_isspace(c);
  });
  if (binary) return ParseJsonInto(start, path, handler, limits);
  BEAMLINE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, limits.max_bytes));
  return ParseJsonInto(text, path, handler, limits);
}

std::string LineAndColumn(absl::string_view text, uint64_t offset) {
  offset = std::min<uint64_t>(offset, text.size());
  uint64_t line = 1;
  uint64_t line_start = 0;
  for (uint64_t i = 0; i < offset; ++i) {
    if (text[i] == '\n') ++line, line_start = i + 1;
  }
  return absl::StrCat(line, ":", offset - line_start + 1);
}

absl::Status ParseJsonInto(absl::string_view text, absl::string_view source_name, JsonHandler& handler,
                           const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(source_name, ": ", text.size(), " bytes of JSON are over the limit of ", limits.max_bytes));
  }
  if (text.empty()) return absl::InvalidArgumentError(absl::StrCat(source_name, ": empty, JSON expected"));
  if (absl::StartsWith(text, "\xEF\xBB\xBF")) {
    return absl::InvalidArgumentError(absl::StrCat(source_name, ":1:1: starts with a byte order mark; remove it"));
  }
  // The parser would take it for the end, and what follows for nothing.
  if (const size_t nul = text.find('\0'); nul != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(source_name, ":", LineAndColumn(text, nul), ": a NUL byte"));
  }
  LimitedHandler limited(text, source_name, handler, limits);
  try {
    if (json::sax_parse(text.begin(), text.end(), &limited)) return absl::OkStatus();
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(source_name, ": not valid JSON: ", Printable(error.what())));
  }
  if (!limited.error().ok()) return limited.error();
  if (!handler.status().ok()) {
    return absl::Status(handler.status().code(), absl::StrCat(source_name, ": ", handler.status().message()));
  }
  return absl::InvalidArgumentError(absl::StrCat(source_name, ": not valid JSON"));
}

absl::StatusOr<json> ParseJson(absl::string_view text, absl::string_view source_name, const JsonLimits& limits) {
  TreeBuilder builder;
  BEAMLINE_RETURN_IF_ERROR(ParseJsonInto(text, source_name, builder, limits));
  return builder.Take();
}

absl::StatusOr<json> ReadJsonFile(const std::string& path, const JsonLimits& limits) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, limits.max_bytes));
  return ParseJson(text, path, limits);
}

absl::StatusOr<json> ReadJsonObject(const std::string& path, const JsonLimits& limits) {
  BEAMLINE_ASSIGN_OR_RETURN(json document, ReadJsonFile(path, limits));
  if (!document.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": must be an object, is ", document.type_name()));
  }
  return document;
}

}  // namespace beamline
