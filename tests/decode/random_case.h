// SPDX-License-Identifier: Apache-2.0
//
// Random tiny worlds for the search: catalogues of any level count and uneven sizes, eligibilities that mix rule, deny
// and allow, widths, and logits with ties, -inf and worse. Everything follows from the seed.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "beamline/catalogue.h"
#include "catalogue/eligibility.h"
#include "catalogue/snapshot.h"
#include "decode/naive_beam.h"
#include "model/weight_schema.h"
#include "model/weights.h"

namespace beamline::decode::testing {

struct TinyCatalogue {
  std::vector<uint32_t> level_sizes;
  std::vector<CatalogueItem> items;  // several may share a SID
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot;

  std::set<std::vector<Code>> Prefixes() const;
};

TinyCatalogue MakeCatalogue(std::vector<uint32_t> level_sizes, std::vector<CatalogueItem> items);
// 1..5 levels of 1..9 codes, 1..`max_items` items with tags kind=k0..k2 and, for some, region=r0..r1.
TinyCatalogue RandomCatalogue(std::mt19937_64& random, int max_items);

// Any mix of a rule, a deny list and an allow list; each absent half of the time.
Eligibility RandomEligibility(std::mt19937_64& random, const TinyCatalogue& catalogue);
std::shared_ptr<const catalogue::CompiledEligibility> Compile(const TinyCatalogue& catalogue,
                                                              const Eligibility& eligibility);

enum class LogitsKind { kNormal, kTied, kSomeMinusInf, kSomeNonFinite };
LogitsOf RandomLogits(std::vector<uint32_t> level_sizes, uint64_t seed, LogitsKind kind);

std::vector<int> RandomWidths(std::mt19937_64& random, int levels, int max_width);

// Initial weights for `ctx`, those that are drawn three times as large: so that logits are far from uniform.
model::Weights LargeWeights(backend::Context& ctx, const model::ModelConfig& config, uint64_t seed);

int UniformInt(std::mt19937_64& random, int low, int high);

}  // namespace beamline::decode::testing
