// SPDX-License-Identifier: Apache-2.0
#include "model/inputs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "beamline/kernels/embedding_cuda.h"
#include "beamline/status.h"

namespace beamline::model {
namespace {

const PathwayConfig& ConfigOf(const ModelConfig& config, int pathway) {
  return pathway == kShortTerm ? config.short_term : config.positive;
}

static_assert(1 + kPathways <= kernels::kMaxPathways);  // the static token is one, too

constexpr const char* kPathwayNames[] = {"short_term", "positive"};

absl::Status CheckSize(const std::string& field, size_t actual, int64_t expected) {
  if (static_cast<int64_t>(actual) == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": must hold ", expected, " values, holds ", actual));
}

// Column c of every row of `values` lies in [0, limits[c]).
absl::Status CheckIds(const std::string& field, absl::Span<const int32_t> values, const std::vector<int64_t>& limits) {
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t limit = limits[i % limits.size()];
    if (values[i] < 0 || values[i] >= limit) {
      return absl::InvalidArgumentError(absl::StrCat(field, "[", i, "]: must lie in [0, ", limit, "), is ", values[i]));
    }
  }
  return absl::OkStatus();
}

std::vector<int64_t> ColumnLimits(const ModelConfig& config, const PathwayConfig& pathway) {
  std::vector<int64_t> limits;
  for (const FeatureConfig& feature : pathway.features) {
    if (feature.kind == FeatureKind::kSid) {
      for (const uint32_t size : config.level_sizes) limits.push_back(int64_t{size} + 1);
    } else if (feature.kind == FeatureKind::kLabels) {
      limits.push_back(int64_t{1} << FeatureBuckets(feature));
    } else {
      limits.push_back(FeatureBuckets(feature));
    }
  }
  return limits;
}

std::vector<int64_t> StaticLimits(const StaticConfig& user) {
  std::vector<int64_t> limits(user.columns(), user.attribute_buckets);
  if (user.user_buckets > 0) limits[0] = user.user_buckets;
  return limits;
}

absl::Status CheckPathways(const ModelConfig& config, const EncoderInput& input) {
  for (int p = 0; p < kPathways; ++p) {
    const PathwayConfig& pathway = ConfigOf(config, p);
    const PathwayInput& given = input.pathways[p];
    const std::string name = kPathwayNames[p];
    if (given.length < 0 || given.length > pathway.length) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ".length: must lie in [0, ", pathway.length, "], is ", given.length));
    }
    const int64_t columns = FeatureColumns(config, pathway);
    BEAMLINE_RETURN_IF_ERROR(
        CheckSize(absl::StrCat(name, ".features"), given.features.size(), input.batch * given.length * columns));
    if (given.length == 0) continue;
    BEAMLINE_RETURN_IF_ERROR(CheckIds(absl::StrCat(name, ".features"), given.features, ColumnLimits(config, pathway)));
  }
  return absl::OkStatus();
}

// Tokens before padding, in each of the batch's rows of `order`. -> from where; and order itself becomes so.
std::vector<int32_t> MoveTokensToTheFront(int64_t batch, std::vector<int32_t>& order) {
  const int64_t tokens = static_cast<int64_t>(order.size()) / batch;
  std::vector<int32_t> from(order.size(), -1);
  for (int64_t b = 0; b < batch; ++b) {
    int64_t to = b * tokens;
    for (int64_t i = to; i < (b + 1) * tokens; ++i) {
      const int32_t own = std::exchange(order[i], backend::kPaddingOrder);
      if (own == backend::kPaddingOrder) continue;
      order[to] = own;
      from[to++] = static_cast<int32_t>(i);
    }
  }
  return from;
}

// Tokens at the front of each request's rows [batch, tokens]: their order, and where they were.
struct FrontTokens {
  int64_t batch;
  absl::Span<const int32_t> order, from;
};

backend::TokenPacking Pack(backend::Context& ctx, const FrontTokens& front, int64_t rows) {
  const auto& [batch, order, from] = front;
  const int64_t padded = static_cast<int64_t>(order.size()), tokens = padded / batch;
  std::vector<int32_t> packed_order(rows, backend::kPaddingOrder), packed_from(rows, -1), to(padded, -1);
  std::vector<int32_t> bounds(2 * batch, 0);
  int32_t row = 0;
  for (int64_t b = 0; b < batch; ++b) {
    bounds[b] = row;
    for (int64_t i = b * tokens; i < (b + 1) * tokens && from[i] >= 0; ++i) {
      packed_order[row] = order[i];
      packed_from[row] = from[i];
      to[i] = row++;
    }
    bounds[batch + b] = row - bounds[b];
  }
  return {.from = backend::UploadInts(ctx, packed_from, {rows}),
          .bounds = backend::UploadInts(ctx, bounds, {2, batch}),
          .order = backend::UploadInts(ctx, packed_order, {1, rows}),
          .to = backend::UploadInts(ctx, to, {padded}),
          .tokens = tokens};
}

