// SPDX-License-Identifier: Apache-2.0
//
// The CUDA kernels at the shapes of a 1.02 B encoder-decoder (d 1536, 12 heads of 128, context 512, 3 levels of 8192,
// beam 512) for 1 and 8 requests, and selection over catalogues of 10^5 and 10^7 items. bf16 where no type is named. A
// case's bytes and operations are the fewest there can be, whatever its type: the fp32 forms, which use no tensor
// cores, are measured against the same ceiling.
//
//   beamline_kernels_cuda_bench [--quick] [--skip N] [KERNEL ...]
//
// One line of JSON per ceiling and case, of kernels whose names begin so or of all, but for the first N cases. Exit
// status 3 where there is no GPU, 1 where a case fails: --skip goes on behind it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "beamline/kernels/attention_cuda.h"
#include "beamline/kernels/lineage_attention_cuda.h"
#include "beamline/kernels/moe_cuda.h"
#include "beamline/kernels/product_cuda.h"
#include "beamline/kernels/warpgroups_cuda.h"
#include "cuda_cases.h"

namespace beamline::kernels {

void Require(LaunchError error, const char* what) {
  if (error == LaunchError::kOk) return;
  std::fprintf(stderr, "%s: refused with %d: %s\n", what, static_cast<int>(error),
               cudaGetErrorString(cudaGetLastError()));
  std::exit(1);
}

const char* Name(DataType type) {
  return type == DataType::kFloat32 ? "fp32" : type == DataType::kFloat16 ? "fp16" : "bf16";
}

void* RandomMatrix(int64_t rows, int64_t columns, DataType type) {
  return bench::RandomValues(static_cast<size_t>(rows * columns), Name(type));
}

void* EmptyMatrix(int64_t rows, int64_t columns, DataType type) {
  return bench::Allocate(static_cast<size_t>(rows * columns * SizeOf(type)));
}

namespace {

using bench::Allocate;
using bench::Bench;
using bench::RandomValues;
using bench::Upload;

constexpr double kHalf = 2;  // bytes of bf16

constexpr char kPortable[] = ", without wgmma";

struct AttentionShape {
  const char* name = "";
  int requests = 1;
  int queries = kBeam;
  DataType type = DataType::kBFloat16;
  int key_value_heads = kHeads;
  bool same_value = false;      // K = V
  const float* bias = nullptr;  // of relative positions
  bool warpgroups = true;
};

void Attention(Bench& bench, const AttentionShape& shape) {
  AttentionBatch batch;
  batch.type = shape.type;
  batch.heads = kHeads;
  batch.key_value_heads = shape.key_value_heads;
  batch.head_dim = kHeadDim;
  batch.scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
  const int64_t query_rows = int64_t{shape.requests} * shape.queries, key_rows = int64_t{shape.requests} * kContext;
  const int key_width = shape.key_value_heads * kHeadDim, step = shape.same_value ? key_width : 2 * key_width;
  batch.query = RandomMatrix(query_rows, kWidth, shape.type);
  batch.key = RandomMatrix(key_rows, step, shape.type);
  batch.value = static_cast<const char*>(batch.key) + (shape.same_value ? 0 : key_width * SizeOf(shape.type));
  batch.out = EmptyMatrix(query_rows, kWidth, shape.type);
  batch.query_step = batch.out_step = kWidth;
  batch.key_value_step = step;
  batch.requests = shape.requests;
  batch.max_queries = shape.queries;
  std::vector<int32_t> query_begin, key_begin;
  for (int b = 0; b < shape.requests; ++b) {
    query_begin.push_back(b * shape.queries);
    key_begin.push_back(b * kContext);
  }
  batch.query_begin = Upload(query_begin);
  batch.key_begin = Upload(key_begin);
  batch.query_count = Upload(std::vector<int32_t>(shape.requests, shape.queries));
  batch.key_count = Upload(std::vector<int32_t>(shape.requests, kContext));
  batch.relative_bias = shape.bias;
  batch.reach = 128;
  batch.warpgroups = shape.warpgroups;
  const double elements = 2.0 * query_rows * kWidth + double(key_rows) * step;
  bench.Run({shape.name + std::string(shape.warpgroups ? "" : kPortable),
             Requests(shape.requests) + ", " + std::to_string(shape.queries) + " queries x " +
                 std::to_string(kContext) + (shape.type == DataType::kBFloat16 ? "" : Of(shape.type)),
             elements * SizeOf(shape.type), 4.0 * query_rows * kContext * kWidth,
             [batch](cudaStream_t stream) { Require(AttentionCuda(batch, stream), "AttentionCuda"); }});
}

void Lineage(Bench& bench, int requests, DataType type) {
  LineageAttentionBatch batch;
  const int rows = requests * kBeam;
  batch.type = type;
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
    char* qkv = static_cast<char*>(RandomMatrix(step == 0 ? requests : rows, 3 * kWidth, type));
    batch.key[step] = qkv + kWidth * SizeOf(type);
    batch.value[step] = qkv + 2 * kWidth * SizeOf(type);
    batch.query = qkv;
  }
  batch.out = EmptyMatrix(rows, kWidth, type);
  batch.out_step = kWidth;
  // Reads q, two keys and values of its own and the parent's, writes the result; step 0's row is shared.
  bench.Run({"lineage_attention", Requests(requests) + ", step 2" + (type == DataType::kBFloat16 ? "" : Of(type)),
             static_cast<double>(SizeOf(type)) * kWidth * rows * (1 + 2 + 2 + 1), 0,
             [batch](cudaStream_t stream) { Require(LineageAttentionCuda(batch, stream), "LineageAttentionCuda"); }});
}

struct OwnProduct {
  const char* name;
  std::function<LaunchError(const ProductArgs&, cudaStream_t)> launch;
};

// A layer's products of so many rows, by a kernel of ours.
void Products(Bench& bench, int rows, int width, const OwnProduct& kernel) {
  const int hidden = width == kWidth ? 4096 : 2048;
  const struct {
    const char* name;
    int n, k;
    bool gated = false;
  } products[] = {{"q, k, v", 3 * width, width},
                  {"out", width, width},
                  {"gate and up, SwiGLU", 2 * hidden, width, true},
                  {"down", width, hidden}};
  for (const auto& [name, n, k, gated] : products) {
    if (!bench.MayRun(std::string(kernel.name) + " " + name)) continue;
    const int columns = gated ? n / 2 : n;
    ProductArgs args{.rows = rows,
                     .n = n,
                     .k = k,
                     .x = RandomValues(static_cast<size_t>(rows) * k, "bf16"),
                     .weight = RandomValues(static_cast<size_t>(n) * k, "bf16"),
                     .x_step = k,
                     .weight_step = k,
                     .out_step = columns,
                     .out = Allocate(static_cast<size_t>(rows) * columns * 2)};
    if (gated) args.gate = ActivationKind::kSilu;
    bench.Run({std::string(kernel.name) + " " + name,
               "d " + std::to_string(width) + ", " + std::to_string(rows) + " rows",
               kHalf * (double(n) * k + double(rows) * (columns + k)), rows > kMaxSkinnyRows ? 2.0 * rows * n * k : 0,
               [args, launch = kernel.launch](cudaStream_t stream) { Require(launch(args, stream), "a product"); }});
  }
}

void DenseProducts(Bench& bench, int rows) {
  constexpr std::pair<const char*, DenseTile> kTiles[] = {{"dense_product 64 x 64", DenseTile::k64x64},
                                                          {"dense_product 64 x 128", DenseTile::k64x128},
                                                          {"dense_product 128 x 256", DenseTile::k128x256}};
  for (const auto& [name, tile] : kTiles) {
    for (const int width : {kWidth, 768}) {
      Products(bench, rows, width, {name, [tile = tile](const ProductArgs& args, cudaStream_t stream) {
                                      return DenseProductCuda(args, tile, stream);
                                    }});
    }
  }
}

// 24 experts, 2 per row, SwiGLU of 2816 over d 1024: a layer of the 0.935 B preset.
void Experts(Bench& bench, int rows, DataType type, bool warpgroups = true) {
  constexpr int kExperts = 24, kTopK = 2, kModel = 1024, kHidden = 2816;
  const std::string shape =
      std::to_string(rows) + " rows, 24 experts, 2 each" + (type == DataType::kBFloat16 ? "" : Of(type));
  const double size = static_cast<double>(SizeOf(type));
  const int entries = rows * kTopK;
  MoeRouteArgs route{.type = type, .rows = rows, .width = kModel, .experts = kExperts, .top_k = kTopK};
  route.x = RandomMatrix(rows, kModel, type);
  route.gate = RandomMatrix(kExperts, kModel, type);
  route.bias = static_cast<const float*>(Allocate(kExperts * 4));
  route.expert = static_cast<int32_t*>(Allocate(entries * 4));
  route.weight = static_cast<float*>(Allocate(entries * 4));
  bench.Run({"moe_route", shape, size * kModel * (rows + kExperts), 0,
             [route](cudaStream_t stream) { Require(MoeRouteCuda(route, stream), "MoeRouteCuda"); }});
  const MoeGroupArgs group{entries,
                           kExperts,
                           route.expert,
                           static_cast<int32_t*>(Allocate((kExperts + 1) * 4)),
                           static_cast<int32_t*>(Allocate(entries * 4)),
                           static_cast<int32_t*>(Allocate(entries * 4))};
  bench.Run({"moe_group", shape, 12.0 * entries, 0,
             [group](cudaStream_t stream) { Require(MoeGroupCuda(group, stream), "MoeGroupCuda"); }});
  // What the products multiply, also where these cases are not asked for.
  Require(MoeRouteCuda(route, nullptr), "MoeRouteCuda");
  Require(MoeGroupCuda(group, nullptr), "MoeGroupCuda");
  const auto product = [&](const char* name, GroupedProductArgs args) {
    args.type = type;
    args.entries = entries;
    args.experts = kExperts;
    args.begin = group.begin;
    args.weight = RandomMatrix(int64_t{kExperts} * args.n, args.k, type);
    args.out = EmptyMatrix(entries, args.n, type);
    args.warpgroups = warpgroups;
    bench.Run({name + std::string(warpgroups ? "" : kPortable), shape,
               size * (double{kExperts} * args.n * args.k + double(entries) * (args.n + args.k)),
               2.0 * entries * args.n * args.k,
               [args](cudaStream_t stream) { Require(GroupedProductCuda(args, stream), "GroupedProductCuda"); }});
    return args.out;
  };
  product("grouped_product gate and up",
          {.n = 2 * kHidden, .k = kModel, .entry = group.entry, .divisor = kTopK, .x = route.x});
  MoeCombineArgs combine{.type = type, .rows = rows, .width = kModel, .top_k = kTopK};
  combine.y = product("grouped_product down", {.n = kModel, .k = kHidden, .x = RandomMatrix(entries, kHidden, type)});
  combine.place = group.place;
  combine.weight = route.weight;
  combine.out = EmptyMatrix(rows, kModel, type);
  bench.Run({"moe_combine", shape, size * kModel * (entries + rows), 0,
             [combine](cudaStream_t stream) { Require(MoeCombineCuda(combine, stream), "MoeCombineCuda"); }});
}

int Main(bench::BenchOptions options) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    std::fprintf(stderr, "no GPU: %s\n", cudaGetErrorString(cudaGetLastError()));
    return 3;
  }
  const bool quick = options.quick;
  Bench bench(std::move(options));
  Require(AttentionPrepare(), "AttentionPrepare");
  const bool warpgroups = PrepareWarpgroups() == LaunchError::kOk;
  if (bench.MayRun("beam_select") || bench.MayRun("head_product")) SelectionCases(bench, quick);  // large tries
  const float* bias = static_cast<const float*>(RandomMatrix(kHeads, 257, DataType::kFloat32));
  constexpr DataType kTypes[] = {DataType::kBFloat16, DataType::kFloat16, DataType::kFloat32};
  for (int requests : {1, 8}) {
    Attention(bench, {.name = "context_attention", .requests = requests, .queries = 1});
    Attention(bench, {.name = "context_attention, 4 key heads", .requests = requests, .key_value_heads = 4});
    Attention(bench, {.name = "context_attention, K = V", .requests = requests, .same_value = true});
    Attention(bench, {.name = "encoder_attention + relative bias", .requests = requests, .bias = bias});
    if (warpgroups) {  // beside them
      Attention(bench, {.name = "context_attention", .requests = requests, .queries = 1, .warpgroups = false});
      Attention(bench, {.name = "context_attention", .requests = requests, .warpgroups = false});
      Experts(bench, requests * kBeam, DataType::kBFloat16, /*warpgroups=*/false);
      DenseProducts(bench, requests * kBeam);
    }
    for (DataType type : kTypes) {
      // fp32 is for parity, without tensor cores: one request tells.
      if (type != DataType::kFloat32 || requests == 1) {
        Attention(bench, {.name = "context_attention", .requests = requests, .type = type});
        Attention(bench, {.name = "encoder_attention", .requests = requests, .queries = kContext, .type = type});
        Experts(bench, requests * kBeam, type);
      }
      Lineage(bench, requests, type);
      RowCases(bench, requests * kBeam, type);
    }
    Products(bench, requests, kWidth, {"skinny_product", SkinnyProductCuda});
    ActivationCases(bench, requests * kBeam);
    LookupCases(bench, requests);
    NarrowCases(bench, requests * kBeam);
    SumCases(bench, requests);
    StateCases(bench, requests);
    RankerCases(bench, requests);
  }
  return 0;
}

}  // namespace
}  // namespace beamline::kernels

int main(int argc, char** argv) {
  beamline::bench::BenchOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--quick") {
      options.quick = true;
    } else if (word == "--skip" && i + 1 < argc) {
      options.skip = std::atoi(argv[++i]);
    } else if (word.starts_with("-")) {
      std::fprintf(stderr, "usage: %s [--quick] [--skip CASES] [KERNEL ...]\n", argv[0]);
      return 2;
    } else {
      options.only.push_back(word);
    }
  }
  return beamline::kernels::Main(std::move(options));
}
