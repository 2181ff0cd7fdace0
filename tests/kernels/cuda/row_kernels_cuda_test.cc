// SPDX-License-Identifier: Apache-2.0
//
// Norm, activation and quantisation: kernels that make one row from one row.
#include <algorithm>
#include <cfloat>

#include "beamline/kernels/activation_cuda.h"
#include "beamline/kernels/quantize_cuda.h"
#include "beamline/kernels/rms_norm_cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/drawn_shapes.h"

namespace beamline::kernels {
namespace {

constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16};

double FromE4M3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return NAN;
  const double size = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (bits & 0x80) != 0 ? -size : size;
}

// A row of E4M3 values against what they were made from: half a step of the format, 2^-4 of the value or, below the
// smallest normal number, 2^-10.
void CheckQuantized(const std::vector<uint8_t>& quantized, const std::vector<float>& row_scale, const Reference& exact,
                    size_t width) {
  for (size_t row = 0; row < row_scale.size(); ++row) {
    double largest = 0;
    for (size_t i = row * width; i < (row + 1) * width; ++i) largest = std::max(largest, std::abs(exact.expected[i]));
    const double scale = largest > 0 ? std::max<double>(largest / 448, FLT_MIN) : 1;
    ASSERT_NEAR(row_scale[row] / scale, 1.0, 1e-4);
    for (size_t i = row * width; i < (row + 1) * width; ++i) {
      const double allowed = std::max(std::abs(exact.expected[i]) * 0x1p-4, scale * 0x1p-10);
      ASSERT_NEAR(FromE4M3(quantized[i]) * row_scale[row], exact.expected[i], allowed * 1.001 + exact.tolerance[i])
          << i;
    }
  }
}

class RmsNormGpu : public GpuTest {
 protected:
  static void Check(DataType type, int64_t rows, int width, bool with_delta, bool quantize) {
    std::mt19937 random(width + rows);
    const size_t count = rows * width;
    TypedBuffer x(type, Normal(random, count, 3.0f));
    const TypedBuffer delta(type, Normal(random, count)), weight(type, Normal(random, width));
    for (int i = 0; i < width; ++i) x.host[i] = with_delta ? x.host[i] : 0;  // row 0: zeros
    if (!with_delta) x = {type, x.host};
    TypedBuffer out(type, count);
    DeviceBuffer<uint8_t> quantized(count);
    DeviceBuffer<float> row_scale(rows);
    const float epsilon = 1e-6f;
    ASSERT_EQ(RmsNormCuda({.type = type,
                           .rows = rows,
                           .width = width,
                           .epsilon = epsilon,
                           .x = x.data(),
                           .delta = with_delta ? delta.data() : nullptr,
                           .weight = weight.data(),
                           .out = out.data(),
                           .quantized = quantize ? quantized.data() : nullptr,
                           .row_scale = quantize ? row_scale.data() : nullptr},
                          nullptr),
              LaunchError::kOk);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    std::vector<float> stream = x.host;
    for (size_t i = 0; i < count && with_delta; ++i) stream[i] = Round(type, stream[i] + delta.host[i]);
    EXPECT_EQ(x.Download(), stream);  // the residual stream, to the bit
    Reference exact, rounded;
    const double fp32 = Epsilon(DataType::kFloat32) * (width / 1024.0 + 24);  // of the sum, the root and the products
    for (int64_t row = 0; row < rows; ++row) {
      double squares = 0;
      for (int i = 0; i < width; ++i) squares += double{stream[row * width + i]} * stream[row * width + i];
      const double scale = 1 / std::sqrt(squares / width + epsilon);
      for (int i = 0; i < width; ++i) {
        const double y = stream[row * width + i] * scale * weight.host[i];
        exact.Add(y, std::abs(y) * fp32);
        rounded.Add(y, std::abs(y) * (fp32 + 1.01 * Epsilon(type)) + 1e-7);
      }
    }
    EXPECT_EQ(rounded.Wrong(out.Download()), "") << Name(type) << " " << rows << " x " << width;
    if (quantize) CheckQuantized(quantized.Download(), row_scale.Download(), exact, width);
  }
};

