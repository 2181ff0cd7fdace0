// SPDX-License-Identifier: Apache-2.0
#include "sid/centroid_search.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/interrupt.h"

namespace beamline::sid {
namespace {

constexpr int64_t kGroupTiles = 40;         // points whose running best stays in the first cache level
constexpr int64_t kCacheBytes = 128 << 10;  // of packed codes that stay cached while a group passes over them
constexpr int64_t kPointsPerTask = 4096;
constexpr int64_t kMedianRows = 1024;

// Near the median of each column, which is all that is asked of it: of so many rows at most, evenly spaced.
std::vector<float> MedianRow(const FloatMatrix& rows) {
  const int64_t count = std::min(rows.rows, kMedianRows);
  std::vector<float> median(rows.cols), column(count);
  for (int64_t d = 0; d < rows.cols; ++d) {
    for (int64_t i = 0; i < count; ++i) column[i] = rows.row(i * rows.rows / count)[d];
    const auto middle = column.begin() + count / 2;
    std::nth_element(column.begin(), middle, column.end());
    median[d] = *middle;
  }
  return median;
}

}  // namespace

const NearestKernels& BestKernels() {
#ifdef BEAMLINE_SID_X86
  if (__builtin_cpu_supports("avx512f")) return Avx512Kernels();
  if (__builtin_cpu_supports("avx2")) return Avx2Kernels();
#endif
  return GenericKernels();
}

float SquaredNorm(absl::Span<const float> values) {
  float sum = 0;
  for (const float value : values) sum += value * value;
  return sum;
}

CentroidSearch::CentroidSearch(const FloatMatrix& centroids, const NearestKernels& kernels)
    : kernels_(kernels), size_(centroids.rows), dim_(centroids.cols), centre_(MedianRow(centroids)) {
  const int64_t blocks = (size_ + kLanes - 1) / kLanes;
  packed_.assign(blocks * dim_, LaneFloats{});
  bias_.assign(blocks, LaneFloats{});
  std::vector<float> centred(dim_);
  for (int64_t code = 0; code < blocks * kLanes; ++code) {
    const int64_t block = code / kLanes;
    const int64_t lane = code % kLanes;
    if (code >= size_) {
      bias_[block].values[lane] = std::numeric_limits<float>::max();
      continue;
    }
    Centre(centroids.row(code), centred.data());
    bias_[block].values[lane] = SquaredNorm(centred);
    for (int64_t d = 0; d < dim_; ++d) packed_[block * dim_ + d].values[lane] = -2.0f * centred[d];
  }
}

void CentroidSearch::Centre(const float* point, float* centred) const {
  for (int64_t d = 0; d < dim_; ++d) centred[d] = point[d] - centre_[d];
}

float CentroidSearch::Norm(const float* point) const {
  std::vector<float> centred(dim_);
  Centre(point, centred.data());
  return SquaredNorm(centred);
}

void CentroidSearch::Nearest(const float* points, int64_t count, uint32_t* codes, float* distances) const {
  constexpr int64_t kGroup = kGroupTiles * kTile;
  for (int64_t begin = 0; begin < count; begin += kGroup) {
    const int64_t group = std::min(kGroup, count - begin);
    NearestGroup(points + begin * dim_, group, codes + begin, distances == nullptr ? nullptr : distances + begin);
  }
}

void CentroidSearch::NearestGroup(const float* points, int64_t count, uint32_t* codes, float* distances) const {
  std::array<LaneFloats, kGroupTiles * kTile> best;
  std::array<LaneCodes, kGroupTiles * kTile> best_block;
  for (LaneFloats& lanes : best) std::fill_n(lanes.values, kLanes, std::numeric_limits<float>::max());
  for (LaneCodes& lanes : best_block) std::fill_n(lanes.values, kLanes, 0);
  // The last tile is filled up with copies of its first point, so every point goes through the same kernel.
  const int64_t tiled = (count + kTile - 1) / kTile * kTile;
  std::vector<float> centred(tiled * dim_);
  for (int64_t p = 0; p < tiled; ++p) Centre(points + (p < count ? p : tiled - kTile) * dim_, &centred[p * dim_]);
  const int64_t step = std::max<int64_t>(1, kCacheBytes / (dim_ * static_cast<int64_t>(sizeof(LaneFloats))));
  for (int64_t begin = 0; begin < blocks(); begin += step) {
    const CodeBlocks range = {packed_.data(), bias_.data(), dim_, begin, std::min(begin + step, blocks())};
    for (int64_t at = 0; at < count; at += kTile) {
      kernels_.nearest(range, &centred[at * dim_], &best[at], &best_block[at]);
    }
  }
  for (int64_t p = 0; p < count; ++p) {
    float score = best[p].values[0];
    uint32_t code = static_cast<uint32_t>(best_block[p].values[0]) * kLanes;
    for (int lane = 1; lane < kLanes; ++lane) {
      const uint32_t other = static_cast<uint32_t>(best_block[p].values[lane]) * kLanes + lane;
      if (best[p].values[lane] < score || (best[p].values[lane] == score && other < code)) {
        score = best[p].values[lane];
        code = other;
      }
    }
    codes[p] = std::min<uint32_t>(code, static_cast<uint32_t>(size_ - 1));
    if (distances == nullptr) continue;
    const float norm = SquaredNorm({&centred[p * dim_], static_cast<size_t>(dim_)});
    distances[p] = std::max(0.0f, score + norm);
  }
}

void CentroidSearch::Scores(const float* point, int64_t begin, int64_t end, LaneFloats* out) const {
  std::vector<float> centred(dim_);
  Centre(point, centred.data());
  kernels_.scores({packed_.data(), bias_.data(), dim_, begin, end}, centred.data(), out);
}

Assignment AssignNearest(const CentroidSearch& search, const FloatMatrix& points, ThreadPool* pool) {
  Assignment result;
  result.codes.resize(points.rows);
  result.distances.resize(points.rows);
  ParallelFor(pool, points.rows, kPointsPerTask, [&](int64_t begin, int64_t end) {
    if (Interrupted()) return;
    search.Nearest(points.row(begin), end - begin, &result.codes[begin], &result.distances[begin]);
  });
  return result;
}

}  // namespace beamline::sid
