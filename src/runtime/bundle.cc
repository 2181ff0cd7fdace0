// SPDX-License-Identifier: Apache-2.0
#include "runtime/bundle.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "beamline/status.h"
#include "catalogue/snapshot_file.h"
#include "model/sharding.h"
#include "model/size_check.h"
#include "runtime/bundle_folder.h"
#include "runtime/gate_report.h"
#include "sid/codebook.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<model::ModelConfig> LoadVerifiedConfig(const fs::path& folder, const BundleManifest& manifest) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::string json,
                            ReadBundleFile(folder, manifest, kConfigFile, model::kMaxConfigBytes));
  const std::string path = (folder / kConfigFile).string();
  BEAMLINE_ASSIGN_OR_RETURN(model::ModelConfig config, model::ParseConfig(json, path));
  if (config.family != manifest.family) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": family is '", config.family, "', ", kManifestFile, " says '", manifest.family, "'"));
  }
  return config;
}

absl::Status CheckSizesIn(const fs::path& folder, const model::ModelConfig& config, const backend::ModelLimits& limits,
                          int ranks) {
  absl::Status fits = model::CheckRanks(config, ranks);
  if (fits.ok()) fits = model::CheckSizes(config, limits, ranks);
  return fits.ok() ? fits : absl::Status(fits.code(), absl::StrCat(folder.string(), ": ", fits.message()));
}

absl::Status CheckBundleGate(const fs::path& folder, const BundleManifest& manifest, const std::string& dtype) {
  absl::Status status = absl::NotFoundError("it has none");
  if (manifest.files.contains(kGateFile)) {
    BEAMLINE_ASSIGN_OR_RETURN(const std::string json, ReadBundleFile(folder, manifest, kGateFile, kMaxGateBytes));
    if (dtype.empty()) return absl::OkStatus();
    BEAMLINE_ASSIGN_OR_RETURN(const PrecisionGateReport report, ParseGate(json, (folder / kGateFile).string()));
    status = report.dtype == dtype ? CheckGate(report, manifest)
                                   : absl::NotFoundError(absl::StrCat("the one it has is of ", report.dtype));
  }
  if (dtype.empty() || status.ok()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(folder.string(), ": dtype ", dtype, " needs a bundle with a passed quality gate of it, and ",
                   status.message(), "; run `beamline evaluate --gate ", dtype,
                   " --out gate.json` with its model and `beamline pack --gate "
                   "gate.json`, serve bf16, or, where the answers do not matter, set engine.allow_ungated_dtype"));
}

absl::Status CheckCodebook(const fs::path& folder, const BundleManifest& manifest, const model::ModelConfig& config) {
  BEAMLINE_RETURN_IF_ERROR(VerifyBundleFile(folder, manifest, kCodebookFile));
  const std::string path = (folder / kCodebookFile).string();
  BEAMLINE_ASSIGN_OR_RETURN(const sid::Codebook codebook, sid::Codebook::Load(path));
  if (codebook.fingerprint() != manifest.codebook_fingerprint) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": fingerprint is ", codebook.fingerprint(), ", ",
                                                   kManifestFile, " says ", manifest.codebook_fingerprint,
                                                   "; pack the model with the codebook it was trained on"));
  }
  if (codebook.level_sizes() != config.level_sizes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": level sizes are ",
                                                   sid::FormatLevelSizes(codebook.level_sizes()), ", ", kConfigFile,
                                                   " says ", sid::FormatLevelSizes(config.level_sizes)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTables(const model::ModelConfig& config, const Vocabulary& vocabulary, const std::string& source) {
  const int64_t tokens = static_cast<int64_t>(vocabulary.tokens().size()),
                wanted = config.is_t5() ? config.t5.vocabulary : 0;
  if (tokens != wanted) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": names ", tokens, " tokens, the model's embedding has ",
                                                   wanted, " rows; take both from one `beamline import hf`"));
  }
  if (config.is_t5()) return absl::OkStatus();
  for (const model::PathwayConfig* pathway : {&config.short_term, &config.positive}) {
    for (const model::FeatureConfig& feature : pathway->features) {
      int64_t rows = 0;
      if (feature.kind == model::FeatureKind::kItem) rows = vocabulary.num_items();
      if (feature.kind == model::FeatureKind::kAuthor) rows = vocabulary.num_authors();
      if (rows <= model::FeatureBuckets(feature)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(source, ": feature ", std::string(model::FeatureName(feature.kind)), " has ",
                       model::FeatureBuckets(feature), " buckets, the vocabulary needs ", rows,
                       "; raise its buckets, or take config, weights and vocabulary from the same training run"));
    }
  }
  return absl::OkStatus();
}

namespace {

absl::StatusOr<std::shared_ptr<const catalogue::CatalogueSnapshot>> LoadCatalogue(const fs::path& folder,
                                                                                  const BundleManifest& manifest,
                                                                                  const model::ModelConfig& config,
                                                                                  const std::string& replacement) {
  BEAMLINE_RETURN_IF_ERROR(VerifyBundleFile(folder, manifest, kItemsFile));
  const fs::path path = replacement.empty() ? folder / kItemsFile : fs::path(replacement);
  catalogue::LoadOptions options;
  options.expected_fingerprint = manifest.codebook_fingerprint;
  BEAMLINE_ASSIGN_OR_RETURN(auto snapshot, catalogue::LoadSnapshot(path, options));
  if (snapshot->level_sizes() != config.level_sizes) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": level sizes are ",
                                                   sid::FormatLevelSizes(snapshot->level_sizes()), ", the model's ",
                                                   sid::FormatLevelSizes(config.level_sizes)));
  }
  if (replacement.empty() && snapshot->version() != manifest.catalogue_version) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": version is '", snapshot->version(), "', ",
                                                   kManifestFile, " says '", manifest.catalogue_version, "'"));
  }
  return snapshot;
}

