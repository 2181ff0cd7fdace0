// SPDX-License-Identifier: Apache-2.0
#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "absl/numeric/bits.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/problem_list.h"
#include "beamline/request.h"
#include "beamline/status.h"

namespace beamline::model {
namespace {

constexpr int kMaxExperts = 1024;
constexpr int kMaxPathwayLength = 4096;
constexpr int64_t kMaxBuckets = int64_t{1} << 31;
constexpr int kMaxAttributes = 256;
constexpr size_t kMaxAttributeName = 128;
constexpr int kMaxRankerWeight = 1000000;

// Collects what is wrong, so that one look at the message is enough.
class Problems {
 public:
  void Range(const std::string& path, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high) Add(path, absl::StrCat("must lie in [", low, ", ", high, "], is ", value));
  }
  void Require(bool condition, const std::string& path, const std::string& what) {
    if (!condition) Add(path, what);
  }
  absl::Status ToStatus() const {
    return problems_.empty() ? absl::OkStatus() : absl::InvalidArgumentError(problems_.ToString());
  }

 private:
  void Add(const std::string& path, const std::string& what) { problems_.Add(absl::StrCat(path, ": ", what)); }
  ProblemList problems_;
};

void CheckFfn(const std::string& path, const FeedForwardConfig& ffn, Problems& problems) {
  problems.Range(absl::StrCat(path, ".width"), ffn.width, 1, kMaxFfnWidth);
  problems.Range(absl::StrCat(path, ".experts"), ffn.experts, 0, kMaxExperts);
  if (ffn.experts == 0) {
    problems.Require(ffn.top_k == 0, absl::StrCat(path, ".top_k"),
                     absl::StrCat("must be 0 where experts is 0, is ", ffn.top_k));
    problems.Require(ffn.shared_experts == 0, absl::StrCat(path, ".shared_experts"),
                     absl::StrCat("must be 0 where experts is 0, is ", ffn.shared_experts));
    return;
  }
  problems.Range(absl::StrCat(path, ".top_k"), ffn.top_k, 1, ffn.experts);
  problems.Range(absl::StrCat(path, ".shared_experts"), ffn.shared_experts, 0, kMaxExperts);
  problems.Require(ffn.gated, absl::StrCat(path, ".gated"), "experts are SwiGLU: must be true where experts > 0");
}

bool FixedBuckets(FeatureKind kind) {
  return kind == FeatureKind::kSid || kind == FeatureKind::kHour || kind == FeatureKind::kLabels;
}

struct FeatureOfPathway {
  const PathwayConfig& pathway;
  const FeatureConfig& feature;
};

void CheckFeature(const std::string& path, const ModelConfig& config, const FeatureOfPathway& of, Problems& problems) {
  const FeatureConfig& feature = of.feature;
  if (FixedBuckets(feature.kind)) {
    problems.Require(feature.buckets == 0, absl::StrCat(path, ".buckets"),
                     absl::StrCat("is fixed for ", FeatureName(feature.kind), ": leave it out, is ", feature.buckets));
  } else {
    problems.Range(absl::StrCat(path, ".buckets"), feature.buckets, 2, kMaxBuckets);
  }
  problems.Require(!feature.shared || feature.kind == FeatureKind::kSid, absl::StrCat(path, ".shared"),
                   "only a sid feature shares the decoder's code embeddings");
  if (of.pathway.fusion == InputFusion::kSum || feature.shared) {
    problems.Require(feature.width == 0 || feature.width == config.d_model, absl::StrCat(path, ".width"),
                     absl::StrCat("is d_model (", config.d_model, ") here: leave it out, is ", feature.width));
  } else {
    problems.Range(absl::StrCat(path, ".width"), feature.width, 1, kMaxDModel);
  }
  problems.Require(feature.kind != FeatureKind::kAge || !config.encoder.causal, absl::StrCat(path, ".kind"),
                   "age depends on the time of the request, which a causal encoder must not: use gap");
}

void CheckPathway(const std::string& path, const ModelConfig& config, const PathwayConfig& pathway,
                  Problems& problems) {
  problems.Range(absl::StrCat(path, ".length"), pathway.length, 0, kMaxPathwayLength);
  if (!pathway.enabled()) return;
  problems.Require(!pathway.features.empty(), absl::StrCat(path, ".features"), "must not be empty where length > 0");
  std::set<FeatureKind> seen;
  for (size_t i = 0; i < pathway.features.size(); ++i) {
    const std::string at = absl::StrCat(path, ".features[", i, "]");
    CheckFeature(at, config, {pathway, pathway.features[i]}, problems);
    problems.Require(seen.insert(pathway.features[i].kind).second, absl::StrCat(at, ".kind"),
                     absl::StrCat(FeatureName(pathway.features[i].kind), " is listed twice"));
  }
}

// A feature's table is shared by the pathways that have it.
void CheckSharedTables(const ModelConfig& config, Problems& problems) {
  if (!config.short_term.enabled() || !config.positive.enabled()) return;
  for (const FeatureConfig& a : config.short_term.features) {
    for (const FeatureConfig& b : config.positive.features) {
      if (a.kind != b.kind || a.shared || b.shared) continue;
      const bool equal = FeatureBuckets(a) == FeatureBuckets(b) &&
                         FeatureWidth(config, config.short_term, a) == FeatureWidth(config, config.positive, b);
      problems.Require(equal, absl::StrCat("positive.features (", FeatureName(b.kind), ")"),
                       "buckets and width must equal those in short_term: pathways share the table of a feature");
    }
  }
}

void CheckStatic(const StaticConfig& user, Problems& problems) {
  if (!user.enabled) return;
  problems.Require(user.columns() > 0, "static", "has neither user_buckets nor attributes: leave it out");
  if (user.user_buckets != 0) problems.Range("static.user_buckets", user.user_buckets, 2, kMaxBuckets);
  problems.Range("static.attributes", static_cast<int64_t>(user.attributes.size()), 0, kMaxAttributes);
  if (!user.attributes.empty()) problems.Range("static.attribute_buckets", user.attribute_buckets, 2, kMaxBuckets);
  problems.Range("static.width", user.width, 1, kMaxDModel);
  std::set<std::string> names;
  for (size_t i = 0; i < user.attributes.size(); ++i) {
    const std::string at = absl::StrCat("static.attributes[", i, "]");
    const std::string& name = user.attributes[i];
    problems.Require(!name.empty() && name.size() <= kMaxAttributeName, at,
                     absl::StrCat("must have 1 to ", kMaxAttributeName, " bytes, has ", name.size()));
    problems.Require(names.insert(name).second, at, "is listed twice");
  }
}

void CheckSizes(const ModelConfig& config, Problems& problems) {
  problems.Require(config.family == kOneRecV1 || config.is_t5(), "family",
                   absl::StrCat("'", config.family, "' is unknown; this version knows onerec_v1, t5"));
  problems.Range("level_sizes", config.levels(), 1, kMaxLevels);
  for (int level = 0; level < config.levels(); ++level) {
    problems.Range(absl::StrCat("level_sizes[", level, "]"), config.level_sizes[level], 1, kMaxLevelSize);
  }
  problems.Range("d_model", config.d_model, 1, kMaxDModel);
  problems.Range("heads", config.heads, 1, kMaxHeads);
  problems.Range("head_dim", config.head_dim, 1, kMaxHeadDim);
  problems.Require(config.norm_epsilon > 0 && config.norm_epsilon <= 0.1, "norm_epsilon",
                   absl::StrCat("must lie in (0, 0.1], is ", config.norm_epsilon));
}

void CheckPathways(const ModelConfig& config, Problems& problems) {
  CheckStatic(config.user, problems);
  CheckPathway("short_term", config, config.short_term, problems);
  CheckPathway("positive", config, config.positive, problems);
  CheckSharedTables(config, problems);
  problems.Require(config.user.enabled || config.short_term.enabled() || config.positive.enabled(),
                   "static, short_term, positive", "all pathways are off: the model sees nothing");
}

void CheckT5Input(const T5Config& t5, int levels, Problems& problems) {
  problems.Range("t5.input.max_items", t5.input.max_items, 1, kMaxPathwayLength);
  const int64_t tokens = int64_t{t5.input.max_items} * levels + static_cast<int64_t>(t5.input.prefix.size()) +
                         static_cast<int64_t>(t5.input.suffix.size());
  problems.Range("t5.input (prefix, max_items SIDs and suffix, in tokens)", tokens, 1, kMaxPathwayLength);
  const int64_t last_row = int64_t{t5.vocabulary} - 1;
  for (size_t i = 0; i < t5.input.prefix.size(); ++i) {
    problems.Range(absl::StrCat("t5.input.prefix[", i, "]"), t5.input.prefix[i], 0, last_row);
  }
  for (size_t i = 0; i < t5.input.suffix.size(); ++i) {
    problems.Range(absl::StrCat("t5.input.suffix[", i, "]"), t5.input.suffix[i], 0, last_row);
  }
}

void CheckRanker(const ModelConfig& config, Problems& problems) {
  const RankerConfig& ranker = config.ranker;
  problems.Range("ranker.width", ranker.width, 8, kMaxRankerWidth);
  problems.Require(ranker.width % 8 == 0, "ranker.width", absl::StrCat("must be a multiple of 8, is ", ranker.width));
  problems.Require(!config.is_t5(), "ranker", "family t5 has none");
  problems.Require(config.levels() >= 2, "ranker", "needs two SID levels: it scores what the last step saw");
  problems.Range("ranker.heads", static_cast<int64_t>(ranker.heads.size()), 1, kNumLabels);
  const auto weigh = [&](const std::string& at, double weight) {
    problems.Require(std::abs(weight) <= kMaxRankerWeight, at,
                     absl::StrCat("must lie in [", -kMaxRankerWeight, ", ", kMaxRankerWeight, "], is ", weight));
  };
  weigh("ranker.score_weight", ranker.score_weight);
  uint32_t seen = 0;
  for (size_t i = 0; i < ranker.heads.size(); ++i) {
    const auto& [label, weight] = ranker.heads[i];
    const std::string at = absl::StrCat("ranker.heads[", i, "]");
    problems.Require((label & kAllLabels) == label && absl::has_single_bit(label), absl::StrCat(at, ".label"),
                     absl::StrCat("must be one label, is ", label));
    problems.Require((seen & label) == 0, absl::StrCat(at, ".label"), "has a head already");
    weigh(absl::StrCat(at, ".weight"), weight);
    seen |= label;
  }
}

void CheckT5(const ModelConfig& config, Problems& problems) {
  const T5Config& t5 = config.t5;
  int64_t codes = 0;
  for (const uint32_t size : config.level_sizes) codes += size;
  problems.Range("t5.vocabulary (the codes of all levels and an end token)", t5.vocabulary, codes + 1,
                 kMaxT5Vocabulary);
  problems.Range("t5.start", t5.start, 0, int64_t{t5.vocabulary} - 1);
  problems.Range("t5.end", t5.end, codes, int64_t{t5.vocabulary} - 1);
  problems.Range("t5.relative_buckets", t5.relative_buckets, kMinRelativeBuckets, kMaxRelativeBuckets);
  problems.Range("t5.relative_max_distance (above half of relative_buckets)", t5.relative_max_distance,
                 t5.relative_buckets / 2 + 1, kMaxRelativeDistance);
  CheckT5Input(t5, config.levels(), problems);
  problems.Require(!config.encoder.causal, "encoder.causal", "must be false in t5");
  problems.Range("encoder.layers", config.encoder.layers, 1, kMaxLayers);
  problems.Range("decoder.trunk_layers", config.decoder.trunk_layers, 0, 0);
  problems.Range("encoder.ffn.experts", config.encoder.ffn.experts, 0, 0);
  problems.Range("decoder.ffn.experts", config.decoder.ffn.experts, 0, 0);
}

}  // namespace

