// SPDX-License-Identifier: Apache-2.0
//
// A mixture-of-experts layer on the device (DeepSeek-V3's sigmoid gate, arXiv 2412.19437): route, group, then two
// GroupedProductCuda with an activation between them, combine. An *entry* is one of a row's top_k experts; entries are
// grouped by expert in entry order, and every row gathers its own results: no atomics, no order of arrival.
#pragma once

#include <cstdint>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

inline constexpr int32_t kMaxExperts = 256;
inline constexpr int32_t kMaxExpertsPerRow = 16;
// Added to the sum of a row's chosen scores, on every device, as DeepSeek-V3's own code does: a row whose scores are
// all 0 (gate x below -88) gets weights of 0 instead of NaN. Sums above 1e-12 keep their bits.
inline constexpr float kMoeSumFloor = 1e-20f;

// score = sigmoid(gate x) in fp32; the top_k experts by score + bias (ties: the lower index), each weighted by its
// score over the sum of the chosen ones and kMoeSumFloor. Matrices are 16-byte aligned, rows dense.
struct MoeRouteArgs {
  DataType type = DataType::kFloat32;  // of x and gate
  int32_t rows = 0;                    // 1..2^31 - 1
  int32_t width = 0;                   // multiple of 8, at most kMaxRowWidth
  int32_t experts = 0;                 // 1..kMaxExperts
  int32_t top_k = 0;                   // 1..min(experts, kMaxExpertsPerRow)
  const void* x = nullptr;             // [rows][width]
  const void* gate = nullptr;          // [experts][width]
  const float* bias = nullptr;         // [experts]
  int32_t* expert = nullptr;           // [rows][top_k]; in 0..experts - 1 whatever x holds
  float* weight = nullptr;             // [rows][top_k]
};

LaunchError MoeRouteCuda(const MoeRouteArgs& args, CudaStream stream);

struct MoeGroupArgs {
  int32_t entries = 0;              // rows * top_k; 1..2^30
  int32_t experts = 0;              // 1..kMaxExperts
  const int32_t* expert = nullptr;  // [entries]
  int32_t* begin = nullptr;         // [experts + 1] expert e has the places begin[e] .. begin[e + 1]
  int32_t* entry = nullptr;         // [entries] by place
  int32_t* place = nullptr;         // [entries] by entry
};

LaunchError MoeGroupCuda(const MoeGroupArgs& args, CudaStream stream);

// out[place] = weight[e] x[entry[place] / divisor] for each place of expert e: fp32 sums over k in ascending tiles, one
// order for every number of rows. bf16 and fp16 on tensor cores. Matrices are 16-byte aligned.
struct GroupedProductArgs {
  DataType type = DataType::kFloat32;  // of all matrices
  int32_t entries = 0;                 // capacity in places, at least 1; (entries - 1) / 64 + experts <= 65534
  int32_t experts = 0;                 // 1..kMaxExperts
  int32_t n = 0;                       // multiples of 8, at most kMaxRowWidth
  int32_t k = 0;
  const int32_t* begin = nullptr;  // [experts + 1]
  const int32_t* entry = nullptr;  // [entries], or null: x has a row per place
  int32_t divisor = 1;             // top_k where x has a row per token; at least 1, and 1 without `entry`
  const void* x = nullptr;         // [...][k]
  const void* weight = nullptr;    // [experts][n][k]
  void* out = nullptr;             // [entries][n]
  // By wgmma, where there are such kernels (PrepareWarpgroups, warpgroups_cuda.h). Other bits, so the same for all
  // batches.
  bool warpgroups = false;
  // The first half of the columns are gates of the second: out [entries][n / 2] = SiLU(gate) * value, of sums in fp32.
  // Only by wgmma, else kInvalidArgument; n / 2 is a multiple of 8.
  bool gated = false;
};

LaunchError GroupedProductCuda(const GroupedProductArgs& args, CudaStream stream);

// out[row] = sum over its entries of weight * y[place], in entry order, + shared[row]. At most 2^42 - 2048 elements.
struct MoeCombineArgs {
  DataType type = DataType::kFloat32;
  int32_t rows = 0;                // rows * top_k: 1..2^31 - 1
  int32_t width = 0;               // multiple of 8, at most kMaxRowWidth
  int32_t top_k = 0;               // 1..kMaxExpertsPerRow
  const void* y = nullptr;         // [rows * top_k][width] by place
  const int32_t* place = nullptr;  // [rows][top_k]
  const float* weight = nullptr;   // [rows][top_k]
  const void* shared = nullptr;    // [rows][width] or null: the shared experts' result
  void* out = nullptr;             // [rows][width]; may be `shared`
};

LaunchError MoeCombineCuda(const MoeCombineArgs& args, CudaStream stream);

}  // namespace beamline::kernels
