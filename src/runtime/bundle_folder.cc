// SPDX-License-Identifier: Apache-2.0
#include "runtime/bundle_folder.h"

#include <array>
#include <cerrno>
#include <fstream>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "beamline/status.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;

constexpr size_t kHashChunkBytes = 1 << 20;
constexpr char kHowToMakeOne[] =
    "make one with `beamline pack`, or, of a Hugging Face checkpoint, with `beamline import hf`";
constexpr std::array<absl::string_view, 10> kPickleSuffixes = {".pt",  ".pth", ".bin",  ".pkl",  ".pickle",
                                                               ".npz", ".npy", ".ckpt", ".gguf", ".h5"};

std::string HintFor(const fs::path& path) {
  for (absl::string_view suffix : kPickleSuffixes) {
    if (path.extension() == std::string(suffix)) {
      return "; a bundle holds safetensors only, pickle and its like are never read: convert the weights and run "
             "`beamline pack`";
    }
  }
  return "; remove it, or pack the bundle again";
}

absl::Status CannotList(const fs::path& folder, const std::error_code& error) {
  const std::string message = absl::StrCat(folder.string(), ": cannot list: ", error.message());
  return error == std::errc::not_enough_memory ? absl::ResourceExhaustedError(message)
                                               : absl::UnavailableError(message);
}

// One entry of the folder: listed, a regular file and of the listed size.
absl::Status CheckEntry(const fs::directory_entry& entry, const BundleManifest& manifest) {
  std::error_code error;
  const std::string name = entry.path().filename().string();
  const std::string path = entry.path().string();
  const fs::file_status status = entry.symlink_status(error);
  if (error) return absl::UnavailableError(absl::StrCat(path, ": cannot stat: ", error.message()));
  if (fs::is_symlink(status)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is a symbolic link; a bundle holds regular files only: copy the file itself"));
  }
  if (!fs::is_regular_file(status)) return absl::InvalidArgumentError(absl::StrCat(path, ": is not a regular file"));
  if (name == kManifestFile) return absl::OkStatus();
  const auto listed = manifest.files.find(name);
  if (listed == manifest.files.end()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is not listed in ", kManifestFile, HintFor(entry.path())));
  }
  const uint64_t bytes = entry.file_size(error);
  if (error) return absl::UnavailableError(absl::StrCat(path, ": cannot stat: ", error.message()));
  if (bytes != listed->second.bytes) {
    return absl::DataLossError(absl::StrCat(path, ": has ", bytes, " bytes, ", kManifestFile, " says ",
                                            listed->second.bytes, "; copy the bundle again"));
  }
  return absl::OkStatus();
}

absl::Status CheckDigest(const fs::path& path, const std::string& actual, const std::string& expected) {
  if (actual == expected) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path.string(), ": SHA-256 is ", actual, ", ", kManifestFile, " says ",
                                          expected, "; the file was damaged or changed: copy the bundle again"));
}

absl::StatusOr<BundleFileEntry> Listed(const BundleManifest& manifest, const std::string& name) {
  const auto listed = manifest.files.find(name);
  if (listed == manifest.files.end()) return absl::InternalError(absl::StrCat(name, ": no file of a bundle"));
  return listed->second;
}

}  // namespace

absl::StatusOr<BundleManifest> OpenBundleFolder(const fs::path& folder) {
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (status.type() == fs::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat(folder.string(), ": no such bundle; ", kHowToMakeOne));
  }
  if (error) return absl::PermissionDeniedError(absl::StrCat(folder.string(), ": cannot open: ", error.message()));
  if (!fs::is_directory(status)) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder.string(), ": is not a folder, as a bundle is; ", kHowToMakeOne));
  }
  const fs::path manifest_path = folder / kManifestFile;
  if (fs::symlink_status(manifest_path, error).type() == fs::file_type::not_found) {
    return absl::InvalidArgumentError(absl::StrCat(folder.string(), ": has no ", kManifestFile,
                                                   ": not a bundle, or one that was not finished; ", kHowToMakeOne));
  }
  BEAMLINE_ASSIGN_OR_RETURN(const std::string json, ReadFile(manifest_path, kMaxManifestBytes));
  BEAMLINE_ASSIGN_OR_RETURN(BundleManifest manifest, ParseManifest(json, manifest_path.string()));

  fs::directory_iterator entries(folder, error);
  if (error) return CannotList(folder, error);
  std::vector<std::string> missing;
  for (const auto& [name, entry] : manifest.files) {
    if (fs::symlink_status(folder / name, error).type() == fs::file_type::not_found) missing.push_back(name);
  }
  if (!missing.empty() && fs::symlink_status(manifest_path, error).type() == fs::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat(folder.string(), ": went away while it was read"));
  }
  if (!missing.empty()) {
    return absl::DataLossError(absl::StrCat(folder.string(), ": ", absl::StrJoin(missing, ", "),
                                            " missing, but listed in ", kManifestFile, "; copy the bundle again"));
  }
  for (; entries != fs::directory_iterator(); entries.increment(error)) {
    BEAMLINE_RETURN_IF_ERROR(CheckEntry(*entries, manifest));
  }
  if (error) return CannotList(folder, error);
  return manifest;
}

