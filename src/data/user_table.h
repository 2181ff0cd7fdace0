// SPDX-License-Identifier: Apache-2.0
//
// The user table: TSV with a header line, plain or gzip, one user per line: the required column user_id (once per
// table) and any number of attribute columns, at most 64, each named by its header; an empty field means that the user
// lacks it. Values are at most 512 bytes of UTF-8, names 128, both without control characters. Bad rows are counted
// (bad_rows.h). Not thread-safe.
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
#include "beamline/request.h"
#include "data/bad_rows.h"
#include "data/delimited_reader.h"
#include "data/table_writer.h"

namespace beamline::data {

struct UserRow {
  std::string user_id;
  std::vector<UserAttribute> attributes;  // in the order of the columns
};

class UserTableReader {
 public:
  static absl::StatusOr<UserTableReader> Open(const std::filesystem::path& path, const BadRowPolicy& policy = {},
                                              Progress* progress = nullptr);
  // The next good row; false at the end; an error there if too many rows were bad.
  absl::StatusOr<bool> Next(UserRow* row);
  const BadRows& bad_rows() const { return reader_.bad_rows(); }

 private:
  UserTableReader(DelimitedReader reader, int user) : reader_(std::move(reader)), user_(user) {}
  absl::Status Parse(UserRow* row);

  DelimitedReader reader_;
  int user_;  // column
  absl::flat_hash_set<std::string> seen_;
};

class UserTableWriter {
 public:
  // `attributes` are the names of the columns after user_id.
  static absl::StatusOr<UserTableWriter> Create(const std::filesystem::path& path,
                                                const std::vector<std::string>& attributes);
  // Values in the order of `attributes`.
  absl::Status Write(std::string_view user_id, const std::vector<std::string_view>& values);
  absl::Status Commit() { return writer_.Commit(); }
  int64_t rows() const { return writer_.rows(); }

 private:
  explicit UserTableWriter(TableWriter writer) : writer_(std::move(writer)) {}
  TableWriter writer_;
};

}  // namespace beamline::data
