// SPDX-License-Identifier: Apache-2.0
#include "runtime/bundle_manifest.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/program.h"
#include "base/utf8.h"
#include "beamline/status.h"
#include "runtime/tuning_file.h"

namespace beamline::runtime {
namespace {

// Not constexpr: under UBSan gcc 12 does not take a null check of an array for a constant.
const std::array<absl::string_view, 5> kFileNames = {kConfigFile, kWeightsFile, kCodebookFile, kVocabularyFile,
                                                     kItemsFile};
constexpr size_t kMaxVersionLength = 128;
constexpr size_t kMaxTextLength = 256;
constexpr char kWrittenBy[] = "written_by";
constexpr size_t kMaxProblemBytes = 1000;  // what is shown of a value has no limit of its own

absl::Status Error(absl::string_view source, absl::string_view path, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(source, ": ", PrintableUtf8(absl::StrCat(path, ": ", what), kMaxProblemBytes)));
}

struct Keys {
  std::set<std::string> required;
  bool (*is_optional)(absl::string_view) = nullptr;  // none is
};

absl::Status CheckKeys(const nlohmann::json& object, const Keys& keys, absl::string_view source,
                       absl::string_view path) {
  if (!object.is_object()) return Error(source, path, absl::StrCat("must be an object, is ", object.type_name()));
  for (const auto& [key, value] : object.items()) {
    if (!keys.required.contains(key) && (keys.is_optional == nullptr || !keys.is_optional(key))) {
      return Error(source, path,
                   absl::StrCat("unknown key '", key, "'; known: ", absl::StrJoin(keys.required, ", "),
                                keys.is_optional == nullptr ? "" : ", and some that may be missing"));
    }
  }
  for (const std::string& key : keys.required) {
    if (!object.contains(key)) return Error(source, path, absl::StrCat("key '", key, "' is missing"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Text(const nlohmann::json& object, const std::string& key, absl::string_view source) {
  const nlohmann::json& value = object.at(key);
  if (!value.is_string()) return Error(source, key, absl::StrCat("must be a string, is ", value.type_name()));
  std::string text = value.get<std::string>();
  if (text.empty() || text.size() > kMaxTextLength) {
    return Error(source, key, absl::StrCat("must have 1..", kMaxTextLength, " bytes, has ", text.size()));
  }
  return text;
}

absl::StatusOr<BundleFileEntry> ParseFile(const nlohmann::json& entry, const std::string& path,
                                          absl::string_view source) {
  BEAMLINE_RETURN_IF_ERROR(CheckKeys(entry, {.required = {"bytes", "sha256"}}, source, path));
  const nlohmann::json& bytes = entry.at("bytes");
  if (!bytes.is_number_unsigned()) return Error(source, path + ".bytes", "must be a number of bytes");
  const nlohmann::json& sha256 = entry.at("sha256");
  if (!sha256.is_string()) return Error(source, path + ".sha256", "must be a string");
  BundleFileEntry file{bytes.get<uint64_t>(), sha256.get<std::string>()};
  const bool hex = std::all_of(file.sha256.begin(), file.sha256.end(),
                               [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (!hex || file.sha256.size() != 64) {
    return Error(source, path + ".sha256", "must be 64 lower-case hexadecimal digits");
  }
  return file;
}

nlohmann::ordered_json WithoutDigest(const BundleManifest& manifest) {
  nlohmann::ordered_json root;
  root["schema_version"] = kBundleSchemaVersion;
  root["family"] = manifest.family;
  root["model_version"] = manifest.model_version;
  root["codebook_fingerprint"] = manifest.codebook_fingerprint;
  root["catalogue_version"] = manifest.catalogue_version;
  if (!manifest.written_by.empty()) root[kWrittenBy] = manifest.written_by;
  root["files"] = nlohmann::ordered_json::object();
  for (const auto& [name, entry] : manifest.files) {
    root["files"][name] = {{"bytes", entry.bytes}, {"sha256", entry.sha256}};
  }
  return root;
}

std::string ToText(const nlohmann::ordered_json& root) {
  return root.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

absl::Status ParseSchemaVersion(const nlohmann::json& root, absl::string_view source) {
  if (!root.is_object() || !root.contains("schema_version")) return Error(source, "schema_version", "is missing");
  const nlohmann::json& version = root.at("schema_version");
  if (!version.is_number_integer() || version != kBundleSchemaVersion) {
    return Error(source, "schema_version",
                 absl::StrCat("is ", version.dump(), ", this program reads ", kBundleSchemaVersion,
                              "; pack the bundle again with this version's `beamline pack`, or upgrade"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Span<const absl::string_view> BundleFileNames() { return kFileNames; }

bool IsOptionalBundleFile(absl::string_view name) { return name == kGateFile || IsTuningFileInBundle(name); }

absl::Status CheckModelVersion(absl::string_view version) {
  const bool plain = std::all_of(version.begin(), version.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
  if (plain && !version.empty() && version.size() <= kMaxVersionLength) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("model_version: must be 1..", kMaxVersionLength, " letters, digits, '.', '_' or '-', is '",
                   version.substr(0, kMaxVersionLength), "' (", version.size(), " bytes)"));
}

absl::Status NameWriter(const absl::Status& status, absl::string_view written_by) {
  // Damage, memory and the like have nothing to do with versions.
  const bool of_content = absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status);
  const std::string build = ProgramBuild();
  if (!of_content || written_by.empty() || written_by == build) return status;
  absl::Status named(status.code(), absl::StrCat(status.message(), "; the bundle was written by Beamline ",
                                                 PrintableUtf8(written_by, kMaxTextLength), ", this is ", build));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { named.SetPayload(url, payload); });
  return named;
}

namespace {

absl::StatusOr<BundleManifest> ParseRoot(const nlohmann::json& root, const std::string& source) {
  // The version first: another version's other keys are no surprise.
  BEAMLINE_RETURN_IF_ERROR(ParseSchemaVersion(root, source));
  BEAMLINE_RETURN_IF_ERROR(CheckKeys(root,
                                     {.required = {"schema_version", "family", "model_version", "codebook_fingerprint",
                                                   "catalogue_version", "files", "digest"},
                                      .is_optional = [](absl::string_view key) { return key == kWrittenBy; }},
                                     source, "$"));
  BundleManifest manifest;
  BEAMLINE_ASSIGN_OR_RETURN(manifest.family, Text(root, "family", source));
  BEAMLINE_ASSIGN_OR_RETURN(manifest.model_version, Text(root, "model_version", source));
  BEAMLINE_ASSIGN_OR_RETURN(manifest.codebook_fingerprint, Text(root, "codebook_fingerprint", source));
  BEAMLINE_ASSIGN_OR_RETURN(manifest.catalogue_version, Text(root, "catalogue_version", source));
  if (root.contains(kWrittenBy)) {
    BEAMLINE_ASSIGN_OR_RETURN(manifest.written_by, Text(root, kWrittenBy, source));
  }
  if (absl::Status status = CheckModelVersion(manifest.model_version); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": ", status.message()));
  }
  const nlohmann::json& files = root.at("files");
  BEAMLINE_RETURN_IF_ERROR(
      CheckKeys(files, {{kFileNames.begin(), kFileNames.end()}, IsOptionalBundleFile}, source, "files"));
  for (const auto& [name, entry] : files.items()) {
    BEAMLINE_ASSIGN_OR_RETURN(manifest.files[name], ParseFile(entry, absl::StrCat("files.", name), source));
  }
  BEAMLINE_ASSIGN_OR_RETURN(const std::string digest, Text(root, "digest", source));
  if (digest != Sha256Hex(ToText(WithoutDigest(manifest)))) {
    return Error(source, "digest", "does not fit the rest; the manifest was damaged or edited: copy the bundle again");
  }
  return manifest;
}

}  // namespace

absl::StatusOr<BundleManifest> ParseManifest(absl::string_view json, absl::string_view source_name) {
  JsonLimits limits;
  limits.max_depth = 4;
  limits.max_bytes = kMaxManifestBytes;
  const std::string source(source_name);
  BEAMLINE_ASSIGN_OR_RETURN(const nlohmann::json root, ParseJson(json, source, limits));
  absl::StatusOr<BundleManifest> manifest = ParseRoot(root, source);
  if (manifest.ok() || !root.is_object() || !root.contains(kWrittenBy)) return manifest;
  const absl::StatusOr<std::string> written_by = Text(root, kWrittenBy, source);
  return written_by.ok() ? NameWriter(manifest.status(), *written_by) : manifest.status();
}

std::string ManifestToJson(const BundleManifest& manifest) {
  nlohmann::ordered_json root = WithoutDigest(manifest);
  root["digest"] = Sha256Hex(ToText(root));
  return ToText(root);
}

}  // namespace beamline::runtime
