// SPDX-License-Identifier: Apache-2.0
//
// Which sizes of a model a backend computes with, as data: who has no more than a configuration asks
// (model/size_check.h), before a weight is read and without a device. Kernels check again what reaches them.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/string_view.h"

namespace beamline::backend {

inline constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// Of what one rank holds. What no configuration exceeds is not here (model/size_check.cc).
struct ModelLimits {
  std::string of, remedy;           // for messages: whose limits these are, and what has others
  int64_t multiple = 1;             // of this are the widths of the model, its heads, hidden layers and tables
  int64_t head_dim = kNoLimit;      // columns of a head
  int64_t hidden_width = kNoLimit;  // of a feed-forward layer, or of all shared experts together
  int64_t depth = kNoLimit;         // columns of a matrix that rows are multiplied with
  int64_t experts = kNoLimit;
  int64_t experts_per_row = kNoLimit;
  int64_t feature_columns = kNoLimit;  // looked up at once
  int64_t table_rows = kNoLimit;       // of a table that features are looked up in
};

// `scales_products`: FP8 where cuBLASLt has no scales for rows.
ModelLimits CudaModelLimits(bool scales_products = false);
ModelLimits Int8ModelLimits();  // of the cpu backend

// Of the backend that MakeContext (context.h) finds for these names, as far as they alone tell.
ModelLimits ModelLimitsOf(absl::string_view device, absl::string_view dtype, absl::string_view backend);

}  // namespace beamline::backend
