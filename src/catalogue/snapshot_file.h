// SPDX-License-Identifier: Apache-2.0
//
// A catalogue snapshot as one file: named, checksummed sections (section_file.h), of which `manifest` is JSON (version,
// codebook fingerprint, level sizes, counts) and the others are the arrays of SnapshotContents, little-endian. Loading
// reads into private memory, checks every byte against its section's SHA-256 and then every structural property, and
// refuses a catalogue of another codebook. Errors name the file and the section. Writing is all or nothing, so two
// writers leave one whole file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/progress.h"
#include "catalogue/snapshot.h"

namespace beamline::catalogue {

struct LoadOptions {
  std::string expected_fingerprint;          // of the model's codebook; empty: any
  uint64_t max_bytes = uint64_t{256} << 30;  // of the file
  Progress* progress = nullptr;
};

absl::StatusOr<std::shared_ptr<const CatalogueSnapshot>> LoadSnapshot(const std::filesystem::path& path,
                                                                      const LoadOptions& options = {});

absl::Status WriteSnapshot(const CatalogueSnapshot& snapshot, const std::filesystem::path& path,
                           Progress* progress = nullptr);

// A version made from a digest of everything but the version: equal for equal contents, e.g. "c-4f1a09c2d3e4b5a6".
std::string ContentVersion(const SnapshotContents& contents);

}  // namespace beamline::catalogue