absl::StatusOr<std::string> IdentifyBundle(const fs::path& folder) {
  BEAMLINE_ASSIGN_OR_RETURN(const BundleManifest manifest, OpenBundleFolder(folder));
  return DigestOf(manifest);
}

std::string DigestOf(const BundleManifest& manifest) { return Sha256Hex(ManifestToJson(manifest)); }

absl::StatusOr<std::string> ReadBundleFile(const fs::path& folder, const BundleManifest& manifest,
                                           const std::string& name, uint64_t max_bytes) {
  BEAMLINE_ASSIGN_OR_RETURN(const BundleFileEntry listed, Listed(manifest, name));
  if (listed.bytes > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat((folder / name).string(), ": has ", listed.bytes, " bytes, may have ", max_bytes));
  }
  BEAMLINE_ASSIGN_OR_RETURN(std::string contents, ReadFile(folder / name, listed.bytes));
  BEAMLINE_RETURN_IF_ERROR(CheckDigest(folder / name, Sha256Hex(contents), listed.sha256));
  return contents;
}

absl::StatusOr<SafetensorsFile> ReadBundleTensors(const fs::path& folder, const BundleManifest& manifest,
                                                  const std::string& name, const PartChooser& choose) {
  BEAMLINE_ASSIGN_OR_RETURN(const BundleFileEntry listed, Listed(manifest, name));
  absl::StatusOr<SafetensorsFile::Parts> read = SafetensorsFile::ReadParts((folder / name).string(), choose);
  if (!read.ok()) {  // most often because it is not the file that was listed
    if (absl::IsInvalidArgument(read.status()) || absl::IsDataLoss(read.status())) {
      BEAMLINE_RETURN_IF_ERROR(VerifyBundleFile(folder, manifest, name));
    }
    return read.status();
  }
  BEAMLINE_RETURN_IF_ERROR(CheckDigest(folder / name, read->sha256, listed.sha256));
  return std::move(read->file);
}

absl::Status VerifyBundleFile(const fs::path& folder, const BundleManifest& manifest, const std::string& name) {
  BEAMLINE_ASSIGN_OR_RETURN(const BundleFileEntry listed, Listed(manifest, name));
  BEAMLINE_ASSIGN_OR_RETURN(const BundleFileEntry actual, DescribeFile(folder / name));
  return CheckDigest(folder / name, actual.sha256, listed.sha256);
}

absl::Status VerifyBundle(const fs::path& folder) {
  BEAMLINE_ASSIGN_OR_RETURN(const BundleManifest manifest, OpenBundleFolder(folder));
  for (const auto& [name, entry] : manifest.files) {
    BEAMLINE_RETURN_IF_ERROR(VerifyBundleFile(folder, manifest, name));
  }
  return absl::OkStatus();
}

absl::StatusOr<BundleFileEntry> DescribeFile(const fs::path& path) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  // A pipe would keep who opens it, a device end never.
  if (!error && type != fs::file_type::regular) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": is not a regular file"));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return StatusOfErrno(errno, absl::StrCat(path.string(), ": cannot be opened for reading"));
  Sha256 digest;
  BundleFileEntry entry;
  std::string chunk(kHashChunkBytes, '\0');
  while (file) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    const std::streamsize count = file.gcount();
    digest.Update({chunk.data(), static_cast<size_t>(count)});
    entry.bytes += static_cast<uint64_t>(count);
  }
  if (file.bad()) return absl::DataLossError(absl::StrCat(path.string(), ": reading failed"));
  entry.sha256 = digest.HexDigest();
  return entry;
}

}  // namespace beamline::runtime
