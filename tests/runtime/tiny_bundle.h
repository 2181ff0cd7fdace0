// SPDX-License-Identifier: Apache-2.0
//
// A small bundle with random weights, made through the product's own path: for tests and examples that need something
// to load. The same options give the same bytes. Target: beamline_tiny_bundle.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "beamline/catalogue.h"
#include "beamline/request.h"
#include "model/config.h"
#include "runtime/bundle_manifest.h"

namespace beamline::runtime::testing {

struct TinyBundleOptions {
  uint64_t seed = 1;
  std::vector<uint32_t> level_sizes = {8, 6, 10};
  int items = 150;  // ids 1000, 1001, ...; several share a SID
  bool moe = false;
  bool causal = false;
  int trunk_layers = 0;   // of two decoder layers
  int heads = 2;          // of 32 dimensions in all
  int feature_width = 4;  // of most features' tables; the cuda backend wants a multiple of 8
  bool ranked = false;
  std::string model_version;                        // empty: derived
  std::function<void(model::ModelConfig&)> change;  // of what the others make; null: nothing
};

// Every kind of feature, static token, both pathways.
model::ModelConfig TinyConfig(const TinyBundleOptions& options = {});

// Items with tags "tag" (t0..t4) and, for two thirds, "region" (DE or US), authors 1..9, durations and relevances.
std::vector<CatalogueItem> TinyItems(const TinyBundleOptions& options = {});

// What WriteTinyBundle joins: config.json, model.safetensors, vocabulary.safetensors, codebook.safetensors in `folder`.
absl::Status WriteTinyParts(const std::filesystem::path& folder, const TinyBundleOptions& options = {});

absl::StatusOr<BundleManifest> WriteTinyBundle(const std::filesystem::path& folder,
                                               const TinyBundleOptions& options = {});

// A deterministic history over the items, oldest first.
std::vector<Event> TinyHistory(uint64_t seed, int length, const TinyBundleOptions& options = {});

}  // namespace beamline::runtime::testing
