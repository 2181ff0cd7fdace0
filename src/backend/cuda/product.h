// SPDX-License-Identifier: Apache-2.0
//
// One product of rows with a weight as cuBLASLt wants it described. cuBLASLt thinks in columns: our rows x [m][k] and
// weight [n][k] are its B (k by m) and transposed A (k by n), and the result [m][n] its D (n by m), along whose rows a
// bias lies.
#pragma once

#include <cstdint>
#include <utility>

#include "absl/types/span.h"
#include "backend/cuda/cublas_lt.h"
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
  bool scaled = false;  // E4M3 alone: x has a scale for each row, the weight one for each of its n

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
  void* out = nullptr;
  float scale = 1;  // of the product, not of the bias
};

// How a product is computed: by one of cuBLASLt's algorithms, or by kernels/skinny_product_cuda.h.
struct Algorithm {
  bool skinny = false;
  bool fast_sums = false;        // of E4M3: in the tensor cores' registers alone, algorithms.h
  cublasLtMatmulAlgo_t lt = {};  // of no meaning where skinny
};

struct LtWorkspace {
  void* data = nullptr;
  size_t bytes = 0;
};

// A product of `rows` rows: cuBLASLt's descriptors of it. Used by one thread at a time.
class Product {
 public:
  Product(const CublasLt& lt, const ProductKind& kind, const ProductSteps& steps, int64_t rows);
  ~Product();
  Product(Product&& other) noexcept;
  Product& operator=(Product&&) = delete;

  // Where the bias and the scales are: before algorithms are asked for, which the library may refuse without them.
  void Bind(const ProductArrays& arrays) const;
  cublasStatus_t Heuristic(cublasLtHandle_t handle, size_t workspace_bytes, bool fast_sums,
                           absl::Span<cublasLtMatmulHeuristicResult_t> results, int* count) const;
  // Whether the algorithm can do it in that much workspace.
  bool Takes(cublasLtHandle_t handle, const Algorithm& algorithm, size_t workspace_bytes) const;
  cublasStatus_t Run(cublasLtHandle_t handle, const ProductArrays& arrays, const Algorithm& algorithm,
                     const LtWorkspace& workspace, cudaStream_t stream) const;

 private:
  void UseSums(bool fast) const;

  const CublasLt& lt_;
  const ProductKind kind_;
  const ProductSteps steps_;
  const int64_t rows_;
  cublasLtMatmulDesc_t desc_ = nullptr;
  cublasLtMatrixLayout_t weight_ = nullptr, x_ = nullptr, out_ = nullptr;
};

void Check(cublasStatus_t status, const char* what);  // c10::Error on anything but success

}  // namespace beamline::backend::cuda
