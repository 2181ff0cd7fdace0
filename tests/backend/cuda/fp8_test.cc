// SPDX-License-Identifier: Apache-2.0
//
// Layers' products in FP8: what quantised rows give but for the rounding of sums, within the format's own rounding of
// the double-precision reference, and nothing else in FP8 but these.
#include "backend/cuda/fp8.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/reference.h"

namespace beamline::backend::cuda {
namespace {

#if defined(BEAMLINE_EMULATED_CUBLASLT)
constexpr const char* kFp8Contexts[] = {"fp8", "fp8_scaled_after", "fp8_exact_sums"};
#else
constexpr const char* kFp8Contexts[] = {"fp8"};
#endif

// Tensor cores add 32 terms to a sum in registers of 14 bits: each is cut, and so is the sum.
double FastSumError(int64_t terms) {
  const int64_t cut = terms + (terms + 31) / 32;
  return 0x1p-13 * static_cast<double>(cut);
}

constexpr double kHalfStep = 0x1p-4;    // of a normal E4M3 number, relative
constexpr double kSubnormal = 0x1p-10;  // half a step below the smallest normal one, of a row's scale
constexpr double kLargest = 448;
constexpr double kBf16 = 0x1p-8;

// Half a step of E4M3 at each value of the matrix, whose rows have scales.
Matrix RoundingErrors(const Matrix& x) {
  Matrix errors(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    double largest = 0;
    for (int64_t c = 0; c < x.cols; ++c) largest = std::max(largest, std::abs(x(r, c)));
    for (int64_t c = 0; c < x.cols; ++c) {
      errors(r, c) = 1.001 * std::max(kHalfStep * std::abs(x(r, c)), kSubnormal * largest / kLargest);
    }
  }
  return errors;
}

Matrix Absolute(Matrix x) {
  for (double& value : x.v) value = std::abs(value);
  return x;
}

// A product's values and how far from them ours may be, given how far its rows are.
struct Bounded {
  Matrix value, error;
};

Bounded BoundedProduct(const Bounded& x, const Matrix& w) {
  Bounded y{MatMul(x.value, w), Matrix(x.value.rows, w.rows)};
  const Matrix dx = RoundingErrors(x.value), dw = RoundingErrors(w);
  for (int64_t r = 0; r < y.value.rows; ++r) {
    for (int64_t o = 0; o < w.rows; ++o) {
      double error = 0, size = 0;
      for (int64_t i = 0; i < w.cols; ++i) {
        // What comes in is off by e; its rounding then is that of a value which may be larger by e.
        const double e = x.error(r, i), off = e + dx(r, i) + 2 * kHalfStep * e;
        error += off * (std::abs(w(o, i)) + dw(o, i)) + std::abs(x.value(r, i)) * dw(o, i);
        size += (std::abs(x.value(r, i)) + off) * (std::abs(w(o, i)) + dw(o, i));
      }
      y.error(r, o) = error + size * (FastSumError(w.cols) + kBf16);
    }
  }
  return y;
}

// Root mean square of the difference, of the values.
double Noise(const Matrix& got, const Matrix& expected) {
  double off = 0, all = 0;
  for (size_t i = 0; i < got.v.size(); ++i) {
    off += (got.v[i] - expected.v[i]) * (got.v[i] - expected.v[i]);
    all += expected.v[i] * expected.v[i];
  }
  return std::sqrt(off / all);
}

class Fp8Test : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
#if defined(BEAMLINE_EMULATED_CUBLASLT)
    emulator::offers_fast_sums = !exact_sums_;
#endif
    const absl::StatusOr<Context> shared = MakeCudaTestContext(GetParam());
    if (!shared.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << shared.status();
    ASSERT_TRUE(shared.ok()) << shared.status();
    shared_ = *shared;
    ctx_ = BeginBatch(shared_);
  }

#if defined(BEAMLINE_EMULATED_CUBLASLT)
  void TearDown() override { emulator::offers_fast_sums = true; }
#endif