absl::Status ReadCodes(const fs::path& folder, Bundle& bundle) {
  BEAMLINE_RETURN_IF_ERROR(CheckCodebook(folder, bundle.manifest, bundle.config));

  const std::string vocabulary_path = (folder / kVocabularyFile).string();
  BEAMLINE_ASSIGN_OR_RETURN(const std::string vocabulary, ReadBundleFile(folder, bundle.manifest, kVocabularyFile));
  BEAMLINE_ASSIGN_OR_RETURN(Vocabulary parsed, Vocabulary::Parse(vocabulary, vocabulary_path));
  BEAMLINE_RETURN_IF_ERROR(CheckTables(bundle.config, parsed, vocabulary_path));
  bundle.vocabulary = std::make_shared<const Vocabulary>(std::move(parsed));
  return absl::OkStatus();
}

// All that takes memory by the bundle's size. A catalogue from elsewhere has a writer of its own.
absl::Status ReadParts(const fs::path& folder, const LoadBundleOptions& options, Bundle& bundle) {
  const std::string& writer = bundle.manifest.written_by;
  BEAMLINE_RETURN_IF_ERROR(NameWriter(ReadCodes(folder, bundle), writer));

  auto catalogue = LoadCatalogue(folder, bundle.manifest, bundle.config, options.catalogue);
  BEAMLINE_RETURN_IF_ERROR(options.catalogue.empty() ? NameWriter(catalogue.status(), writer) : catalogue.status());
  bundle.catalogue = *std::move(catalogue);

  const PartChooser parts = options.shard.whole() ? nullptr : model::ChoosePartsOfRank(bundle.config, options.shard);
  auto weights = ReadBundleTensors(folder, bundle.manifest, kWeightsFile, parts);
  BEAMLINE_RETURN_IF_ERROR(NameWriter(weights.status(), writer));
  bundle.weights = *std::move(weights);
  return absl::OkStatus();
}

// Whether the weights' file can hold what the config describes, by its size. Memory that seems to lack for weights that
// are not there is no reason to try again later.
absl::Status CheckWeightsBytes(const fs::path& folder, const BundleManifest& manifest,
                               const model::ModelConfig& config) {
  const std::vector<model::WeightSpec> schema = model::WeightSchema(config);
  const auto fewer = [](const model::WeightSpec& a, const model::WeightSpec& b) { return a.elements() < b.elements(); };
  const auto largest = std::max_element(schema.begin(), schema.end(), fewer);
  constexpr int64_t kLeastElementBytes = 2;  // bf16
  const auto file = manifest.files.find(kWeightsFile);
  const int64_t needed = kLeastElementBytes * model::CountParameters(config).total,
                bytes = file == manifest.files.end() ? 0 : static_cast<int64_t>(file->second.bytes);
  if (bytes >= needed) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat((folder / kConfigFile).string(), ": describes weights of at least ",
                                                 needed, " bytes, the largest ", largest->name, " [",
                                                 absl::StrJoin(largest->shape, ","), "]; ", kWeightsFile, " has ",
                                                 bytes, "; take config and weights from the same training run"));
}

// All but the manifest, by it.
absl::Status ReadByManifest(const fs::path& folder, const LoadBundleOptions& options, Bundle& bundle) {
  BEAMLINE_RETURN_IF_ERROR(CheckBundleGate(folder, bundle.manifest, options.gated_dtype));
  auto config = LoadVerifiedConfig(folder, bundle.manifest);
  BEAMLINE_RETURN_IF_ERROR(NameWriter(config.status(), bundle.manifest.written_by));
  bundle.config = *std::move(config);
  BEAMLINE_RETURN_IF_ERROR(CheckSizesIn(folder, bundle.config, options.limits, options.shard.size));
  bundle.memory = EstimateMemory(bundle.manifest, bundle.config, options.memory);
  if (const absl::Status fits = CheckEstimate(folder, bundle.memory, options.memory, options.memory_limit_bytes);
      !fits.ok()) {
    BEAMLINE_RETURN_IF_ERROR(CheckWeightsBytes(folder, bundle.manifest, bundle.config));
    return fits;
  }
  return LoadingBesideEstimate(folder.string(), bundle.memory.Describe(),
                               [&] { return ReadParts(folder, options, bundle); });
}

}  // namespace

absl::Status CheckBundleSizes(const fs::path& folder, const backend::ModelLimits& limits, int ranks) {
  BEAMLINE_ASSIGN_OR_RETURN(const BundleManifest manifest, OpenBundleFolder(folder));
  BEAMLINE_ASSIGN_OR_RETURN(const model::ModelConfig config, LoadVerifiedConfig(folder, manifest));
  return CheckSizesIn(folder, config, limits, ranks);
}

absl::StatusOr<Bundle> LoadBundle(const fs::path& folder, const LoadBundleOptions& options) {
  Bundle bundle;
  BEAMLINE_ASSIGN_OR_RETURN(bundle.manifest, OpenBundleFolder(folder));
  if (const std::string digest = DigestOf(bundle.manifest); !options.digest.empty() && digest != options.digest) {
    return absl::AbortedError(absl::StrCat(folder.string(),
                                           ": was replaced by another bundle while it was loaded: had digest ",
                                           options.digest, ", has ", digest, "; load it again"));
  }
  BEAMLINE_RETURN_IF_ERROR(ReadByManifest(folder, options, bundle));
  return bundle;
}

}  // namespace beamline::runtime
