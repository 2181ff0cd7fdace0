// SPDX-License-Identifier: Apache-2.0
#include "cuda_bench.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>

#include <cublasLt.h>
#include <dlfcn.h>

namespace beamline::bench {

namespace {
std::string running = "nothing yet";  // the case, for what fails in it
}

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s (running %s)\n", what, cudaGetErrorString(error), running.c_str());
  std::exit(1);
}

void* Allocate(size_t bytes) {
  void* p = nullptr;
  Check(cudaMalloc(&p, std::max<size_t>(bytes, 256)), "cudaMalloc");
  Check(cudaMemset(p, 0, std::max<size_t>(bytes, 256)), "cudaMemset");
  return p;
}

// Of random values one block is drawn, and repeated: a matrix of 8192^2 would take seconds, and hundreds of smaller
// ones a block's time each. Its length is odd, so that no row of a matrix repeats another.
constexpr size_t kRandomBlock = (1 << 20) + 7;

void* RandomValues(size_t count, const char* type) {
  const size_t size = std::strcmp(type, "fp32") == 0 ? 4 : 2;
  const size_t block = std::min(count, kRandomBlock);
  static const std::vector<float> normal = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> distribution;
    std::vector<float> values(kRandomBlock);
    for (float& value : values) value = distribution(random);
    return values;
  }();
  const size_t first = count % kRandomBlock;  // matrices of different sizes are different
  std::vector<unsigned char> host(block * size);
  for (size_t i = 0; i < block; ++i) {
    const float value = normal[(first + i) % kRandomBlock];
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (size == 4) {
      std::memcpy(&host[4 * i], &bits, 4);
    } else if (std::strcmp(type, "fp16") == 0) {
      const _Float16 half = static_cast<_Float16>(value);
      std::memcpy(&host[2 * i], &half, 2);
    } else {
      const uint16_t half = static_cast<uint16_t>((bits + 0x8000u) >> 16);
      std::memcpy(&host[2 * i], &half, 2);
    }
  }
  char* p = static_cast<char*>(Allocate(count * size));
  for (size_t done = 0; done < count; done += block) {
    const size_t part = std::min(block, count - done);
    Check(cudaMemcpy(p + done * size, host.data(), part * size, cudaMemcpyHostToDevice), "upload");
  }
  return p;
}

Bench::Bench(BenchOptions options) : options_(std::move(options)) {
  Check(cudaStreamCreate(&stream_), "cudaStreamCreate");
  cudaDeviceProp device;
  Check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  flush_bytes_ = std::max<size_t>(2 * static_cast<size_t>(device.l2CacheSize), size_t{1} << 26);
  flush_ = Allocate(flush_bytes_);
  std::printf("{\"device\": \"%s\", \"sm\": \"%d.%d\", \"multiprocessors\": %d, \"l2_bytes\": %d}\n", device.name,
              device.major, device.minor, device.multiProcessorCount, device.l2CacheSize);
  copy_ = MeasureCopy();
  std::printf("{\"ceiling\": \"copy\", \"gb_per_s\": %.1f}\n", copy_ * 1e-9);
  product_ = MeasureProduct();
  if (product_.has_value()) std::printf("{\"ceiling\": \"bf16_8192\", \"tflop_per_s\": %.1f}\n", *product_ * 1e-12);
  std::fflush(stdout);
}

double Bench::Median(const std::function<void()>& once, bool flush) {
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin), "cudaEventCreate");
  Check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times;
  const int runs = options_.quick ? 5 : 31;
  for (int i = -3; i < runs; ++i) {
    if (flush) Check(cudaMemsetAsync(flush_, i & 1, flush_bytes_, stream_), "flush");
    Check(cudaEventRecord(begin, stream_), "cudaEventRecord");
    once();
    Check(cudaEventRecord(end, stream_), "cudaEventRecord");
    Check(cudaEventSynchronize(end), "cudaEventSynchronize");
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (i >= 0) times.push_back(ms);
  }
  Check(cudaEventDestroy(begin), "cudaEventDestroy");
  Check(cudaEventDestroy(end), "cudaEventDestroy");
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2] * 1e-3;
}

double Bench::MeasureCopy() {
  const size_t bytes = size_t{1} << 30;
  void* from = Allocate(bytes);
  void* to = Allocate(bytes);
  const double seconds =
      Median([&] { Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "copy"); }, false);
  Check(cudaFree(from), "cudaFree");
  Check(cudaFree(to), "cudaFree");
  return 2.0 * static_cast<double>(bytes) / seconds;
}

namespace {

template <class F>
F* Symbol(void* library, const char* name) {
  return reinterpret_cast<F*>(dlsym(library, name));
}

}  // namespace

