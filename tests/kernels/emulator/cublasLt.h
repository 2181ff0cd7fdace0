// SPDX-License-Identifier: Apache-2.0
//
// Stands in for cuBLASLt's header where the cuda backend is compiled for the emulator: the part of it that the backend
// calls, as the manual has it: matrices by columns, D = alpha op(A) op(B) + beta C, a bias along D's rows, then an
// activation; E4M3 matrices with a scale for every row of op(A) and every column of op(B). It offers three algorithms:
// the first adds in another order where D has few columns, the second needs more workspace than anybody has, the third
// adds in ascending order, and 16-bit products in groups of sum_group first, as tensor cores do. With fast accumulation
// sums of E4M3 keep 14 bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

// NOLINTBEGIN(readability-identifier-naming): CUDA's names
enum cublasStatus_t { CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_INVALID_VALUE = 7, CUBLAS_STATUS_NOT_SUPPORTED = 15 };
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68 };
enum cublasLtEpilogue_t {
  CUBLASLT_EPILOGUE_DEFAULT = 1,
  CUBLASLT_EPILOGUE_RELU = 2,
  CUBLASLT_EPILOGUE_BIAS = 4,
  CUBLASLT_EPILOGUE_RELU_BIAS = 6,
  CUBLASLT_EPILOGUE_GELU = 32,
  CUBLASLT_EPILOGUE_GELU_BIAS = 36,
};
enum cublasLtMatmulDescAttributes_t {
  CUBLASLT_MATMUL_DESC_TRANSA = 3,
  CUBLASLT_MATMUL_DESC_TRANSB = 4,
  CUBLASLT_MATMUL_DESC_EPILOGUE = 7,
  CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8,
  CUBLASLT_MATMUL_DESC_A_SCALE_POINTER = 17,
  CUBLASLT_MATMUL_DESC_B_SCALE_POINTER = 18,
  CUBLASLT_MATMUL_DESC_FAST_ACCUM = 25,
  CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE = 26,
  CUBLASLT_MATMUL_DESC_A_SCALE_MODE = 31,
  CUBLASLT_MATMUL_DESC_B_SCALE_MODE = 32,
};
enum cublasLtMatmulMatrixScale_t { CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F = 3 };
enum cublasLtMatmulPreferenceAttributes_t {
  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 6,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES = 7,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8,
};

struct cublasLtMatmulDescOpaque {
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  int32_t bias_type = -1;  // D's
  const float *a_scale = nullptr, *b_scale = nullptr;
  int32_t a_scale_mode = 0, b_scale_mode = 0;
  int8_t fast_accum = 0;
};
using cublasLtMatmulDesc_t = cublasLtMatmulDescOpaque*;
struct cublasLtMatrixLayoutOpaque {
  cudaDataType_t type;
  uint64_t rows, columns;
  int64_t step;  // elements between columns
};
using cublasLtMatrixLayout_t = cublasLtMatrixLayoutOpaque*;
struct cublasLtPreferenceOpaque {
  uint64_t workspace_bytes = 0;
};
using cublasLtMatmulPreference_t = cublasLtPreferenceOpaque*;
using cublasLtHandle_t = struct cublasLtContext*;
struct cublasLtMatmulAlgo_t {
  uint64_t data[8];
};
struct cublasLtMatmulHeuristicResult_t {
  cublasLtMatmulAlgo_t algo;
  size_t workspaceSize;
  cublasStatus_t state;
  float wavesCount;
  int reserved[4];
};