TEST_F(RmsNormGpu, EqualsTheReference) {
  for (DataType type : kTypes) {
    for (int width : {8, 24, 768, 1024, 1032, 1536, 2048, 4096, 5000, kMaxNormWidth}) {
      for (bool with_delta : {false, true}) Check(type, 3, width, with_delta, /*quantize=*/true);
    }
    Check(type, 1, 128, true, false);
    if (!SmallShapesOnly()) Check(type, 70001, 64, true, true);
  }
}

TEST_F(RmsNormGpu, DrawnShapes) {
  ForDrawnShapes([](Draw& draw) {
    const DataType type = draw.Type();
    const int rows = draw.Size(50), width = draw.Eights(draw.Coin() ? 2000 : kMaxNormWidth);
    const bool with_delta = draw.Coin();
    Check(type, rows, width, with_delta, draw.Coin());
  });
}

TEST_F(RmsNormGpu, TheSumGoesWhereItIsWanted) {
  for (DataType type : kTypes) {
    std::mt19937 random(3);
    const size_t count = 4 * 1040;
    const std::vector<float> values = Normal(random, count);
    const TypedBuffer kept(type, values), delta(type, Normal(random, count)), weight(type, Normal(random, 1040));
    TypedBuffer changed(type, values), sum(type, count), out(type, count), out_of_sum(type, count);
    RmsNormArgs args{.type = type,
                     .rows = 4,
                     .width = 1040,
                     .x = changed.data(),
                     .delta = delta.data(),
                     .weight = weight.data(),
                     .out = out.data()};
    ASSERT_EQ(RmsNormCuda(args, nullptr), LaunchError::kOk);
    args.x = kept.data();
    args.sum = sum.data();
    args.out = out_of_sum.data();
    ASSERT_EQ(RmsNormCuda(args, nullptr), LaunchError::kOk);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(kept.Download(), kept.host) << "x was written";
    EXPECT_EQ(sum.Download(), changed.Download());
    EXPECT_EQ(out_of_sum.Download(), out.Download());
    args.delta = nullptr;
    EXPECT_EQ(RmsNormCuda(args, nullptr), LaunchError::kInvalidArgument);
  }
}

TEST(RmsNormCudaArguments, AreChecked) {
  static char memory[64] __attribute__((aligned(16))), other[64] __attribute__((aligned(16)));
  const RmsNormArgs good{.rows = 1, .width = 8, .x = memory, .weight = memory, .out = memory};
  const auto refused = [&](auto change) {
    RmsNormArgs args = good;
    change(args);
    return RmsNormCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](RmsNormArgs& a) { a.rows = 0; }));
  EXPECT_TRUE(refused([](RmsNormArgs& a) { a.rows = int64_t{1} << 31; }));
  EXPECT_TRUE(refused([](RmsNormArgs& a) { a.width = 12; }));
  EXPECT_TRUE(refused([](RmsNormArgs& a) { a.width = kMaxNormWidth + 8; }));
  EXPECT_TRUE(refused([](RmsNormArgs& a) { a.x = nullptr; }));
  EXPECT_TRUE(refused([](RmsNormArgs& a) { a.weight = memory + 8; }));
  EXPECT_TRUE(refused([](RmsNormArgs& a) { a.out = nullptr; }));
  EXPECT_TRUE(refused([](RmsNormArgs& a) { a.quantized = reinterpret_cast<uint8_t*>(memory); }));
  EXPECT_TRUE(refused([](RmsNormArgs& a) { a.epsilon = NAN; }));
  EXPECT_TRUE(refused([](RmsNormArgs& a) {
    a.quantized = reinterpret_cast<uint8_t*>(memory);
    Misalign(a.row_scale);
  }));
  // The result over the residual stream.
  EXPECT_TRUE(refused([](RmsNormArgs& a) { a.delta = a.weight; }));
  EXPECT_TRUE(refused([](RmsNormArgs& a) {
    a.delta = a.weight;
    a.sum = a.out = other;
  }));
  if (!WhyNoGpu().empty()) EXPECT_EQ(RmsNormCuda(good, nullptr), LaunchError::kCuda);
}

