// SPDX-License-Identifier: Apache-2.0
//
// The folder an importer or generator writes its tables to. A folder must not end up with tables of two data sets, or
// with a plain and a gzip form of one, so opening it names the tables that will be written and refuses
// (FAILED_PRECONDITION) a folder that holds any other one, and (ALREADY_EXISTS) one that holds these, unless they are
// to be replaced. Immutable.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace beamline::data {

class TableFolder {
 public:
  // `tables` of "events", "items", "users". Makes the folder if need be.
  static absl::StatusOr<TableFolder> Open(const std::filesystem::path& folder, bool gzip,
                                          const std::vector<std::string>& tables, bool overwrite);

  // DIR/events.tsv.gz
  std::filesystem::path Path(std::string_view table) const;

 private:
  TableFolder(std::filesystem::path folder, bool gzip) : folder_(std::move(folder)), gzip_(gzip) {}

  std::filesystem::path folder_;
  bool gzip_;
};

}  // namespace beamline::data
