// SPDX-License-Identifier: Apache-2.0
//
// NumPy's .npy format, as far as item vectors need it: versions 1 to 3, little-endian f4 or f8, C order, two
// dimensions. Everything else (pickled objects, Fortran order, structured or big-endian types, other ranks, shapes that
// do not fit the file's length, values that are not finite) is refused, before the matrix is allocated. Format:
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/float_matrix.h"

namespace beamline {

struct NpyLimits {
  uint64_t max_file_bytes = uint64_t{16} << 30;
  int64_t max_rows = int64_t{1} << 32;
  int64_t max_cols = 65536;
};

absl::StatusOr<FloatMatrix> ReadNpy(const std::string& path, const NpyLimits& limits = {});
absl::StatusOr<FloatMatrix> ParseNpy(absl::string_view contents, const std::string& source_name,
                                     const NpyLimits& limits = {});

}  // namespace beamline
