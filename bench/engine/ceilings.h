// SPDX-License-Identifier: Apache-2.0
//
// The rate of a large fp32 matrix product, 2048^3, on one thread: what a request's arithmetic is measured against.
#pragma once

#include <string>
#include <vector>

namespace beamline::bench {

// Seconds of CPU time that one product took in the library.
struct GemmLibrary {
  std::string name;
  double (*seconds)();
};

// This program's kernel, and libtorch's: its BLAS and its oneDNN. Inputs are packed beforehand where a library can.
std::vector<GemmLibrary> GemmLibraries();

inline constexpr double kCeilingFlops = 2.0 * 2048 * 2048 * 2048;

// CPU seconds of the calling thread.
double ThreadSeconds();

}  // namespace beamline::bench
