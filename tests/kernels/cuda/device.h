// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the CUDA kernels share: a fixture that skips where there is no GPU (or fails, where
// BEAMLINE_REQUIRE_GPU is set), buffers that own device memory and are poisoned (not where BEAMLINE_NO_POISON is set:
// to initcheck a poisoned byte is a written one), and values of the kernels' types.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "beamline/kernels/launch.h"
#include "gtest/gtest.h"

namespace beamline::kernels {

// Where no element but a byte may begin; an array that is optional is there then.
template <class T>
void Misalign(T*& array) {
  array = reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(array) + 1);
}

// Empty where a GPU can be used, else the reason.
inline std::string WhyNoGpu() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return std::string("no GPU: ") + cudaGetErrorString(error);
  return count > 0 ? "" : "no GPU";
}

// Whether to leave out the shapes that take the emulator, or a sanitizer, minutes.
inline bool SmallShapesOnly() {
#if defined(BEAMLINE_EMULATED)
  return true;
#else
  return std::getenv("BEAMLINE_SMALL_SHAPES") != nullptr;
#endif
}

// Whether a byte that nothing wrote is known to be 0xff.
inline bool Poisons() { return std::getenv("BEAMLINE_NO_POISON") == nullptr; }

// Whether `value` may be what a buffer held before anything was written.
inline bool MayBeUnwritten(float value) { return !Poisons() || std::isnan(value); }

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string why = WhyNoGpu();
    if (why.empty()) return;
    if (std::getenv("BEAMLINE_REQUIRE_GPU") != nullptr) FAIL() << why;
    GTEST_SKIP() << why;
  }
  void TearDown() override {  // bench/gpu/run_tests.py reads what it says
    if (IsSkipped()) return;
    const cudaError_t error = cudaDeviceSynchronize();
    EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
  }
};

inline void CheckCuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// `count` values of T on the device; all bytes 0xff (a NaN in every float type) until they are written, if Poisons().
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(size_t count) : count_(count) {
    CheckCuda(cudaMalloc(&data_, std::max<size_t>(1, count) * sizeof(T)), "cudaMalloc");
    if (Poisons()) CheckCuda(cudaMemset(data_, 0xff, std::max<size_t>(1, count) * sizeof(T)), "cudaMemset");
  }
  explicit DeviceBuffer(const std::vector<T>& values) : DeviceBuffer(values.size()) {
    CheckCuda(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "upload");
  }
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~DeviceBuffer() { cudaFree(data_); }

  T* data() const { return data_; }
  size_t size() const { return count_; }
  std::vector<T> Download() const {
    std::vector<T> values(count_);
    CheckCuda(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "download");
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t count_ = 0;
};

// -- Values of the kernels' types ---------------------------------------------------------------------------------

inline const char* Name(DataType type) {
  return type == DataType::kFloat32 ? "fp32" : type == DataType::kBFloat16 ? "bf16" : "fp16";
}

// Half the distance between 1 and the next value.
inline double Epsilon(DataType type) {
  return type == DataType::kFloat32 ? 0x1p-24 : type == DataType::kBFloat16 ? 0x1p-8 : 0x1p-11;
}

inline uint16_t ToBits(DataType type, float value) {
  if (type == DataType::kFloat16) {
    const _Float16 half = static_cast<_Float16>(value);
    uint16_t bits;
    std::memcpy(&bits, &half, sizeof(bits));
    return bits;
  }
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

inline float FromBits(DataType type, uint16_t bits) {
  if (type == DataType::kFloat16) {
    _Float16 half;
    std::memcpy(&half, &bits, sizeof(half));
    return static_cast<float>(half);
  }
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

inline float Round(DataType type, float value) {
  return type == DataType::kFloat32 ? value : FromBits(type, ToBits(type, value));
}

// A matrix of some type on the device, and the very same values on the host.
struct TypedBuffer {
  TypedBuffer() = default;
  // Unwritten.
  TypedBuffer(DataType type, size_t count) : type(type), bytes(count * SizeOf(type)) {}
  TypedBuffer(DataType type, std::vector<float> values) : type(type), host(std::move(values)) {
    std::vector<unsigned char> raw(host.size() * SizeOf(type));
    for (size_t i = 0; i < host.size(); ++i) {
      if (type == DataType::kFloat32) {
        std::memcpy(raw.data() + 4 * i, &host[i], 4);
      } else {
        const uint16_t bits = ToBits(type, host[i]);
        std::memcpy(raw.data() + 2 * i, &bits, 2);
        host[i] = FromBits(type, bits);
      }
    }
    bytes = DeviceBuffer<unsigned char>(raw);
  }

  void* data() const { return bytes.data(); }
  void* at(size_t element) const { return bytes.data() + element * SizeOf(type); }

  std::vector<float> Download() const {
    const std::vector<unsigned char> raw = bytes.Download();
    std::vector<float> values(raw.size() / SizeOf(type));
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t bits;
      if (type == DataType::kFloat32) {
        std::memcpy(&values[i], raw.data() + 4 * i, 4);
      } else {
        std::memcpy(&bits, raw.data() + 2 * i, 2);
        values[i] = FromBits(type, bits);
      }
    }
    return values;
  }

  DataType type = DataType::kFloat32;
  std::vector<float> host;  // rounded to `type`
  DeviceBuffer<unsigned char> bytes;
};

// Compares elements with a double-precision reference; |actual - expected| <= tolerance of each. NaN never passes.
struct Reference {
  std::vector<double> expected, tolerance;

  void Add(double value, double allowed) {
    expected.push_back(value);
    tolerance.push_back(allowed);
  }
  // Names the worst element, or an empty string.
  std::string Wrong(const std::vector<float>& actual) const {
    if (actual.size() != expected.size()) return "sizes differ";
    double worst = 1;
    std::string text;
    for (size_t i = 0; i < actual.size(); ++i) {
      const double excess = std::abs(actual[i] - expected[i]) / tolerance[i];
      if (excess <= worst) continue;
      worst = std::isnan(excess) ? INFINITY : excess;
      text = "element " + std::to_string(i) + ": " + std::to_string(actual[i]) + ", not " +
             std::to_string(expected[i]) + " +- " + std::to_string(tolerance[i]);
    }
    return text;
  }
};

inline std::vector<float> Normal(std::mt19937& random, size_t count, float spread = 1.0f) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(count);
  for (float& x : values) x = normal(random);
  return values;
}

}  // namespace beamline::kernels
