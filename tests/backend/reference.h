// SPDX-License-Identifier: Apache-2.0
//
// The fixture every op test runs on, beside the naive forms of matrix.h: one suite, parametrised by device and dtype,
// so that each backend and device runs the same tests. Inputs are rounded to the dtype before the reference sees them;
// only the arithmetic differs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <c10/util/Float8_e4m3fn.h>

#include "backend/matrix.h"
#include "backend/ops.h"
#include "backend/test_context.h"
#include "gtest/gtest.h"

namespace beamline::backend {

// Every value the nearest E4M3 number of its row, whose largest is 448 steps of the row's scale.
inline Matrix QuantizedRows(const Matrix& x) {
  Matrix rounded(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    float largest = 0;
    for (int64_t c = 0; c < x.cols; ++c) largest = std::max(largest, static_cast<float>(std::abs(x(r, c))));
    const float scale = largest > 0 ? std::max(largest / 448.0f, std::numeric_limits<float>::min()) : 1.0f;
    for (int64_t c = 0; c < x.cols; ++c) {
      const c10::Float8_e4m3fn value(static_cast<float>(x(r, c)) / scale);
      rounded(r, c) = double{static_cast<float>(value)} * scale;
    }
  }
  return rounded;
}

struct OpsCase {
  std::string device, dtype, backend = "aten";
  std::string name() const { return backend + "_" + device + "_" + dtype; }
  friend void PrintTo(const OpsCase& c, std::ostream* out) { *out << c.name(); }
};

// What every op test runs on.
#if defined(BEAMLINE_TEST_CUDA)
inline const OpsCase kOpsCases[] = {
    {"cuda", "fp32", "cuda"}, {"cuda", "bf16", "cuda"}, {"cuda", "fp16", "cuda"}, {"cuda", "fp8", "cuda"}};
#else
inline const OpsCase kOpsCases[] = {{"cpu", "fp32"},        {"cpu", "bf16"},       {"cpu", "fp8"},
                                    {"cuda", "fp32"},       {"cuda", "bf16"},      {"cpu", "fp32", "cpu"},
                                    {"cpu", "bf16", "cpu"}, {"cpu", "int8", "cpu"}};
#endif

class OpsTest : public testing::TestWithParam<OpsCase> {
 protected:
  void SetUp() override {
    const auto ctx = MakeTestContext(GetParam().device, GetParam().dtype, GetParam().backend);
    // The CPU is everywhere, and a machine meant to have a GPU says so.
    const bool may_lack = GetParam().device == "cuda" && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr;
    if (may_lack && !ctx.ok()) GTEST_SKIP() << ctx.status();
    ASSERT_TRUE(ctx.ok()) << ctx.status();
    ctx_ = BeginBatch(*ctx);
  }

  // A random matrix of the context's dtype, and the same numbers in double.
  struct Pair {
    Tensor tensor;
    Matrix matrix;
  };
  Pair Random(int64_t rows, int64_t cols, double scale = 1) {
    std::normal_distribution<float> noise(0, static_cast<float>(scale));
    std::vector<float> values(rows * cols);
    for (float& value : values) value = noise(rng_);
    const Tensor tensor = UploadWeight(ctx_, values, {rows, cols});
    return {tensor, ToMatrix(tensor, rows, cols)};
  }
  Matrix ToMatrix(const Tensor& tensor, int64_t rows, int64_t cols) {
    const std::vector<float> values = DownloadFloats(ctx_, tensor);
    Matrix matrix(rows, cols);
    EXPECT_EQ(static_cast<int64_t>(values.size()), rows * cols);
    for (size_t i = 0; i < std::min(values.size(), matrix.v.size()); ++i) matrix.v[i] = values[i];
    return matrix;
  }
  Tensor Ints(const std::vector<int32_t>& values, const std::vector<int64_t>& shape) {
    return UploadInts(ctx_, values, shape);
  }

  // A product with a weight of attention or feed-forward. In fp8 both are quantised where their widths let them be:
  // what attention makes of a score, of large ones above all, no tolerance would hold otherwise.
  Matrix LayerMatMul(const Matrix& x, const Matrix& w) {
    if (GetParam().dtype != "fp8" || w.rows % 16 != 0 || w.cols % 16 != 0) return MatMul(x, w);
    return MatMul(QuantizedRows(x), QuantizedRows(w));
  }
  Matrix LayerSwiGlu(const Matrix& x, const Matrix& up, const Matrix& down) {
    return LayerMatMul(GatedSilu(LayerMatMul(x, up)), down);
  }

  // Relative to the largest expected value, a few roundings of the dtype: 2^-8 of a value in bf16, 1 / 254 of the
  // largest of its row in int8; in fp8 bf16's, and now and then the other neighbour where a value lies between two.
  void ExpectNear(const Tensor& actual, const Matrix& expected) {
    const Matrix got = ToMatrix(actual, expected.rows, expected.cols);
    double largest = 1e-3, worst = 0;
    for (size_t i = 0; i < got.v.size(); ++i) {
      largest = std::max(largest, std::abs(expected.v[i]));
      const double error = std::abs(got.v[i] - expected.v[i]);
      worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
    }
    const std::string& dtype = GetParam().dtype;
    EXPECT_LE(worst, largest * (dtype == "fp32"   ? 5e-6
                                : dtype == "fp16" ? 4e-3
                                : dtype == "bf16" ? 2.5e-2
                                : dtype == "fp8"  ? 8e-2
                                                  : 5e-2));
  }

  Context ctx_;
  std::mt19937_64 rng_{11};
};

}  // namespace beamline::backend