  // Of a sum of products, relative to the sum of their sizes.
  double SumError(int64_t terms) const {
    return exact_sums_ ? 0x1p-24 * static_cast<double>(terms) : FastSumError(terms);
  }

  struct Pair {
    Tensor tensor;
    Matrix matrix;
  };
  // Rows of sizes that differ by up to 2^spread.
  Pair Random(int64_t rows, int64_t cols, double scale = 1, int spread = 0) {
    std::normal_distribution<float> noise(0, static_cast<float>(scale));
    std::vector<float> values(rows * cols);
    for (int64_t i = 0; i < rows * cols; ++i) {
      values[i] = std::ldexp(noise(rng_), static_cast<int>(i / cols * 5 % (spread + 1)));
    }
    const Tensor tensor = UploadWeight(ctx_, values, {rows, cols});
    return {tensor, ToMatrix(tensor, rows, cols)};
  }
  Matrix ToMatrix(const Tensor& tensor, int64_t rows, int64_t cols) {
    const std::vector<float> values = DownloadFloats(ctx_, tensor);
    Matrix matrix(rows, cols);
    for (size_t i = 0; i < matrix.v.size(); ++i) matrix.v[i] = values[i];
    return matrix;
  }
  Matrix KeyValue(const Tensor& x, const Tensor& weight) {
    const CrossAttentionWeights cross{.query = weight, .key_value = weight, .out = weight};
    return ToMatrix(ContextKeyValue(ctx_, x, cross, {1}), x.size(0), weight.size(0));
  }

  const bool exact_sums_ = GetParam() == std::string("fp8_exact_sums");
  Context shared_, ctx_;
  std::mt19937_64 rng_{5};
};
INSTANTIATE_TEST_SUITE_P(Backends, Fp8Test, testing::ValuesIn(kFp8Contexts));

TEST_P(Fp8Test, ProductsAreThoseOfTheQuantisedRows) {
  for (const auto& [rows, n, k] : {std::tuple{1, 16, 16}, {5, 48, 32}, {37, 32, 208}}) {
    const Pair x = Random(rows, k, 3, /*spread=*/8), w = Random(n, k, 1, /*spread=*/5);
    const Matrix got = KeyValue(x.tensor, w.tensor), qx = QuantizedRows(x.matrix), qw = QuantizedRows(w.matrix);
    const Matrix expected = MatMul(qx, qw), sizes = MatMul(Absolute(qx), Absolute(qw));
    for (size_t i = 0; i < got.v.size(); ++i) {
      ASSERT_NEAR(got.v[i], expected.v[i], 1.01 * kBf16 * std::abs(expected.v[i]) + SumError(k) * sizes.v[i])
          << rows << " x " << n << " x " << k << " element " << i;
    }
  }
}

#if defined(BEAMLINE_EMULATED_CUBLASLT)
// A look at the bits: of the exact sums of the same products some are rounded otherwise.
TEST_P(Fp8Test, SumsAreFastWhereTheyCanBe) {
  const Pair x = Random(64, 512), w = Random(64, 512);
  const Matrix got = KeyValue(x.tensor, w.tensor), exact = MatMul(QuantizedRows(x.matrix), QuantizedRows(w.matrix));
  int64_t otherwise = 0;
  for (size_t i = 0; i < got.v.size(); ++i) {
    otherwise += static_cast<double>(c10::BFloat16(static_cast<float>(exact.v[i]))) != got.v[i];
  }
  if (exact_sums_) {
    EXPECT_LT(otherwise, 4);
  } else {
    EXPECT_GT(otherwise, 40);
  }
}
#endif

TEST_P(Fp8Test, FeedForwardIsWithinTheFormatsRounding) {
  const int64_t rows = 9, d = 96, width = 64;
  const Pair x = Random(rows, d), up = Random(2 * width, d, 0.1), up_only = Random(width, d, 0.1),
             down = Random(d, width, 0.1);
  for (const bool gated : {true, false}) {
    const Bounded both = BoundedProduct({x.matrix, Matrix(rows, d)}, gated ? up.matrix : up_only.matrix);
    Bounded hidden{Matrix(rows, width), Matrix(rows, width)};
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < width; ++i) {
        const double g = both.value(r, i), eg = both.error(r, i);
        if (!gated) {
          hidden.value(r, i) = std::max(g, 0.0);
          hidden.error(r, i) = eg;
          continue;
        }
        const double v = both.value(r, width + i), ev = both.error(r, width + i), steepest = 1.1;  // of silu
        hidden.value(r, i) = Silu(g) * v;
        hidden.error(r, i) = steepest * eg * (std::abs(v) + ev) + std::abs(Silu(g)) * ev;
      }
    }
    const Bounded expected = BoundedProduct(hidden, down.matrix);
    const FeedForwardWeights w{.gated = gated,
                               .activation = gated ? Activation::kSilu : Activation::kRelu,
                               .up = gated ? up.tensor : up_only.tensor,
                               .down = down.tensor};
    const Matrix got = ToMatrix(FeedForward(ctx_, x.tensor, w), rows, d);
    for (size_t i = 0; i < got.v.size(); ++i) {
      ASSERT_NEAR(got.v[i], expected.value.v[i], expected.error.v[i]) << gated << " element " << i;
    }
    // Bounds add up what chance takes off again. A rounding is off by at most 2^-4 / sqrt(3) in the mean, twice for
    // each of two products, or three where a gate multiplies.
    const double noise = Noise(got, expected.value);
    RecordProperty(gated ? "gated" : "plain", std::to_string(noise));
    EXPECT_LT(noise, std::sqrt(gated ? 6.0 : 4.0) * kHalfStep / std::sqrt(3.0));
    EXPECT_GT(noise, 0.01) << "bf16 would be off by .003: was this FP8?";
  }
}

