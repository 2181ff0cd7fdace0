// SPDX-License-Identifier: Apache-2.0
//
// How the readers of sid/sid_index.h collect rows: one place that checks codes, lengths, ids and duplicates, counts bad
// rows and stops when there are too many. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "beamline/types.h"
#include "sid/sid_index.h"

namespace beamline::sid {

// "" when the SID has one code per level below its size, else what is wrong.
std::string CheckSidAgainst(const Sid& sid, absl::Span<const uint32_t> level_sizes);

// The key a file has for an item: item - id_offset. Error: outside 0..2^64-1.
absl::StatusOr<uint64_t> KeyOfItem(ItemId item, int64_t id_offset);

// ' key "17"' for messages: printable, cut to 40 bytes.
std::string QuotedKey(absl::string_view key);

class SidTableBuilder {
 public:
  struct ParsedRow {
    std::string where;  // "17" (a line) or "key \"3\""
    uint64_t key = 0;   // item id before the offset
    Sid sid;
  };

  SidTableBuilder(std::string source, const SidIndexOptions& options);

  // From the file itself. Error: other sizes than the options'.
  absl::Status SetLevelSizes(std::vector<uint32_t> level_sizes, absl::string_view where);
  void SetFingerprint(std::string fingerprint) { table_.codebook_fingerprint = std::move(fingerprint); }
  void SetTargets(std::string targets) { table_.targets = std::move(targets); }
  void SetLog(std::string log) { table_.log = std::move(log); }
  // Counts a row that could not be read. Error: too many.
  absl::Status Refuse(absl::string_view where, absl::string_view why);
  // Whether the row was taken; false: counted as bad. Errors: too many bad rows, too many rows.
  absl::StatusOr<bool> Add(const ParsedRow& row);
  // Only after Add returned true, and then for every row.
  void AddTitle(std::string title) { table_.titles.push_back(std::move(title)); }
  // Error: no row.
  absl::StatusOr<SidTable> Finish(BadRows* bad_rows);

 private:
  std::string source_;
  SidIndexOptions options_;
  int levels_ = 0;  // of the first row, while sizes are unknown
  SidTable table_;
  absl::flat_hash_set<ItemId> seen_;
  BadRows bad_rows_;
};

}  // namespace beamline::sid
