// SPDX-License-Identifier: Apache-2.0
#include "runtime/bundle_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/program.h"
#include "beamline/status.h"
#include "catalogue/snapshot_file.h"
#include "model/weight_file.h"
#include "runtime/bundle.h"
#include "runtime/bundle_folder.h"
#include "runtime/gate_report.h"
#include "runtime/training_record.h"
#include "runtime/tuning_file.h"
#include "sid/codebook.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;

constexpr size_t kCopyChunkBytes = 1 << 20;
constexpr size_t kVersionDigits = 12;

// A folder that goes away with its contents unless it was renamed into place.
class TemporaryFolder {
 public:
  static absl::StatusOr<TemporaryFolder> CreateBeside(const fs::path& target) {
    BEAMLINE_RETURN_IF_ERROR(MakeFolder(target.has_parent_path() ? target.parent_path() : fs::path(".")));
    std::string name = target.string() + ".tmp-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", name));
    if (chmod_readable(name) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot set the mode of ", name));
    return TemporaryFolder(name);
  }
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::exchange(other.path_, fs::path())) {}
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

  // Puts the folder in `target`'s place; what stood there before is removed.
  absl::Status MoveTo(const fs::path& target) {
    if (renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) == 0) {
      path_.clear();
      return absl::OkStatus();
    }
    bool unknown = errno == EINVAL;
    if (renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) {
      return absl::OkStatus();  // path_ is the old bundle now: the destructor removes it
    }
    unknown = unknown || errno == EINVAL;
    return unknown ? MoveInStepsTo(target) : CannotRename(target);
  }

 private:
  explicit TemporaryFolder(fs::path path) : path_(std::move(path)) {}
  absl::Status CannotRename(const fs::path& target) const {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot rename ", path_.string(), " to ", target.string()));
  }
  // Where the file system knows neither of these (NFS, 9p, much of FUSE): for a moment there is no bundle, never a part
  // of one.
  absl::Status MoveInStepsTo(const fs::path& target) {
    const fs::path before = path_.string() + ".before";
    const bool replaces = rename(target.c_str(), before.c_str()) == 0;
    if (!replaces && errno != ENOENT) return CannotRename(target);
    if (rename(path_.c_str(), target.c_str()) != 0) {
      absl::Status status = CannotRename(target);
      if (!replaces || rename(before.c_str(), target.c_str()) == 0) return status;
      return absl::Status(status.code(), absl::StrCat(status.message(), "; what stood there is ", before.string()));
    }
    path_.clear();
    std::error_code ignored;
    if (replaces) fs::remove_all(before, ignored);
    return absl::OkStatus();
  }
  static int chmod_readable(const std::string& name) {
    std::error_code error;
    fs::permissions(name,
                    fs::perms::owner_all | fs::perms::group_read | fs::perms::group_exec | fs::perms::others_read |
                        fs::perms::others_exec,
                    error);
    return error.value();
  }
  fs::path path_;
};

// Of the files that may be left out, which are read as a whole.
absl::Status CheckOptionalFile(const fs::path& given, uint64_t max_bytes) {
  std::error_code error;
  if (!fs::is_regular_file(given, error)) return absl::NotFoundError(given.string() + ": no such regular file");
  const uint64_t bytes = fs::file_size(given, error);
  if (error || bytes <= max_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(given.string(), ": has ", bytes, " bytes, may have ", max_bytes));
}

absl::Status CopyFile(const fs::path& from, const fs::path& to) {
  std::error_code error;
  if (!fs::is_regular_file(from, error)) {
    const bool training = fs::exists(from.parent_path() / kCheckpointFile, error);
    return absl::NotFoundError(absl::StrCat(
        from.string(), ": no such regular file; it is a part of every bundle",
        training ? "; the model's training is not over: run `beamline train` again, without --fresh" : ""));
  }
  std::ifstream in(from, std::ios::binary);
  if (!in) return absl::PermissionDeniedError(absl::StrCat(from.string(), ": cannot be opened for reading"));
  BEAMLINE_ASSIGN_OR_RETURN(AtomicFile out, AtomicFile::Create(to));
  std::string chunk(kCopyChunkBytes, '\0');
  while (in) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    in.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    BEAMLINE_RETURN_IF_ERROR(out.Write({chunk.data(), static_cast<size_t>(in.gcount())}));
  }
  if (in.bad()) return absl::DataLossError(absl::StrCat(from.string(), ": reading failed"));
  return out.Commit();
}

