// SPDX-License-Identifier: Apache-2.0
//
// Writes a TSV table with a header line, as gzip where the path ends in .gz; nothing appears under the path before
// Commit. The bytes depend on the rows alone. Not thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"

struct z_stream_s;  // NOLINT(readability-identifier-naming): zlib's

namespace beamline::data {

class TableWriter {
 public:
  static absl::StatusOr<TableWriter> Create(const std::filesystem::path& path, const std::vector<std::string>& columns);

  // One row; INVALID_ARGUMENT where the number of fields is not that of the columns or a field holds a tab or line
  // break.
  absl::Status Row(const std::vector<std::string_view>& fields);
  absl::Status Commit();

  int64_t rows() const { return rows_; }
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  struct DeflateEnd {
    void operator()(z_stream_s* stream) const;
  };

  TableWriter(AtomicFile file, size_t columns);
  absl::Status Flush(bool last);

  AtomicFile file_;
  std::unique_ptr<z_stream_s, DeflateEnd> stream_;  // null for plain files
  size_t columns_;
  std::string pending_;
  int64_t rows_ = 0;
};

}  // namespace beamline::data
