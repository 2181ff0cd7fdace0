// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/product.h"

#include "backend/cuda/device_memory.h"
#include "beamline/kernels/product_cuda.h"

namespace beamline::backend::cuda {
namespace {

// Every row of ours begins at such an address; cuBLASLt would assume 256.
constexpr uint32_t kRowAlignment = static_cast<uint32_t>(kernels::kAlignment);

cudaDataType_t LtType(kernels::DataType type) {
  switch (type) {
    case kernels::DataType::kFloat32:
      return CUDA_R_32F;
    case kernels::DataType::kBFloat16:
      return CUDA_R_16BF;
    case kernels::DataType::kFloat16:
      return CUDA_R_16F;
    case kernels::DataType::kE4M3:
      return CUDA_R_8F_E4M3;
  }
  return CUDA_R_32F;
}

cublasLtEpilogue_t LtEpilogue(const ProductKind& kind) {
  switch (kind.epilogue) {
    case Epilogue::kNone:
      return kind.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    case Epilogue::kRelu:
      return kind.bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    case Epilogue::kGeluTanh:
      return kind.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

bool TakesOwn(const ProductKind& kind) {
  const bool narrow = kind.type == kernels::DataType::kBFloat16 || kind.type == kernels::DataType::kFloat16;
  if (kind.gate && (!kernels::IsProductGate(*kind.gate) || kind.n % 16 != 0 || kind.out_type != kind.type ||
                    kind.bias || kind.add || kind.epilogue != Epilogue::kNone)) {
    return false;
  }
  return narrow && !kind.scaled && kind.epilogue != Epilogue::kGeluTanh && kind.k % 8 == 0 &&
         (kind.out_type == kind.type || kind.out_type == kernels::DataType::kFloat32);
}

}  // namespace

void Check(cublasStatus_t status, const char* what) {
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, "cuda: ", what, ": cuBLASLt status ", static_cast<int>(status));
}

Product::Product(const CublasLt& lt, const ProductKind& kind, const ProductSteps& steps, int64_t rows)
    : lt_(lt), kind_(kind), steps_(steps), rows_(rows) {
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    Check(lt_.desc_set(desc_, attribute, &value, sizeof(value)), "describing a product");
  };
  // Sums in fp32; fp32 inputs are not cut to TF32.
  Check(lt_.desc_create(&desc_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
  set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, LtEpilogue(kind));
  if (kind.bias) set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, LtType(kind.out_type));
  if (kind.scaled) {
    const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
  }
  const auto layout = [&](cublasLtMatrixLayout_t* to, kernels::DataType type, int64_t height, int64_t width,
                          int64_t step) {
    Check(lt_.layout_create(to, LtType(type), static_cast<uint64_t>(height), static_cast<uint64_t>(width), step),
          "describing a matrix");
  };
  layout(&weight_, kind.type, kind.k, kind.n, steps.weight);
  layout(&x_, kind.type, kind.k, rows, steps.x);
  layout(&out_, kind.out_type, kind.n, rows, kind.gate ? kind.n : steps.out);
}

Product::Product(Product&& other) noexcept
    : lt_(other.lt_),
      kind_(other.kind_),
      steps_(other.steps_),
      rows_(other.rows_),
      desc_(std::exchange(other.desc_, nullptr)),
      weight_(std::exchange(other.weight_, nullptr)),
      x_(std::exchange(other.x_, nullptr)),
      out_(std::exchange(other.out_, nullptr)) {}

Product::~Product() {
  for (cublasLtMatrixLayout_t layout : {weight_, x_, out_}) {
    if (layout != nullptr) lt_.layout_destroy(layout);
  }
  if (desc_ != nullptr) lt_.desc_destroy(desc_);
}

void Product::UseSums(bool fast) const {
  if (kind_.type != kernels::DataType::kE4M3) return;
  const int8_t mode = fast ? 1 : 0;
  Check(lt_.desc_set(desc_, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &mode, sizeof(mode)), "a product's sums");
}

cublasStatus_t Product::Heuristic(const LtStream& on, bool fast_sums,
                                  absl::Span<cublasLtMatmulHeuristicResult_t> results, int* count) const {
  UseSums(fast_sums);
  cublasLtMatmulPreference_t preference = nullptr;
  Check(lt_.preference_create(&preference), "asking for algorithms");
  uint64_t bytes = on.workspace.bytes;
  lt_.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes));
  for (const cublasLtMatmulPreferenceAttributes_t matrix :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    lt_.preference_set(preference, matrix, &kRowAlignment, sizeof(kRowAlignment));
  }
  const cublasStatus_t status = lt_.heuristic(on.handle, desc_, weight_, x_, out_, out_, preference,
                                              static_cast<int>(results.size()), results.data(), count);
  lt_.preference_destroy(preference);
  return status;
}

