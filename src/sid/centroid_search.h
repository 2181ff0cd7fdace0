// SPDX-License-Identifier: Apache-2.0
//
// Nearest-code search over all codes: for a point x the code c of least |c - m|^2 - 2 (x - m).(c - m), that is of least
// squared distance. m is about the codes' median in every column: without it the squares of vectors far from zero
// (embeddings with a constant column) would leave fp32 no digits for what tells codes apart, and a mean would follow
// outliers. Sums are in fp32: codes whose distances differ by less than some 1e-6 of |x - m|^2 may be taken for each
// other. Ties go to the lower code. Codes are packed in blocks for a vectorised kernel; the result does not depend on
// the number of threads, on how points are grouped, or on the machine's vector width. Immutable after construction, and
// then thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "base/float_matrix.h"
#include "base/thread_pool.h"
#include "sid/nearest_kernel.h"

namespace beamline::sid {

// The widest kernels this CPU runs.
const NearestKernels& BestKernels();

class CentroidSearch {
 public:
  explicit CentroidSearch(const FloatMatrix& centroids, const NearestKernels& kernels = BestKernels());

  int64_t size() const { return size_; }
  int64_t dim() const { return dim_; }
  int64_t blocks() const { return static_cast<int64_t>(bias_.size()); }

  // points [count, dim] -> codes [count], distances [count] (may be null): squared, at least 0.
  void Nearest(const float* points, int64_t count, uint32_t* codes, float* distances) const;
  // One point against the codes of blocks [begin, end), kLanes codes each; out [(end - begin) * kLanes], aligned to 64
  // bytes: squared distance - Norm(point). Lanes past size() hold the largest float.
  void Scores(const float* point, int64_t begin, int64_t end, LaneFloats* out) const;
  float Norm(const float* point) const;  // |x - m|^2

 private:
  void NearestGroup(const float* points, int64_t count, uint32_t* codes, float* distances) const;
  void Centre(const float* point, float* centred) const;

  const NearestKernels& kernels_;
  int64_t size_;
  int64_t dim_;
  std::vector<float> centre_;       // [dim], m
  std::vector<LaneFloats> packed_;  // [blocks, dim], -2 * (centroid - m)
  std::vector<LaneFloats> bias_;    // [blocks], |centroid - m|^2
};

struct Assignment {
  std::vector<uint32_t> codes;   // [n]
  std::vector<float> distances;  // [n], squared, at least 0
};

// Nearest code of every row, by several threads. Stops early when Interrupted(): check that afterwards.
Assignment AssignNearest(const CentroidSearch& search, const FloatMatrix& points, ThreadPool* pool);

// Sum of squares in index order.
float SquaredNorm(absl::Span<const float> values);

}  // namespace beamline::sid
