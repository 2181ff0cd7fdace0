// SPDX-License-Identifier: Apache-2.0
#include "sid/centroid_search.h"

#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "sid/sid_test_util.h"

namespace beamline::sid {
namespace {

struct Shape {
  int64_t points, size, dim;
};

const Shape kShapes[] = {{1, 1, 1}, {5, 2, 3}, {6, 16, 8}, {7, 17, 5}, {500, 100, 33}, {250, 300, 64}, {13, 4096, 2}};

double Distance(const FloatMatrix& points, int64_t i, const FloatMatrix& centroids, int64_t c) {
  double sum = 0;
  for (int64_t d = 0; d < points.cols; ++d) {
    const double difference = double{points.row(i)[d]} - centroids.row(c)[d];
    sum += difference * difference;
  }
  return sum;
}

TEST(CentroidSearch, FindsTheNearestOfADoublePrecisionSearch) {
  for (const Shape& shape : kShapes) {
    const FloatMatrix points = ClusteredVectors(shape.points, shape.dim, 10, 0.5f, 1);
    const FloatMatrix centroids = ClusteredVectors(shape.size, shape.dim, 10, 0.5f, 2);
    const Assignment assignment = AssignNearest(CentroidSearch(centroids), points, nullptr);
    for (int64_t i = 0; i < shape.points; ++i) {
      double best = std::numeric_limits<double>::infinity();
      for (int64_t c = 0; c < shape.size; ++c) best = std::min(best, Distance(points, i, centroids, c));
      const double tolerance = 1e-5 * (1 + static_cast<double>(shape.dim));
      ASSERT_LT(assignment.codes[i], shape.size);
      const double chosen = Distance(points, i, centroids, assignment.codes[i]);
      EXPECT_NEAR(chosen, best, tolerance) << shape.size << " codes, point " << i;
      EXPECT_NEAR(assignment.distances[i], best, tolerance);
    }
  }
}

// Embeddings far from zero, or with a constant column: their squares have no digits left for a distance of 1.
TEST(CentroidSearch, WhatAllVectorsShareDoesNotMatter) {
  for (const float offset : {1000.0f, -16384.0f}) {
    for (const int64_t columns : {1, 12}) {
      FloatMatrix points = ClusteredVectors(400, 12, 10, 0.5f, 11), centroids = ClusteredVectors(50, 12, 10, 0.5f, 12);
      for (FloatMatrix* moved : {&points, &centroids}) {
        for (int64_t i = 0; i < moved->rows; ++i) {
          for (int64_t d = 0; d < columns; ++d) moved->row(i)[d] += offset;
        }
      }
      const Assignment assignment = AssignNearest(CentroidSearch(centroids), points, nullptr);
      for (int64_t i = 0; i < points.rows; ++i) {
        double best = std::numeric_limits<double>::infinity();
        for (int64_t c = 0; c < centroids.rows; ++c) best = std::min(best, Distance(points, i, centroids, c));
        EXPECT_NEAR(Distance(points, i, centroids, assignment.codes[i]), best, 1e-4) << offset << " point " << i;
        EXPECT_NEAR(assignment.distances[i], best, 1e-4);
      }
    }
  }
}

TEST(CentroidSearch, EqualCentroidsGoToTheLowestCode) {
  FloatMatrix centroids(70, 3);
  for (int64_t c = 0; c < 70; ++c) centroids.row(c)[0] = c < 20 ? 5.0f : 1.0f;
  FloatMatrix points(9, 3);
  for (int64_t i = 0; i < 9; ++i) points.row(i)[0] = 1.0f;
  const Assignment assignment = AssignNearest(CentroidSearch(centroids), points, nullptr);
  for (const uint32_t code : assignment.codes) EXPECT_EQ(code, 20u);
}

TEST(CentroidSearch, EveryInstructionSetGivesTheSameBits) {
  for (const Shape& shape : kShapes) {
    const FloatMatrix points = ClusteredVectors(shape.points, shape.dim, 10, 0.5f, 3);
    const FloatMatrix centroids = ClusteredVectors(shape.size, shape.dim, 10, 0.5f, 4);
    const auto run = [&](const NearestKernels& kernels) {
      Assignment result{std::vector<uint32_t>(shape.points), std::vector<float>(shape.points)};
      CentroidSearch(centroids, kernels)
          .Nearest(points.row(0), shape.points, result.codes.data(), result.distances.data());
      return result;
    };
    const Assignment generic = run(GenericKernels());
    const Assignment best = run(BestKernels());
    EXPECT_EQ(generic.codes, best.codes);
    EXPECT_EQ(generic.distances, best.distances) << "dim " << shape.dim;
#ifdef BEAMLINE_SID_X86
    if (__builtin_cpu_supports("avx2")) {
      EXPECT_EQ(run(Avx2Kernels()).distances, generic.distances) << "dim " << shape.dim;
    }
#endif
  }
}

// A point's answer must not depend on which points share its tile, its group or its thread.
TEST(CentroidSearch, GroupingDoesNotMatter) {
  const FloatMatrix points = ClusteredVectors(9000, 17, 30, 0.5f, 5);
  const FloatMatrix centroids = ClusteredVectors(77, 17, 30, 0.5f, 6);
  const CentroidSearch search(centroids);
  const Assignment whole = AssignNearest(search, points, nullptr);
  ThreadPool pool(3);
  const Assignment parallel = AssignNearest(search, points, &pool);
  EXPECT_EQ(whole.codes, parallel.codes);
  EXPECT_EQ(whole.distances, parallel.distances);
  for (int64_t i = 0; i < points.rows; i += 97) {
    uint32_t code = 0;
    float distance = 0;
    search.Nearest(points.row(i), 1, &code, &distance);
    EXPECT_EQ(code, whole.codes[i]);
    EXPECT_EQ(distance, whole.distances[i]);
  }
}

TEST(CentroidSearch, ScoresAgreeWithNearest) {
  const FloatMatrix points = ClusteredVectors(20, 9, 5, 0.5f, 7);
  const FloatMatrix centroids = ClusteredVectors(37, 9, 5, 0.5f, 8);
  const CentroidSearch search(centroids);
  std::vector<LaneFloats> scores(search.blocks());
  for (int64_t i = 0; i < points.rows; ++i) {
    uint32_t code = 0;
    float distance = 0;
    search.Nearest(points.row(i), 1, &code, &distance);
    search.Scores(points.row(i), 0, search.blocks(), scores.data());
    const float score = scores[code / kLanes].values[code % kLanes];
    EXPECT_EQ(std::max(0.0f, score + search.Norm(points.row(i))), distance);
    for (uint32_t c = 0; c < 37; ++c) EXPECT_GE(scores[c / kLanes].values[c % kLanes], score);
    EXPECT_EQ(scores[2].values[15], std::numeric_limits<float>::max()) << "padding must never win";
  }
}

}  // namespace
}  // namespace beamline::sid
