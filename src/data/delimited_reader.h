// SPDX-License-Identifier: Apache-2.0
//
// Streams the rows of a table with a header line: TSV (no quoting; a field holds no tab) or CSV (RFC 4180 quotes; a
// field holds no line break), plain or gzip. Columns are found by header name, in any order; further ones are ignored.
// Rows that are too long or have the wrong number of fields are counted as bad and skipped, as are those the caller
// refuses; at the end the file's verdict is given. Memory: one line. Not thread-safe. Errors name the file and line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/line_reader.h"
#include "base/progress.h"
#include "data/bad_rows.h"
#include "data/parse.h"

namespace beamline::data {

// Splits one line; false where quotes are not closed or text follows a closing quote. With `quotes`, the views point
// into *line, which is changed to remove the escapes.
bool SplitLine(std::string* line, char delimiter, bool quotes, std::vector<std::string_view>* fields);

class DelimitedReader {
 public:
  struct Options {
    char delimiter = '\t';
    bool quotes = false;                // true for CSV
    std::vector<std::string> required;  // columns that must be in the header
    BadRowPolicy bad_rows;
    Progress* progress = nullptr;  // a phase per file, in bytes; may be null
  };

  static absl::StatusOr<DelimitedReader> Open(const std::filesystem::path& path, const Options& options);
  // A table of our own: tab-separated, no quotes.
  static absl::StatusOr<DelimitedReader> OpenTsv(const std::filesystem::path& path, std::vector<std::string> required,
                                                 const BadRowPolicy& bad_rows, Progress* progress);

  // The next row with as many fields as the header; false at the end, or the verdict's error there. CANCELLED when the
  // process was interrupted.
  absl::StatusOr<bool> Next();

  // The next row for which parse() is OK; rows it refuses are counted as bad and skipped.
  template <typename Parse>
  absl::StatusOr<bool> NextAccepted(const Parse& parse) {
    while (true) {
      absl::StatusOr<bool> more = Next();
      if (!more.ok() || !*more) return more;
      const absl::Status parsed = parse();
      if (parsed.ok()) return true;
      Refuse(parsed);
    }
  }

  // Counts the current row as bad.
  void Refuse(const absl::Status& reason);

  // Column of that name, -1 if the header has none; field(-1) is empty.
  int Column(std::string_view name) const;
  std::string_view field(int column) const { return column < 0 ? std::string_view() : fields_[column]; }
  const std::vector<std::string>& header() const { return header_; }
  const BadRows& bad_rows() const { return bad_rows_; }

 private:
  DelimitedReader(LineReader reader, const Options& options);
  absl::Status ReadHeader();

  LineReader reader_;
  Options options_;
  BadRows bad_rows_;
  std::vector<std::string> header_;
  std::string line_;
  std::vector<std::string_view> fields_;
  bool open_row_ = false;  // a row was returned and not yet counted
};

}  // namespace beamline::data
