// SPDX-License-Identifier: Apache-2.0
//
// The small files of a bundle behind their digests: manifest, model configuration, vocabulary, codebook, gate. A
// refusal names the file; what is read is valid by its own check, is the same when written again, and can be sized
// without overflow.
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "fuzz/fuzz_target.h"
#include "model/config.h"
#include "model/weight_schema.h"
#include "runtime/bundle_manifest.h"
#include "runtime/gate_report.h"
#include "runtime/vocabulary.h"
#include "sid/codebook.h"

namespace beamline::runtime {
namespace {

using fuzz::Require;

void CheckManifest(absl::string_view bytes) {
  const auto manifest = ParseManifest(bytes, kManifestFile);
  if (!manifest.ok()) return fuzz::RequireNames(manifest.status(), kManifestFile);
  const auto again = ParseManifest(ManifestToJson(*manifest), kManifestFile);
  fuzz::RequireOk(again.status(), "a manifest that was written can be read");
  Require(*again == *manifest, "and is the same");
}

void CheckModelConfig(absl::string_view bytes) {
  const auto config = model::ParseConfig(bytes, kConfigFile);
  if (!config.ok()) return fuzz::RequireNames(config.status(), kConfigFile);
  fuzz::RequireOk(model::ValidateConfig(*config), "what was read is valid");
  const std::string json = model::ConfigToJson(*config);
  const auto again = model::ParseConfig(json, kConfigFile);
  fuzz::RequireOk(again.status(), "a configuration that was written can be read");
  Require(model::ConfigToJson(*again) == json, "and is the same");
  const int64_t bytes_needed = model::EstimateWeightBytes(*config, {});
  Require(bytes_needed > 0 && model::CountParameters(*config).total > 0, "sizes are positive");
}

void CheckVocabulary(absl::string_view bytes) {
  const auto vocabulary = Vocabulary::Parse(bytes, kVocabularyFile);
  if (!vocabulary.ok()) return fuzz::RequireNames(vocabulary.status(), kVocabularyFile);
  uint32_t index = 0;
  for (const ItemId item : vocabulary->items()) {
    Require(vocabulary->ItemIndex(item) == ++index, "an item has its place");
    vocabulary->Popularity(item);
  }
  const absl::Span<const int64_t> tokens = vocabulary->tokens();
  const int64_t rows = static_cast<int64_t>(tokens.size());
  std::vector<bool> taken(tokens.size(), false);
  for (const int64_t token : tokens) {
    if (token == -1) continue;
    Require(token >= 0 && token < rows, "a token is below the number of rows");
    Require(!taken[token], "and of one row");
    taken[token] = true;
  }
}

void CheckGateReport(absl::string_view bytes) {
  const auto report = ParseGate(bytes, kGateFile);
  if (!report.ok()) return fuzz::RequireNames(report.status(), kGateFile);
  const auto again = ParseGate(GateToJson(*report).dump(), kGateFile);
  fuzz::RequireOk(again.status(), "a report that was written can be read");
  Require(GateTable(*again) == GateTable(*report), "and is the same");
}

void CheckCodebook(const fuzz::ScratchFile& file) {
  const auto codebook = sid::Codebook::Load(file.path());
  if (!codebook.ok()) return fuzz::RequireNames(codebook.status(), file.path());
  fuzz::RequireOk(sid::CheckLevelSizes(codebook->level_sizes()), "level sizes are in range");
}

}  // namespace
}  // namespace beamline::runtime

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace beamline;  // NOLINT(google-build-using-namespace)
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  runtime::CheckManifest(bytes);
  runtime::CheckModelConfig(bytes);
  runtime::CheckVocabulary(bytes);
  runtime::CheckGateReport(bytes);
  static const fuzz::ScratchFile file("codebook.safetensors");
  file.Write(fuzz::AsText(data, size));
  runtime::CheckCodebook(file);
  return 0;
}