double Activate(ActivationKind kind, double x) {
  switch (kind) {
    case ActivationKind::kSilu:
      return x / (1 + std::exp(-x));
    case ActivationKind::kRelu:
      return std::max(x, 0.0);
    case ActivationKind::kGelu:
      return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case ActivationKind::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ActivationKind::kLeakyRelu:
      return x > 0 ? x : 0.01 * x;
  }
  return NAN;
}

class ActivationGpu : public GpuTest {
 protected:
  static void Check(DataType type, ActivationKind kind, bool gated, int64_t rows, int width, bool quantize) {
    std::mt19937 random(width);
    const size_t in_width = gated ? 2 * width : width;
    const TypedBuffer x(type, Normal(random, rows * in_width, 2.0f));
    TypedBuffer out(type, rows * width);
    DeviceBuffer<uint8_t> quantized(rows * width);
    DeviceBuffer<float> row_scale(rows);
    ASSERT_EQ(ActivationCuda({.type = type,
                              .kind = kind,
                              .gated = gated,
                              .rows = rows,
                              .width = width,
                              .x = x.data(),
                              .out = out.data(),
                              .quantized = quantize ? quantized.data() : nullptr,
                              .row_scale = quantize ? row_scale.data() : nullptr},
                             nullptr),
              LaunchError::kOk);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    Reference exact, rounded;
    for (int64_t row = 0; row < rows; ++row) {
      for (int i = 0; i < width; ++i) {
        const double gate = x.host[row * in_width + i];
        const double factor = gated ? x.host[row * in_width + width + i] : 1;
        const double y = Activate(kind, gate) * factor;
        // 1 + erf or tanh cancels for negative arguments: an error of some units of fp32 at 1, times x.
        const double fp32 = 8 * Epsilon(DataType::kFloat32) * (std::abs(y) + std::abs(gate * factor));
        exact.Add(y, fp32 + 1e-12);
        rounded.Add(y, fp32 + 1.01 * Epsilon(type) * std::abs(y) + 1e-7);
      }
    }
    EXPECT_EQ(rounded.Wrong(out.Download()), "") << Name(type) << " kind " << static_cast<int>(kind) << " " << width;
    if (quantize) CheckQuantized(quantized.Download(), row_scale.Download(), exact, width);
  }
};

TEST_F(ActivationGpu, EqualsTheReference) {
  for (DataType type : kTypes) {
    for (ActivationKind kind : {ActivationKind::kSilu, ActivationKind::kRelu, ActivationKind::kGelu,
                                ActivationKind::kGeluTanh, ActivationKind::kLeakyRelu}) {
      for (bool gated : {false, true}) {
        Check(type, kind, gated, 2, 8, true);
        Check(type, kind, gated, 3, 1400, true);
      }
    }
    Check(type, ActivationKind::kSilu, true, SmallShapesOnly() ? 2 : 5000, 4096, false);
  }
}

TEST_F(ActivationGpu, DrawnShapes) {
  ForDrawnShapes([](Draw& draw) {
    const ActivationKind kind = draw.Of({ActivationKind::kSilu, ActivationKind::kRelu, ActivationKind::kGelu,
                                         ActivationKind::kGeluTanh, ActivationKind::kLeakyRelu});
    const DataType type = draw.Type();
    const bool gated = draw.Coin();
    const int rows = draw.Size(50), width = draw.Eights(5000);
    Check(type, kind, gated, rows, width, draw.Coin());
  });
}

TEST(ActivationCudaArguments, AreChecked) {
  static char memory[64] __attribute__((aligned(16)));
  static char other[64] __attribute__((aligned(16)));
  const ActivationArgs good{.rows = 1, .width = 8, .x = memory, .out = other};
  const auto refused = [&](auto change) {
    ActivationArgs args = good;
    change(args);
    return ActivationCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](ActivationArgs& a) { a.rows = 0; }));
  EXPECT_TRUE(refused([](ActivationArgs& a) { a.width = 4; }));
  EXPECT_TRUE(refused([](ActivationArgs& a) { a.width = kMaxRowWidth + 8; }));
  EXPECT_TRUE(refused([](ActivationArgs& a) { a.x = nullptr; }));
  EXPECT_TRUE(refused([](ActivationArgs& a) { a.out = memory; }));  // gated rows do not fit over their input
  EXPECT_TRUE(refused([](ActivationArgs& a) { a.out = other + 1; }));
  EXPECT_TRUE(refused([](ActivationArgs& a) {
    a.quantized = reinterpret_cast<uint8_t*>(other);
    Misalign(a.row_scale);
  }));
  EXPECT_TRUE(refused([](ActivationArgs& a) { a.kind = static_cast<ActivationKind>(9); }));
  EXPECT_TRUE(refused([](ActivationArgs& a) { a.row_scale = reinterpret_cast<float*>(memory); }));
  if (!WhyNoGpu().empty()) EXPECT_EQ(ActivationCuda(good, nullptr), LaunchError::kCuda);
}