// The packing of tokens in their order [batch, tokens], which becomes what it leaves.
backend::TokenPacking PackTokens(backend::Context& ctx, int64_t batch, std::vector<int32_t>& order) {
  const auto padded = static_cast<int64_t>(order.size());
  const int64_t used = padded - std::count(order.begin(), order.end(), backend::kPaddingOrder);
  const int64_t rows = backend::RowsToPack(ctx, std::max<int64_t>(used, 1), padded);
  if (rows == 0 || used == padded) return {};
  const std::vector<int32_t> given = order, from = MoveTokensToTheFront(batch, order);
  if (rows < padded) return Pack(ctx, {batch, order, from}, rows);
  if (order == given) return {};
  return {.from = backend::UploadInts(ctx, from, {padded})};
}

}  // namespace

int EncoderInput::tokens(const ModelConfig& config) const {
  return (config.user.enabled ? 1 : 0) + pathways[kShortTerm].length + pathways[kPositive].length;
}

EncoderInput MakeEncoderInput(const ModelConfig& config, int batch, int short_term_length, int positive_length) {
  EncoderInput input;
  input.batch = batch;
  input.static_features.assign(static_cast<size_t>(batch) * config.user.columns(), 0);
  const int lengths[] = {short_term_length, positive_length};
  for (int p = 0; p < kPathways; ++p) {
    const PathwayConfig& pathway = ConfigOf(config, p);
    input.pathways[p].length = std::clamp(lengths[p], 0, pathway.length);
    input.pathways[p].features.assign(
        static_cast<size_t>(batch) * input.pathways[p].length * FeatureColumns(config, pathway), 0);
  }
  // A model whose only pathways are events still needs one (hidden) token to hold the batch's shape.
  if (input.tokens(config) == 0) {
    const int p = config.short_term.enabled() ? kShortTerm : kPositive;
    input.pathways[p].length = 1;
    input.pathways[p].features.assign(static_cast<size_t>(batch) * FeatureColumns(config, ConfigOf(config, p)), 0);
  }
  input.order.assign(static_cast<size_t>(batch) * input.tokens(config), backend::kPaddingOrder);
  const int first = config.user.enabled ? 1 : 0;
  for (int b = 0; b < batch; ++b) {
    if (first == 1) {
      input.positions.push_back(0);
      input.order[static_cast<size_t>(b) * input.tokens(config)] = -1;
    }
    for (int i = 0; i < input.pathways[kShortTerm].length; ++i) input.positions.push_back(first + i);
    for (int i = 0; i < input.pathways[kPositive].length; ++i) {
      input.positions.push_back(first + config.short_term.length + i);
    }
  }
  return input;
}

absl::Status CheckEncoderInput(const ModelConfig& config, const EncoderInput& input) {
  if (input.batch < 1) return absl::InvalidArgumentError(absl::StrCat("batch: must be at least 1, is ", input.batch));
  BEAMLINE_RETURN_IF_ERROR(CheckPathways(config, input));
  const int64_t columns = config.user.columns();
  BEAMLINE_RETURN_IF_ERROR(CheckSize("static_features", input.static_features.size(), input.batch * columns));
  if (columns > 0) {
    BEAMLINE_RETURN_IF_ERROR(CheckIds("static_features", input.static_features, StaticLimits(config.user)));
  }
  const int64_t tokens = input.tokens(config);
  if (tokens < 1) return absl::InvalidArgumentError("tokens: all pathways have length 0; one token is the least");
  BEAMLINE_RETURN_IF_ERROR(CheckSize("positions", input.positions.size(), input.batch * tokens));
  BEAMLINE_RETURN_IF_ERROR(CheckSize("order", input.order.size(), input.batch * tokens));
  return CheckIds("positions", input.positions, {config.max_tokens()});
}

EncoderBatch UploadEncoderInput(backend::Context& ctx, const ModelConfig& config, const EncoderInput& input) {
  EncoderBatch batch;
  batch.batch = input.batch;
  const int64_t tokens = input.tokens(config);
  if (config.user.enabled) {
    batch.static_features =
        backend::UploadInts(ctx, input.static_features, {input.batch, 1, int64_t{config.user.columns()}});
  }
  for (int p = 0; p < kPathways; ++p) {
    const PathwayInput& pathway = input.pathways[p];
    if (pathway.length == 0) continue;
    batch.features[p] = backend::UploadInts(ctx, pathway.features,
                                            {input.batch, pathway.length, FeatureColumns(config, ConfigOf(config, p))});
  }
  batch.positions = backend::UploadInts(ctx, input.positions, {input.batch, tokens});
  std::vector<int32_t> order = input.order;
  if (!ctx.training) batch.packing = PackTokens(ctx, input.batch, order);
  batch.order = backend::UploadInts(ctx, order, {input.batch, tokens});
  return batch;
}

TeacherBatch UploadTeacherInput(backend::Context& ctx, const ModelConfig& config, const TeacherInput& input) {
  return {.batch = input.batch,
          .targets = input.targets,
          .codes = backend::UploadInts(ctx, input.codes, {input.batch, input.targets, config.levels()}),
          .order_limit = backend::UploadInts(ctx, input.order_limit, {input.batch, input.targets})};
}

}  // namespace beamline::model
