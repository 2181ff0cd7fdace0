// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "beamline/kernels/activation_cuda.h"
#include "beamline/kernels/elementwise_cuda.h"
#include "beamline/kernels/embedding_cuda.h"
#include "beamline/kernels/quantize_cuda.h"
#include "beamline/kernels/ranker_cuda.h"
#include "beamline/kernels/rms_norm_cuda.h"
#include "beamline/kernels/state_cuda.h"
#include "cuda_cases.h"

namespace beamline::kernels {
namespace {

using bench::Allocate;
using bench::Bench;
using bench::Upload;

constexpr int kHidden = 4096;
constexpr double kHalf = 2;  // bytes of bf16
constexpr DataType kBf16 = DataType::kBFloat16;

std::string Rows(int64_t rows) { return std::to_string(rows) + " rows"; }

template <class T>
T* Array(int64_t count) {
  return static_cast<T*>(Allocate(static_cast<size_t>(count) * sizeof(T)));
}

struct Row {
  const char* name;
  std::string shape;
  double bytes;
};

template <class Args>
void Run(Bench& bench, const Row& row, LaunchError (*launch)(const Args&, CudaStream),
         const std::type_identity_t<Args>& args) {
  const char* const name = row.name;
  bench.Run({name, row.shape, row.bytes, 0, [=](cudaStream_t stream) { Require(launch(args, stream), name); }});
}

template <class T>
std::vector<T> RandomIds(size_t count, uint32_t below) {
  std::mt19937 random(below);
  std::vector<T> ids(count);
  for (T& id : ids) id = static_cast<T>(random() % below);
  return ids;
}

template <class T>
double Distinct(const std::vector<T>& ids) {
  return static_cast<double>(std::set<T>(ids.begin(), ids.end()).size());
}

}  // namespace

void RowCases(Bench& bench, int rows, DataType type) {
  const std::string shape = Rows(rows) + (type == kBf16 ? "" : Of(type));
  const double size = static_cast<double>(SizeOf(type)), row = size * kWidth * rows;
  RmsNormArgs norm{.type = type, .rows = rows, .width = kWidth};
  norm.x = RandomMatrix(rows, kWidth, type);
  norm.weight = RandomMatrix(1, kWidth, type);
  norm.out = EmptyMatrix(rows, kWidth, type);
  Run(bench, {"rms_norm", shape, 2 * row}, RmsNormCuda, norm);
  RmsNormArgs residual = norm;
  residual.delta = EmptyMatrix(rows, kWidth, type);  // zeros, so that x stays in range
  Run(bench, {"rms_norm + residual", shape, 4 * row}, RmsNormCuda, residual);
  RmsNormArgs quantize = residual;
  quantize.out = nullptr;
  quantize.quantized = Array<uint8_t>(int64_t{rows} * kWidth);
  quantize.row_scale = Array<float>(rows);
  Run(bench, {"rms_norm + residual + e4m3", shape, 3 * row + kWidth * double(rows) + 4.0 * rows}, RmsNormCuda,
      quantize);

  ActivationArgs gate{.type = type, .rows = rows, .width = kHidden};
  gate.x = RandomMatrix(rows, 2 * kHidden, type);
  gate.out = EmptyMatrix(rows, kHidden, type);
  Run(bench, {"swiglu", shape, size * kHidden * rows * 3}, ActivationCuda, gate);

  EmbedCodesArgs embed{.type = type, .width = kWidth, .rows = rows};
  const std::vector<uint16_t> codes = RandomIds<uint16_t>(rows, kVocab);
  embed.table = RandomMatrix(kVocab, kWidth, type);
  embed.table_rows = kVocab;
  embed.codes = Upload(codes);
  embed.add = RandomMatrix(1, kWidth, type);
  embed.out = EmptyMatrix(rows, kWidth, type);
  Run(bench, {"embed_codes", shape, row + size * kWidth * (Distinct(codes) + 1) + 2.0 * rows}, EmbedCodesCuda, embed);
}

void ActivationCases(Bench& bench, int rows) {
  const void* const x = RandomMatrix(rows, 2 * kHidden, kBf16);
  void* const out = EmptyMatrix(rows, kHidden, kBf16);
  const struct {
    const char *name, *gated_name;
    ActivationKind kind;
  } kinds[] = {{"gelu", "gated gelu", ActivationKind::kGelu},
               {"gelu tanh", "gated gelu tanh", ActivationKind::kGeluTanh},
               {"relu", "gated relu", ActivationKind::kRelu},
               {"silu", nullptr, ActivationKind::kSilu}};
  for (const auto& [name, gated_name, kind] : kinds) {
    for (bool gated : {false, true}) {
      if (gated && gated_name == nullptr) continue;  // SwiGLU: among RowCases
      const ActivationArgs args{
          .type = kBf16, .kind = kind, .gated = gated, .rows = rows, .width = kHidden, .x = x, .out = out};
      Run(bench, {gated ? gated_name : name, Rows(rows), kHalf * kHidden * rows * (gated ? 3 : 2)}, ActivationCuda,
          args);
    }
  }
  const ActivationArgs narrow{.type = kBf16,
                              .rows = rows,
                              .width = kHidden,
                              .x = x,
                              .quantized = Array<uint8_t>(int64_t{rows} * kHidden),
                              .row_scale = Array<float>(rows)};
  Run(bench, {"swiglu + e4m3", Rows(rows), double(kHidden) * rows * (2 * kHalf + 1) + 4.0 * rows}, ActivationCuda,
      narrow);
}

// A context's tokens: features side by side, or summed, then pathways in one order with their positions.
void LookupCases(Bench& bench, int requests) {
  const int tokens = requests * kContext;
  const double row = kHalf * kWidth * tokens;
  for (bool summed : {false, true}) {
    constexpr int kColumns = 6, kBuckets[kColumns] = {kVocab, kVocab, kVocab, 100'000, 24, 32};
    EmbedFeaturesArgs args{.type = kBf16, .tokens = tokens, .columns = kColumns, .sum = summed};
    std::vector<int32_t> ids(static_cast<size_t>(tokens) * kColumns);
    double bytes = row + 4.0 * tokens * kColumns;
    for (int c = 0; c < kColumns; ++c) {
      const int width = summed ? kWidth : kWidth / kColumns;
      const bool bits = c == kColumns - 1;
      args.column[c] = {RandomMatrix(kBuckets[c], width, kBf16), kBuckets[c], width,
                        bits ? FeatureRow::kBitSum : FeatureRow::kIndex};
      const std::vector<int32_t> of_column = RandomIds<int32_t>(tokens, kBuckets[c]);  // of the bits the lowest five
      for (int t = 0; t < tokens; ++t) ids[static_cast<size_t>(t) * kColumns + c] = of_column[t];
      bytes += kHalf * width * (bits ? 5 : Distinct(of_column));
    }
    args.ids = Upload(ids);
    args.out = EmptyMatrix(tokens, kWidth, kBf16);
    Run(bench, {summed ? "embed_features, summed" : "embed_features", Rows(tokens), bytes}, EmbedFeaturesCuda, args);
  }

  constexpr int kPathwayTokens[] = {12, 244, 256};  // of a request
  JoinTokensArgs join{.type = kBf16, .width = kWidth, .tokens = tokens, .requests = requests};
  std::vector<int32_t> from, row_of, position;
  for (int b = 0; b < requests; ++b) {
    for (int p = 0; p < 3; ++p) {
      for (int i = 0; i < kPathwayTokens[p]; ++i) {
        from.push_back(p);
        row_of.push_back(b * kPathwayTokens[p] + i);
        position.push_back(static_cast<int32_t>(position.size() % kContext));
      }
    }
  }
  for (int p = 0; p < 3; ++p) {
    join.pathway_rows[p] = requests * kPathwayTokens[p];
    join.pathway[p] = RandomMatrix(join.pathway_rows[p], kWidth, kBf16);
  }
  join.out = EmptyMatrix(tokens, kWidth, kBf16);
  Run(bench, {"join_tokens, side by side", Rows(tokens), 2 * row}, JoinTokensCuda, join);
  join.from = Upload(from);
  join.row = Upload(row_of);
  join.positions = RandomMatrix(kContext, kWidth, kBf16);
  join.position_rows = kContext;
  join.position = Upload(position);
  Run(bench, {"join_tokens + positions", Rows(tokens), 2 * row + kHalf * kWidth * kContext + 12.0 * tokens},
      JoinTokensCuda, join);
}

void NarrowCases(Bench& bench, int rows) {
  for (int width : {kWidth, kHidden}) {
    const std::string shape = Rows(rows) + " of " + std::to_string(width);
    const double count = double(rows) * width;
    const QuantizeRowsArgs quantize{.type = kBf16,
                                    .rows = rows,
                                    .width = width,
                                    .x_step = width,
                                    .x = RandomMatrix(rows, width, kBf16),
                                    .quantized = Array<uint8_t>(int64_t{rows} * width),
                                    .row_scale = Array<float>(rows)};
    Run(bench, {"quantize_rows", shape, count * (kHalf + 1) + 4.0 * rows}, QuantizeRowsCuda, quantize);
    const ScaleProductArgs scale{.type = kBf16,
                                 .rows = rows,
                                 .width = width,
                                 .x = static_cast<const float*>(RandomMatrix(rows, width, DataType::kFloat32)),
                                 .row_scale = static_cast<const float*>(RandomMatrix(1, rows, DataType::kFloat32)),
                                 .column_scale = static_cast<const float*>(RandomMatrix(1, width, DataType::kFloat32)),
                                 .out_step = width,
                                 .out = EmptyMatrix(rows, width, kBf16)};
    Run(bench, {"scale_product", shape, count * (4 + kHalf) + 4.0 * (rows + width)}, ScaleProductCuda, scale);
  }
}

void SumCases(Bench& bench, int requests) {
  const int rows = requests * kBeam;
  const double row = kHalf * kWidth * rows;
  const void* const x = RandomMatrix(rows, kWidth, kBf16);
  const void* const y = RandomMatrix(rows, kWidth, kBf16);
  void* const out = EmptyMatrix(rows, kWidth, kBf16);
  Run(bench, {"add", Rows(rows), 3 * row}, AddCuda, {kBf16, int64_t{rows} * kWidth, x, y, out});
  const GatedSumArgs gated{.type = kBf16,
                           .rows = rows,
                           .width = kWidth,
                           .trunk = x,
                           .gate = static_cast<const float*>(RandomMatrix(rows, kWidth, DataType::kFloat32)),
                           .bias = RandomMatrix(1, kWidth, kBf16),
                           .code = y,
                           .out = out};
  Run(bench, {"gated_sum", Rows(rows), 3 * row + 4.0 * kWidth * rows + kHalf * kWidth}, GatedSumCuda, gated);
  const RepeatRowsArgs repeat{
      .type = kBf16, .rows = rows, .width = kWidth, .repeat = kBeam, .period = requests, .x = x, .out = out};
  Run(bench, {"repeat_rows", Rows(rows), row + kHalf * kWidth * requests}, RepeatRowsCuda, repeat);
}

void StateCases(Bench& bench, int requests) {
  const int tokens = requests * kContext, rows = requests * kBeam;
  std::vector<int32_t> order(tokens);
  for (int t = 0; t < tokens; ++t) order[t] = t % kContext < 400 ? t % kContext : kHiddenOrder;
  const int32_t* const orders = Upload(order);
  VisibilityArgs own{.requests = requests, .tokens = kContext, .groups = kContext, .order = orders, .own_order = true};
  own.out = Array<int32_t>(int64_t{requests} * (2 * kContext + 1));
  Run(bench, {"visibility, the tokens' own", Requests(requests), 4.0 * (3 * tokens + requests)}, VisibilityCuda, own);
  VisibilityArgs context{.requests = requests, .tokens = kContext, .groups = 1, .order = orders};
  context.out = own.out;
  Run(bench, {"visibility, of a context", Requests(requests), 4.0 * (2 * tokens + 2 * requests)}, VisibilityCuda,
      context);

  const std::vector<int32_t> parent = RandomIds<int32_t>(rows, kBeam);
  const int32_t* const parents = Upload(parent);
  std::vector<int32_t> read(rows);  // of each plane
  for (int row = 0; row < rows; ++row) read[row] = row / kBeam * kBeam + parent[row];
  const ExtendLineageArgs extend{.requests = requests,
                                 .rows = kBeam,
                                 .parent_rows = kBeam,
                                 .steps = 2,
                                 .lineage = Upload(RandomIds<int32_t>(size_t{2} * rows, kBeam)),
                                 .parents = parents,
                                 .out = Array<int32_t>(int64_t{3} * rows)};
  Run(bench, {"extend_lineage", Requests(requests) + ", 2 steps", 4.0 * ((1 + 3) * rows + 2 * Distinct(read))},
      ExtendLineageCuda, extend);
  const NextStepArgs next{.requests = requests,
                          .slots = kBeam,
                          .rows = kBeam,
                          .count = Upload(std::vector<int32_t>(requests, kBeam)),
                          .code = Upload(RandomIds<uint16_t>(rows, kVocab)),
                          .parent = parents,
                          .codes = Array<int32_t>(rows),
                          .parents = Array<int32_t>(rows)};
  Run(bench, {"next_step", Requests(requests), rows * (2.0 + 4 + 4 + 4) + 4.0 * requests}, NextStepCuda, next);

  const double row_bytes = kHalf * kWidth, visible = 400.0 * requests;
  TakeVisibleArgs take{.tokens = tokens, .count = 1, .order = orders};
  take.row_bytes[0] = static_cast<int64_t>(row_bytes);
  take.x[0] = RandomMatrix(tokens, kWidth, kBf16);
  take.out[0] = EmptyMatrix(tokens, kWidth, kBf16);
  Run(bench, {"take_visible", Rows(tokens), 4.0 * tokens + 2 * visible * row_bytes}, TakeVisibleCuda, take);
  StackRowsArgs stack{.requests = requests, .capacity = kContext, .row_bytes = static_cast<int64_t>(row_bytes)};
  for (int b = 0; b < requests; ++b) {
    stack.rows[b] = RandomMatrix(400, kWidth, kBf16);
    stack.count[b] = 400;
  }
  stack.out = EmptyMatrix(tokens, kWidth, kBf16);
  Run(bench, {"stack_rows", Requests(requests), (visible + tokens) * row_bytes}, StackRowsCuda, stack);
  CopyAllArgs copy{.count = 14};  // layers
  for (int i = 0; i < copy.count; ++i) {
    copy.from[i] = RandomMatrix(tokens, kWidth, kBf16);
    copy.to[i] = EmptyMatrix(tokens, kWidth, kBf16);
    copy.bytes[i] = static_cast<int64_t>(tokens * row_bytes);
  }
  Run(bench, {"copy_all", Rows(tokens) + ", 14 layers", 2.0 * 14 * tokens * row_bytes}, CopyAllCuda, copy);
}

void RankerCases(Bench& bench, int requests) {
  constexpr int kRankerWidth = 256, kRankerHeads = 4;
  const int rows = requests * kBeam;
  const std::vector<int32_t> parent = RandomIds<int32_t>(rows, kBeam);
  const std::vector<uint16_t> code = RandomIds<uint16_t>(rows, kVocab);
  std::vector<int32_t> read(rows);
  for (int row = 0; row < rows; ++row) read[row] = row / kBeam * kBeam + parent[row];
  const RankBatch rank{.type = kBf16,
                       .requests = requests,
                       .slots = kBeam,
                       .rows = kBeam,
                       .width = kRankerWidth,
                       .heads = kRankerHeads,
                       .code_rows = kVocab,
                       .states = RandomMatrix(rows, kRankerWidth, kBf16),
                       .code_table = RandomMatrix(kVocab, kRankerWidth, kBf16),
                       .head = RandomMatrix(kRankerHeads, kRankerWidth, kBf16),
                       .bias = RandomMatrix(1, kRankerHeads, kBf16),
                       .weight = {1, 2, 0.5f, -1},
                       .score_weight = 1,
                       .count = Upload(std::vector<int32_t>(requests, kBeam)),
                       .parent = Upload(parent),
                       .code = Upload(code),
                       .score = Upload(std::vector<float>(rows, -9.0f)),
                       .value = Array<float>(rows)};
  const double vectors = Distinct(read) + Distinct(code) + kRankerHeads;
  Run(bench, {"rank_candidates", Requests(requests), kHalf * kRankerWidth * vectors + rows * (4.0 + 2 + 4 + 4)},
      RankCandidatesCuda, rank);
}

}  // namespace beamline::kernels
