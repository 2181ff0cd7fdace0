// SPDX-License-Identifier: Apache-2.0
//
// The CUDA kernels at the shapes of a 1.02 B encoder-decoder (d 1536, 12 heads of 128, context 512, 3 levels of 8192,
// beam 512) for 1 and 8 requests, and selection over catalogues of 10^5 and 10^7 items.
//
//   beamline_kernels_cuda_bench [--quick]      one line of JSON per ceiling and case; 3 where there is no GPU
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

#include "beamline/kernels/activation_cuda.h"
#include "beamline/kernels/attention_cuda.h"
#include "beamline/kernels/beam_select_cuda.h"
#include "beamline/kernels/embedding_cuda.h"
#include "beamline/kernels/lineage_attention_cuda.h"
#include "beamline/kernels/moe_cuda.h"
#include "beamline/kernels/rms_norm_cuda.h"
#include "beamline/kernels/skinny_product_cuda.h"
#include "cuda_bench.h"

namespace beamline::kernels {
namespace {

using bench::Allocate;
using bench::Bench;
using bench::RandomValues;
using bench::Upload;

constexpr int kWidth = 1536, kHeads = 12, kHeadDim = 128, kContext = 512, kBeam = 512, kVocab = 8192, kLevels = 3;
constexpr double kHalf = 2;  // bytes of bf16

void Require(LaunchError error, const char* what) {
  if (error == LaunchError::kOk) return;
  std::fprintf(stderr, "%s: refused with %d: %s\n", what, static_cast<int>(error),
               cudaGetErrorString(cudaGetLastError()));
  std::exit(1);
}

std::string Requests(int requests) { return std::to_string(requests) + " requests"; }

// A catalogue of random items over 3 x 8192, on the device.
ConstraintView RandomCatalogue(int64_t items) {
  std::mt19937_64 random(items);
  std::vector<uint64_t> sids(items);
  for (uint64_t& sid : sids) sid = random() & ((uint64_t{1} << 39) - 1);  // 3 codes of 13 bits
  std::sort(sids.begin(), sids.end());
  sids.erase(std::unique(sids.begin(), sids.end()), sids.end());
  std::vector<uint16_t> codes[kLevels];
  std::vector<uint32_t> offsets[kLevels];
  uint64_t last[kLevels] = {};
  for (size_t i = 0; i < sids.size(); ++i) {
    for (int level = 0; level < kLevels; ++level) {
      const uint64_t prefix = sids[i] >> (13 * (kLevels - 1 - level));
      if (i > 0 && prefix == last[level]) continue;
      last[level] = prefix;
      if (level + 1 < kLevels) offsets[level].push_back(static_cast<uint32_t>(codes[level + 1].size()));
      codes[level].push_back(static_cast<uint16_t>(prefix & (kVocab - 1)));
    }
  }
  ConstraintView constraint;
  constraint.trie.levels = kLevels;
  for (int level = 0; level < kLevels; ++level) {
    if (level + 1 < kLevels) offsets[level].push_back(static_cast<uint32_t>(codes[level + 1].size()));
    constraint.trie.level[level] = {Upload(codes[level]), level + 1 < kLevels ? Upload(offsets[level]) : nullptr,
                                    static_cast<uint32_t>(codes[level].size())};
  }
  constraint.snapshot_trie = constraint.trie;
  return constraint;
}

DeviceBeams Slots(int requests, int rows) {
  return {static_cast<uint32_t*>(Allocate(rows * 4)), static_cast<float*>(Allocate(rows * 4)),
          static_cast<int32_t*>(Allocate(rows * 4)),  static_cast<uint16_t*>(Allocate(rows * 2)),
          static_cast<float*>(Allocate(rows * 4)),    static_cast<int32_t*>(Allocate(requests * 4))};
}

void Selection(Bench& bench, int requests, int64_t items) {
  const int rows = requests * kBeam;
  std::vector<int32_t> row_begin;
  for (int b = 0; b <= requests; ++b) row_begin.push_back(b * kBeam);
  const float* logits = static_cast<const float*>(RandomValues(static_cast<size_t>(rows) * kVocab, "fp32"));
  BeamSelectBatch batch;
  batch.logits = logits;
  batch.ld = batch.vocab = kVocab;
  batch.requests = requests;
  batch.rows = rows;
  batch.row_begin = Upload(row_begin);
  batch.width = Upload(std::vector<int32_t>(requests, kBeam));
  batch.rule = Upload(std::vector<ScoreRule>(requests, ScoreRule::kFull));
  batch.constraint = Upload(std::vector<ConstraintView>(requests, RandomCatalogue(items)));
  batch.error = static_cast<int32_t*>(Allocate(requests * 4));
  batch.workspace = Allocate(BeamSelectWorkspaceBytes(requests, rows));
  Require(BeamSelectPrepare(batch.workspace, requests, rows, nullptr), "BeamSelectPrepare");
  bench::Check(cudaDeviceSynchronize(), "BeamSelectPrepare");
  DeviceBeams slots[kLevels];
  int32_t* lineage[kLevels];
  for (int level = 0; level < kLevels; ++level) {
    slots[level] = Slots(requests, rows);
    lineage[level] = static_cast<int32_t*>(Allocate(static_cast<size_t>(level + 1) * rows * 4));
    batch.level = level;
    batch.out = slots[level];
    batch.lineage_out = lineage[level];
    if (level > 0) {
      batch.in = slots[level - 1];
      batch.lineage_in = lineage[level - 1];
    }
    const double logit_rows = level == 0 ? requests : rows;
    bench.Run({"beam_select level " + std::to_string(level),
               Requests(requests) + ", " + std::to_string(items) + " items", logit_rows * kVocab * 4, 0,
               [batch](cudaStream_t stream) { Require(BeamSelectCuda(batch, stream), "BeamSelectCuda"); }});
  }
  std::vector<int32_t> errors(requests);
  bench::Check(cudaMemcpy(errors.data(), batch.error, requests * 4, cudaMemcpyDeviceToHost), "errors");
  if (std::any_of(errors.begin(), errors.end(), [](int32_t error) { return error != 0; })) {
    std::fprintf(stderr, "beam_select: a request failed\n");
    std::exit(1);
  }
}

void Attention(Bench& bench, int requests, const char* name, int queries, const float* bias) {
  AttentionBatch batch;
  batch.type = DataType::kBFloat16;
  batch.heads = batch.key_value_heads = kHeads;
  batch.head_dim = kHeadDim;
  batch.scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
  const size_t query_rows = static_cast<size_t>(requests) * queries,
               key_rows = static_cast<size_t>(requests) * kContext;
  batch.query = RandomValues(query_rows * kWidth, "bf16");
  batch.key = RandomValues(key_rows * 2 * kWidth, "bf16");
  batch.value = static_cast<const char*>(batch.key) + 2 * kWidth;
  batch.out = Allocate(query_rows * kWidth * 2);
  batch.query_step = batch.out_step = kWidth;
  batch.key_value_step = 2 * kWidth;
  batch.requests = requests;
  batch.max_queries = queries;
  std::vector<int32_t> query_begin, key_begin;
  for (int b = 0; b < requests; ++b) {
    query_begin.push_back(b * queries);
    key_begin.push_back(b * kContext);
  }
  batch.query_begin = Upload(query_begin);
  batch.key_begin = Upload(key_begin);
  batch.query_count = Upload(std::vector<int32_t>(requests, queries));
  batch.key_count = Upload(std::vector<int32_t>(requests, kContext));
  batch.relative_bias = bias;
  batch.reach = 128;
  bench.Run({name, Requests(requests) + ", " + std::to_string(queries) + " queries x " + std::to_string(kContext),
             kHalf * kWidth * (2.0 * query_rows + 2.0 * key_rows), 4.0 * query_rows * kContext * kWidth,
             [batch](cudaStream_t stream) { Require(AttentionCuda(batch, stream), "AttentionCuda"); }});
}

void Lineage(Bench& bench, int requests) {
  LineageAttentionBatch batch;
  const int rows = requests * kBeam;
  batch.type = DataType::kBFloat16;
  batch.heads = batch.key_value_heads = kHeads;
  batch.head_dim = kHeadDim;
  batch.step = 2;
  batch.requests = requests;
  batch.rows = rows;
  std::vector<int32_t> row_begin, lineage(2 * static_cast<size_t>(rows), 0);
  for (int b = 0; b <= requests; ++b) row_begin.push_back(b * kBeam);
  std::mt19937 random(1);
  for (int row = 0; row < rows; ++row) lineage[rows + row] = static_cast<int32_t>(random() % kBeam);
  batch.row_begin = Upload(row_begin);
  batch.row_count = Upload(std::vector<int32_t>(requests, kBeam));
  batch.lineage = Upload(lineage);
  batch.query_step = batch.key_value_step = 3 * kWidth;
  for (int step = 0; step <= 2; ++step) {
    char* qkv = static_cast<char*>(RandomValues(static_cast<size_t>(step == 0 ? requests : rows) * 3 * kWidth, "bf16"));
    batch.key[step] = qkv + 2 * kWidth;
    batch.value[step] = qkv + 4 * kWidth;
    batch.query = qkv;
  }
  batch.out = Allocate(static_cast<size_t>(rows) * kWidth * 2);
  batch.out_step = kWidth;
  // Reads q, two keys and values of its own and the parent's, writes the result; step 0's row is shared.
  bench.Run({"lineage_attention", Requests(requests) + ", step 2", kHalf * kWidth * rows * (1 + 2 + 2 + 1), 0,
             [batch](cudaStream_t stream) { Require(LineageAttentionCuda(batch, stream), "LineageAttentionCuda"); }});
}

void Rows(Bench& bench, int rows) {
  const std::string shape = std::to_string(rows) + " rows";
  const double row = kHalf * kWidth * rows;
  RmsNormArgs norm{.type = DataType::kBFloat16, .rows = rows, .width = kWidth};
  norm.x = RandomValues(static_cast<size_t>(rows) * kWidth, "bf16");
  norm.weight = RandomValues(kWidth, "bf16");
  norm.out = Allocate(static_cast<size_t>(rows) * kWidth * 2);
  const auto run_norm = [](RmsNormArgs args) {
    return [args](cudaStream_t stream) { Require(RmsNormCuda(args, stream), "RmsNormCuda"); };
  };
  bench.Run({"rms_norm", shape, 2 * row, 0, run_norm(norm)});
  RmsNormArgs residual = norm;
  residual.delta = Allocate(static_cast<size_t>(rows) * kWidth * 2);  // zeros, so that x stays in range
  bench.Run({"rms_norm + residual", shape, 4 * row, 0, run_norm(residual)});
  RmsNormArgs quantize = residual;
  quantize.out = nullptr;
  quantize.quantized = static_cast<uint8_t*>(Allocate(static_cast<size_t>(rows) * kWidth));
  quantize.row_scale = static_cast<float*>(Allocate(static_cast<size_t>(rows) * 4));
  bench.Run({"rms_norm + residual + e4m3", shape, 3.5 * row, 0, run_norm(quantize)});

  constexpr int kHidden = 4096;
  ActivationArgs gate{.type = DataType::kBFloat16, .rows = rows, .width = kHidden};
  gate.x = RandomValues(static_cast<size_t>(rows) * 2 * kHidden, "bf16");
  gate.out = Allocate(static_cast<size_t>(rows) * kHidden * 2);
  bench.Run({"swiglu", shape, kHalf * kHidden * rows * 3, 0,
             [gate](cudaStream_t stream) { Require(ActivationCuda(gate, stream), "ActivationCuda"); }});

  EmbedCodesArgs embed{.type = DataType::kBFloat16, .width = kWidth, .rows = rows};
  std::vector<uint16_t> codes(rows);
  std::mt19937 random(2);
  for (uint16_t& code : codes) code = static_cast<uint16_t>(random() % kVocab);
  embed.table = RandomValues(static_cast<size_t>(kVocab) * kWidth, "bf16");
  embed.table_rows = kVocab;
  embed.codes = Upload(codes);
  embed.add = RandomValues(kWidth, "bf16");
  embed.out = Allocate(static_cast<size_t>(rows) * kWidth * 2);
  bench.Run({"embed_codes", shape, 2 * row, 0,
             [embed](cudaStream_t stream) { Require(EmbedCodesCuda(embed, stream), "EmbedCodesCuda"); }});
}

// The products of the first decode step: a row per request.
void FirstStep(Bench& bench, int rows) {
  constexpr int kHidden = 4096;
  const struct {
    const char* name;
    int n, k;
  } products[] = {{"skinny_product q, k, v", 3 * kWidth, kWidth},
                  {"skinny_product out", kWidth, kWidth},
                  {"skinny_product gate and up", 2 * kHidden, kWidth},
                  {"skinny_product down", kWidth, kHidden}};
  for (const auto& [name, n, k] : products) {
    const SkinnyProductArgs args{.rows = rows,
                                 .n = n,
                                 .k = k,
                                 .x = RandomValues(static_cast<size_t>(rows) * k, "bf16"),
                                 .weight = RandomValues(static_cast<size_t>(n) * k, "bf16"),
                                 .x_step = k,
                                 .weight_step = k,
                                 .out_step = n,
                                 .out = Allocate(static_cast<size_t>(rows) * n * 2)};
    bench.Run({name, std::to_string(rows) + " rows", kHalf * (double(n) * k + double(rows) * (n + k)), 0,
               [args](cudaStream_t stream) { Require(SkinnyProductCuda(args, stream), "SkinnyProductCuda"); }});
  }
}

// 24 experts, 2 per row, SwiGLU of 2816 over d 1024: a layer of the 0.935 B preset.
void Experts(Bench& bench, int rows) {
  constexpr int kExperts = 24, kTopK = 2, kModel = 1024, kHidden = 2816;
  const std::string shape = std::to_string(rows) + " rows, 24 experts, 2 each";
  const int entries = rows * kTopK;
  MoeRouteArgs route{.type = DataType::kBFloat16, .rows = rows, .width = kModel, .experts = kExperts, .top_k = kTopK};
  route.x = RandomValues(static_cast<size_t>(rows) * kModel, "bf16");
  route.gate = RandomValues(static_cast<size_t>(kExperts) * kModel, "bf16");
  route.bias = static_cast<const float*>(Allocate(kExperts * 4));
  route.expert = static_cast<int32_t*>(Allocate(entries * 4));
  route.weight = static_cast<float*>(Allocate(entries * 4));
  bench.Run({"moe_route", shape, kHalf * kModel * (rows + kExperts), 0,
             [route](cudaStream_t stream) { Require(MoeRouteCuda(route, stream), "MoeRouteCuda"); }});
  const MoeGroupArgs group{entries,
                           kExperts,
                           route.expert,
                           static_cast<int32_t*>(Allocate((kExperts + 1) * 4)),
                           static_cast<int32_t*>(Allocate(entries * 4)),
                           static_cast<int32_t*>(Allocate(entries * 4))};
  bench.Run({"moe_group", shape, 12.0 * entries, 0,
             [group](cudaStream_t stream) { Require(MoeGroupCuda(group, stream), "MoeGroupCuda"); }});
  const auto product = [&](const char* name, GroupedProductArgs args) {
    args.type = DataType::kBFloat16;
    args.entries = entries;
    args.experts = kExperts;
    args.begin = group.begin;
    args.weight = RandomValues(static_cast<size_t>(kExperts) * args.n * args.k, "bf16");
    args.out = Allocate(static_cast<size_t>(entries) * args.n * 2);
    bench.Run({name, shape, kHalf * (double{kExperts} * args.n * args.k + double(entries) * (args.n + args.k)),
               2.0 * entries * args.n * args.k,
               [args](cudaStream_t stream) { Require(GroupedProductCuda(args, stream), "GroupedProductCuda"); }});
    return args.out;
  };
  product("grouped_product gate and up",
          {.n = 2 * kHidden, .k = kModel, .entry = group.entry, .divisor = kTopK, .x = route.x});
  MoeCombineArgs combine{.type = DataType::kBFloat16, .rows = rows, .width = kModel, .top_k = kTopK};
  combine.y = product("grouped_product down",
                      {.n = kModel, .k = kHidden, .x = RandomValues(static_cast<size_t>(entries) * kHidden, "bf16")});
  combine.place = group.place;
  combine.weight = route.weight;
  combine.out = Allocate(static_cast<size_t>(rows) * kModel * 2);
  bench.Run({"moe_combine", shape, kHalf * kModel * (entries + rows), 0,
             [combine](cudaStream_t stream) { Require(MoeCombineCuda(combine, stream), "MoeCombineCuda"); }});
}

int Main(bool quick) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    std::fprintf(stderr, "no GPU: %s\n", cudaGetErrorString(cudaGetLastError()));
    return 3;
  }
  Bench bench(quick);
  Require(AttentionPrepare(), "AttentionPrepare");
  for (int64_t items : {int64_t{100'000}, int64_t{10'000'000}}) {
    if (quick && items > 1'000'000) continue;
    for (int requests : {1, 8}) Selection(bench, requests, items);
  }
  float* bias = static_cast<float*>(RandomValues(static_cast<size_t>(kHeads) * 257, "fp32"));
  for (int requests : {1, 8}) {
    Attention(bench, requests, "context_attention", kBeam, nullptr);
    Attention(bench, requests, "context_attention", 1, nullptr);
    Attention(bench, requests, "encoder_attention", kContext, nullptr);
    Attention(bench, requests, "encoder_attention + relative bias", kContext, bias);
    Lineage(bench, requests);
    Rows(bench, requests * kBeam);
    FirstStep(bench, requests);
    Experts(bench, requests * kBeam);
  }
  return 0;
}

}  // namespace
}  // namespace beamline::kernels

int main(int argc, char** argv) {
  const bool quick = argc == 2 && std::strcmp(argv[1], "--quick") == 0;
  if (argc > 1 && !quick) {
    std::fprintf(stderr, "usage: %s [--quick]\n", argv[0]);
    return 2;
  }
  return beamline::kernels::Main(quick);
}