// What is copied, by its name in the bundle.
using Files = std::map<std::string, fs::path>;

absl::StatusOr<Files> FilesOf(const BundleParts& parts) {
  Files files{{kConfigFile, parts.config},
              {kWeightsFile, parts.weights},
              {kVocabularyFile, parts.vocabulary},
              {kCodebookFile, parts.codebook}};
  if (!parts.gate.empty()) {
    BEAMLINE_RETURN_IF_ERROR(CheckOptionalFile(parts.gate, kMaxGateBytes));
    files[kGateFile] = parts.gate;
  }
  for (const fs::path& tuning : parts.tuning) {
    BEAMLINE_ASSIGN_OR_RETURN(const std::string name, NameInBundle(tuning));
    BEAMLINE_RETURN_IF_ERROR(CheckOptionalFile(tuning, kMaxTuningBytes));
    if (const auto [before, is_new] = files.emplace(name, tuning); !is_new) {
      return absl::InvalidArgumentError(absl::StrCat(tuning.string(), ": is of the device that ",
                                                     before->second.string(), " is of; give one of them"));
    }
  }
  return files;
}

// What is wrong with a copy is wrong with what was copied, and that is what its owner knows.
absl::Status OfGivenFiles(const absl::Status& status, const Files& files, const fs::path& copies) {
  std::vector<std::pair<std::string, std::string>> names;
  for (const auto& [name, given] : files) names.emplace_back((copies / name).string(), given.string());
  return absl::Status(status.code(), absl::StrReplaceAll(status.message(), names));
}

// Of the model alone: it keeps its version when only items changed, or what was measured of it.
std::string DerivedVersion(const BundleManifest& manifest) {
  Sha256 digest;
  for (const auto& [name, entry] : manifest.files) {
    if (name != kItemsFile && !IsOptionalBundleFile(name)) digest.Update(name).Update(entry.sha256);
  }
  return absl::StrCat(manifest.family, "-", digest.HexDigest().substr(0, kVersionDigits));
}

// The folder is removed with all that is in it, so that must be the bundle's files and nothing else.
absl::Status CheckHoldsABundleAlone(const fs::path& folder) {
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    const absl::Span<const absl::string_view> names = BundleFileNames();
    const bool ours = name == kManifestFile || IsOptionalBundleFile(name) ||
                      std::find(names.begin(), names.end(), name) != names.end();
    if (ours && entries->symlink_status(error).type() != fs::file_type::directory) continue;
    return absl::AlreadyExistsError(absl::StrCat(
        entries->path().string(), ": is no part of a bundle and would be lost with it; move it away, then overwrite"));
  }
  if (error) return absl::UnavailableError(absl::StrCat(folder.string(), ": cannot list: ", error.message()));
  return absl::OkStatus();
}

}  // namespace

fs::path WithoutSlash(const fs::path& folder) { return folder.has_filename() ? folder : folder.parent_path(); }

absl::Status CheckBundleTarget(const fs::path& target, bool overwrite) {
  const fs::path folder = WithoutSlash(target);
  std::error_code error;
  if (fs::symlink_status(folder, error).type() == fs::file_type::not_found) return absl::OkStatus();
  if (!overwrite) {
    return absl::AlreadyExistsError(
        absl::StrCat(folder.string(), ": exists; pass --overwrite to replace it, or name another --out"));
  }
  if (!fs::is_regular_file(folder / kManifestFile, error)) {
    return absl::AlreadyExistsError(absl::StrCat(folder.string(), ": exists and is no bundle (it has no ",
                                                 kManifestFile, "), so it is not replaced"));
  }
  return CheckHoldsABundleAlone(folder);
}

