// SPDX-License-Identifier: Apache-2.0
//
// index.json of LETTER and MiniOneRec, parsed without building a tree.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/json.h"
#include "beamline/status.h"
#include "sid/sid_index.h"
#include "sid/sid_table.h"

namespace beamline::sid {
namespace {

// An object of arrays of strings; anything else stops the parse.
class IndexHandler final : public JsonHandler {
 public:
  explicit IndexHandler(SidTableBuilder& builder) : builder_(builder) {}

  absl::Status status() const override { return status_; }
  // Too many bad rows: in the builder's words, which name the file.
  const absl::Status& row_error() const { return row_error_; }

  bool start_object(size_t) override {
    if (depth_ != 0) return Stop("an object inside the index");
    return ++depth_, true;
  }
  bool end_object() override { return --depth_, true; }
  bool key(std::string& value) override { return key_ = value, true; }
  bool start_array(size_t) override {
    if (depth_ != 1) return Stop("the index must be an object of arrays of token strings");
    ++depth_;
    sid_ = Sid();
    fault_.reset();
    return true;
  }
  bool string(std::string& value) override {
    if (depth_ != 2) return Stop("the index must be an object of arrays of token strings");
    if (fault_.has_value()) return true;
    if (sid_.levels() == kMaxLevels) return fault_ = absl::StrCat("more than ", kMaxLevels, " tokens"), true;
    const absl::StatusOr<Code> code = ParseSidToken(value, sid_.levels());
    if (!code.ok()) return fault_ = std::string(code.status().message()), true;
    sid_.push_back(*code);
    return true;
  }
  bool end_array() override {
    --depth_;
    SidTableBuilder::ParsedRow row{QuotedKey(key_), 0, sid_};
    bool plain = !key_.empty() && (key_.size() == 1 || key_[0] != '0');
    for (const char c : key_) plain &= c >= '0' && c <= '9';
    if (!fault_.has_value() && (!plain || !absl::SimpleAtoi(key_, &row.key))) fault_ = "the key is not an item id";
    if (fault_.has_value()) {
      row_error_ = builder_.Refuse(row.where, *fault_);
    } else {
      row_error_ = builder_.Add(row).status();
    }
    return row_error_.ok();
  }
  bool null() override { return Stop("null where tokens are expected"); }
  bool boolean(bool) override { return Stop("a boolean where tokens are expected"); }
  bool number_integer(int64_t) override { return Stop("a number where tokens are expected"); }
  bool number_unsigned(uint64_t) override { return Stop("a number where tokens are expected"); }
  bool number_float(double, const std::string&) override { return Stop("a number where tokens are expected"); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  bool Stop(absl::string_view why) {
    status_ = absl::InvalidArgumentError(key_.empty() ? std::string(why) : absl::StrCat(QuotedKey(key_), ": ", why));
    return false;
  }

  SidTableBuilder& builder_;
  int depth_ = 0;
  std::string key_;
  Sid sid_;
  std::optional<std::string> fault_;
  absl::Status status_, row_error_;
};

}  // namespace

absl::StatusOr<SidTable> ReadIndexJson(const std::string& path, const SidIndexOptions& options, BadRows* bad_rows) {
  SidTableBuilder builder(path, options);
  IndexHandler handler(builder);
  JsonLimits limits;
  limits.max_bytes = options.max_file_bytes;
  limits.max_elements = UINT64_MAX;  // rows are limited by the builder
  limits.max_string_bytes = 4096;
  limits.max_depth = 2;
  const absl::Status parsed = ReadJsonInto(path, handler, limits);
  BEAMLINE_RETURN_IF_ERROR(handler.row_error());
  BEAMLINE_RETURN_IF_ERROR(parsed);
  return builder.Finish(bad_rows);
}

absl::Status WriteIndexJson(const std::string& path, const SidTable& table, int64_t id_offset) {
  BEAMLINE_RETURN_IF_ERROR(CheckSidTable(table));
  BEAMLINE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  std::string buffer = "{";
  for (size_t i = 0; i < table.items.size(); ++i) {
    BEAMLINE_ASSIGN_OR_RETURN(const uint64_t key, KeyOfItem(table.items[i], id_offset));
    absl::StrAppend(&buffer, i == 0 ? "" : ", ", "\"", key, "\": [");
    for (int level = 0; level < table.sids[i].levels(); ++level) {
      absl::StrAppend(&buffer, level == 0 ? "\"" : ", \"", SidToken(level, table.sids[i][level]), "\"");
    }
    buffer += "]";
    if (buffer.size() < (1 << 16)) continue;
    BEAMLINE_RETURN_IF_ERROR(file.Write(buffer));
    buffer.clear();
  }
  buffer += "}\n";
  BEAMLINE_RETURN_IF_ERROR(file.Write(buffer));
  return file.Commit();
}

}  // namespace beamline::sid
