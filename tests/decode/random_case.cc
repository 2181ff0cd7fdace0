// SPDX-License-Identifier: Apache-2.0
#include "decode/random_case.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/ops.h"
#include "catalogue/rule_cache.h"
#include "catalogue/snapshot_builder.h"

namespace beamline::decode::testing {
namespace {

constexpr char kFingerprint[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(std::string(value.status().message()));
  return *std::move(value);
}

std::vector<ItemId> SomeItems(std::mt19937_64& random, const TinyCatalogue& catalogue, double share) {
  std::vector<ItemId> some;
  for (const CatalogueItem& item : catalogue.items) {
    if (std::uniform_real_distribution<>(0, 1)(random) < share) some.push_back(item.item);
  }
  some.push_back(987654321);  // not in the catalogue
  return some;
}

}  // namespace

int UniformInt(std::mt19937_64& random, int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random);
}

std::set<std::vector<Code>> TinyCatalogue::Prefixes() const {
  std::set<std::vector<Code>> prefixes;
  for (const CatalogueItem& item : items) {
    std::vector<Code> prefix;
    for (Code code : item.sid.codes()) {
      prefix.push_back(code);
      prefixes.insert(prefix);
    }
  }
  return prefixes;
}

TinyCatalogue MakeCatalogue(std::vector<uint32_t> level_sizes, std::vector<CatalogueItem> items) {
  catalogue::SnapshotOptions options;
  options.codebook_fingerprint = kFingerprint;
  options.level_sizes = level_sizes;
  catalogue::SnapshotBuilder builder = Must(catalogue::SnapshotBuilder::Create(options));
  for (const CatalogueItem& item : items) {
    if (absl::Status status = builder.Add(item); !status.ok()) throw std::runtime_error(std::string(status.message()));
  }
  return {std::move(level_sizes), std::move(items), Must(std::move(builder).Build())};
}

TinyCatalogue RandomCatalogue(std::mt19937_64& random, int max_items) {
  std::vector<uint32_t> level_sizes(UniformInt(random, 1, 5));
  for (uint32_t& size : level_sizes) size = UniformInt(random, 1, 9);
  std::vector<CatalogueItem> items(UniformInt(random, 1, max_items));
  for (size_t i = 0; i < items.size(); ++i) {
    items[i].item = 100 + i * 7;
    for (uint32_t size : level_sizes) items[i].sid.push_back(UniformInt(random, 0, static_cast<int>(size) - 1));
    items[i].attributes.relevance = static_cast<float>(UniformInt(random, 0, 3));
    items[i].attributes.tags.push_back({"kind", absl::StrCat("k", UniformInt(random, 0, 2))});
    if (UniformInt(random, 0, 2) > 0) {
      items[i].attributes.tags.push_back({"region", absl::StrCat("r", UniformInt(random, 0, 1))});
    }
  }
  return MakeCatalogue(std::move(level_sizes), std::move(items));
}

Eligibility RandomEligibility(std::mt19937_64& random, const TinyCatalogue& catalogue) {
  Eligibility eligibility;
  if (UniformInt(random, 0, 1) == 1) {
    eligibility.rule.push_back({"kind", {"k0", "k1"}});
    if (UniformInt(random, 0, 1) == 1) eligibility.rule.push_back({"region", {"r1"}});
  }
  const double shares[] = {.1, .5, .95};
  if (UniformInt(random, 0, 1) == 1) eligibility.deny = SomeItems(random, catalogue, shares[UniformInt(random, 0, 2)]);
  if (UniformInt(random, 0, 1) == 1) {
    eligibility.restrict_to_allow = true;
    eligibility.allow = SomeItems(random, catalogue, shares[UniformInt(random, 0, 2)]);
  }
  return eligibility;
}

std::shared_ptr<const catalogue::CompiledEligibility> Compile(const TinyCatalogue& catalogue,
                                                              const Eligibility& eligibility) {
  catalogue::RuleCache rules(catalogue.snapshot, 4);
  return Must(catalogue::CompileEligibility(rules, eligibility));
}

LogitsOf RandomLogits(std::vector<uint32_t> level_sizes, uint64_t seed, LogitsKind kind) {
  return [=](absl::Span<const Code> prefix) {
    uint64_t state = seed;
    for (Code code : prefix) state = state * 1000003 + code + 1;
    std::mt19937_64 random(state);
    std::normal_distribution<float> normal(0, 2);
    std::vector<float> logits(level_sizes[prefix.size()]);
    for (float& logit : logits) {
      logit = kind == LogitsKind::kTied ? 0.5f : normal(random);
      const int chance = UniformInt(random, 0, 99);
      if (kind == LogitsKind::kSomeMinusInf && chance < 30) logit = -std::numeric_limits<float>::infinity();
      if (kind == LogitsKind::kSomeNonFinite && chance < 2) {
        logit = chance == 0 ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
      }
    }
    return logits;
  };
}

std::vector<int> RandomWidths(std::mt19937_64& random, int levels, int max_width) {
  std::vector<int> widths(levels);
  for (int& width : widths) width = UniformInt(random, 1, max_width);
  return widths;
}

model::Weights LargeWeights(backend::Context& ctx, const model::ModelConfig& config, uint64_t seed) {
  model::Weights weights;
  const model::Weights initial = model::InitWeights(ctx, config, seed);
  for (const model::WeightSpec& spec : model::WeightSchema(config)) {
    std::vector<float> values = backend::DownloadFloats(ctx, initial.Get(spec.name));
    if (spec.initializer == model::Initializer::kNormal) {
      for (float& value : values) value *= 3;
    }
    weights.Set(spec.name, spec.role == model::WeightRole::kBuffer ? backend::UploadFloats(ctx, values, spec.shape)
                                                                   : backend::UploadWeight(ctx, values, spec.shape));
  }
  return weights;
}

}  // namespace beamline::decode::testing
