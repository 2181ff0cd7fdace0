// SPDX-License-Identifier: Apache-2.0
//
// Lookups on the device: the input rows of a decode step, the features of context tokens, and the tokens of several
// pathways brought together in packed order. An id outside its table gives zeros and reads nothing. Sums are fp32,
// rounded once. Widths, that of a result of several columns too, are multiples of 8 up to kMaxRowWidth; results have 1
// to 2^31 - 1 rows and at most 2^42 - 2048 elements. Arrays of rows are 16-byte aligned.
#pragma once

#include <cstdint>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

// out[r] = table[codes[r]] + add. Rows of the table are dense.
struct EmbedCodesArgs {
  DataType type = DataType::kFloat32;  // of all matrices
  int32_t width = 0;
  int32_t rows = 0;
  const void* table = nullptr;      // [table_rows][width]
  int32_t table_rows = 0;           // at least 1
  const uint16_t* codes = nullptr;  // [rows], or
  const int32_t* ids = nullptr;     // [rows][id_step], the first of each; neither: row 0 for all (BOS)
  int32_t id_step = 1;              // at least 1
  const void* add = nullptr;        // [width] or null: a position's row
  void* out = nullptr;              // [rows][out_step]
  int64_t out_step = 0;             // elements, a multiple of 8 and at least width; 0: width
};

LaunchError EmbedCodesCuda(const EmbedCodesArgs& args, CudaStream stream);

// How a feature becomes a row of its table; the op set's FeatureLookup.
enum class FeatureRow : int {
  kIndex = 0,    // row `id`
  kFromOne = 1,  // row `id - 1`; id 0 is the zero vector
  kBitSum = 2,   // sum of the rows whose bit is set in `id`
};

inline constexpr int kMaxFeatureColumns = 32;

struct FeatureColumn {
  const void* table = nullptr;  // [buckets][width]
  int32_t buckets = 0;          // at least 1; at most 32 for kBitSum
  int32_t width = 0;            // all equal where summed
  FeatureRow lookup = FeatureRow::kIndex;
};

// The columns' rows side by side, or their sum in column order.
struct EmbedFeaturesArgs {
  DataType type = DataType::kFloat32;
  int32_t tokens = 0;
  int32_t columns = 0;  // 1..kMaxFeatureColumns
  bool sum = false;
  const int32_t* ids = nullptr;  // [tokens][columns]
  FeatureColumn column[kMaxFeatureColumns];
  void* out = nullptr;  // [tokens][sum of the widths, or the width]
};

LaunchError EmbedFeaturesCuda(const EmbedFeaturesArgs& args, CudaStream stream);

inline constexpr int kMaxPathways = 8;

// out[t] = pathway[from[t]][row[t]] + positions[position[t]].
struct JoinTokensArgs {
  DataType type = DataType::kFloat32;
  int32_t width = 0;
  int32_t tokens = 0;
  const void* pathway[kMaxPathways] = {};   // [pathway_rows][width] each
  int32_t pathway_rows[kMaxPathways] = {};  // 0 where there is none
  // Which row of which pathway: [tokens] each. Or null, and `requests` given: pathway i has pathway_rows[i] / requests
  // tokens of each request, side by side in the order of the pathways.
  const int32_t* from = nullptr;
  const int32_t* row = nullptr;
  int32_t requests = 0;
  const void* positions = nullptr;  // [position_rows][width], or null: nothing is added
  int32_t position_rows = 0;
  const int32_t* position = nullptr;  // [tokens]
  void* out = nullptr;                // [tokens][width]
};

LaunchError JoinTokensCuda(const JoinTokensArgs& args, CudaStream stream);

}  // namespace beamline::kernels