// The best of the algorithms cuBLASLt proposes; it is looked for at run time, so that the binary starts without it.
std::optional<double> Bench::MeasureProduct() {
  void* library = dlopen("libcublasLt.so.13", RTLD_NOW);
  if (library == nullptr) library = dlopen("libcublasLt.so", RTLD_NOW);
  if (library == nullptr) {
    std::fprintf(stderr,
                 "libcublasLt.so.13 not found (LD_LIBRARY_PATH): the matrix product's ceiling is not measured\n");
    return std::nullopt;
  }
  const auto create = Symbol<decltype(cublasLtCreate)>(library, "cublasLtCreate");
  const auto create_operation = Symbol<decltype(cublasLtMatmulDescCreate)>(library, "cublasLtMatmulDescCreate");
  const auto set_operation =
      Symbol<decltype(cublasLtMatmulDescSetAttribute)>(library, "cublasLtMatmulDescSetAttribute");
  const auto create_layout = Symbol<decltype(cublasLtMatrixLayoutCreate)>(library, "cublasLtMatrixLayoutCreate");
  const auto create_choice =
      Symbol<decltype(cublasLtMatmulPreferenceCreate)>(library, "cublasLtMatmulPreferenceCreate");
  const auto set_choice =
      Symbol<decltype(cublasLtMatmulPreferenceSetAttribute)>(library, "cublasLtMatmulPreferenceSetAttribute");
  const auto choose = Symbol<decltype(cublasLtMatmulAlgoGetHeuristic)>(library, "cublasLtMatmulAlgoGetHeuristic");
  const auto multiply = Symbol<decltype(cublasLtMatmul)>(library, "cublasLtMatmul");
  if (!create || !create_operation || !set_operation || !create_layout || !create_choice || !set_choice || !choose ||
      !multiply) {
    return std::nullopt;
  }
  constexpr int64_t kSize = 8192;
  const size_t count = static_cast<size_t>(kSize * kSize);
  void* a = RandomValues(count, "bf16");
  void* b = RandomValues(count + 1, "bf16");
  void* c = Allocate(count * 2);
  size_t workspace_bytes = size_t{32} << 20;
  void* workspace = Allocate(workspace_bytes);
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t operation;
  cublasLtMatrixLayout_t layout;
  cublasLtMatmulPreference_t preference;
  const cublasOperation_t transposed = CUBLAS_OP_T;
  cublasLtMatmulHeuristicResult_t found[8];
  int results = 0;
  if (create(&handle) != CUBLAS_STATUS_SUCCESS || create_choice(&preference) != CUBLAS_STATUS_SUCCESS ||
      create_operation(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS ||
      set_operation(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)) != CUBLAS_STATUS_SUCCESS ||
      create_layout(&layout, CUDA_R_16BF, kSize, kSize, kSize) != CUBLAS_STATUS_SUCCESS ||
      set_choice(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes, sizeof(workspace_bytes)) !=
          CUBLAS_STATUS_SUCCESS ||
      choose(handle, operation, layout, layout, layout, layout, preference, 8, found, &results) !=
          CUBLAS_STATUS_SUCCESS) {
    return std::nullopt;
  }
  double best = 0;
  const float one = 1, zero = 0;
  for (int i = 0; i < results; ++i) {
    bool ok = true;
    const double seconds = Median(
        [&] {
          ok &= multiply(handle, operation, &one, a, layout, b, layout, &zero, c, layout, c, layout, &found[i].algo,
                         workspace, workspace_bytes, stream_) == CUBLAS_STATUS_SUCCESS;
        },
        false);
    if (ok) best = std::max(best, 2.0 * kSize * kSize * kSize / seconds);
  }
  for (void* p : {a, b, c, workspace}) Check(cudaFree(p), "cudaFree");
  return best > 0 ? std::optional<double>(best) : std::nullopt;
}

bool Bench::Runs(const std::string& kernel) const {
  const auto wants = [&](const std::string& wanted) { return kernel.starts_with(wanted); };
  return options_.only.empty() || std::any_of(options_.only.begin(), options_.only.end(), wants);
}

bool Bench::MayRun(const std::string& beginning) const {
  const auto begins = [&](const std::string& wanted) { return wanted.starts_with(beginning); };
  return Runs(beginning) || std::any_of(options_.only.begin(), options_.only.end(), begins);
}

void Bench::Run(const Case& c) {
  if (!Runs(c.kernel) || ++cases_ <= options_.skip) return;
  running = c.kernel + ", " + c.shape;
  const double cold = Median([&] { c.launch(stream_); }, true);
  Check(cudaGetLastError(), c.kernel.c_str());
  // Two milliseconds hide what a graph's launch costs.
  const int chain = options_.quick ? 5 : std::clamp(static_cast<int>(2e-3 / cold), 5, 50);
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < chain; ++i) c.launch(stream_);
  Check(cudaStreamEndCapture(stream_, &graph), "capture");
  Check(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
  const double warm = Median([&] { Check(cudaGraphLaunch(replay, stream_), "cudaGraphLaunch"); }, false) / chain;
  Check(cudaGraphExecDestroy(replay), "cudaGraphExecDestroy");
  Check(cudaGraphDestroy(graph), "cudaGraphDestroy");

  // The larger of the two floors is the bound.
  const double memory_floor = c.bytes / copy_;
  const double compute_floor = product_.has_value() ? c.flops / *product_ : 0;
  const double floor = std::max(memory_floor, compute_floor);
  std::printf(
      "{\"kernel\": \"%s\", \"shape\": \"%s\", \"cold_us\": %.2f, \"graph_us\": %.2f, \"floor_us\": %.2f, "
      "\"bound\": \"%s\", \"fraction_cold\": %.3f, \"fraction_graph\": %.3f}\n",
      c.kernel.c_str(), c.shape.c_str(), cold * 1e6, warm * 1e6, floor * 1e6,
      c.flops > 0 && !product_.has_value() ? "memory (matrix ceiling not measured)"
                                           : (compute_floor > memory_floor ? "matrix" : "memory"),
      floor / cold, floor / warm);
  std::fflush(stdout);
}

}  // namespace beamline::bench
