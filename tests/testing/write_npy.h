// SPDX-License-Identifier: Apache-2.0
//
// A .npy file as NumPy would write it; the product reads them alone.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/float_matrix.h"

namespace beamline::testing {

// Version 1.0, f4, C order. False where the file could not be written.
inline bool WriteNpy(const std::string& path, const FloatMatrix& matrix) {
  std::string dictionary =
      absl::StrCat("{'descr': '<f4', 'fortran_order': False, 'shape': (", matrix.rows, ", ", matrix.cols, "), }");
  // The data starts at a multiple of 64; the header ends in a line feed.
  dictionary.append(63 - (10 + dictionary.size()) % 64, ' ');
  dictionary += '\n';
  std::ofstream file(path, std::ios::binary);
  file << "\x93NUMPY" << '\x01' << '\0' << static_cast<char>(dictionary.size() & 0xff)
       << static_cast<char>(dictionary.size() >> 8) << dictionary;
  file.write(reinterpret_cast<const char*>(matrix.values.data()),
             static_cast<std::streamsize>(matrix.values.size() * sizeof(float)));
  return static_cast<bool>(file.flush());
}

}  // namespace beamline::testing