// A norm leaves its rows in FP8, made before they were rounded to bf16; what follows takes them as long as they are the
// last norm's.
TEST_P(Fp8Test, ANormsRowsAreTakenFromTheNormAndNeverFromAnother) {
  const int64_t rows = 6, d = 64;
  const Pair x1 = Random(rows, d), x2 = Random(rows, d), norm = Random(1, d), w = Random(32, d, 0.2);
  const Tensor weight = View(norm.tensor, 0, {d}, norm.tensor.scalar_type());
  const Tensor first = RmsNorm(ctx_, x1.tensor, weight, 1e-6);
  const Matrix fused = KeyValue(first, w.tensor);
  const Matrix y = ToMatrix(first, rows, d);
  std::vector<float> values(y.v.begin(), y.v.end());
  const Matrix apart = KeyValue(UploadWeight(ctx_, values, {rows, d}), w.tensor);
  EXPECT_NE(fused.v, apart.v) << "quantised again, after bf16";
  EXPECT_LT(Noise(fused, apart), 0.03);
  RmsNorm(ctx_, x2.tensor, weight, 1e-6);
  EXPECT_EQ(KeyValue(first, w.tensor).v, apart.v) << "rows of another norm";

  Matrix exact(rows, d);
  for (int64_t r = 0; r < rows; ++r) {
    double square = 0;
    for (int64_t i = 0; i < d; ++i) square += x1.matrix(r, i) * x1.matrix(r, i);
    for (int64_t i = 0; i < d; ++i) {
      exact(r, i) = x1.matrix(r, i) / std::sqrt(square / static_cast<double>(d) + 1e-6) * norm.matrix(0, i);
    }
  }
  const Bounded expected = BoundedProduct({exact, Matrix(rows, d)}, w.matrix);
  for (size_t i = 0; i < fused.v.size(); ++i) ASSERT_NEAR(fused.v[i], expected.value.v[i], expected.error.v[i]);
}

