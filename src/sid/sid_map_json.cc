// SPDX-License-Identifier: Apache-2.0
//
// OpenOneRec's sid2pid.json, parsed without building a tree.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/json.h"
#include "beamline/status.h"
#include "sid/codebook.h"
#include "sid/sid_index.h"
#include "sid/sid_table.h"

namespace beamline::sid {
namespace {

// The digits of `number` to the bases `level_sizes`, first level first. Error: more digits than levels.
absl::StatusOr<Sid> SidOfNumber(uint64_t number, absl::Span<const uint32_t> level_sizes) {
  Code codes[kMaxLevels];
  uint64_t rest = number;
  for (size_t level = level_sizes.size(); level-- > 0; rest /= level_sizes[level]) {
    codes[level] = static_cast<Code>(rest % level_sizes[level]);
  }
  if (rest != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("SID number ", number, " is beyond the level sizes ", FormatLevelSizes(level_sizes)));
  }
  Sid sid;
  for (size_t level = 0; level < level_sizes.size(); ++level) sid.push_back(codes[level]);
  return sid;
}

// {"SID number": [{"pid": item, ...}, ...], ...}; anything else stops the parse.
class MapHandler final : public JsonHandler {
 public:
  MapHandler(SidTableBuilder& builder, absl::Span<const uint32_t> level_sizes)
      : builder_(builder), level_sizes_(level_sizes) {}

  absl::Status status() const override { return status_; }
  // Too many bad rows: in the builder's words, which name the file.
  const absl::Status& row_error() const { return row_error_; }

  bool start_object(size_t) override {
    if (depth_ != 0 && depth_ != 2) return Stop();
    item_.reset();
    return ++depth_, true;
  }
  bool end_object() override {
    if (--depth_ == 0) return true;
    if (!item_.has_value()) return Add(absl::InvalidArgumentError("a record has no whole number 'pid' or 'iid'"));
    return Add(sid_);
  }
  bool key(std::string& value) override {
    if (depth_ == 3) return field_ = value, true;
    key_ = value;
    uint64_t number = 0;
    const bool digits = !value.empty() && value.find_first_not_of("0123456789") == std::string::npos;
    if (digits && absl::SimpleAtoi(value, &number)) {
      sid_ = SidOfNumber(number, level_sizes_);
    } else {
      sid_ = absl::InvalidArgumentError("the key is not a SID number");
    }
    return true;
  }
  bool start_array(size_t) override { return depth_ == 1 ? (++depth_, true) : Stop(); }
  bool end_array() override { return --depth_, true; }
  bool number_unsigned(uint64_t value) override {
    if (depth_ != 3) return Stop();
    if (field_ == "pid" || field_ == "iid") item_ = value;
    return true;
  }
  // Further fields (counts) may hold anything.
  bool null() override { return depth_ == 3 || Stop(); }
  bool boolean(bool) override { return depth_ == 3 || Stop(); }
  bool number_integer(int64_t) override { return depth_ == 3 || Stop(); }
  bool number_float(double, const std::string&) override { return depth_ == 3 || Stop(); }
  bool string(std::string&) override { return depth_ == 3 || Stop(); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  bool Add(const absl::StatusOr<Sid>& sid) {
    const std::string where = QuotedKey(key_);
    row_error_ =
        sid.ok() ? builder_.Add({where, *item_, *sid}).status() : builder_.Refuse(where, sid.status().message());
    return row_error_.ok();
  }
  bool Stop() {
    status_ = absl::InvalidArgumentError(absl::StrCat(
        key_.empty() ? "" : absl::StrCat(QuotedKey(key_), ": "),
        R"(the map must be {"SID number": [{"pid": item}, ...], ...}, with "iid" for "pid" where items are products)"));
    return false;
  }

  SidTableBuilder& builder_;
  const absl::Span<const uint32_t> level_sizes_;
  int depth_ = 0;
  std::string key_, field_;
  absl::StatusOr<Sid> sid_;  // of key_
  std::optional<uint64_t> item_;
  absl::Status status_, row_error_;
};

}  // namespace

absl::StatusOr<SidTable> ReadSidMapJson(const std::string& path, const SidIndexOptions& given, BadRows* bad_rows) {
  SidIndexOptions options = given;
  if (options.level_sizes.empty()) options.level_sizes = {8192, 8192, 8192};
  BEAMLINE_RETURN_IF_ERROR(CheckLevelSizes(options.level_sizes));
  SidTableBuilder builder(path, options);
  MapHandler handler(builder, options.level_sizes);
  JsonLimits limits;
  limits.max_bytes = options.max_file_bytes;
  limits.max_elements = UINT64_MAX;  // rows are limited by the builder
  limits.max_string_bytes = 4096;
  limits.max_depth = 3;
  const absl::Status parsed = ReadJsonInto(path, handler, limits);
  BEAMLINE_RETURN_IF_ERROR(handler.row_error());
  BEAMLINE_RETURN_IF_ERROR(parsed);
  return builder.Finish(bad_rows);
}

}  // namespace beamline::sid
