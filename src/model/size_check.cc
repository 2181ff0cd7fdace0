// SPDX-License-Identifier: Apache-2.0
#include "model/size_check.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/problem_list.h"
#include "beamline/kernels/attention_cuda.h"
#include "beamline/kernels/beam_select_cuda.h"
#include "beamline/kernels/embedding_cuda.h"
#include "beamline/kernels/rms_norm_cuda.h"

namespace beamline::model {
namespace {

// What ValidateConfig takes and kernels do; model/ranker.cc has the ranker's.
static_assert(kMaxDModel <= kernels::kMaxNormWidth && kMaxHeads <= kernels::kMaxHeads &&
              3 * kMaxHeads * kernels::kMaxHeadDim <= kernels::kMaxRowWidth);
static_assert(2 * kMaxFfnWidth <= kernels::kMaxRowWidth, "gates and values of an expert");
static_assert(kMaxLevels <= kernels::kMaxTrieLevels && kMaxLevelSize <= kernels::kMaxVocabulary &&
              kMaxT5Vocabulary <= kernels::kMaxVocabulary);
static_assert(kMaxRelativeDistance <= kernels::kMaxReach);
static_assert(kernels::kMaxFeatureColumns * kMaxDModel <= kernels::kMaxRowWidth);

class SizeCheck {
 public:
  SizeCheck(const ModelConfig& config, const backend::ModelLimits& limits, int ranks)
      : config_(config), limits_(limits), ranks_(ranks) {}

  absl::Status Run() {
    Width("d_model", config_.d_model);
    Width("head_dim", config_.head_dim);
    AtMost("head_dim", config_.head_dim, limits_.head_dim);
    const int64_t inner = config_.inner() / ranks_;
    AtMost(absl::StrCat("heads * head_dim", OfRank()), inner, limits_.depth);
    if (config_.user.enabled) Static(config_.user);
    Pathway("short_term", config_.short_term);
    Pathway("positive", config_.positive);
    if (config_.encoder.layers > 0) FeedForward("encoder.ffn", config_.encoder.ffn);
    FeedForward("decoder.ffn", config_.decoder.ffn);
    if (problems_.empty()) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat("config.json: ", limits_.of,
                                                      " does not compute with such sizes:\n", problems_.ToString(),
                                                      "\n", limits_.remedy));
  }

 private:
  std::string OfRank() const { return ranks_ == 1 ? "" : absl::StrCat(" (of each of ", ranks_, " ranks)"); }
  void AtMost(const std::string& path, int64_t value, int64_t limit) {
    if (value > limit) problems_.Add(absl::StrCat(path, ": must be at most ", limit, ", is ", value));
  }
  void Width(const std::string& path, int64_t value) {
    if (value % limits_.multiple == 0) return;
    problems_.Add(absl::StrCat(path, ": must be a multiple of ", limits_.multiple, ", is ", value));
  }

  void Static(const StaticConfig& user) {
    AtMost("static (attributes, and the user id)", user.columns(), limits_.feature_columns);
    Width("static.width", user.width);
    AtMost("static (attributes and user id, width of all)", int64_t{user.columns()} * user.width, limits_.depth);
    AtMost("static.user_buckets", user.user_buckets, limits_.table_rows);
    if (!user.attributes.empty()) AtMost("static.attribute_buckets", user.attribute_buckets, limits_.table_rows);
  }

  void Pathway(const std::string& path, const PathwayConfig& pathway) {
    if (!pathway.enabled()) return;
    AtMost(absl::StrCat(path, ".features (in columns, sid has one per level)"), FeatureColumns(config_, pathway),
           limits_.feature_columns);
    int64_t all = 0;
    for (size_t i = 0; i < pathway.features.size(); ++i) {
      const FeatureConfig& feature = pathway.features[i];
      const std::string at = absl::StrCat(path, ".features[", i, "]");
      const int64_t width = FeatureWidth(config_, pathway, feature);
      if (width != config_.d_model) Width(absl::StrCat(at, ".width"), width);
      AtMost(absl::StrCat(at, ".buckets"), FeatureBuckets(feature), limits_.table_rows);
      all += width * (feature.kind == FeatureKind::kSid ? config_.levels() : 1);
    }
    if (pathway.fusion == InputFusion::kConcatMlp) {
      AtMost(absl::StrCat(path, ".features (width of all)"), all, limits_.depth);
    }
  }

  void FeedForward(const std::string& path, const FeedForwardConfig& ffn) {
    const std::string width = absl::StrCat(path, ".width", OfRank());
    Width(width, ffn.width / ranks_);
    Hidden(width, ffn.width / ranks_);
    AtMost(absl::StrCat(path, ".experts"), ffn.experts, limits_.experts);
    AtMost(absl::StrCat(path, ".top_k"), ffn.top_k, limits_.experts_per_row);
    if (ffn.shared_experts == 0) return;
    Hidden(absl::StrCat(path, ".shared_experts * width", OfRank()), int64_t{ffn.shared_experts} * ffn.width / ranks_);
  }
  void Hidden(const std::string& path, int64_t width) {
    AtMost(path, width, std::min(limits_.hidden_width, limits_.depth));
  }

  const ModelConfig& config_;
  const backend::ModelLimits& limits_;
  const int ranks_;
  ProblemList problems_;
};

}  // namespace

absl::Status CheckSizes(const ModelConfig& config, const backend::ModelLimits& limits, int ranks) {
  return SizeCheck(config, limits, ranks).Run();
}

}  // namespace beamline::model
