// SPDX-License-Identifier: Apache-2.0
#include "sid/sid_table.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "sid/codebook.h"

namespace beamline::sid {

absl::Status CheckSidTable(const SidTable& table) {
  BEAMLINE_RETURN_IF_ERROR(CheckLevelSizes(table.level_sizes));
  if (table.sids.size() != table.items.size() || (!table.titles.empty() && table.titles.size() != table.items.size())) {
    return absl::InvalidArgumentError(absl::StrCat("SID table has ", table.items.size(), " items, ", table.sids.size(),
                                                   " SIDs and ", table.titles.size(), " titles"));
  }
  absl::flat_hash_set<ItemId> seen;
  for (size_t i = 0; i < table.items.size(); ++i) {
    if (const std::string fault = CheckSidAgainst(table.sids[i], table.level_sizes); !fault.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("SID table, item ", table.items[i], ": ", fault));
    }
    if (!seen.insert(table.items[i]).second) {
      return absl::InvalidArgumentError(absl::StrCat("SID table, item ", table.items[i], " is there twice"));
    }
  }
  return absl::OkStatus();
}

std::string CheckSidAgainst(const Sid& sid, absl::Span<const uint32_t> level_sizes) {
  if (sid.levels() != static_cast<int>(level_sizes.size())) {
    return absl::StrCat("SID has ", sid.levels(), " codes, must have ", level_sizes.size());
  }
  for (int level = 0; level < sid.levels(); ++level) {
    if (sid[level] < level_sizes[level]) continue;
    return absl::StrCat("code ", sid[level], " of level ", level + 1, " must be below ", level_sizes[level]);
  }
  return "";
}

absl::StatusOr<uint64_t> KeyOfItem(ItemId item, int64_t id_offset) {
  uint64_t key = 0;
  const bool outside = id_offset >= 0
                           ? __builtin_sub_overflow(item, static_cast<uint64_t>(id_offset), &key)
                           : __builtin_add_overflow(item, uint64_t{0} - static_cast<uint64_t>(id_offset), &key);
  if (!outside) return key;
  return absl::InvalidArgumentError(
      absl::StrCat("item ", item, " minus the id offset of ", id_offset, " is not a key"));
}

std::string QuotedKey(absl::string_view key) {
  std::string shown;
  for (const char c : key.substr(0, 40)) shown += (c >= 0x20 && c < 0x7f) ? c : '?';
  return absl::StrCat(" key \"", shown, "\"");
}

SidTableBuilder::SidTableBuilder(std::string source, const SidIndexOptions& options)
    : source_(std::move(source)), options_(options) {
  table_.level_sizes = options.level_sizes;
}

absl::Status SidTableBuilder::SetLevelSizes(std::vector<uint32_t> level_sizes, absl::string_view where) {
  if (!options_.level_sizes.empty() && options_.level_sizes != level_sizes) {
    return absl::InvalidArgumentError(absl::StrCat(source_, ":", where, ": the file's level sizes are ",
                                                   FormatLevelSizes(level_sizes), ", asked for were ",
                                                   FormatLevelSizes(options_.level_sizes)));
  }
  table_.level_sizes = std::move(level_sizes);
  return absl::OkStatus();
}

absl::Status SidTableBuilder::Refuse(absl::string_view where, absl::string_view why) {
  constexpr size_t kShown = 10;
  const std::string message = absl::StrCat(source_, ":", where, ": ", why);
  if (bad_rows_.messages.size() < kShown) bad_rows_.messages.push_back(message);
  if (++bad_rows_.count <= options_.max_bad_rows) return absl::OkStatus();
  if (options_.max_bad_rows == 0) return absl::InvalidArgumentError(message);
  return absl::InvalidArgumentError(absl::StrCat(source_, ": more than ", options_.max_bad_rows,
                                                 " bad rows; the first: ", bad_rows_.messages[0],
                                                 "; the last: ", message));
}

absl::StatusOr<bool> SidTableBuilder::Add(const ParsedRow& row) {
  if (static_cast<int64_t>(table_.items.size()) >= options_.max_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat(source_, ":", row.where, ": more than the limit of ", options_.max_rows, " rows"));
  }
  std::string fault;
  uint64_t item = row.key;
  const int64_t offset = options_.id_offset;
  if (offset >= 0 ? __builtin_add_overflow(row.key, static_cast<uint64_t>(offset), &item)
                  : __builtin_sub_overflow(row.key, uint64_t{0} - static_cast<uint64_t>(offset), &item)) {
    fault = absl::StrCat("key ", row.key, " plus the id offset of ", offset, " is not an item id");
  } else if (table_.level_sizes.empty()) {
    // Unknown sizes: the first row fixes the level count, codes widen the levels up to what any level may have.
    if (levels_ == 0) levels_ = row.sid.levels();
    const std::vector<uint32_t> widest(levels_, kMaxLevelSize);
    fault = levels_ == 0 ? "SID has no codes" : CheckSidAgainst(row.sid, widest);
  } else {
    fault = CheckSidAgainst(row.sid, table_.level_sizes);
  }
  if (fault.empty() && !seen_.insert(item).second) fault = absl::StrCat("item ", item, " is there twice");
  if (!fault.empty()) {
    BEAMLINE_RETURN_IF_ERROR(Refuse(row.where, fault));
    return false;
  }
  table_.items.push_back(item);
  table_.sids.push_back(row.sid);
  return true;
}

absl::StatusOr<SidTable> SidTableBuilder::Finish(BadRows* bad_rows) {
  if (bad_rows != nullptr) *bad_rows = bad_rows_;
  if (table_.items.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(source_, ": holds no item with a SID"));
  }
  if (table_.level_sizes.empty()) {
    table_.level_sizes.assign(levels_, 1);
    for (const Sid& sid : table_.sids) {
      for (int level = 0; level < levels_; ++level) {
        table_.level_sizes[level] = std::max(table_.level_sizes[level], sid[level] + 1);
      }
    }
  }
  return std::move(table_);
}

}  // namespace beamline::sid
