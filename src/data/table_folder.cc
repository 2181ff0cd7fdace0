// SPDX-License-Identifier: Apache-2.0
#include "data/table_folder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "beamline/status.h"

namespace beamline::data {

absl::StatusOr<TableFolder> TableFolder::Open(const std::filesystem::path& folder, bool gzip,
                                              const std::vector<std::string>& tables, bool overwrite) {
  for (const std::string table : {"events", "items", "users"}) {
    const bool written = std::find(tables.begin(), tables.end(), table) != tables.end();
    for (const bool compressed : {false, true}) {
      const std::filesystem::path path = TableFolder(folder, compressed).Path(table);
      std::error_code error;
      if (written && compressed == gzip) {
        BEAMLINE_RETURN_IF_ERROR(CheckNotThere(path, overwrite));
        continue;
      }
      if (!std::filesystem::exists(path, error)) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          path.string(), " is there and would be mixed with the new tables; remove it or choose another folder"));
    }
  }
  BEAMLINE_RETURN_IF_ERROR(MakeFolder(folder));
  return TableFolder(folder, gzip);
}

std::filesystem::path TableFolder::Path(std::string_view table) const {
  return folder_ / (std::string(table) + (gzip_ ? ".tsv.gz" : ".tsv"));
}

}  // namespace beamline::data
