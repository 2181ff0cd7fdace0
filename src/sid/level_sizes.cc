// SPDX-License-Identifier: Apache-2.0
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "beamline/status.h"
#include "sid/codebook.h"

namespace beamline::sid {

absl::Status CheckLevelSizes(absl::Span<const uint32_t> level_sizes) {
  if (level_sizes.empty() || level_sizes.size() > kMaxLevels) {
    return absl::InvalidArgumentError(
        absl::StrCat("a codebook has 1 to ", kMaxLevels, " levels, not ", level_sizes.size()));
  }
  for (size_t level = 0; level < level_sizes.size(); ++level) {
    if (level_sizes[level] < 1 || level_sizes[level] > kMaxLevelSize) {
      return absl::InvalidArgumentError(
          absl::StrCat("level ", level + 1, " has ", level_sizes[level], " codes, must be 1 to ", kMaxLevelSize));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint32_t>> ParseLevelSizes(absl::string_view text) {
  std::vector<uint32_t> sizes;
  for (const absl::string_view part : absl::StrSplit(text.substr(0, 256), ',')) {
    uint32_t size = 0;
    if (!absl::SimpleAtoi(part, &size)) {
      return absl::InvalidArgumentError(
          absl::StrCat("level sizes '", text.substr(0, 256), "' must be numbers with commas, such as 256,256,256"));
    }
    sizes.push_back(size);
  }
  BEAMLINE_RETURN_IF_ERROR(CheckLevelSizes(sizes));
  return sizes;
}

std::string FormatLevelSizes(absl::Span<const uint32_t> level_sizes) { return absl::StrJoin(level_sizes, ","); }

}  // namespace beamline::sid
