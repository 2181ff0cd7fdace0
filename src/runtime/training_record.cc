// SPDX-License-Identifier: Apache-2.0
#include "runtime/training_record.h"

#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/json.h"
#include "beamline/status.h"
#include "runtime/bundle_folder.h"
#include "runtime/bundle_manifest.h"

namespace beamline::runtime {
namespace {

constexpr char kDigest[] = "digest";
struct CoveredFile {
  const char* name;
  const char* digest;
};
constexpr CoveredFile kCovered[] = {{kConfigFile, "config_sha256"}, {kVocabularyFile, "vocabulary_sha256"}};

std::string ToText(const nlohmann::json& record) { return record.dump(1); }

absl::Status Damaged(const std::filesystem::path& path, absl::string_view digest) {
  return absl::DataLossError(absl::StrCat(
      path.string(), ": does not have the SHA-256 that '", digest, "' of ", kTrainingFile,
      " says; it was damaged or edited: train again, or remove ", kTrainingFile,
      " if the change was meant, and give `beamline evaluate` the --targets and --k-core of the training"));
}

}  // namespace

absl::Status WriteTrainingRecord(const std::filesystem::path& folder, nlohmann::json record) {
  for (const CoveredFile& file : kCovered) {
    record.erase(file.digest);
    std::error_code ignored;
    if (file.name != std::string(kConfigFile) && !std::filesystem::exists(folder / file.name, ignored)) continue;
    BEAMLINE_ASSIGN_OR_RETURN(const BundleFileEntry entry, DescribeFile((folder / file.name).string()));
    record[file.digest] = entry.sha256;
  }
  record.erase(kDigest);
  record[kDigest] = Sha256Hex(ToText(record));
  return WriteFileAtomically((folder / kTrainingFile).string(), ToText(record));
}

absl::StatusOr<std::optional<nlohmann::json>> ReadTrainingRecord(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kTrainingFile;
  std::error_code ignored;
  // A link to nothing is a record that got lost.
  if (std::filesystem::symlink_status(path, ignored).type() == std::filesystem::file_type::not_found) {
    return std::nullopt;
  }
  BEAMLINE_ASSIGN_OR_RETURN(nlohmann::json record, ReadJsonObject(path.string()));
  if (const auto digest = record.find(kDigest); digest != record.end()) {
    const std::string expected = digest->is_string() ? digest->get<std::string>() : "";
    record.erase(kDigest);
    if (expected != Sha256Hex(ToText(record))) return Damaged(path, kDigest);
  }
  for (const CoveredFile& file : kCovered) {
    const auto expected = record.find(file.digest);
    if (expected == record.end()) continue;
    BEAMLINE_ASSIGN_OR_RETURN(const BundleFileEntry entry, DescribeFile((folder / file.name).string()));
    if (*expected != entry.sha256) return Damaged(folder / file.name, file.digest);
  }
  return record;
}

}  // namespace beamline::runtime
