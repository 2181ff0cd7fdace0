// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/stack.h>

#include "backend/aten/aten_backend.h"
#include "backend/aten/dropout.h"

namespace beamline::backend {
namespace {

// ids [...] -> [..., width]
Tensor LookUp(const FeatureTable& feature, const Tensor& ids) {
  switch (feature.lookup) {
    case FeatureLookup::kIndex:
      return at::embedding(feature.table, ids);
    case FeatureLookup::kFromOne: {
      const Tensor known = ids.gt(0).to(feature.table.scalar_type()).unsqueeze(-1);
      return at::embedding(feature.table, (ids - 1).clamp_min(0)) * known;
    }
    case FeatureLookup::kBitSum: {
      const Tensor bit = at::arange(feature.table.size(0), ids.options());
      return ids.unsqueeze(-1)
          .bitwise_right_shift(bit)
          .bitwise_and(1)
          .to(feature.table.scalar_type())
          .matmul(feature.table);
    }
  }
  return {};
}

}  // namespace

Tensor AtenBackend::EmbedFeatures(Context& ctx, absl::Span<const FeatureTable> tables, FeatureFusion fusion,
                                  const Tensor& features) const {
  const Tensor columns = features.view({-1, features.size(-1)});  // [batch * length, columns]
  std::vector<Tensor> parts;
  for (size_t column = 0; column < tables.size(); ++column) {
    parts.push_back(LookUp(tables[column], columns.select(1, static_cast<int64_t>(column))));
  }
  if (fusion == FeatureFusion::kConcat) return at::cat(parts, -1);
  Tensor sum = parts[0];
  for (size_t column = 1; column < parts.size(); ++column) sum = sum + parts[column];
  return sum;
}

Tensor AtenBackend::JoinTokens(Context& ctx, absl::Span<const Tensor> pathways, const Tensor& position_table,
                               const Tensor& positions) const {
  const int64_t batch = positions.size(0), d = position_table.size(1);
  std::vector<Tensor> parts;
  for (const Tensor& pathway : pathways) parts.push_back(pathway.view({batch, -1, d}));
  const Tensor tokens = at::cat(parts, 1) + at::embedding(position_table, positions);  // [batch, tokens, d]
  return Dropout(ctx, tokens.view({-1, d}));
}

Tensor AtenBackend::EmbedPrefix(Context& ctx, const CodeEmbedding& embedding, const Tensor& codes) const {
  const int64_t groups = codes.size(0) * codes.size(1), levels = codes.size(2), d = embedding.bos.size(0);
  std::vector<Tensor> inputs = {embedding.bos.expand({groups, d})};
  for (int64_t level = 0; level + 1 < levels; ++level) {
    inputs.push_back(at::embedding(embedding.tables[level], codes.select(2, level).reshape({groups})));
  }
  Tensor rows = at::stack(inputs, 1);  // [groups, levels, d]
  if (embedding.positions.defined()) rows = rows + embedding.positions;
  return Dropout(ctx, rows.view({groups * levels, d}));
}

Tensor AtenBackend::EmbedStep(Context& ctx, const CodeEmbedding& embedding, int level, int64_t batch,
                              const Tensor& codes) const {
  const Tensor rows = level == 0 ? embedding.bos.expand({batch, embedding.bos.size(0)})
                                 : at::embedding(embedding.tables[level - 1], codes.reshape({-1}));
  return embedding.positions.defined() ? rows + embedding.positions.select(0, level) : rows;
}

Tensor AtenBackend::EmbedPositions(Context& ctx, const Tensor& positions, int64_t groups) const {
  return Dropout(ctx, positions.repeat({groups, 1}));
}

Tensor AtenBackend::TrunkRows(Context& ctx, const Tensor& trunk, int levels, int level, int64_t batch,
                              int64_t rows) const {
  const int64_t d = trunk.size(1);
  return trunk.view({batch, levels, d}).narrow(1, level, 1).expand({batch, rows, d}).reshape({batch * rows, d});
}

Tensor AtenBackend::GatedFusion(Context& ctx, const Tensor& trunk, const Tensor& code, const DenseWeights& gate) const {
  return trunk + at::sigmoid(at::linear(at::cat({trunk, code}, -1), gate.weight, gate.bias)) * code;
}

}  // namespace beamline::backend