TEST_P(Fp8Test, OtherWidthsAndOtherOpsStayInBf16) {
  const absl::StatusOr<Context> bf16 = MakeCudaTestContext("bf16");
  ASSERT_TRUE(bf16.ok()) << bf16.status();
  const int64_t rows = 5, d = 48, width = 24;  // no multiple of 16
  const Pair x = Random(rows, d), up = Random(2 * width, d, 0.2), down = Random(d, width, 0.2), w = Random(32, d);
  const FeedForwardWeights ffn{.up = up.tensor, .down = down.tensor};
  const std::vector<float> dense = DownloadFloats(ctx_, Dense(ctx_, x.tensor, {.weight = w.tensor, .bias = {}}));
  const std::vector<float> head = DownloadFloats(ctx_, LevelHead(ctx_, x.tensor, {.weight = w.tensor}, {}));
  Context plain = BeginBatch(*bf16);
  EXPECT_EQ(dense, DownloadFloats(plain, Dense(plain, x.tensor, {.weight = w.tensor, .bias = {}})));
  EXPECT_EQ(head, DownloadFloats(plain, LevelHead(plain, x.tensor, {.weight = w.tensor}, {})));
  // `up` alone could: its product is off by more than bf16's rounding.
  const std::vector<float> narrow = DownloadFloats(ctx_, FeedForward(ctx_, x.tensor, ffn));
  EXPECT_NE(narrow, DownloadFloats(plain, FeedForward(plain, x.tensor, ffn)));
  const Pair odd_up = Random(2 * 8, d, 0.2), odd_down = Random(24, 8, 0.2);
  const FeedForwardWeights odd{.gated = true, .up = odd_up.tensor, .down = odd_down.tensor};
  const Tensor odd_x = Random(3, 24).tensor;
  const FeedForwardWeights none{
      .gated = false, .activation = Activation::kRelu, .up = Random(8, 24, 0.2).tensor, .down = odd.down};
  EXPECT_EQ(DownloadFloats(ctx_, FeedForward(ctx_, odd_x, none)),
            DownloadFloats(plain, FeedForward(plain, odd_x, none)));
}

TEST_P(Fp8Test, WeightsAreQuantisedOnceAndLetGoOf) {
  const auto& backend = static_cast<const CudaBackend&>(*ctx_.backend);
  backend.ReleaseUnusedWeights();
  const int64_t before = backend.fp8_weights();
  {
    const Pair x = Random(4, 32), w = Random(16, 32);
    KeyValue(x.tensor, w.tensor);
    KeyValue(x.tensor, w.tensor);
    EXPECT_EQ(backend.fp8_weights(), before + 1);
    backend.ReleaseUnusedWeights();
    EXPECT_EQ(backend.fp8_weights(), before + 1) << "the weight is still there";
  }
  backend.ReleaseUnusedWeights();
  EXPECT_EQ(backend.fp8_weights(), before);
  EXPECT_EQ(backend.PackedWeightBytes(), 1);
}

TEST(Fp8OfDevice, NeedsACapabilityAndTakesTheLibrarysScalesOnHopper) {
  EXPECT_EQ(Fp8ScalingOf(8, 0, "cuda:1 (NVIDIA A100)").status().message(),
            "dtype: fp8 and fp8_mixed need a device of compute capability 8.9, and cuda:1 (NVIDIA A100) has 8.0; use "
            "bf16 or fp16");
  EXPECT_EQ(Fp8ScalingOf(8, 6, "cuda:0").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*Fp8ScalingOf(8, 9, "cuda:0"), Fp8Scaling::kAfter);
  EXPECT_EQ(*Fp8ScalingOf(9, 0, "cuda:0"), Fp8Scaling::kInProduct);
  EXPECT_EQ(*Fp8ScalingOf(10, 0, "cuda:0"), Fp8Scaling::kAfter);
}

TEST(Fp8OfDevice, IsRefusedByNameElsewhere) {
  for (const char* backend : {"auto", "cpu"}) {
    EXPECT_EQ(MakeContext("cpu", "fp8", backend).status().message(),
              "dtype: fp8 runs on device cuda with backend cuda alone; backend aten computes, slowly, what fp8 rounds; "
              "else use fp32 or bf16");
  }
}

}  // namespace
}  // namespace beamline::backend::cuda
