// SPDX-License-Identifier: Apache-2.0
//
// Of a world its catalogue and its requests.
#include <algorithm>
#include <set>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "backend/ops.h"
#include "backend/test_context.h"
#include "oracle/world.h"
#include "runtime/batch_builder.h"

namespace beamline::oracle {
namespace {

constexpr bool kSlow = backend::kUnit > 1;

// Several items share a SID; in some catalogues nearly all share their first codes.
TinyCatalogue CatalogueOf(Random& random, const std::vector<uint32_t>& level_sizes) {
  const int kind = UniformInt(random, 0, 9);
  const bool clustered = Chance(random, .3);
  std::vector<CatalogueItem> items(kind == 0           ? 1
                                   : kind < 8 || kSlow ? UniformInt(random, 2, 40)
                                                       : UniformInt(random, 41, 120));
  for (size_t i = 0; i < items.size(); ++i) {
    CatalogueItem& item = items[i];
    item.item = 100 + i * 7;
    if (i > 0 && Chance(random, .25)) {
      item.sid = items[UniformInt(random, 0, static_cast<int>(i) - 1)].sid;
    } else {
      for (size_t level = 0; level < level_sizes.size(); ++level) {
        const int last = static_cast<int>(level_sizes[level]) - 1;
        const bool narrow = clustered && level + 1 < level_sizes.size();
        item.sid.push_back(clustered && Chance(random, .2) ? last
                                                           : UniformInt(random, 0, narrow ? std::min(last, 1) : last));
      }
    }
    item.attributes.relevance = static_cast<float>(UniformInt(random, 0, 3));
    item.attributes.tags.push_back({"kind", absl::StrCat("k", UniformInt(random, 0, 2))});
    if (Chance(random, .6)) item.attributes.tags.push_back({"region", absl::StrCat("r", UniformInt(random, 0, 1))});
  }
  return decode::testing::MakeCatalogue(level_sizes, std::move(items));
}

// Now and then all but one item denied, or every one, and twice.
Eligibility EligibilityOf(Random& random, const TinyCatalogue& catalogue) {
  if (Chance(random, .2)) return {};
  Eligibility eligibility = decode::testing::RandomEligibility(random, catalogue);
  if (Chance(random, .9)) return eligibility;
  for (const CatalogueItem& item : catalogue.items) eligibility.deny.insert(eligibility.deny.end(), 2, item.item);
  if (Chance(random, .7)) eligibility.deny.resize(eligibility.deny.size() - 2);
  return eligibility;
}

runtime::EncodedPathway PathwayOf(Random& random, const model::ModelConfig& config, const model::PathwayConfig& pathway,
                                  std::vector<int> order) {
  if (static_cast<int>(order.size()) > pathway.length) order.erase(order.begin(), order.end() - pathway.length);
  runtime::EncodedPathway own{.length = static_cast<int>(order.size()), .order = {order.begin(), order.end()}};
  for (int i = 0; i < own.length; ++i) {
    for (const model::FeatureConfig& feature : pathway.features) {
      if (feature.kind == model::FeatureKind::kSid) {
        const bool unknown = Chance(random, .05);
        for (const uint32_t size : config.level_sizes) {
          own.features.push_back(unknown ? 0 : UniformInt(random, 0, static_cast<int>(size)));
        }
      } else {
        const int64_t ids = feature.kind == model::FeatureKind::kLabels ? 256 : model::FeatureBuckets(feature);
        own.features.push_back(UniformInt(random, 0, static_cast<int>(ids) - 1));
      }
    }
  }
  return own;
}

runtime::EncodedRequest T5Input(Random& random, const model::ModelConfig& config) {
  const model::T5Template& input = config.t5.input;
  const int items = Chance(random, .15)  ? 0
                    : Chance(random, .2) ? input.max_items
                                         : UniformInt(random, 0, input.max_items);
  runtime::EncodedRequest request;
  runtime::EncodedPathway& tokens = request.pathways[0];
  tokens.features = input.prefix;
  for (int i = 0; i < items; ++i) {
    for (int level = 0; level < config.levels(); ++level) {
      tokens.features.push_back(config.first_code(level) +
                                UniformInt(random, 0, static_cast<int>(config.level_sizes[level]) - 1));
    }
  }
  tokens.features.insert(tokens.features.end(), input.suffix.begin(), input.suffix.end());
  tokens.length = static_cast<int>(tokens.features.size());
  for (int i = 0; i < tokens.length; ++i) tokens.order.push_back(i);
  return request;
}

// A history in which most events are in the short-term pathway, and more than half in the positive one.
runtime::EncodedRequest OneRecInput(Random& random, const model::ModelConfig& config) {
  runtime::EncodedRequest request;
  for (int column = 0; column < config.user.columns(); ++column) {
    const bool user = column == 0 && config.user.user_buckets > 0;
    const int64_t buckets = user ? config.user.user_buckets : config.user.attribute_buckets;
    request.static_features.push_back(UniformInt(random, 0, static_cast<int>(buckets) - 1));
  }
  const int longest = std::max(config.short_term.length, config.positive.length);
  const int events = Chance(random, .15) ? 0 : Chance(random, .2) ? longest + 5 : UniformInt(random, 0, longest + 3);
  std::vector<int> short_term, positive;
  for (int event = 0; event < events; ++event) {
    if (Chance(random, .9)) short_term.push_back(event);
    if (Chance(random, .6)) positive.push_back(event);
  }
  request.pathways[0] = PathwayOf(random, config, config.short_term, std::move(short_term));
  request.pathways[1] = PathwayOf(random, config, config.positive, std::move(positive));
  return request;
}

}  // namespace

bool Chance(Random& random, double probability) { return std::uniform_real_distribution<>(0, 1)(random) < probability; }

WorldRequest RandomRequest(Random& random, const model::ModelConfig& config, const TinyCatalogue& catalogue) {
  WorldRequest request;
  request.input = config.is_t5() ? T5Input(random, config) : OneRecInput(random, config);
  request.eligibility = EligibilityOf(random, catalogue);
  request.compiled = Compile(catalogue, request.eligibility);
  const int widest = Chance(random, .2) ? 1 : Chance(random, .25) && !kSlow ? 150 : kSlow ? 14 : 20;
  request.widths = decode::testing::RandomWidths(random, config.levels(), widest);
  if (Chance(random, .5)) request.widths.assign(config.levels(), UniformInt(random, 1, widest));
  request.score_rule = Chance(random, .6) ? ScoreRule::kFull : ScoreRule::kLegal;
  return request;
}

World RandomWorld(uint64_t seed) {
  Random random(seed * 7919 + 17);
  World world{.config = RandomConfig(random)};
  world.weights = RandomWeights(random, world.config);
  world.catalogue = CatalogueOf(random, world.config.level_sizes);
  const int requests = UniformInt(random, 1, kSlow ? 4 : 7);
  for (int i = 0; i < requests; ++i) world.requests.push_back(RandomRequest(random, world.config, world.catalogue));
  return world;
}

std::unique_ptr<model::Model> MakeModel(const backend::Context& shared, const World& world) {
  if (const absl::Status status = model::ValidateConfig(world.config); !status.ok()) {
    throw std::runtime_error(status.ToString());
  }
  backend::Context loading = shared;
  model::Weights weights;
  for (const model::WeightSpec& spec : model::WeightSchema(world.config)) {
    const std::vector<float>& values = world.weights.at(spec.name);
    weights.Set(spec.name, spec.role == model::WeightRole::kBuffer
                               ? backend::UploadFloats(loading, values, spec.shape)
                               : backend::UploadWeight(loading, values, spec.shape));
  }
  auto made = model::MakeModel(world.config, std::move(weights));
  if (!made.ok()) throw std::runtime_error(made.status().ToString());
  return *std::move(made);
}

}  // namespace beamline::oracle
