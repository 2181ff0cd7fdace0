// SPDX-License-Identifier: Apache-2.0
//
// Measures CUDA kernels against ceilings of the same run: a device-to-device copy and, where cuBLASLt is found, an
// 8192^3 bf16 product on random data. Each case prints one line of JSON. Two times:
//   cold_us   median of runs whose inputs were flushed from L2, with events around one launch
//   graph_us  one launch in a captured chain of several, up to 50, inputs in whatever cache they fit: what a step of a
//             graph costs
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <cuda_runtime.h>

namespace beamline::bench {

void Check(cudaError_t error, const char* what);  // exits with a message

// Device memory for the life of the process, filled with normal values of `type` ("fp32", "bf16", "fp16") or left as
// zeros.
void* Allocate(size_t bytes);
void* RandomValues(size_t count, const char* type);
template <class T>
T* Upload(const std::vector<T>& values) {
  T* p = static_cast<T*>(Allocate(values.size() * sizeof(T)));
  Check(cudaMemcpy(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  return p;
}

struct Case {
  std::string kernel, shape;
  double bytes = 0;  // the fewest that must move
  double flops = 0;  // of products, for tensor cores to do; 0: memory-bound by definition
  std::function<void(cudaStream_t)> launch;
};

struct BenchOptions {
  bool quick = false;
  int skip = 0;                   // cases at the beginning that are left out: behind one that failed a bench goes on
  std::vector<std::string> only;  // cases whose kernel's name begins with one of these; empty: all
};

class Bench {
 public:
  // Measures the ceilings and prints them.
  explicit Bench(BenchOptions options);
  void Run(const Case& c);
  // Whether a case may be whose kernel's name begins so: if not, it need not be prepared.
  bool MayRun(const std::string& beginning) const;

 private:
  bool Runs(const std::string& kernel) const;
  double Median(const std::function<void()>& once, bool flush);
  double MeasureCopy();
  std::optional<double> MeasureProduct();

  const BenchOptions options_;
  int cases_ = 0;
  cudaStream_t stream_ = nullptr;
  void* flush_ = nullptr;
  size_t flush_bytes_ = 0;
  double copy_ = 0;                // bytes per second, read plus written
  std::optional<double> product_;  // floating-point operations per second
};

}  // namespace beamline::bench