bool Product::Takes(const LtStream& on, const Algorithm& algorithm) const {
  if (algorithm.kernel != ProductKernel::kCublasLt) {
    return TakesOwn(kind_) && (algorithm.kernel != ProductKernel::kSkinny || rows_ <= kernels::kMaxSkinnyRows);
  }
  cublasLtMatmulHeuristicResult_t result = {};
  UseSums(algorithm.fast_sums);
  return lt_.check(on.handle, desc_, weight_, x_, out_, out_, &algorithm.lt, &result) == CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= on.workspace.bytes;
}

void Product::Bind(const ProductArrays& arrays) const {
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const void* pointer) {
    Check(lt_.desc_set(desc_, attribute, static_cast<const void*>(&pointer), sizeof(pointer)), "a product's vectors");
  };
  if (kind_.bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, arrays.bias);
  if (!kind_.scaled) return;
  set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, arrays.column_scale);
  set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, arrays.row_scale);
}

cublasStatus_t Product::Run(const ProductArrays& arrays, const Algorithm& algorithm, const LtStream& on) const {
  const auto status = [](kernels::LaunchError error) {
    return error == kernels::LaunchError::kOk ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  };
  if (arrays.alpha != 1 && !kind_.alpha) return CUBLAS_STATUS_INVALID_VALUE;  // no algorithm was tried with it
  if (algorithm.kernel != ProductKernel::kCublasLt) return status(RunOwn(algorithm.kernel, arrays, on.stream));
  Bind(arrays);
  UseSums(algorithm.fast_sums);
  const float add = kind_.add ? 1.0f : 0.0f;
  void* const out = kind_.gate ? arrays.ungated : arrays.out;
  const cublasStatus_t product =
      lt_.matmul(on.handle, desc_, &arrays.alpha, arrays.weight, weight_, arrays.x, x_, &add, out, out_, out, out_,
                 &algorithm.lt, on.workspace.data, on.workspace.bytes, on.stream);
  if (product != CUBLAS_STATUS_SUCCESS || !kind_.gate) return product;
  return status(kernels::ActivationCuda({.type = kind_.out_type,
                                         .kind = *kind_.gate,
                                         .rows = rows_,
                                         .width = static_cast<int32_t>(kind_.columns()),
                                         .x = out,
                                         .out = arrays.out},
                                        on.stream));
}

kernels::LaunchError Product::RunOwn(ProductKernel kernel, const ProductArrays& arrays, cudaStream_t stream) const {
  const kernels::ProductArgs args{.type = kind_.type,
                                  .out_type = kind_.out_type,
                                  .rows = static_cast<int32_t>(rows_),
                                  .n = static_cast<int32_t>(kind_.n),
                                  .k = static_cast<int32_t>(kind_.k),
                                  .x = arrays.x,
                                  .weight = arrays.weight,
                                  .x_step = steps_.x,
                                  .weight_step = steps_.weight,
                                  .out_step = steps_.out,
                                  .alpha = arrays.alpha,
                                  .add = kind_.add,
                                  .relu = kind_.epilogue == Epilogue::kRelu,
                                  .bias = kind_.bias ? arrays.bias : nullptr,
                                  .gate = kind_.gate,
                                  .out = arrays.out};
  switch (kernel) {
    case ProductKernel::kSkinny:
      return kernels::SkinnyProductCuda(args, stream);
    case ProductKernel::kDense64x64:
      return kernels::DenseProductCuda(args, kernels::DenseTile::k64x64, stream);
    case ProductKernel::kDense64x128:
      return kernels::DenseProductCuda(args, kernels::DenseTile::k64x128, stream);
    case ProductKernel::kDense128x256:
      return kernels::DenseProductCuda(args, kernels::DenseTile::k128x256, stream);
    case ProductKernel::kCublasLt:
      break;
  }
  return kernels::LaunchError::kInvalidArgument;
}

}  // namespace beamline::backend::cuda