absl::string_view T5ActivationName(T5Activation activation) {
  switch (activation) {
    case T5Activation::kRelu:
      return "relu";
    case T5Activation::kGelu:
      return "gelu";
    case T5Activation::kSilu:
      return "silu";
  }
  return "unknown";
}

int ModelConfig::first_code(int step) const {
  if (!is_t5()) return 0;
  if (step == levels()) return t5.end;
  uint32_t first = 0;
  for (int level = 0; level < step; ++level) first += level_sizes[level];
  return static_cast<int>(first);
}

void SetT5Pathway(ModelConfig& config) {
  const T5Template& input = config.t5.input;
  const int64_t tokens = int64_t{input.max_items} * config.levels() + static_cast<int64_t>(input.prefix.size()) +
                         static_cast<int64_t>(input.suffix.size());
  config.short_term = {.length = static_cast<int>(std::clamp<int64_t>(tokens, 0, kMaxPathwayLength)),
                       .fusion = InputFusion::kSum,
                       .features = {{.kind = FeatureKind::kToken, .buckets = config.t5.vocabulary}}};
}

absl::string_view FeatureName(FeatureKind kind) {
  switch (kind) {
    case FeatureKind::kSid:
      return "sid";
    case FeatureKind::kItem:
      return "item";
    case FeatureKind::kAuthor:
      return "author";
    case FeatureKind::kTag:
      return "tag";
    case FeatureKind::kAge:
      return "age";
    case FeatureKind::kGap:
      return "gap";
    case FeatureKind::kHour:
      return "hour";
    case FeatureKind::kPlay:
      return "play";
    case FeatureKind::kDuration:
      return "duration";
    case FeatureKind::kLabels:
      return "labels";
    case FeatureKind::kToken:
      return "token";
  }
  return "unknown";
}