inline cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
inline size_t cublasLtGetVersion() { return 1; }
inline cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t, cudaDataType_t) {
  *desc = new cublasLtMatmulDescOpaque;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete desc;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                                     cublasLtMatmulDescAttributes_t attribute, const void* value,
                                                     size_t bytes) {
  const auto take = [&](auto& to) {
    if (bytes != sizeof(to)) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(static_cast<void*>(&to), value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return take(desc->transpose_a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return take(desc->transpose_b);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return take(desc->epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return take(desc->bias);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return take(desc->bias_type);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
      return take(desc->a_scale);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
      return take(desc->b_scale);
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
      return take(desc->a_scale_mode);
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
      return take(desc->b_scale_mode);
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM:
      return take(desc->fast_accum);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
inline cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type, uint64_t rows,
                                                 uint64_t columns, int64_t step) {
  if (step < static_cast<int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *layout = new cublasLtMatrixLayoutOpaque{type, rows, columns, step};
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtPreferenceOpaque;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                           cublasLtMatmulPreferenceAttributes_t attribute,
                                                           const void* value, size_t bytes) {
  if (attribute != CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
    return bytes == sizeof(uint32_t) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
  }
  if (bytes != sizeof(preference->workspace_bytes)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&preference->workspace_bytes, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

namespace emulator {

inline constexpr uint64_t kOrderOfFew = 1, kHugeWorkspace = 2, kAscending = 3;  // algorithms

inline int64_t sum_group = 16;        // of 16-bit products; the emulated mma's
inline bool offers_fast_sums = true;  // of E4M3
inline double product_ms = 0;         // that a product takes
inline bool bias_first = false;       // before what the result held
inline bool alpha_rounded = false;    // before what the result held is added

inline float Element(const void* matrix, int type, int64_t at) {
  if (type == CUDA_R_16BF) return __bfloat162float(static_cast<const __nv_bfloat16*>(matrix)[at]);
  if (type == CUDA_R_16F) return __half2float(static_cast<const __half*>(matrix)[at]);
  if (type == CUDA_R_8F_E4M3) {
    static const std::vector<float> values = [] {
      std::vector<float> all(256);
      for (int bits = 0; bits < 256; ++bits) all[bits] = emulated_fp8_value(static_cast<uint8_t>(bits));
      return all;
    }();
    return values[static_cast<const uint8_t*>(matrix)[at]];
  }
  return static_cast<const float*>(matrix)[at];
}
inline void SetElement(void* matrix, int type, int64_t at, float value) {
  if (type == CUDA_R_16BF) {
    static_cast<__nv_bfloat16*>(matrix)[at] = __float2bfloat16_rn(value);
  } else if (type == CUDA_R_16F) {
    static_cast<__half*>(matrix)[at] = __float2half_rn(value);
  } else {
    static_cast<float*>(matrix)[at] = value;
  }
}

struct Matmul {
  cublasLtMatmulDescOpaque desc;
  cublasLtMatrixLayoutOpaque a, b, c, d;
  const void *a_data, *b_data, *c_data;
  void* d_data;
  float alpha, beta;
  uint64_t algorithm;

  static int64_t Place(const cublasLtMatrixLayoutOpaque& layout, cublasOperation_t operation, int64_t row,
                       int64_t column) {
    return operation == CUBLAS_OP_N ? row + column * layout.step : column + row * layout.step;
  }
  bool descending() const { return algorithm == kOrderOfFew && d.columns < 4; }
  float Dot(int64_t row, int64_t column, int64_t depth) const {
    const int64_t group = !descending() && (a.type == CUDA_R_16BF || a.type == CUDA_R_16F) ? sum_group : 1;
    float sum = 0;
    for (int64_t first = 0; first < depth; first += group) {
      float part = 0;
      for (int64_t i = first; i < std::min(depth, first + group); ++i) {
        const int64_t k = descending() ? depth - 1 - i : i;
        part += Element(a_data, a.type, Place(a, desc.transpose_a, row, k)) *
                Element(b_data, b.type, Place(b, desc.transpose_b, k, column));
      }
      sum += part;
    }
    return sum;
  }
  // Of 32 terms and what was there, all cut at the last of the 14 bits of the largest.
  float FastDot(int64_t row, int64_t column, int64_t depth) const {
    double sum = 0;
    for (int64_t first = 0; first < depth; first += 32) {
      std::vector<double> terms = {sum};
      for (int64_t i = first; i < std::min(depth, first + 32); ++i) {
        const int64_t k = descending() ? depth - 1 - i : i;
        terms.push_back(double{Element(a_data, a.type, Place(a, desc.transpose_a, row, k))} *
                        Element(b_data, b.type, Place(b, desc.transpose_b, k, column)));
      }
      sum = 0;
      double largest = 0;
      for (const double term : terms) largest = std::max(largest, std::abs(term));
      if (largest == 0) continue;
      const double step = std::ldexp(1.0, std::ilogb(largest) - 13);
      for (const double term : terms) sum += std::trunc(term / step) * step;
    }
    return static_cast<float>(sum);
  }
  void Run() const {
    const int64_t depth = static_cast<int64_t>(desc.transpose_a == CUBLAS_OP_N ? a.columns : a.rows);
    const int epilogue = desc.epilogue;
    for (uint64_t column = 0; column < d.columns; ++column) {
      for (uint64_t row = 0; row < d.rows; ++row) {
        const int64_t i = static_cast<int64_t>(row), j = static_cast<int64_t>(column);
        float sum = desc.fast_accum != 0 ? FastDot(i, j, depth) : Dot(i, j, depth);
        if (desc.a_scale_mode != 0) sum *= desc.a_scale[row] * desc.b_scale[column];
        float value = alpha * sum;
        const int64_t at = static_cast<int64_t>(row) + static_cast<int64_t>(column) * d.step;
        const float before = beta != 0 ? beta * Element(c_data, c.type, at) : 0;
        if (beta != 0 && !emulator::bias_first) {
          value = emulator::alpha_rounded ? value + before : std::fmaf(alpha, sum, before);
        }
        if ((epilogue & CUBLASLT_EPILOGUE_BIAS) != 0) {
          value += Element(desc.bias, desc.bias_type < 0 ? d.type : desc.bias_type, static_cast<int64_t>(row));
        }
        if (emulator::bias_first) value += before;
        if ((epilogue & CUBLASLT_EPILOGUE_RELU) != 0) value = std::max(value, 0.0f);
        if ((epilogue & CUBLASLT_EPILOGUE_GELU) != 0) {
          value *= 0.5f * (1 + std::tanh(0.79788456f * (value + 0.044715f * value * value * value)));
        }
        SetElement(d_data, d.type, at, value);
      }
    }
  }
};

}  // namespace emulator

inline cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algorithm,
                                              cublasLtMatmulHeuristicResult_t* result) {
  const uint64_t rows = desc->transpose_a == CUBLAS_OP_N ? a->rows : a->columns;
  const uint64_t depth = desc->transpose_a == CUBLAS_OP_N ? a->columns : a->rows;
  const uint64_t columns = desc->transpose_b == CUBLAS_OP_N ? b->columns : b->rows;
  const uint64_t b_depth = desc->transpose_b == CUBLAS_OP_N ? b->rows : b->columns;
  if (depth != b_depth || d->rows != rows || d->columns != columns || c->rows != rows || c->columns != columns) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (a->type != b->type || c->type != d->type || algorithm->data[0] < 1 || algorithm->data[0] > 3) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (a->type == CUDA_R_8F_E4M3) {
    const bool transposed = desc->transpose_a == CUBLAS_OP_T && desc->transpose_b == CUBLAS_OP_N;
    if (!transposed || rows % 16 != 0 || depth % 16 != 0 || d->type == a->type) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (desc->fast_accum != 0 && (a->type != CUDA_R_8F_E4M3 || !emulator::offers_fast_sums)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const int vectors = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
  for (const int32_t mode : {desc->a_scale_mode, desc->b_scale_mode}) {
    if (mode != desc->a_scale_mode || (mode != 0 && (mode != vectors || a->type != CUDA_R_8F_E4M3))) {
      return CUBLAS_STATUS_NOT_SUPPORTED;
    }
  }
  if (desc->a_scale_mode != 0 && (desc->a_scale == nullptr || desc->b_scale == nullptr)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *result = {*algorithm,
             algorithm->data[0] == emulator::kHugeWorkspace ? size_t{1} << 40 : 0,
             CUBLAS_STATUS_SUCCESS,
             1.0f,
             {}};
  return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                                     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                                     cublasLtMatmulPreference_t, int limit,
                                                     cublasLtMatmulHeuristicResult_t results[], int* count) {
  *count = 0;
  for (uint64_t name = 1; name <= 3 && *count < limit; ++name) {
    const cublasLtMatmulAlgo_t algorithm = {{name}};
    const cublasStatus_t status = cublasLtMatmulAlgoCheck(handle, desc, a, b, c, d, &algorithm, &results[*count]);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    ++*count;
  }
  return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha,
                                     const void* a_data, cublasLtMatrixLayout_t a, const void* b_data,
                                     cublasLtMatrixLayout_t b, const void* beta, const void* c_data,
                                     cublasLtMatrixLayout_t c, void* d_data, cublasLtMatrixLayout_t d,
                                     const cublasLtMatmulAlgo_t* algorithm, void*, size_t workspace_bytes,
                                     cudaStream_t stream) {
  cublasLtMatmulHeuristicResult_t result;
  const cublasStatus_t status = cublasLtMatmulAlgoCheck(handle, desc, a, b, c, d, algorithm, &result);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (result.workspaceSize > workspace_bytes) return CUBLAS_STATUS_INVALID_VALUE;
  if ((desc->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0 && desc->bias == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  for (const void* array : {a_data, b_data, c_data, static_cast<const void*>(d_data)}) {
    if (reinterpret_cast<uintptr_t>(array) % 16 != 0) return CUBLAS_STATUS_INVALID_VALUE;
  }
  const emulator::Matmul product{*desc,
                                 *a,
                                 *b,
                                 *c,
                                 *d,
                                 a_data,
                                 b_data,
                                 c_data,
                                 d_data,
                                 *static_cast<const float*>(alpha),
                                 *static_cast<const float*>(beta),
                                 algorithm->data[0]};
  if (emulator::product_ms != 0) emulator::clock_ms += emulator::product_ms;
  emulator::Enqueue(stream, [product] { product.Run(); });
  return CUBLAS_STATUS_SUCCESS;
}
// NOLINTEND(readability-identifier-naming)
