// SPDX-License-Identifier: Apache-2.0
//
// Which item has which SID, as a table, and the files it travels in:
//   our TSV       "#beamline-sids<TAB>1<TAB>levels=256,256,256<TAB>codebook=<fingerprint><TAB>targets=<targets>
//                 <TAB>log=<fingerprint><TAB>sha256=<of all but this field>",
//                 targets and log where known, a column line "item_id<TAB>sid", then rows "17<TAB>12,7,255": what
//                 `beamline tokenize` hands to `beamline pack`
//   LETTER        X.index.json: {"0": ["<a_183>", "<b_70>", ...], ...}; key = item id as text, often shifted by a
//                 constant (Beauty: key = text id - 1, so id_offset = 1)
//   MiniOneRec    the same JSON with three levels, and an info text of "SID<TAB>title<TAB>id" lines
//   OpenOneRec    sid2pid.json, sid2iid.json: {"67125256": [{"pid": 17, "count": 9, ...}, ...], ...}; only read;
//                 key = the codes as one number, (c1 * 8192 + c2) * 8192 + c3 where levels have 8192 codes, so the
//                 level sizes must be known: 3 x 8192 unless stated
// Any number of levels 1..8. Every row is checked: token prefix and order, code range, tuple length, duplicate item.
// Bad rows are counted and shown with line or key; more than max_bad_rows refuse the file. Several items may share a
// SID. Text files are streamed; JSON is read whole. Pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "beamline/types.h"

namespace beamline::sid {

struct SidTable {
  std::vector<uint32_t> level_sizes;
  std::string codebook_fingerprint;  // empty when the file does not carry one
  std::string targets;               // what a log was split by (train/corpus.h); empty: SIDs not from a log, or unknown
  std::string log;                   // fingerprint of the log's events (data/dataset.h); empty as `targets`
  std::vector<ItemId> items;         // [n], no id twice
  std::vector<Sid> sids;             // [n]
  std::vector<std::string> titles;   // [n], or empty when the file has none
};

struct SidIndexOptions {
  std::vector<uint32_t> level_sizes;  // empty: as wide as the largest code seen, per level
  int64_t id_offset = 0;              // item id = key + id_offset
  int64_t max_bad_rows = 0;           // more refuse the file
  int64_t max_rows = 200'000'000;
  uint64_t max_file_bytes = uint64_t{16} << 30;
};

// What was left out of a table, and why: the first few messages, each with file and line or key.
struct BadRows {
  int64_t count = 0;
  std::vector<std::string> messages;  // at most 10
};

absl::StatusOr<SidTable> ReadSidTsv(const std::string& path, const SidIndexOptions& options = {},
                                    BadRows* bad_rows = nullptr);
absl::Status WriteSidTsv(const std::string& path, const SidTable& table);

// LETTER's index.json, and MiniOneRec's, which is the same with three levels.
absl::StatusOr<SidTable> ReadIndexJson(const std::string& path, const SidIndexOptions& options = {},
                                       BadRows* bad_rows = nullptr);
// Keys are item id - id_offset, in table order. Errors: an id below the offset.
absl::Status WriteIndexJson(const std::string& path, const SidTable& table, int64_t id_offset = 0);

// MiniOneRec's info text: "<a_60><b_159><c_203><TAB>title<TAB>id".
absl::StatusOr<SidTable> ReadInfoText(const std::string& path, const SidIndexOptions& options = {},
                                      BadRows* bad_rows = nullptr);
absl::Status WriteInfoText(const std::string& path, const SidTable& table, int64_t id_offset = 0);

// OpenOneRec's map from SIDs to items. Level sizes are the bases of the key's digits: 3 x 8192 where the options name
// none. Of a record only pid or iid is taken; items stay in the file's order.
absl::StatusOr<SidTable> ReadSidMapJson(const std::string& path, const SidIndexOptions& options = {},
                                        BadRows* bad_rows = nullptr);

// Any of them by name: letter or minionerec, minionerec-info, openonerec, tsv.
absl::StatusOr<SidTable> ReadSidIndex(absl::string_view dialect, const std::string& path,
                                      const SidIndexOptions& options = {}, BadRows* bad_rows = nullptr);

// "<a_183>" for code 183 of level 0; the letter is the level: a, b, c, ...
std::string SidToken(int level, Code code);
absl::StatusOr<Code> ParseSidToken(absl::string_view token, int level);
// "<a_60><b_159><c_203>" <-> a SID.
std::string SidTokens(const Sid& sid);
absl::StatusOr<Sid> ParseSidTokens(absl::string_view text);

// Every invariant of SidTable: equal lengths, level counts, code ranges, no item twice.
absl::Status CheckSidTable(const SidTable& table);

}  // namespace beamline::sid
