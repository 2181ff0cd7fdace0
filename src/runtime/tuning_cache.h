// SPDX-License-Identifier: Apache-2.0
//
// What a backend measured on its device (backend.h, ExportTuning), kept from one start to the next: by whoever packs
// the bundle in the bundle itself, whose files are never written to, else in a folder of the engine's, a file per
// bundle and device (tuning_file.h). What is measured beside the bundle's goes to that folder, too. Without either a
// start takes longer and answers the same: nothing about it fails a load, what cannot be read or written is logged.
// Files are replaced whole. One thread at a time.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backend/backend.h"
#include "runtime/bundle_manifest.h"

namespace beamline::runtime {

class TuningCache {
 public:
  TuningCache() = default;  // keeps nothing
  // Of a backend that measures; of others, or where the folder's name is empty, nothing is kept.
  TuningCache(const backend::Backend* backend, const std::filesystem::path& folder, absl::string_view bundle_digest);

  void Load();  // gives the backend what was kept
  // And what the bundle holds for the device, if it does; that goes before the folder: replicas of the bundle share it.
  // What the process uses already stays as it is.
  void LoadOf(const std::filesystem::path& bundle, const BundleManifest& manifest);
  void Save();                                         // keeps what the backend has, where that is more than was kept
  std::string file() const { return file_.string(); }  // empty: nothing is kept

 private:
  // The text, where it is good; what is wrong with one that is there is logged.
  std::string Import(const absl::StatusOr<std::string>& text, const std::filesystem::path& file) const;

  const backend::Backend* backend_ = nullptr;
  std::filesystem::path file_;
  std::string kept_, bundled_;  // the texts of the file and of the bundle, where they are good
};

// `chosen`, or beamline/tuning in the user's cache folder (XDG_CACHE_HOME, else .cache in HOME); empty where there is
// none of these.
std::filesystem::path TuningFolder(const std::string& chosen);

}  // namespace beamline::runtime
