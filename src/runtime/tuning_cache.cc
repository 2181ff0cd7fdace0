// SPDX-License-Identifier: Apache-2.0
#include "runtime/tuning_cache.h"

#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "beamline/status.h"
#include "runtime/bundle_folder.h"
#include "runtime/tuning_file.h"

namespace beamline::runtime {
namespace {

absl::Status WriteTuning(const std::filesystem::path& file, const std::string& text) {
  BEAMLINE_RETURN_IF_ERROR(MakeFolder(file.parent_path()));
  return WriteFileAtomically(file, TuningToBytes(text));
}

}  // namespace

TuningCache::TuningCache(const backend::Backend* backend, const std::filesystem::path& folder,
                         absl::string_view bundle_digest)
    : backend_(backend) {
  const std::string name = backend->TuningName();
  if (!name.empty() && !folder.empty()) file_ = folder / absl::StrCat(bundle_digest, "-", name, ".txt");
}

std::string TuningCache::Import(const absl::StatusOr<std::string>& text, const std::filesystem::path& file) const {
  if (absl::IsNotFound(text.status())) return {};
  const absl::Status status = text.ok() ? backend_->ImportTuning(*text) : text.status();
  if (status.ok()) return *text;
  LogEvent(spdlog::level::warn, "tuning: not used, measured again",
           {{"file", file.string()}, {"reason", std::string(status.message())}});
  return {};
}

void TuningCache::Load() {
  if (!file_.empty()) kept_ = Import(ReadTuning(file_), file_);
}

void TuningCache::LoadOf(const std::filesystem::path& bundle, const BundleManifest& manifest) {
  const std::string device = backend_ == nullptr ? "" : backend_->TuningName(), name = TuningFileInBundle(device);
  if (device.empty() || !manifest.files.contains(name)) return;
  absl::StatusOr<std::string> text = ReadBundleFile(bundle, manifest, name, kMaxTuningBytes);
  if (text.ok()) text = ParseTuning(*text, name);
  bundled_ = Import(text, bundle / name);
}

void TuningCache::Save() {
  if (file_.empty()) return;
  const std::string text = backend_->ExportTuning();
  if (text == kept_ || text == bundled_) return;
  kept_ = text;  // written or not: the log says it once
  if (const absl::Status status = WriteTuning(file_, text); !status.ok()) {
    LogEvent(spdlog::level::warn, "tuning: not kept, the next start measures again",
             {{"file", file_.string()}, {"reason", std::string(status.message())}});
  }
}

std::filesystem::path TuningFolder(const std::string& chosen) {
  if (!chosen.empty()) return chosen;
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value == nullptr ? "" : value);
  };
  if (const std::filesystem::path cache = variable("XDG_CACHE_HOME"); cache.is_absolute()) {
    return cache / "beamline" / "tuning";
  }
  const std::filesystem::path home = variable("HOME");
  return home.is_absolute() ? home / ".cache" / "beamline" / "tuning" : std::filesystem::path();
}

}  // namespace beamline::runtime
