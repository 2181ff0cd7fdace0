// SPDX-License-Identifier: Apache-2.0
//
// The item table: TSV with a header line, plain or gzip, one item per line. Columns, found by name:
//
//   item_id      required  whole number, 0 to 2^64 - 1; once per table
//   author_id    optional  whole number; empty or 0: unknown
//   duration_ms  optional  0 to 4294967295; empty or 0: unknown
//   created_ms   optional  Unix time in milliseconds, 0 to 4102444800000; empty or 0: unknown
//   relevance    optional  -1e30 to 1e30; orders the items of one SID, largest first; empty: 0
//   tags         optional  key=value joined by ';', e.g. "tag=39;kind=NORMAL"; keys hold neither '=' nor ';', values
//                          no ';'; at most 256, keys of 128 bytes, values of 512; a key may repeat
//   title        optional  at most 4096 bytes of UTF-8 without control characters
//
// Further columns are ignored, empty lines skipped; bad rows, duplicates among them, are counted (bad_rows.h). Memory
// grows with the number of items (their ids, to find duplicates). Not thread-safe.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/progress.h"
#include "beamline/catalogue.h"
#include "data/bad_rows.h"
#include "data/delimited_reader.h"
#include "data/table_writer.h"

namespace beamline::data {

struct ItemRow {
  ItemId item = 0;
  ItemAttributes attributes;
};

constexpr double kMaxRelevance = 1e30;  // of a relevance, without its sign

using KeyValues = std::vector<std::pair<std::string, std::string>>;

// "key=value;key=value" and back; errors name the faulty piece.
absl::StatusOr<KeyValues> ParseTags(std::string_view text);
absl::StatusOr<std::string> FormatTags(const KeyValues& tags);

class ItemTableReader {
 public:
  static absl::StatusOr<ItemTableReader> Open(const std::filesystem::path& path, const BadRowPolicy& policy = {},
                                              Progress* progress = nullptr);
  // The next good row; false at the end; an error there if too many rows were bad.
  absl::StatusOr<bool> Next(ItemRow* row);
  const BadRows& bad_rows() const { return reader_.bad_rows(); }

 private:
  explicit ItemTableReader(DelimitedReader reader);
  absl::Status Parse(ItemRow* row);

  DelimitedReader reader_;
  int item_, author_, duration_, created_, relevance_, tags_, title_;  // columns
  absl::flat_hash_set<ItemId> seen_;
};

class ItemTableWriter {
 public:
  static absl::StatusOr<ItemTableWriter> Create(const std::filesystem::path& path);
  absl::Status Write(const ItemRow& row);
  absl::Status Commit() { return writer_.Commit(); }
  int64_t rows() const { return writer_.rows(); }

 private:
  explicit ItemTableWriter(TableWriter writer) : writer_(std::move(writer)) {}
  TableWriter writer_;
};

}  // namespace beamline::data
