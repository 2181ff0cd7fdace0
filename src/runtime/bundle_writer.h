// SPDX-License-Identifier: Apache-2.0
//
// Writes a bundle all or nothing: the parts go to a temporary folder beside the target, bundle.json with their digests
// last; the whole is then loaded as a server would load it, and only then renamed into place. An error, or Ctrl-C,
// leaves nothing under the final name. Errors name the part at fault. Thread-safe for different targets.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/progress.h"
#include "catalogue/snapshot.h"
#include "runtime/bundle_manifest.h"

namespace beamline::runtime {

struct BundleParts {
  std::filesystem::path config;  // as written by training: copied byte for byte
  std::filesystem::path weights;
  std::filesystem::path vocabulary;
  std::filesystem::path codebook;
  std::shared_ptr<const catalogue::CatalogueSnapshot> catalogue;
  std::string model_version;   // empty: derived from the parts, equal for equal parts
  std::filesystem::path gate;  // gate_report.h: of these weights, and passed, or it is refused; empty: none
  std::vector<std::filesystem::path> tuning;  // tuning_file.h, of a device each
};

struct WriteBundleOptions {
  bool overwrite = false;  // replace an existing bundle; refused where its folder holds anything else
  Progress* progress = nullptr;
};

// "bundle/", as a shell completes it, is the folder "bundle": what names beside it are made of.
std::filesystem::path WithoutSlash(const std::filesystem::path& folder);

// Whether `folder` may become a bundle: it does not exist, or holds a bundle and nothing else and `overwrite` is set.
// ALREADY_EXISTS otherwise. WriteBundle asks again; this is for those with long work before it.
absl::Status CheckBundleTarget(const std::filesystem::path& folder, bool overwrite);

// Returns the manifest written.
absl::StatusOr<BundleManifest> WriteBundle(const BundleParts& parts, const std::filesystem::path& folder,
                                           const WriteBundleOptions& options = {});

}  // namespace beamline::runtime