// Rows that stand apart; one of zeros, one whose values are too small for normal E4M3 numbers beside its largest.
class QuantizeGpu : public GpuTest {
 protected:
  static void Check(DataType type, int rows, int width, int step) {
    std::mt19937 random(width);
    std::vector<float> values = Normal(random, static_cast<size_t>(rows) * step, 3.0f);
    std::fill_n(values.begin() + step, width, 0.0f);
    for (int i = 0; i < width; ++i) values[2 * step + i] *= i == 1 ? 1000.0f : 1.0f;
    const TypedBuffer x(type, values);
    DeviceBuffer<uint8_t> quantized(static_cast<size_t>(rows) * width);
    DeviceBuffer<float> row_scale(rows);
    ASSERT_EQ(QuantizeRowsCuda({.type = type,
                                .rows = rows,
                                .width = width,
                                .x_step = step,
                                .x = x.data(),
                                .quantized = quantized.data(),
                                .row_scale = row_scale.data()},
                               nullptr),
              LaunchError::kOk);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    Reference exact;
    for (int row = 0; row < rows; ++row) {
      for (int i = 0; i < width; ++i) exact.Add(x.host[row * step + i], 0x1p-22 * std::abs(x.host[row * step + i]));
    }
    CheckQuantized(quantized.Download(), row_scale.Download(), exact, width);
    EXPECT_EQ(row_scale.Download()[1], 1.0f);
  }
};

TEST_F(QuantizeGpu, Rows) {
  for (DataType type : kTypes) {
    for (int width : {8, 40, 1024, 1032, 5000}) Check(type, 4, width, width + 16);
  }
}

TEST_F(QuantizeGpu, DrawnShapes) {
  ForDrawnShapes([](Draw& draw) {
    const DataType type = draw.Type();
    const int rows = 3 + draw.Size(50), width = draw.Eights(5000);
    Check(type, rows, width, width + 8 * draw.Below(4));
  });
}

// Rows whose scale is no normal number, or not even one above zero.
TEST_F(QuantizeGpu, RowsOfNextToNothing) {
  const float largest[] = {1e-44f, 1e-40f, 1e-36f, 4e-36f};
  std::vector<float> values;
  for (const float of_row : largest) {
    for (float part : {1.0f, 0.0f, -0.4f, 0.7f, 0.01f, -1.0f, 0.2f, 0.0f}) values.push_back(of_row * part);
  }
  const TypedBuffer x(DataType::kFloat32, values);
  DeviceBuffer<uint8_t> quantized(values.size());
  DeviceBuffer<float> row_scale(4);
  ASSERT_EQ(QuantizeRowsCuda({.rows = 4,
                              .width = 8,
                              .x_step = 8,
                              .x = x.data(),
                              .quantized = quantized.data(),
                              .row_scale = row_scale.data()},
                             nullptr),
            LaunchError::kOk);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(row_scale.Download()[0], FLT_MIN);
  Reference exact;
  for (const float value : values) exact.Add(value, 0x1p-22 * std::abs(value));
  CheckQuantized(quantized.Download(), row_scale.Download(), exact, 8);
}