namespace {

absl::StatusOr<BundleManifest> DescribeParts(const BundleParts& parts, const Files& files, const fs::path& folder,
                                             Progress* progress) {
  BundleManifest manifest;
  BEAMLINE_ASSIGN_OR_RETURN(const model::ModelConfig config, model::LoadConfig((folder / kConfigFile).string()));
  BEAMLINE_ASSIGN_OR_RETURN(const sid::Codebook codebook, sid::Codebook::Load((folder / kCodebookFile).string()));
  manifest.family = config.family;
  manifest.codebook_fingerprint = codebook.fingerprint();
  manifest.catalogue_version = parts.catalogue->version();
  manifest.written_by = ProgramBuild();
  std::vector<std::string> names = {kItemsFile};
  for (const auto& [name, given] : files) names.push_back(name);
  int64_t done = 0;
  StartProgress(progress, "digests", static_cast<int64_t>(names.size()), "files");
  for (const std::string& file : names) {
    BEAMLINE_ASSIGN_OR_RETURN(manifest.files[file], DescribeFile(folder / file));
    UpdateProgress(progress, ++done);
  }
  FinishProgress(progress);
  manifest.model_version = parts.model_version.empty() ? DerivedVersion(manifest) : parts.model_version;
  return manifest;
}

// What no other check of a bundle looks into.
absl::Status CheckOptionalFiles(const fs::path& folder, const BundleManifest& manifest) {
  for (const auto& [name, entry] : manifest.files) {
    if (IsTuningFileInBundle(name)) BEAMLINE_RETURN_IF_ERROR(ReadTuning(folder / name).status());
  }
  if (!manifest.files.contains(kGateFile)) return absl::OkStatus();
  const fs::path gate = folder / kGateFile;
  BEAMLINE_ASSIGN_OR_RETURN(const PrecisionGateReport report, ReadGate(gate));
  const absl::Status status = CheckGate(report, manifest);
  return status.ok() ? status : absl::Status(status.code(), absl::StrCat(gate.string(), ": ", status.message()));
}

}  // namespace

absl::StatusOr<BundleManifest> WriteBundle(const BundleParts& parts, const fs::path& target,
                                           const WriteBundleOptions& options) {
  const fs::path folder = WithoutSlash(target);
  if (parts.catalogue == nullptr) return absl::InvalidArgumentError("catalogue: a bundle needs one");
  if (!parts.model_version.empty()) BEAMLINE_RETURN_IF_ERROR(CheckModelVersion(parts.model_version));
  BEAMLINE_RETURN_IF_ERROR(CheckBundleTarget(folder, options.overwrite));
  BEAMLINE_ASSIGN_OR_RETURN(const Files files, FilesOf(parts));
  BEAMLINE_ASSIGN_OR_RETURN(TemporaryFolder temporary, TemporaryFolder::CreateBeside(folder));
  const fs::path& path = temporary.path();
  for (const auto& [name, given] : files) BEAMLINE_RETURN_IF_ERROR(CopyFile(given, path / name));
  BEAMLINE_RETURN_IF_ERROR(catalogue::WriteSnapshot(*parts.catalogue, path / kItemsFile, options.progress));
  const absl::StatusOr<BundleManifest> described = DescribeParts(parts, files, path, options.progress);
  if (!described.ok()) return OfGivenFiles(described.status(), files, path);
  const BundleManifest& manifest = *described;
  BEAMLINE_RETURN_IF_ERROR(OfGivenFiles(CheckOptionalFiles(path, manifest), files, path));
  BEAMLINE_RETURN_IF_ERROR(WriteFileAtomically(path / kManifestFile, ManifestToJson(manifest)));

  const absl::StatusOr<Bundle> bundle = LoadBundle(path);
  if (absl::Status status = bundle.ok() ? model::CheckWeightFile(bundle->config, {}, bundle->weights) : bundle.status();
      !status.ok()) {
    return OfGivenFiles(status, files, path);
  }
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  BEAMLINE_RETURN_IF_ERROR(CheckBundleTarget(folder, options.overwrite));  // again: it may have changed meanwhile
  BEAMLINE_RETURN_IF_ERROR(temporary.MoveTo(folder));
  return manifest;
}

}  // namespace beamline::runtime
