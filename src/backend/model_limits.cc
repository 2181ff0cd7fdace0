// SPDX-License-Identifier: Apache-2.0
#include "backend/model_limits.h"

#include "backend/context.h"
#include "beamline/kernels/embedding_cuda.h"
#include "beamline/kernels/launch.h"
#include "beamline/kernels/moe_cuda.h"
#include "beamline/kernels/packed_gemm.h"

namespace beamline::backend {

ModelLimits CudaModelLimits(bool scales_products) {
  return {.of = "backend cuda",
          .remedy = "choose other sizes, backend aten, or device cpu",
          .multiple = kernels::kWidthMultiple,
          .head_dim = kernels::kMaxHeadDim,
          // Gates and values leave such a product together.
          .hidden_width = kernels::kMaxRowWidth / (scales_products ? 2 : 1),
          .experts = kernels::kMaxExperts,
          .experts_per_row = kernels::kMaxExpertsPerRow,
          .feature_columns = kernels::kMaxFeatureColumns,
          .table_rows = std::numeric_limits<decltype(kernels::FeatureColumn::buckets)>::max()};
}

ModelLimits Int8ModelLimits() {
  return {.of = "backend cpu in int8", .remedy = "use fp32 or bf16", .depth = kernels::kMaxInt8Depth};
}

ModelLimits ModelLimitsOf(absl::string_view device, absl::string_view dtype, absl::string_view backend) {
  if (dtype == "int8") return Int8ModelLimits();  // on the CPU alone
  return BackendOf(device, backend) == "cuda" ? CudaModelLimits() : ModelLimits{};
}

}  // namespace beamline::backend
