// SPDX-License-Identifier: Apache-2.0
//
// From what the other commands leave behind to a bundle: the checkpoint of `beamline train` (config.json,
// model.safetensors, vocabulary.safetensors), the codebook and SIDs of `beamline tokenize` (codebook.safetensors,
// sids.tsv), and an item table for the attributes. An item gets into the catalogue iff it has a SID; what only one of
// the two tables has is counted. Thread-safe but for the folder that is written; a Progress may be null.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/progress.h"
#include "catalogue/snapshot.h"
#include "runtime/bundle_manifest.h"
#include "runtime/vocabulary.h"

namespace beamline::runtime {

inline constexpr char kSidsFile[] = "sids.tsv";  // of a tokenizer folder

struct CatalogueSources {
  std::filesystem::path tokenizer;  // folder with codebook.safetensors and sids.tsv
  std::filesystem::path items;      // item table; empty: items without attributes
  std::string version;              // of the catalogue; empty: derived from its contents
  // Where not null, and the item table rates no item (relevance 0 or empty throughout): items are ordered inside their
  // SID by their popularity in training, as `beamline evaluate` orders them. Outlives the call.
  const Vocabulary* vocabulary = nullptr;
};

struct CatalogueJoin {
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot;
  int64_t without_sid = 0;         // rows of the item table
  int64_t without_attributes = 0;  // items with a SID that the table does not have
  int64_t bad_rows = 0;
  std::string bad_rows_summary;  // empty: none
};

absl::StatusOr<CatalogueJoin> JoinCatalogue(const CatalogueSources& sources, Progress* progress = nullptr);

struct PackOptions {
  std::filesystem::path model;  // checkpoint folder
  CatalogueSources catalogue;
  std::filesystem::path out;
  std::string model_version;   // empty: derived
  std::filesystem::path gate;  // report of `beamline evaluate --gate TYPE --out`, of this model; empty: none
  std::vector<std::filesystem::path> tuning;  // of a server's tuning folder, or of another bundle, a device each
  bool overwrite = false;
};

// The catalogue of a bundle of these options, alone: the same whether it travels in the bundle or beside it. Where
// `model` is empty, nothing is known of popularity, nor of what the model was trained with.
absl::StatusOr<CatalogueJoin> PackCatalogue(const PackOptions& options, Progress* progress = nullptr);

struct PackResult {
  BundleManifest manifest;
  CatalogueJoin catalogue;
};

absl::StatusOr<PackResult> Pack(const PackOptions& options, Progress* progress = nullptr);

}  // namespace beamline::runtime
