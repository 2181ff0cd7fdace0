// SPDX-License-Identifier: Apache-2.0
//
// A catalogue of made-up items with uniform SIDs, of any size: for measuring the catalogue and the search, and for load
// tests. `beamline generate-data catalogue` is this function. Deterministic in its options.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/progress.h"
#include "catalogue/snapshot.h"

namespace beamline::catalogue {

struct GenerateOptions {
  uint64_t items = 10'000'000;
  int levels = 3;
  uint32_t codes = 8192;  // per level
  uint64_t seed = 1;
  std::string codebook_fingerprint;  // empty: one derived from levels and codes, that no real codebook has
};

// Items have ids 1..items, an author, a duration, a creation time, a relevance, a title, and the tags "region" (8
// values), "category" (64) and, for a tenth of them, "age" = "18+". INVALID_ARGUMENT names the option out of range.
absl::StatusOr<std::shared_ptr<const CatalogueSnapshot>> GenerateCatalogue(const GenerateOptions& options,
                                                                           Progress* progress = nullptr);

}  // namespace beamline::catalogue
