// SPDX-License-Identifier: Apache-2.0
//
// JSON from files we did not write (safetensors headers, model configurations, manifests, SID indexes). The text is
// checked while it is parsed, without recursion: depth, size and element limits, duplicate keys, a byte order mark,
// comments, invalid UTF-8, numbers out of range and anything after the document are errors. Errors name the source,
// line and column (syntax) or the path of the element (duplicates, depth), the limit and the value.
// Pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

// Compiled once, in json.cc: it is much code for every source that reads JSON.
extern template class nlohmann::basic_json<>;

namespace beamline {

struct JsonLimits {
  int max_depth = 8;                     // nested objects and arrays; the document itself is depth 1
  uint64_t max_bytes = 64 << 20;         // of text
  uint64_t max_elements = 4'000'000;     // values, at any depth
  uint64_t max_string_bytes = 16 << 20;  // of one string or key
};

// source_name opens every error message: a file name, or "header of model.safetensors".
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view source_name,
                                         const JsonLimits& limits = {});

// The same, of a regular file; ReadJsonObject refuses what is not an object.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, const JsonLimits& limits = {});
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path, const JsonLimits& limits = {});

// Parses into a caller's SAX handler, for documents too large to hold as a tree. All limits but max_elements' memory
// apply as above; duplicate keys are the handler's business. When the handler returns false its own error is returned
// by `handler_status`.
class JsonHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  // The handler's reason for having returned false. OK means it did not stop the parse.
  virtual absl::Status status() const = 0;
};
absl::Status ParseJsonInto(absl::string_view text, absl::string_view source_name, JsonHandler& handler,
                           const JsonLimits& limits = {});
// The same, of a regular file, which may be large: one that cannot be JSON is refused by its first bytes.
absl::Status ReadJsonInto(const std::string& path, JsonHandler& handler, const JsonLimits& limits = {});

// "3:17" for a byte offset: line and column, both from 1.
std::string LineAndColumn(absl::string_view text, uint64_t offset);

}  // namespace beamline
