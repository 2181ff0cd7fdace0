// SPDX-License-Identifier: Apache-2.0
#include "runtime/tuning_cache.h"

#include <cstdlib>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/log.h"
#include "beamline/status.h"

namespace beamline::runtime {
namespace {

constexpr uint64_t kMaxTuningBytes = 4 << 20;

absl::Status WriteTuning(const std::filesystem::path& file, const std::string& text) {
  BEAMLINE_RETURN_IF_ERROR(MakeFolder(file.parent_path()));
  return WriteFileAtomically(file, absl::StrCat(Sha256Hex(text), "\n", text));
}

// A flipped bit could name another algorithm that the library takes and that breaks the rule of equal rows.
absl::StatusOr<std::string> ReadTuning(const std::filesystem::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file, kMaxTuningBytes));
  const size_t line = bytes.find('\n');
  std::string text = line == std::string::npos ? "" : bytes.substr(line + 1);
  if (bytes.substr(0, line) == Sha256Hex(text)) return text;
  return absl::DataLossError(absl::StrCat(file.string(), ": its first line is not the SHA-256 of the others"));
}

}  // namespace

TuningCache::TuningCache(const backend::Backend* backend, const std::filesystem::path& folder,
                         absl::string_view bundle_digest)
    : backend_(backend) {
  const std::string name = backend->TuningName();
  if (!name.empty() && !folder.empty()) file_ = folder / absl::StrCat(bundle_digest, "-", name, ".txt");
}

void TuningCache::Load() {
  if (file_.empty()) return;
  const absl::StatusOr<std::string> text = ReadTuning(file_);
  if (absl::IsNotFound(text.status())) return;
  const absl::Status status = text.ok() ? backend_->ImportTuning(*text) : text.status();
  if (status.ok()) {
    kept_ = *text;
    return;
  }
  Log().warn("tuning: not used, measured again: file={} reason={}", file_.string(), std::string(status.message()));
}

void TuningCache::Save() {
  if (file_.empty()) return;
  const std::string text = backend_->ExportTuning();
  if (text == kept_) return;
  kept_ = text;  // written or not: the log says it once
  if (const absl::Status status = WriteTuning(file_, text); !status.ok()) {
    Log().warn("tuning: not kept, the next start measures again: file={} reason={}", file_.string(),
               std::string(status.message()));
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
