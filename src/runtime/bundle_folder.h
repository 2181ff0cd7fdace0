// SPDX-License-Identifier: Apache-2.0
//
// A bundle's folder checked against its manifest: the files it lists and no others, regular files and no links, of the
// listed sizes and digests. Nothing of a bundle is used before this has passed for it. Errors name the file, and what
// to do; pickle and its relatives are refused with a hint. Functions are pure but for reading.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/safetensors.h"
#include "runtime/bundle_manifest.h"

namespace beamline::runtime {

// Reads bundle.json and compares names, kinds and sizes of everything in the folder with it. Reads no other file.
absl::StatusOr<BundleManifest> OpenBundleFolder(const std::filesystem::path& folder);

// A digest of the whole bundle, from the digests that its manifest lists: equal ones, equal bundles. Checks what
// OpenBundleFolder checks, so it is cheap and says nothing about the files' contents.
absl::StatusOr<std::string> IdentifyBundle(const std::filesystem::path& folder);
// The same of a manifest in memory: of what was read by it, whatever has become of the folder.
std::string DigestOf(const BundleManifest& manifest);

// A file of the manifest in private memory, its digest checked. For small files and for those parsed from memory; what
// the manifest lists with more than `max_bytes` is refused before it is read.
absl::StatusOr<std::string> ReadBundleFile(const std::filesystem::path& folder, const BundleManifest& manifest,
                                           const std::string& name,
                                           uint64_t max_bytes = std::numeric_limits<uint64_t>::max());

// Parts of the tensors of a safetensors file, in memory for these alone; the digest is that of the whole file, checked
// before anything is returned.
absl::StatusOr<SafetensorsFile> ReadBundleTensors(const std::filesystem::path& folder, const BundleManifest& manifest,
                                                  const std::string& name, const PartChooser& choose);

// The digest alone, in constant memory: for files whose own loader checks them again.
absl::Status VerifyBundleFile(const std::filesystem::path& folder, const BundleManifest& manifest,
                              const std::string& name);
// Of every file.
absl::Status VerifyBundle(const std::filesystem::path& folder);

// What bundle.json says of the regular file at `path`: its size and digest, in constant memory. Stops when interrupted.
absl::StatusOr<BundleFileEntry> DescribeFile(const std::filesystem::path& path);

}  // namespace beamline::runtime
