// SPDX-License-Identifier: Apache-2.0
//
// The parts of the KuaiRand importer (import.h) that its two sources share: reading the archive's CSVs, which pandas
// wrote, and copying video and user features. For import_kuairand*.cc only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/delimited_reader.h"
#include "data/import.h"
#include "data/item_table.h"
#include "data/user_table.h"

namespace beamline::data::kuairand {

using Paths = std::vector<std::filesystem::path>;

absl::StatusOr<DelimitedReader> OpenCsv(const std::filesystem::path& path, std::vector<std::string> required,
                                        const ImportOptions& options);

// The CSVs of the archive, and what people make of them, were written by pandas: whole numbers may be floats
// ("87433.0").
inline std::string_view WithoutZeroFraction(std::string_view text) {
  return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
}

// "87433.0" -> 87433; 0 where it is missing.
absl::StatusOr<int64_t> ParseMilliseconds(std::string_view name, std::string_view text);

struct VideoFiles {
  Paths basic;      // video_features_basic
  Paths statistic;  // may be none: where relevance is from
};
// The item table at `out`, to be committed.
absl::StatusOr<ItemTableWriter> CopyVideos(const VideoFiles& files, const std::filesystem::path& out,
                                           const ImportOptions& options, ImportReport* report);

// user_features -> the user table at `out`, to be committed.
absl::StatusOr<UserTableWriter> CopyUsers(const std::filesystem::path& path, const std::filesystem::path& out,
                                          const ImportOptions& options, ImportReport* report);

}  // namespace beamline::data::kuairand
