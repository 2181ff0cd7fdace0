// SPDX-License-Identifier: Apache-2.0
//
// bundle.json: what a bundle is and the digest of every file in it. Written last, so a bundle without one is
// unfinished. Parsing refuses unknown and missing keys, wrong types and other schema versions with the JSON path;
// reading a folder's contents against it is runtime/bundle.h. A plain value.
//
//   {"schema_version": 1, "family": "onerec_v1", "model_version": "...", "codebook_fingerprint": "...",
//    "catalogue_version": "...", "written_by": "0.1.0 (0123456789ab)",
//    "files": {"config.json": {"bytes": 812, "sha256": "..."}, ...}, "digest": "..."}
//
// `digest` is the SHA-256 of the same document without it, as ManifestToJson writes it: a damaged manifest is refused.
// `written_by` is what wrote the bundle (base/program.h), and alone may be missing: a refusal names it where it is
// another Beamline than this one, since a part that seems wrong may be one that this one does not know yet.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace beamline::runtime {

// Raised whenever a reader of the release before could read a bundle wrongly or not at all, be it for a key here, a
// file, a key of config.json or a tensor of a file: that reader then says so before it looks at anything else. 1 is the
// version of the first release, with all that came before it.
inline constexpr int kBundleSchemaVersion = 1;
inline constexpr uint64_t kMaxManifestBytes = 1 << 20;
inline constexpr char kManifestFile[] = "bundle.json";
inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kWeightsFile[] = "model.safetensors";
inline constexpr char kCodebookFile[] = "codebook.safetensors";
inline constexpr char kVocabularyFile[] = "vocabulary.safetensors";
inline constexpr char kItemsFile[] = "items";
inline constexpr char kGateFile[] = "gate.json";

// The files that every bundle has besides the manifest.
absl::Span<const absl::string_view> BundleFileNames();
// What a bundle may have, too: kGateFile (gate_report.h), and tuning of devices (tuning_file.h). Nothing else.
bool IsOptionalBundleFile(absl::string_view name);

struct BundleFileEntry {
  uint64_t bytes = 0;
  std::string sha256;  // 64 lower-case hexadecimal digits

  friend bool operator==(const BundleFileEntry&, const BundleFileEntry&) = default;
};

struct BundleManifest {
  std::string family;
  std::string model_version;  // 1..128 letters, digits, '.', '_' or '-'
  std::string codebook_fingerprint;
  std::string catalogue_version;
  std::map<std::string, BundleFileEntry> files;
  std::string written_by;  // empty: by one that did not say it

  friend bool operator==(const BundleManifest&, const BundleManifest&) = default;
};

absl::StatusOr<BundleManifest> ParseManifest(absl::string_view json, absl::string_view source_name);
std::string ManifestToJson(const BundleManifest& manifest);

// `status` of a bundle that was refused, or of a part of it; where that is for what it says and another Beamline than
// this one wrote it, with both.
absl::Status NameWriter(const absl::Status& status, absl::string_view written_by);

// INVALID_ARGUMENT unless `version` may name a model.
absl::Status CheckModelVersion(absl::string_view version);

}  // namespace beamline::runtime
