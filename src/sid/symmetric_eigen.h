// SPDX-License-Identifier: Apache-2.0
//
// Small dense symmetric matrices in double precision, row-major [n, n]: what is left of a large problem after a random
// projection. Pure functions, deterministic.
#pragma once

#include <cstdint>
#include <vector>

namespace beamline::sid {

struct SymmetricEigen {
  std::vector<double> values;   // [n], falling
  std::vector<double> vectors;  // [n, n]; column k belongs to values[k]
};

// Cyclic Jacobi rotations; accurate for every symmetric matrix, n^3 per sweep and about ten sweeps.
SymmetricEigen EigenDecompose(std::vector<double> matrix, int64_t n);

// T [n, n] upper triangular with T' G T = I on the columns G's rank allows; a column that depends on those before it
// (its remaining share of G's diagonal is under `tolerance`) becomes zero. The inverse of G's Cholesky factor.
std::vector<double> OrthonormalizingFactor(std::vector<double> gram, int64_t n, double tolerance);

}  // namespace beamline::sid
