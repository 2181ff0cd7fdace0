// SPDX-License-Identifier: Apache-2.0
//
// A watched folder of versions, as TensorFlow Serving and Triton lay it out: each subfolder is a bundle and is named by
// a whole number, the highest being the newest. A version appears when its manifest does: write it under another name
// (a hidden one: others that are no number are warned of) and rename it, as `beamline pack` does. Numbers are
// canonical, 1..2^63-1 without sign or leading zeros; all other names ("latest", "01", "1e3", hidden folders) are
// passed over, and ListMisnamed finds those that somebody may have meant. Reads names, sizes and times only, never
// contents. Functions are stateless.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace beamline::repository {

struct FolderVersion {
  int64_t number = 0;
  std::string path;
  // Of the names of its files and their stamps: changes whenever somebody writes there, e.g. while a copy goes on.
  std::string stamp;
};

// Of the file's size and times, that of its last change of any kind included, which no copy takes along. Not of its
// inode: mounts of object stores give new ones as they like.
std::string StampOfFile(const std::filesystem::path& path);

std::optional<int64_t> ParseVersionNumber(absl::string_view name);

// The versions that have a file named `manifest`, or that cannot be looked into, in ascending order. Only those above
// `floor` get a stamp: the others' files are not looked at.
absl::StatusOr<std::vector<FolderVersion>> ListVersions(const std::filesystem::path& folder, absl::string_view manifest,
                                                        int64_t floor);

// What has a manifest and no version's name, with stamps, by path. Not what is hidden, nor a link to a neighbour
// ("latest"). What cannot be looked into is left out: ListVersions says so.
std::map<std::string, std::string> ListMisnamed(const std::filesystem::path& folder, absl::string_view manifest);

}  // namespace beamline::repository
