// SPDX-License-Identifier: Apache-2.0
//
// What a backend measured on its device (backend.h, ExportTuning), kept from one start to the next: a file per bundle
// and device, in a folder apart from the bundle's, which may be read-only and holds nothing but what its manifest
// lists. Without it a start takes longer and answers the same: nothing about it fails a load, what cannot be read or
// written is logged. A file is the SHA-256 of the backend's text, a line, and the text. Files are replaced whole. One
// thread at a time.
#pragma once

#include <filesystem>
#include <string>

#include "absl/strings/string_view.h"
#include "backend/backend.h"

namespace beamline::runtime {

class TuningCache {
 public:
  TuningCache() = default;  // keeps nothing
  // Of a backend that measures; of others, or where the folder's name is empty, nothing is kept.
  TuningCache(const backend::Backend* backend, const std::filesystem::path& folder, absl::string_view bundle_digest);

  void Load();                                         // gives the backend what was kept
  void Save();                                         // keeps what the backend has, where that is more than was kept
  std::string file() const { return file_.string(); }  // empty: nothing is kept

 private:
  const backend::Backend* backend_ = nullptr;
  std::filesystem::path file_;
  std::string kept_;  // the file's text, where it is good
};

// `chosen`, or beamline/tuning in the user's cache folder (XDG_CACHE_HOME, else .cache in HOME); empty where there is
// none of these.
std::filesystem::path TuningFolder(const std::string& chosen);

}  // namespace beamline::runtime
