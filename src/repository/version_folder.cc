// SPDX-License-Identifier: Apache-2.0
#include "repository/version_folder.h"

#include <algorithm>
#include <system_error>

#include <sys/stat.h>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace beamline::repository {
namespace {

namespace fs = std::filesystem;

// Sorted, because a folder lists its files in any order. A file that vanishes meanwhile changes the stamp too.
std::string StampOf(const fs::path& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    files.push_back(absl::StrCat(entry->path().filename().string(), ":", StampOfFile(entry->path()), ";"));
  }
  std::sort(files.begin(), files.end());
  std::string stamp;
  for (const std::string& file : files) stamp += file;
  return stamp;
}

}  // namespace

std::string StampOfFile(const fs::path& path) {
  struct stat file = {};
  if (stat(path.c_str(), &file) != 0) return "none";
  // Apart: nanoseconds since 1970 have no room for dates after 2262, which a file may have.
  return absl::StrCat(file.st_size, ",", file.st_mtim.tv_sec, ".", file.st_mtim.tv_nsec, ",", file.st_ctim.tv_sec, ".",
                      file.st_ctim.tv_nsec);
}

std::optional<int64_t> ParseVersionNumber(absl::string_view name) {
  int64_t number = 0;
  if (name.empty() || name[0] == '0' || !std::all_of(name.begin(), name.end(), absl::ascii_isdigit)) return {};
  if (!absl::SimpleAtoi(name, &number)) return {};  // beyond 64 bits
  return number;
}

absl::StatusOr<std::vector<FolderVersion>> ListVersions(const fs::path& folder, absl::string_view manifest,
                                                        int64_t floor) {
  std::vector<FolderVersion> versions;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(folder.string(), ": cannot list the versions: ", error.message()));
  }
  for (const fs::directory_iterator end; entry != end; entry.increment(error)) {
    const std::optional<int64_t> number = ParseVersionNumber(entry->path().filename().string());
    if (!number) continue;
    // What cannot be looked into (rights, a stale handle) is a version: loading it says what is wrong.
    std::error_code unknown;
    if (!fs::exists(entry->path() / std::string(manifest), unknown) && !unknown) continue;
    versions.push_back({*number, entry->path().string(), *number > floor ? StampOf(entry->path()) : ""});
  }
  // Half a list could make an old version look like the newest.
  if (error) {
    return absl::UnavailableError(absl::StrCat(folder.string(), ": cannot list the versions: ", error.message()));
  }
  std::sort(versions.begin(), versions.end(),
            [](const FolderVersion& a, const FolderVersion& b) { return a.number < b.number; });
  return versions;
}

std::map<std::string, std::string> ListMisnamed(const fs::path& folder, absl::string_view manifest) {
  std::map<std::string, std::string> misnamed;
  std::error_code error;
  const fs::path here = fs::canonical(folder, error);
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name[0] == '.' || ParseVersionNumber(name)) continue;
    std::error_code unknown;
    if (!fs::exists(entry->path() / std::string(manifest), unknown)) continue;
    if (entry->is_symlink(unknown) && fs::canonical(entry->path(), unknown).parent_path() == here) continue;
    misnamed[entry->path().string()] = StampOf(entry->path());
  }
  return misnamed;
}

}  // namespace beamline::repository