int FeatureColumns(const ModelConfig& config, const PathwayConfig& pathway) {
  int columns = 0;
  for (const FeatureConfig& feature : pathway.features) {
    columns += feature.kind == FeatureKind::kSid ? config.levels() : 1;
  }
  return columns;
}

int64_t FeatureBuckets(const FeatureConfig& feature) {
  if (feature.kind == FeatureKind::kHour) return 25;
  if (feature.kind == FeatureKind::kLabels) return kNumLabels;
  return feature.buckets;
}

int FeatureWidth(const ModelConfig& config, const PathwayConfig& pathway, const FeatureConfig& feature) {
  return pathway.fusion == InputFusion::kSum || feature.shared ? config.d_model : feature.width;
}

absl::Status ValidateConfig(const ModelConfig& config) {
  Problems problems;
  CheckSizes(config, problems);
  config.is_t5() ? CheckT5(config, problems) : CheckPathways(config, problems);
  problems.Range("encoder.layers", config.encoder.layers, 0, kMaxLayers);
  if (config.encoder.layers > 0) CheckFfn("encoder.ffn", config.encoder.ffn, problems);
  problems.Range("decoder.layers", config.decoder.layers, 1, kMaxLayers);
  problems.Range("decoder.trunk_layers", config.decoder.trunk_layers, 0, int64_t{config.decoder.layers} - 1);
  CheckFfn("decoder.ffn", config.decoder.ffn, problems);
  if (config.ranker.width != 0 || !config.ranker.heads.empty()) CheckRanker(config, problems);
  return problems.ToStatus();
}

}  // namespace beamline::model
