// SPDX-License-Identifier: Apache-2.0
//
// One product of rows with a weight: as cuBLASLt wants it described, and by our own kernels. cuBLASLt thinks in
// columns: our rows x [m][k] and weight [n][k] are its B (k by m) and transposed A (k by n), and the result [m][n] its
// D (n by m), along whose rows a bias lies. It knows no gates: an activation behind it makes of its result what ours
// give at once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/types/span.h"
#include "backend/cuda/cublas_lt.h"
#include "beamline/kernels/activation_cuda.h"
#include "beamline/kernels/launch.h"

namespace beamline::backend::cuda {

enum class Epilogue : int { kNone = 0, kRelu = 1, kGeluTanh = 2 };

// All that is the same for every number of rows: what an algorithm is chosen for.
struct ProductKind {
  kernels::DataType type = kernels::DataType::kFloat32;      // of x and the weight; E4M3: n and k are multiples of 16
  kernels::DataType out_type = kernels::DataType::kFloat32;  // of the result and the bias
  int64_t n = 0;
  int64_t k = 0;
  Epilogue epilogue = Epilogue::kNone;
  bool bias = false;
  bool add = false;     // to what the result holds already
  bool alpha = false;   // the product is multiplied with a number that is not 1
  bool scaled = false;  // E4M3 alone: x has a scale for each row, the weight one for each of its n
  // Of the weight's rows, the first half are gates and the second their values: the result is n / 2 wide, of `type`,
  // without epilogue, bias or add (product_cuda.h).
  std::optional<kernels::ActivationKind> gate;

  int64_t columns() const { return gate ? n / 2 : n; }  // of the result

  friend auto operator<=>(const ProductKind&, const ProductKind&) = default;
};

// Elements between rows.
struct ProductSteps {
  int64_t x = 0, weight = 0, out = 0;

  friend auto operator<=>(const ProductSteps&, const ProductSteps&) = default;
};

struct ProductArrays {
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;           // [n]
  const float* row_scale = nullptr;     // [rows], of a scaled product
  const float* column_scale = nullptr;  // [n], likewise
  void* ungated = nullptr;              // [rows][n] of a product with a gate, for cuBLASLt's result
  void* out = nullptr;
  float alpha = 1;  // of the product, not of the bias
};

// By which kernel: cuBLASLt's, or one of kernels/product_cuda.h.
enum class ProductKernel : int { kCublasLt = 0, kSkinny = 1, kDense64x64 = 2, kDense64x128 = 3, kDense128x256 = 4 };
inline constexpr ProductKernel kProductKernels[] = {ProductKernel::kCublasLt, ProductKernel::kSkinny,
                                                    ProductKernel::kDense64x64, ProductKernel::kDense64x128,
                                                    ProductKernel::kDense128x256};
static_assert(static_cast<size_t>(kProductKernels[std::size(kProductKernels) - 1]) == std::size(kProductKernels) - 1,
              "a tuning file has their numbers");

struct Algorithm {
  ProductKernel kernel = ProductKernel::kCublasLt;
  bool fast_sums = false;        // of E4M3: in the tensor cores' registers alone, algorithms.h
  cublasLtMatmulAlgo_t lt = {};  // of cuBLASLt's kernel

  friend bool operator==(const Algorithm& a, const Algorithm& b) {
    return a.kernel == b.kernel && a.fast_sums == b.fast_sums &&
           std::equal(std::begin(a.lt.data), std::end(a.lt.data), std::begin(b.lt.data));
  }
};

struct LtWorkspace {
  void* data = nullptr;
  size_t bytes = 0;
};

struct LtStream {
  cublasLtHandle_t handle;
  LtWorkspace workspace;
  cudaStream_t stream;
};

// A product of `rows` rows. Used by one thread at a time.
class Product {
 public:
  Product(const CublasLt& lt, const ProductKind& kind, const ProductSteps& steps, int64_t rows);
  ~Product();
  Product(Product&& other) noexcept;
  Product& operator=(Product&&) = delete;

  // Where the bias and the scales are: before algorithms are asked for, which the library may refuse without them.
  void Bind(const ProductArrays& arrays) const;
  cublasStatus_t Heuristic(const LtStream& on, bool fast_sums, absl::Span<cublasLtMatmulHeuristicResult_t> results,
                           int* count) const;
  // Whether the algorithm can do it in that much workspace; of kernels with wgmma whether a device that has them can.
  bool Takes(const LtStream& on, const Algorithm& algorithm) const;
  cublasStatus_t Run(const ProductArrays& arrays, const Algorithm& algorithm, const LtStream& on) const;

 private:
  void UseSums(bool fast) const;
  kernels::LaunchError RunOwn(ProductKernel kernel, const ProductArrays& arrays, cudaStream_t stream) const;

  const CublasLt& lt_;
  const ProductKind kind_;
  const ProductSteps steps_;
  const int64_t rows_;
  cublasLtMatmulDesc_t desc_ = nullptr;
  cublasLtMatrixLayout_t weight_ = nullptr, x_ = nullptr, out_ = nullptr;
};

void Check(cublasStatus_t status, const char* what);  // c10::Error on anything but success

}  // namespace beamline::backend::cuda
