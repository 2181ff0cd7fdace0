// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/cuda_backend.h"
#include "beamline/kernels/elementwise_cuda.h"
#include "beamline/kernels/embedding_cuda.h"

namespace beamline::backend::cuda {
namespace {

kernels::FeatureRow RowOf(FeatureLookup lookup) {
  switch (lookup) {
    case FeatureLookup::kIndex:
      return kernels::FeatureRow::kIndex;
    case FeatureLookup::kFromOne:
      return kernels::FeatureRow::kFromOne;
    case FeatureLookup::kBitSum:
      return kernels::FeatureRow::kBitSum;
  }
  return kernels::FeatureRow::kIndex;
}

const void* RowAt(const Tensor& table, int64_t row) {
  return static_cast<const char*>(table.const_data_ptr()) +
         row * table.size(-1) * static_cast<int64_t>(table.itemsize());
}

// A model of one level whose head is untied and whose sid features are not shared has no table.
int64_t Width(const CodeEmbedding& embedding) {
  return embedding.bos.defined() ? embedding.bos.size(0) : embedding.tables[0].size(1);
}

// The input of `level` without its rows and codes: BOS, or the table of the level before, from its code 0 on.
kernels::EmbedCodesArgs LevelInput(const Context& ctx, const CodeEmbedding& embedding, int level) {
  kernels::EmbedCodesArgs args;
  args.type = KernelType(ctx.dtype);
  args.width = static_cast<int32_t>(Width(embedding));
  args.add = embedding.positions.defined() ? RowAt(embedding.positions, level) : nullptr;
  if (level == 0) {
    args.table =
        embedding.bos.defined() ? embedding.bos.const_data_ptr() : RowAt(embedding.tables[0], embedding.bos_row);
    args.table_rows = 1;
    return args;
  }
  const Tensor& table = embedding.tables[level - 1];
  const int32_t first = embedding.first_rows.empty() ? 0 : embedding.first_rows[level - 1];
  args.table = RowAt(table, first);
  args.table_rows = static_cast<int32_t>(table.size(0)) - first;
  return args;
}

}  // namespace

Tensor CudaBackend::EmbedFeatures(Context& ctx, absl::Span<const FeatureTable> tables, FeatureFusion fusion,
                                  const Tensor& features) const {
  CudaBatch& batch = BatchOf(ctx);
  TORCH_CHECK(tables.size() <= kernels::kMaxFeatureColumns, "cuda: ", tables.size(), " feature columns; at most ",
              kernels::kMaxFeatureColumns);
  kernels::EmbedFeaturesArgs args;
  args.type = KernelType(ctx.dtype);
  args.columns = static_cast<int32_t>(tables.size());
  args.tokens = static_cast<int32_t>(features.numel() / args.columns);
  args.sum = fusion == FeatureFusion::kSum;
  args.ids = features.const_data_ptr<int32_t>();
  int64_t width = 0;
  for (size_t i = 0; i < tables.size(); ++i) {
    const Tensor& table = tables[i].table;
    args.column[i] = {table.const_data_ptr(), static_cast<int32_t>(table.size(0)), static_cast<int32_t>(table.size(1)),
                      RowOf(tables[i].lookup)};
    width = args.sum ? table.size(1) : width + table.size(1);
  }
  Tensor out = batch.Take({args.tokens, width}, ctx.dtype);
  args.out = out.mutable_data_ptr();
  Check(kernels::EmbedFeaturesCuda(args, batch.stream()), "looking up features");
  return out;
}

Tensor CudaBackend::JoinTokens(Context& ctx, absl::Span<const Tensor> pathways, const Tensor& position_table,
                               const Tensor& positions) const {
  CudaBatch& batch = BatchOf(ctx);
  TORCH_CHECK(pathways.size() <= kernels::kMaxPathways, "cuda: ", pathways.size(), " pathways; at most ",
              kernels::kMaxPathways);
  kernels::JoinTokensArgs args;
  args.type = KernelType(ctx.dtype);
  args.width = static_cast<int32_t>(pathways[0].size(1));
  args.tokens = static_cast<int32_t>(positions.numel());
  args.requests = static_cast<int32_t>(positions.size(0));
  for (size_t i = 0; i < pathways.size(); ++i) {
    args.pathway[i] = pathways[i].const_data_ptr();
    args.pathway_rows[i] = static_cast<int32_t>(pathways[i].size(0));
  }
  if (position_table.defined()) {
    args.positions = position_table.const_data_ptr();
    args.position_rows = static_cast<int32_t>(position_table.size(0));
    args.position = positions.const_data_ptr<int32_t>();
  }
  Tensor out = batch.Take({args.tokens, args.width}, ctx.dtype);
  args.out = out.mutable_data_ptr();
  Check(kernels::JoinTokensCuda(args, batch.stream()), "joining tokens");
  return out;
}

// Row -1 is in no table, so it is zeros.
Tensor CudaBackend::GatherRows(Context& ctx, const Tensor& x, const Tensor& rows) const {
  kernels::EmbedCodesArgs args;
  args.type = KernelType(x.scalar_type());
  args.width = static_cast<int32_t>(x.size(1));
  args.rows = static_cast<int32_t>(rows.size(0));
  args.table = x.const_data_ptr();
  args.table_rows = static_cast<int32_t>(x.size(0));
  args.ids = rows.const_data_ptr<int32_t>();
  Tensor out = BatchOf(ctx).Take({args.rows, args.width}, x.scalar_type());
  args.out = out.mutable_data_ptr();
  Check(kernels::EmbedCodesCuda(args, BatchOf(ctx).stream()), "gathering rows");
  return out;
}

Tensor CudaBackend::EmbedPrefix(Context& ctx, const CodeEmbedding& embedding, const Tensor& codes, int steps) const {
  CudaBatch& batch = BatchOf(ctx);
  const int64_t groups = codes.size(0) * codes.size(1), d = Width(embedding);
  Tensor out = batch.Take({groups * steps, d}, ctx.dtype);
  for (int level = 0; level < steps; ++level) {
    kernels::EmbedCodesArgs args = LevelInput(ctx, embedding, level);
    args.rows = static_cast<int32_t>(groups);
    if (level > 0) args.ids = codes.const_data_ptr<int32_t>() + level - 1;
    args.id_step = static_cast<int32_t>(codes.size(2));
    args.out = static_cast<char*>(out.mutable_data_ptr()) + level * d * static_cast<int64_t>(out.itemsize());
    args.out_step = steps * d;
    Check(kernels::EmbedCodesCuda(args, batch.stream()), "embedding codes");
  }
  return out;
}

Tensor CudaBackend::EmbedStep(Context& ctx, const CodeEmbedding& embedding, const LevelRows& of,
                              const Tensor& codes) const {
  kernels::EmbedCodesArgs args = LevelInput(ctx, embedding, of.level);
  args.rows = static_cast<int32_t>(of.level == 0 ? of.batch : codes.numel());
  if (of.level > 0) args.ids = codes.const_data_ptr<int32_t>();
  Tensor out = BatchOf(ctx).Take({args.rows, args.width}, ctx.dtype);
  args.out = out.mutable_data_ptr();
  Check(kernels::EmbedCodesCuda(args, BatchOf(ctx).stream()), "embedding codes");
  return out;
}

Tensor CudaBackend::EmbedPositions(Context& ctx, const Tensor& positions, int64_t groups) const {
  const int64_t levels = positions.size(0), d = positions.size(1);
  Tensor out = BatchOf(ctx).Take({groups * levels, d}, ctx.dtype);
  Check(kernels::RepeatRowsCuda({.type = KernelType(ctx.dtype),
                                 .rows = groups * levels,
                                 .width = static_cast<int32_t>(d),
                                 .period = static_cast<int32_t>(levels),
                                 .x = positions.const_data_ptr(),
                                 .out = out.mutable_data_ptr()},
                                BatchOf(ctx).stream()),
        "embedding positions");
  return out;
}

Tensor CudaBackend::TrunkRows(Context& ctx, const Tensor& trunk, const LevelRows& of, int64_t rows) const {
  Tensor out = BatchOf(ctx).Take({of.batch * rows, trunk.size(1)}, ctx.dtype);
  Check(kernels::RepeatRowsCuda({.type = KernelType(ctx.dtype),
                                 .rows = of.batch * rows,
                                 .width = static_cast<int32_t>(trunk.size(1)),
                                 .repeat = static_cast<int32_t>(rows),
                                 .period = static_cast<int32_t>(of.batch),
                                 .step = of.levels,
                                 .first = of.level,
                                 .x = trunk.const_data_ptr(),
                                 .out = out.mutable_data_ptr()},
                                BatchOf(ctx).stream()),
        "rows of the trunk");
  return out;
}

}  // namespace beamline::backend::cuda
