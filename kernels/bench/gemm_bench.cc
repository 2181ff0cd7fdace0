// SPDX-License-Identifier: Apache-2.0
//
// Rates of the packed GEMM in every precision and version this machine runs: beamline_kernels_bench
// --benchmark_filter=gemm. Shapes are those of the small recommenders in bench/engine, and 2048^3.
#include <string>
#include <vector>

#include "beamline/kernels/packed_gemm.h"
#include "benchmark/benchmark.h"

namespace beamline::kernels {
namespace {

struct alignas(64) Line {
  char bytes[64];
};
std::vector<Line> Lines(int64_t bytes) { return std::vector<Line>((bytes + 63) / 64); }

void Multiply(benchmark::State& state, const PackedGemm& gemm) {
  const int64_t m = state.range(0), k = state.range(1), n = state.range(2);
  const std::vector<float> a(m * k, 0.5f), weight(n * k, 0.25f);
  std::vector<float> c(m * n);
  std::vector<Line> packed = Lines(gemm.packed_bytes({n, k})), scratch = Lines(gemm.scratch_bytes(m, k));
  gemm.pack(weight.data(), {n, k}, packed.data());
  for (auto _ : state) {
    gemm.run({.a = a.data(),
              .lda = k,
              .m = m,
              .k = k,
              .b = packed.data(),
              .n = n,
              .c = c.data(),
              .ldc = n,
              .panel_begin = 0,
              .panel_end = PanelCount(n),
              .scratch = scratch.data()});
    benchmark::DoNotOptimize(c.data());
  }
  state.counters["op/s"] =
      benchmark::Counter(2.0 * static_cast<double>(m * n * k), benchmark::Counter::kIsIterationInvariantRate);
}

const int kRegistered = [] {
  constexpr const char* kNames[] = {"fp32", "bf16", "int8"};
  for (const Precision precision : {Precision::kFp32, Precision::kBf16, Precision::kInt8}) {
    int count = 0;
    const PackedGemm* versions = AvailableGemms(precision, &count);
    for (int i = 0; i < count; ++i) {
      const std::string name = std::string("gemm/") + kNames[static_cast<int>(precision)] + "/" + versions[i].name;
      auto* bench = benchmark::RegisterBenchmark(
          name.c_str(), [version = versions[i]](benchmark::State& state) { Multiply(state, version); });
      bench->ArgNames({"m", "k", "n"});
      for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{{1, 128, 1024},
                                                                                 {20, 128, 1024},
                                                                                 {64, 128, 384},
                                                                                 {64, 384, 128},
                                                                                 {512, 128, 1024},
                                                                                 {512, 1024, 128},
                                                                                 {512, 256, 24676},
                                                                                 {2048, 2048, 2048}}) {
        bench->Args(shape);
      }
    }
  }
  return 0;
}();

}  // namespace
}  // namespace beamline::kernels
