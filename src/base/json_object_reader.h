// SPDX-License-Identifier: Apache-2.0
//
// Reads the members of one JSON object that somebody else wrote into plain values. Nothing throws and nothing stops:
// every getter that fails leaves a problem, with the path of the member and what it should be, and its value as it was,
// so that one look at the list is enough; a long value is cut, and after kMaxProblems nothing is added. Finish also
// reports members nobody asked for: leave it out for documents that may hold more. Not thread-safe; the document
// outlives the reader.
#pragma once

#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/utf8.h"

namespace beamline {

class JsonObjectReader {
 public:
  static constexpr size_t kMaxProblems = 20, kMaxProblemBytes = 700;

  JsonObjectReader(const nlohmann::json& json, std::string path, std::vector<std::string>& problems)
      : json_(json), path_(std::move(path)), problems_(problems) {
    if (!json_.is_object()) Problem("", absl::StrCat("must be an object, is ", json_.type_name()));
  }

  bool Has(const char* key) const { return json_.is_object() && json_.contains(key); }

  const nlohmann::json* Find(const char* key, bool required) {
    seen_.insert(key);
    if (Has(key)) return &json_.at(key);
    if (required && json_.is_object()) Problem(key, "is missing");
    return nullptr;
  }

  template <typename T>
  void Int(const char* key, T& out, bool required = true) {
    const nlohmann::json* value = Find(key, required);
    if (value == nullptr) return;
    ReadInt(key, *value, out);
  }

  void Bool(const char* key, bool& out, bool required = true) {
    const nlohmann::json* value = Find(key, required);
    if (value == nullptr) return;
    if (!value->is_boolean()) return Problem(key, absl::StrCat("must be true or false, is ", value->type_name()));
    out = value->get<bool>();
  }

  void Double(const char* key, double& out, bool required = true) {
    const nlohmann::json* value = Find(key, required);
    if (value == nullptr) return;
    if (!value->is_number()) return Problem(key, absl::StrCat("must be a number, is ", value->type_name()));
    out = value->get<double>();
  }

  void String(const char* key, std::string& out, bool required = true) {
    const nlohmann::json* value = Find(key, required);
    if (value == nullptr) return;
    if (!value->is_string()) return Problem(key, absl::StrCat("must be a string, is ", value->type_name()));
    out = value->get<std::string>();
  }

  const nlohmann::json* Array(const char* key, bool required, size_t max_size) {
    const nlohmann::json* value = Find(key, required);
    if (value == nullptr) return nullptr;
    if (!value->is_array() || value->size() > max_size) {
      Problem(key, absl::StrCat("must be an array of at most ", max_size, " elements, is ", value->type_name(),
                                value->is_array() ? absl::StrCat(" of ", value->size()) : ""));
      return nullptr;
    }
    return value;
  }

  template <typename T>
  void ReadInt(const std::string& key, const nlohmann::json& value, T& out) {
    if (!value.is_number_integer()) return Problem(key, absl::StrCat("must be an integer, is ", value.dump()));
    const bool fits =
        value.is_number_unsigned() ? std::in_range<T>(value.get<uint64_t>()) : std::in_range<T>(value.get<int64_t>());
    if (!fits) {
      using Limits = std::numeric_limits<T>;
      return Problem(key, absl::StrCat("must lie in [", Limits::min(), ", ", Limits::max(), "], is ", value.dump()));
    }
    out = value.get<T>();
  }

  void Problem(const std::string& key, const std::string& what) {
    if (problems_.size() >= kMaxProblems) return;
    problems_.push_back(PrintableUtf8(absl::StrCat(Path(key), ": ", what), kMaxProblemBytes));
  }

  std::string Path(const std::string& key) const {
    if (key.empty()) return path_.empty() ? "document" : path_;
    return path_.empty() ? key : absl::StrCat(path_, ".", key);
  }

  void Finish() {
    if (!json_.is_object()) return;
    for (const auto& [key, value] : json_.items()) {
      if (!seen_.contains(key)) Problem(key, absl::StrCat("is unknown; known here: ", absl::StrJoin(seen_, ", ")));
    }
  }

  std::vector<std::string>& problems() { return problems_; }

 private:
  const nlohmann::json& json_;
  const std::string path_;
  std::vector<std::string>& problems_;
  std::set<std::string> seen_;
};

}  // namespace beamline