TEST_F(QuantizeGpu, ProductsGetTheirScales) {
  for (DataType type : kTypes) {
    for (int width : {8, 1032}) {
      std::mt19937 random(width);
      const int rows = 3, step = width + 8;
      const std::vector<float> x = Normal(random, size_t{rows} * width, 300.0f), by_row = Normal(random, rows),
                               by_column = Normal(random, width);
      const DeviceBuffer<float> x_d(x), by_row_d(by_row), by_column_d(by_column);
      const std::vector<float> untouched(size_t{rows} * step, 7.0f);
      TypedBuffer out(type, untouched);
      ASSERT_EQ(ScaleProductCuda({.type = type,
                                  .rows = rows,
                                  .width = width,
                                  .x = x_d.data(),
                                  .row_scale = by_row_d.data(),
                                  .column_scale = by_column_d.data(),
                                  .out_step = step,
                                  .out = out.data()},
                                 nullptr),
                LaunchError::kOk);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      Reference reference;
      for (int row = 0; row < rows; ++row) {
        for (int i = 0; i < step; ++i) {
          const double y = i < width ? double{x[row * width + i]} * by_row[row] * by_column[i] : 7.0;
          reference.Add(y, i < width ? std::abs(y) * (1.01 * Epsilon(type) + 0x1p-22) + 1e-7 : 1e-30);
        }
      }
      EXPECT_EQ(reference.Wrong(out.Download()), "") << Name(type) << " " << width;
    }
  }
}

TEST(QuantizeCudaArguments, AreChecked) {
  static char memory[64] __attribute__((aligned(16)));
  auto* const floats = reinterpret_cast<float*>(memory);
  const QuantizeRowsArgs good{.rows = 1,
                              .width = 8,
                              .x_step = 8,
                              .x = memory,
                              .quantized = reinterpret_cast<uint8_t*>(memory),
                              .row_scale = floats};
  const auto refused = [&](auto change) {
    QuantizeRowsArgs args = good;
    change(args);
    return QuantizeRowsCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](QuantizeRowsArgs& a) { a.rows = 0; }));
  EXPECT_TRUE(refused([](QuantizeRowsArgs& a) { a.width = 12; }));
  EXPECT_TRUE(refused([](QuantizeRowsArgs& a) { a.width = kMaxRowWidth + 8, a.x_step = 2 * kMaxRowWidth; }));
  EXPECT_TRUE(refused([](QuantizeRowsArgs& a) { a.x_step = 7; }));
  EXPECT_TRUE(refused([](QuantizeRowsArgs& a) { a.x_step = INT64_MAX; }));
  EXPECT_TRUE(refused([](QuantizeRowsArgs& a) { a.type = DataType::kBFloat16, a.x_step = 12; }));
  EXPECT_TRUE(refused([](QuantizeRowsArgs& a) { a.type = DataType::kE4M3, a.x_step = 16; }));
  EXPECT_TRUE(refused([](QuantizeRowsArgs& a) { a.x = nullptr; }));
  EXPECT_TRUE(refused([](QuantizeRowsArgs& a) { a.x = memory + 8; }));
  EXPECT_TRUE(refused([](QuantizeRowsArgs& a) { a.row_scale = nullptr; }));
  EXPECT_TRUE(refused([](QuantizeRowsArgs& a) { Misalign(a.row_scale); }));
  const ScaleProductArgs product{
      .rows = 1, .width = 8, .x = floats, .row_scale = floats, .column_scale = floats, .out_step = 8, .out = memory};
  const auto product_refused = [&](auto change) {
    ScaleProductArgs args = product;
    change(args);
    return ScaleProductCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(product_refused([](ScaleProductArgs& a) { a.rows = int64_t{1} << 31; }));
  EXPECT_TRUE(product_refused([](ScaleProductArgs& a) { a.width = 4; }));
  EXPECT_TRUE(product_refused([](ScaleProductArgs& a) { a.width = kMaxRowWidth + 8, a.out_step = 2 * kMaxRowWidth; }));
  EXPECT_TRUE(product_refused([](ScaleProductArgs& a) { a.out_step = 12; }));
  EXPECT_TRUE(product_refused([](ScaleProductArgs& a) { a.column_scale = nullptr; }));
  EXPECT_TRUE(product_refused([](ScaleProductArgs& a) { Misalign(a.row_scale); }));
  EXPECT_TRUE(product_refused([&](ScaleProductArgs& a) { a.out = memory + 4; }));
  if (WhyNoGpu().empty()) return;
  EXPECT_EQ(QuantizeRowsCuda(good, nullptr), LaunchError::kCuda);
  EXPECT_EQ(ScaleProductCuda(product, nullptr), LaunchError::kCuda);
}

}  // namespace
}  // namespace beamline::kernels
