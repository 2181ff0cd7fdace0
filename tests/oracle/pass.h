// SPDX-License-Identifier: Apache-2.0
//
// What one forward pass of the reference reads, and what it notes of the only decisions that a rounding can turn: which
// experts a gate chooses. The reference is written from the papers and the headers of src/model, and shares no code
// with them: in double it is what the models are compared with, in float it tells what fp32 makes of the same model
// (tolerance.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "backend/matrix.h"
#include "model/config.h"
#include "model/weight_schema.h"

namespace beamline::oracle {

using HostWeights = std::map<std::string, std::vector<float>>;  // of model::WeightSchema's names

// Every weight as a matrix whose columns are its last axis; a vector is one row.
template <typename Real>
using Weights = std::map<std::string, backend::MatrixOf<Real>>;

template <typename Real>
Weights<Real> ToMatrices(const model::ModelConfig& config, const HostWeights& host) {
  Weights<Real> weights;
  for (const model::WeightSpec& spec : model::WeightSchema(config)) {
    backend::MatrixOf<Real> matrix(spec.elements() / spec.shape.back(), spec.shape.back());
    std::copy(host.at(spec.name).begin(), host.at(spec.name).end(), matrix.v.begin());
    weights.emplace(spec.name, std::move(matrix));
  }
  return weights;
}

template <typename Real>
struct Pass {
  using Rows = backend::MatrixOf<Real>;
  const model::ModelConfig& config;
  const Weights<Real>& weights;

  std::vector<double> gate_scores = {};                               // in the order of the pass
  double narrowest_choice = std::numeric_limits<double>::infinity();  // from the last expert chosen to the next

  const Rows& operator[](const std::string& name) const { return weights.at(name); }
};

template <typename Real>
void Add(backend::MatrixOf<Real>& x, const backend::MatrixOf<Real>& delta) {
  for (size_t i = 0; i < x.v.size(); ++i) x.v[i] += delta.v[i];
}

// Row `from` of a table added to row `to` of x.
template <typename Real>
void AddRow(backend::MatrixOf<Real>& x, int64_t to, const backend::MatrixOf<Real>& table, int64_t from) {
  for (int64_t c = 0; c < x.cols; ++c) x(to, c) += table(from, c);
}

template <typename Real>
backend::MatrixOf<Real> RowsOf(const backend::MatrixOf<Real>& x, int64_t begin, int64_t count) {
  backend::MatrixOf<Real> y(count, x.cols);
  std::copy_n(x.v.begin() + begin * x.cols, count * x.cols, y.v.begin());
  return y;
}

}  // namespace beamline::oracle
