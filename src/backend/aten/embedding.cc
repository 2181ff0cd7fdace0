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

// -> [count, d]
Tensor BosRows(const CodeEmbedding& embedding, int64_t count) {
  const Tensor bos = embedding.bos.defined() ? embedding.bos : embedding.tables[0].select(0, embedding.bos_row);
  return bos.expand({count, bos.size(0)});
}

// codes [...] of `level` -> [elements, d]
Tensor CodeRows(const CodeEmbedding& embedding, int level, const Tensor& codes) {
  const int32_t first = embedding.first_rows.empty() ? 0 : embedding.first_rows[level];
  return at::embedding(embedding.tables[level], codes.reshape({-1}) + first);
}

}  // namespace

Tensor AtenBackend::EmbedFeatures(Context& ctx, absl::Span<const FeatureTable> tables, FeatureFusion fusion,
                                  const Tensor& features) const {
  const Tensor columns = features.view({-1, features.size(-1)});  // [batch * length, columns]
  std::vector<Tensor> parts;
  parts.reserve(tables.size());
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
  const int64_t batch = positions.size(0), d = pathways[0].size(1);
  std::vector<Tensor> parts;
  for (const Tensor& pathway : pathways) parts.push_back(pathway.view({batch, -1, d}));
  Tensor tokens = at::cat(parts, 1);  // [batch, tokens, d]
  if (position_table.defined()) tokens = tokens + at::embedding(position_table, positions);
  return ApplyDropout(ctx, tokens.view({-1, d}));
}

Tensor AtenBackend::EmbedPrefix(Context& ctx, const CodeEmbedding& embedding, const Tensor& codes, int steps) const {
  const int64_t groups = codes.size(0) * codes.size(1);
  std::vector<Tensor> inputs = {BosRows(embedding, groups)};
  for (int level = 0; level + 1 < steps; ++level) {
    inputs.push_back(CodeRows(embedding, level, codes.select(2, level)));
  }
  Tensor rows = at::stack(inputs, 1);  // [groups, steps, d]
  if (embedding.positions.defined()) rows = rows + embedding.positions;
  return ApplyDropout(ctx, rows.view({groups * steps, -1}));
}

Tensor AtenBackend::EmbedStep(Context& ctx, const CodeEmbedding& embedding, const LevelRows& of,
                              const Tensor& codes) const {
  const Tensor rows = of.level == 0 ? BosRows(embedding, of.batch) : CodeRows(embedding, of.level - 1, codes);
  return embedding.positions.defined() ? rows + embedding.positions.select(0, of.level) : rows;
}

Tensor AtenBackend::EmbedPositions(Context& ctx, const Tensor& positions, int64_t groups) const {
  return ApplyDropout(ctx, positions.repeat({groups, 1}));
}

Tensor AtenBackend::TrunkRows(Context& ctx, const Tensor& trunk, const LevelRows& of, int64_t rows) const {
  const int64_t d = trunk.size(1);
  return trunk.view({of.batch, of.levels, d})
      .narrow(1, of.level, 1)
      .expand({of.batch, rows, d})
      .reshape({of.batch * rows, d});
}

Tensor AtenBackend::GatedFusion(Context& ctx, const Tensor& trunk, const Tensor& code, const DenseWeights& gate) const {
  return trunk + at::sigmoid(at::linear(at::cat({trunk, code}, -1), gate.weight, gate.bias)) * code;
}

}  // namespace beamline::backend
