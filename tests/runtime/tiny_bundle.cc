// SPDX-License-Identifier: Apache-2.0
#include "runtime/tiny_bundle.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/context.h"
#include "base/digest.h"
#include "base/file.h"
#include "beamline/request.h"
#include "beamline/status.h"
#include "catalogue/snapshot_builder.h"
#include "model/weights.h"
#include "runtime/bundle_writer.h"
#include "runtime/vocabulary.h"
#include "sid/codebook.h"

namespace beamline::runtime::testing {
namespace {

namespace fs = std::filesystem;
using model::FeatureKind;

constexpr ItemId kFirstItem = 1000;
constexpr int kAuthors = 9;

int Uniform(std::mt19937_64& random, int low, int high) {
  return low + static_cast<int>(random() % static_cast<uint64_t>(high - low + 1));
}

absl::StatusOr<sid::Codebook> TinyCodebook(const TinyBundleOptions& options) {
  return sid::Codebook::Foreign("tiny", options.level_sizes, Sha256Hex(absl::StrCat("tiny ", options.seed)));
}

model::PathwayConfig Pathway(int length, const TinyBundleOptions& options) {
  const int items = options.items, width = options.feature_width;
  model::PathwayConfig pathway;
  pathway.length = length;
  pathway.features = {{FeatureKind::kSid, 0, 0, true},
                      {FeatureKind::kItem, items + 1, 8, false},
                      {FeatureKind::kAuthor, kAuthors + 1, width, false},
                      {FeatureKind::kTag, 16, width, false},
                      {FeatureKind::kGap, 16, width, false},
                      {FeatureKind::kHour, 0, width, false},
                      {FeatureKind::kPlay, 8, width, false},
                      {FeatureKind::kDuration, 8, width, false},
                      {FeatureKind::kLabels, 0, width, false}};
  return pathway;
}

}  // namespace

model::ModelConfig TinyConfig(const TinyBundleOptions& options) {
  model::ModelConfig config;
  config.level_sizes = options.level_sizes;
  config.d_model = 32;
  config.heads = options.heads;
  config.head_dim = 32 / options.heads;
  config.user = {
      .user_buckets = 0, .attribute_buckets = 32, .attributes = {"active_degree"}, .width = 8, .enabled = true};
  config.short_term = Pathway(6, options);
  config.positive = Pathway(12, options);
  config.encoder.layers = 1;
  config.encoder.causal = options.causal;
  config.encoder.ffn.width = 64;
  config.decoder.layers = 2;
  config.decoder.trunk_layers = options.trunk_layers;
  config.decoder.ffn.width = 64;
  if (options.moe) {
    config.decoder.ffn.experts = 4;
    config.decoder.ffn.top_k = 2;
  }
  if (options.ranked) config.ranker = {.width = 16, .heads = {{kLongView, 1.0}, {kLike, 2.0}}};
  if (options.change) options.change(config);
  return config;
}

std::vector<CatalogueItem> TinyItems(const TinyBundleOptions& options) {
  std::mt19937_64 random(options.seed);
  std::vector<CatalogueItem> items(options.items);
  for (size_t i = 0; i < items.size(); ++i) {
    CatalogueItem& item = items[i];
    item.item = kFirstItem + i;
    if (i > 0 && i % 5 == 0) {
      item.sid = items[i - 1].sid;
    } else {
      for (uint32_t size : options.level_sizes) item.sid.push_back(Uniform(random, 0, static_cast<int>(size) - 1));
    }
    item.attributes.author = Uniform(random, 1, kAuthors);
    item.attributes.duration_ms = Uniform(random, 5, 120) * 1000;
    item.attributes.created_ms = 1'600'000'000'000 + static_cast<int64_t>(i);
    item.attributes.relevance = static_cast<float>(Uniform(random, 0, 100)) / 10;
    item.attributes.title = absl::StrCat("Video ", item.item);
    item.attributes.tags.push_back({"tag", absl::StrCat("t", Uniform(random, 0, 4))});
    if (i % 3 != 0) item.attributes.tags.push_back({"region", i % 2 == 0 ? "DE" : "US"});
  }
  return items;
}

std::vector<Event> TinyHistory(uint64_t seed, int length, const TinyBundleOptions& options) {
  std::mt19937_64 random(seed);
  std::vector<Event> history(length);
  int64_t now = 1'650'000'000'000;
  for (Event& event : history) {
    now += Uniform(random, 1, 100) * 1000;
    event.item = kFirstItem + Uniform(random, 0, options.items - 1);
    event.timestamp_ms = now;
    event.play_time_ms = Uniform(random, 0, 60) * 1000;
    event.labels = kClick;
    if (Uniform(random, 0, 1) == 1) event.labels |= kLongView;
  }
  return history;
}

absl::Status WriteTinyParts(const fs::path& folder, const TinyBundleOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(MakeFolder(folder));
  const model::ModelConfig config = TinyConfig(options);
  BEAMLINE_RETURN_IF_ERROR(model::SaveConfig(config, (folder / kConfigFile).string()));
  BEAMLINE_ASSIGN_OR_RETURN(backend::Context ctx, backend::MakeContext("cpu", "fp32"));
  BEAMLINE_RETURN_IF_ERROR(
      model::SaveWeights(ctx, config, model::InitWeights(ctx, config, options.seed), (folder / kWeightsFile).string()));
  std::vector<ItemId> items;
  std::vector<uint64_t> authors;
  for (const CatalogueItem& item : TinyItems(options)) {
    items.push_back(item.item);
    authors.push_back(item.attributes.author);
  }
  BEAMLINE_RETURN_IF_ERROR(Vocabulary(items, authors).Save((folder / kVocabularyFile).string()));
  BEAMLINE_ASSIGN_OR_RETURN(const sid::Codebook codebook, TinyCodebook(options));
  return codebook.Save((folder / kCodebookFile).string());
}

absl::StatusOr<BundleManifest> WriteTinyBundle(const fs::path& folder, const TinyBundleOptions& options) {
  const fs::path parts_folder = folder.string() + ".parts";
  BEAMLINE_RETURN_IF_ERROR(WriteTinyParts(parts_folder, options));
  BEAMLINE_ASSIGN_OR_RETURN(const sid::Codebook codebook, TinyCodebook(options));
  catalogue::SnapshotOptions snapshot;
  snapshot.codebook_fingerprint = codebook.fingerprint();
  snapshot.level_sizes = options.level_sizes;
  BEAMLINE_ASSIGN_OR_RETURN(catalogue::SnapshotBuilder builder, catalogue::SnapshotBuilder::Create(snapshot));
  for (const CatalogueItem& item : TinyItems(options)) BEAMLINE_RETURN_IF_ERROR(builder.Add(item));

  BundleParts parts;
  parts.config = parts_folder / kConfigFile;
  parts.weights = parts_folder / kWeightsFile;
  parts.vocabulary = parts_folder / kVocabularyFile;
  parts.codebook = parts_folder / kCodebookFile;
  parts.model_version = options.model_version;
  BEAMLINE_ASSIGN_OR_RETURN(parts.catalogue, std::move(builder).Build());
  absl::StatusOr<BundleManifest> manifest = WriteBundle(parts, folder, {.overwrite = true});
  std::error_code ignored;
  fs::remove_all(parts_folder, ignored);
  return manifest;
}

}  // namespace beamline::runtime::testing
