// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/product_cuda.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "beamline/kernels/warpgroups_cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/drawn_shapes.h"

namespace beamline::kernels {
namespace {

constexpr DataType kTypes[] = {DataType::kBFloat16, DataType::kFloat16};

struct Kernel {
  const char* name;
  LaunchError (*run)(const ProductArgs& args);
  int most_rows;  // that tests give it
};

constexpr Kernel kSkinny = {"skinny", [](const ProductArgs& args) { return SkinnyProductCuda(args, nullptr); },
                            kMaxSkinnyRows};
constexpr Kernel kDense[] = {
    {"dense 64 x 64", [](const ProductArgs& args) { return DenseProductCuda(args, DenseTile::k64x64, nullptr); }, 600},
    {"dense 64 x 128", [](const ProductArgs& args) { return DenseProductCuda(args, DenseTile::k64x128, nullptr); },
     600},
    {"dense 128 x 256", [](const ProductArgs& args) { return DenseProductCuda(args, DenseTile::k128x256, nullptr); },
     600}};

class ProductGpu : public GpuTest {
 protected:
  // Those that the device has.
  static std::vector<Kernel> Kernels() {
    std::vector<Kernel> kernels = {kSkinny};
    if (PrepareWarpgroups() == LaunchError::kOk) kernels.insert(kernels.end(), std::begin(kDense), std::end(kDense));
    return kernels;
  }
};

struct Shape {
  int rows, n, k;
  int x_pad = 0, weight_pad = 0, out_pad = 0;  // elements between rows beyond their length
};

struct Options {
  DataType out_type = DataType::kBFloat16;
  bool bias = false, add = false, relu = false;
  float alpha = 1;
};

// The sum of a row's products with a column, and of their sizes. By themselves: with what follows in one function the
// sums would live in memory, and the largest shape take a minute.
std::pair<double, double> ExactSum(const float* x, const float* weight, int k, double alpha) {
  double sum = 0, size = 0;
  for (int i = 0; i < k; ++i) {
    const double term = alpha * double{x[i]} * weight[i];
    sum += term;
    size += std::abs(term);
  }
  return {sum, size};
}

void CheckProduct(const Kernel& kernel, DataType type, const Shape& s, const Options& options) {
  if (s.rows > kernel.most_rows) return;
  std::mt19937 random(s.n + s.k + s.rows);
  const int x_step = s.k + s.x_pad, weight_step = s.k + s.weight_pad, out_step = s.n + s.out_pad;
  const TypedBuffer x(type, Normal(random, static_cast<size_t>(s.rows) * x_step));
  const TypedBuffer weight(type, Normal(random, static_cast<size_t>(s.n) * weight_step));
  const TypedBuffer bias(options.out_type, Normal(random, s.n));
  const TypedBuffer out(options.out_type, Normal(random, static_cast<size_t>(s.rows) * out_step));
  ASSERT_EQ(kernel.run({.type = type,
                        .out_type = options.out_type,
                        .rows = s.rows,
                        .n = s.n,
                        .k = s.k,
                        .x = x.data(),
                        .weight = weight.data(),
                        .x_step = x_step,
                        .weight_step = weight_step,
                        .out_step = out_step,
                        .alpha = options.alpha,
                        .add = options.add,
                        .relu = options.relu,
                        .bias = options.bias ? bias.data() : nullptr,
                        .out = out.data()}),
            LaunchError::kOk);
  Reference reference;
  for (int row = 0; row < s.rows; ++row) {
    for (int column = 0; column < out_step; ++column) {
      const double before = out.host[row * out_step + column];
      if (column >= s.n) {  // between rows nothing is written
        reference.Add(before, 0x1p-60);
        continue;
      }
      auto [sum, size] =
          ExactSum(&x.host[row * x_step], &weight.host[column * weight_step], s.k, double{options.alpha});
      if (options.add) sum += before, size += std::abs(before);
      if (options.bias) sum += bias.host[column], size += std::abs(bias.host[column]);
      if (options.relu) sum = std::max(sum, 0.0);
      reference.Add(sum,
                    1.01 * Epsilon(options.out_type) * std::abs(sum) + Epsilon(DataType::kFloat32) * (s.k + 8) * size);
    }
  }
  EXPECT_EQ(reference.Wrong(out.Download()), "")
      << kernel.name << ", " << Name(type) << " to " << Name(options.out_type) << ": " << s.rows << " rows, n " << s.n
      << ", k " << s.k;
}

TEST_F(ProductGpu, AgainstDoublePrecision) {
  for (const Kernel& kernel : Kernels()) {
    for (const DataType type : kTypes) {
      const auto check = [&](const Shape& shape, const Options& options) {
        CheckProduct(kernel, type, shape, options);
      };
      check({1, 1, 8}, {.out_type = type});
      check({1, 16, 64}, {.out_type = DataType::kFloat32});
      check({2, 37, 72, 8, 16, 3}, {.out_type = type, .bias = true});
      check({8, 32, 1000}, {.out_type = DataType::kFloat32, .bias = true, .alpha = 0.125f});
      check({9, 17, 776, 0, 8, 0}, {.out_type = type, .add = true});
      check({16, 48, 768}, {.out_type = DataType::kFloat32, .add = true, .alpha = 3});
      check({16, 100, 136, 64, 0, 4}, {.out_type = type, .bias = true, .add = true, .relu = true});
      check({131, 328, 456, 0, 8, 8}, {.out_type = type, .bias = true, .relu = true});
      check({70, 131, 200, 8, 0, 2}, {.out_type = DataType::kFloat32, .bias = true});  // no row lies as the one before
      check({9, 39, 72, 0, 0, 1}, {.out_type = type});  // aligned, and one short of whole eights
      if (SmallShapesOnly()) continue;
      check({1, 8192, 1536}, {.out_type = DataType::kFloat32});
      check({13, 1536, 4096}, {.out_type = type});
      check({260, 4608, 1536}, {.out_type = type});
    }
  }
}

TEST_F(ProductGpu, DrawnShapes) {
  const std::vector<Kernel> kernels = Kernels();
  ForDrawnShapes([&](Draw& draw) {
    const DataType type = draw.NarrowType();
    for (const Kernel& kernel : kernels) {
      const Shape shape{.rows = draw.Size(std::min(kernel.most_rows, 300)),
                        .n = draw.Size(400),
                        .k = draw.Eights(800),
                        .x_pad = 8 * draw.Below(3),
                        .weight_pad = 8 * draw.Below(3),
                        .out_pad = draw.Below(9)};
      CheckProduct(kernel, type, shape,
                   {.out_type = draw.Coin() ? type : DataType::kFloat32,
                    .bias = draw.Coin(),
                    .add = draw.Coin(),
                    .relu = draw.Coin(),
                    .alpha = draw.Of({1.0f, 0.125f, -3.0f})});
    }
  });
}

// Rows of x, one behind the other.
std::vector<float> Products(const Kernel& kernel, const TypedBuffer& x, const TypedBuffer& weight, int k,
                            std::pair<int, int> first_and_count) {
  const auto [first, count] = first_and_count;
  const int n = static_cast<int>(weight.host.size()) / k;
  const TypedBuffer out(DataType::kFloat32, static_cast<size_t>(count) * n);
  EXPECT_EQ(kernel.run({.type = x.type,
                        .out_type = DataType::kFloat32,
                        .rows = count,
                        .n = n,
                        .k = k,
                        .x = x.at(static_cast<size_t>(first) * k),
                        .weight = weight.data(),
                        .x_step = k,
                        .weight_step = k,
                        .out_step = n,
                        .out = out.data()}),
            LaunchError::kOk);
  return out.Download();
}

// A row's bits depend neither on how many rows there are, nor on its place among them, nor on the tile.
TEST_F(ProductGpu, CompanyChangesNothing) {
  for (const DataType type : kTypes) {
    std::mt19937 random(6);
    const int n = 40, k = 328, rows = 150;
    const TypedBuffer x(type, Normal(random, size_t{rows} * k)), weight(type, Normal(random, size_t{n} * k));
    std::vector<float> of_dense;
    for (const Kernel& kernel : Kernels()) {
      const int most = std::min(rows, kernel.most_rows);
      const std::vector<float> all = Products(kernel, x, weight, k, {0, most});
      for (const auto& [first, count] : {std::pair{0, 1}, {15, 1}, {3, 8}, {5, 9}, {70, 70}, {149, 1}}) {
        if (first + count > most) continue;
        const std::vector<float> some = Products(kernel, x, weight, k, {first, count});
        ASSERT_TRUE(std::equal(some.begin(), some.end(), all.begin() + first * n))
            << kernel.name << ", " << Name(type) << " row " << first;
      }
      if (most < rows) continue;
      if (of_dense.empty()) of_dense = all;
      EXPECT_EQ(all, of_dense) << kernel.name;
    }
  }
}

// Of a row that holds an infinity or a NaN the others know nothing.
TEST_F(ProductGpu, RowsKeepTheirSpecialValues) {
  const int n = 16, k = 128;
  std::vector<float> rows(size_t{3} * k, 1.0f);
  rows[k] = NAN;
  rows[2 * k + 5] = INFINITY;
  const TypedBuffer x(DataType::kBFloat16, rows), weight(DataType::kBFloat16, std::vector<float>(size_t{n} * k, 1.0f));
  for (const Kernel& kernel : Kernels()) {
    const std::vector<float> result = Products(kernel, x, weight, k, {0, 3});
    for (int column = 0; column < n; ++column) {
      EXPECT_EQ(result[column], 128.0f) << kernel.name;
      EXPECT_TRUE(std::isnan(result[n + column])) << kernel.name;
      EXPECT_EQ(result[2 * n + column], INFINITY) << kernel.name;
    }
  }
}

struct GateCase {
  int rows, width, k, out_pad;
};

// The bits of the product that is written, and of the activation behind it; between rows nothing is written.
void CheckGate(const Kernel& kernel, DataType type, ActivationKind gate, const GateCase& c) {
  std::mt19937 random(c.width);
  const TypedBuffer x(type, Normal(random, static_cast<size_t>(c.rows) * c.k));
  const TypedBuffer weight(type, Normal(random, size_t{2} * c.width * c.k, 0.25f));
  const TypedBuffer both(type, size_t{2} * c.width * c.rows), expected(type, static_cast<size_t>(c.width) * c.rows);
  const int out_step = c.width + c.out_pad;
  const TypedBuffer out(type, std::vector<float>(static_cast<size_t>(out_step) * c.rows, 7.0f));
  ProductArgs args{.type = type,
                   .out_type = type,
                   .rows = c.rows,
                   .n = 2 * c.width,
                   .k = c.k,
                   .x = x.data(),
                   .weight = weight.data(),
                   .x_step = c.k,
                   .weight_step = c.k,
                   .out_step = 2 * c.width,
                   .alpha = 0.5f,
                   .out = both.data()};
  ASSERT_EQ(kernel.run(args), LaunchError::kOk);
  ASSERT_EQ(
      ActivationCuda(
          {.type = type, .kind = gate, .rows = c.rows, .width = c.width, .x = both.data(), .out = expected.data()},
          nullptr),
      LaunchError::kOk);
  args.gate = gate;
  args.out_step = out_step;
  args.out = out.data();
  ASSERT_EQ(kernel.run(args), LaunchError::kOk);
  const std::vector<float> actual = out.Download(), wanted = expected.Download();
  for (int row = 0; row < c.rows; ++row) {
    for (int column = 0; column < out_step; ++column) {
      ASSERT_EQ(actual[row * out_step + column], column < c.width ? wanted[row * c.width + column] : 7.0f)
          << kernel.name << ", " << Name(type) << " gate " << static_cast<int>(gate) << " rows " << c.rows << " width "
          << c.width << " k " << c.k << ": row " << row << " column " << column;
    }
  }
}

TEST_F(ProductGpu, AGateGivesWhatTheActivationBehindTheProductGives) {
  for (const Kernel& kernel : Kernels()) {
    for (const DataType type : kTypes) {
      for (const ActivationKind gate : kProductGates) {
        for (const GateCase& c : {GateCase{1, 8, 64, 0}, {9, 40, 264, 4}, {130, 168, 72, 8}}) {
          const bool rare = type != DataType::kBFloat16 || gate != ActivationKind::kSilu;
          if (c.rows > kernel.most_rows || (rare && c.rows != 9)) continue;
          CheckGate(kernel, type, gate, c);
        }
      }
    }
  }
}

TEST_F(ProductGpu, DrawnGates) {
  const std::vector<Kernel> kernels = Kernels();
  ForDrawnShapes([&](Draw& draw) {
    const DataType type = draw.NarrowType();
    const ActivationKind gate = kProductGates[draw.Below(std::size(kProductGates))];
    for (const Kernel& kernel : kernels) {
      CheckGate(kernel, type, gate,
                {.rows = draw.Size(std::min(kernel.most_rows, 300)),
                 .width = draw.Eights(300),
                 .k = draw.Eights(600),
                 .out_pad = draw.Below(9)});
    }
  });
}

#if defined(BEAMLINE_EMULATED)
// Each row of the weight once, whatever the number of rows: what the first steps read of it.
TEST_F(ProductGpu, TheWeightIsFetchedWhileTheKernelBeforeDrains) {
  for (const Kernel& kernel : Kernels()) {
    for (const auto& [n, k, gated] : {std::tuple{80, 72, false}, {80, 1032, false}, {272, 72, true}}) {
      const int rows = std::min(130, kernel.most_rows);
      const TypedBuffer x(DataType::kBFloat16, std::vector<float>(static_cast<size_t>(rows) * k, 1.0f));
      const TypedBuffer weight(DataType::kBFloat16, std::vector<float>(static_cast<size_t>(n) * k, 1.0f));
      const TypedBuffer out(DataType::kBFloat16, static_cast<size_t>(rows) * n);
      ProductArgs args{.rows = rows,
                       .n = n,
                       .k = k,
                       .x = x.data(),
                       .weight = weight.data(),
                       .x_step = k,
                       .weight_step = k,
                       .out_step = n,
                       .out = out.data()};
      if (gated) args.gate = ActivationKind::kSilu;
      ASSERT_EQ(kernel.run(args), LaunchError::kOk);
      out.Download();
      EXPECT_TRUE(emulator::all_admitted) << kernel.name << ": the next kernel would come at its end";
      EXPECT_FALSE(emulator::copied_after_admitting) << kernel.name << ": the next kernel would come too early";
      std::vector<std::pair<int64_t, size_t>> fetched;  // from which byte, how many
      for (const emulator::Prefetched& part : emulator::prefetched) {
        fetched.emplace_back(part.from - static_cast<const char*>(weight.data()), part.bytes);
      }
      std::sort(fetched.begin(), fetched.end());
      ASSERT_EQ(fetched.size(), n) << kernel.name;
      for (int row = 0; row < n; ++row) {
        EXPECT_EQ(fetched[row], std::pair(int64_t{row} * k * 2, std::min(size_t{1024}, size_t(k) * 2))) << kernel.name;
      }
    }
  }
}
#endif

TEST(ProductCudaArguments, AreChecked) {
  static char memory[64] __attribute__((aligned(16)));
  const ProductArgs good{.rows = 1,
                         .n = 16,
                         .k = 8,
                         .x = memory,
                         .weight = memory,
                         .x_step = 8,
                         .weight_step = 8,
                         .out_step = 16,
                         .out = memory};
  std::vector<Kernel> kernels = {kSkinny};
  kernels.insert(kernels.end(), std::begin(kDense), std::end(kDense));
  for (const Kernel& kernel : kernels) {
    const auto refused = [&](auto change) {
      ProductArgs args = good;
      change(args);
      return kernel.run(args) == LaunchError::kInvalidArgument;
    };
    EXPECT_TRUE(refused([](ProductArgs& a) { a.type = a.out_type = DataType::kFloat32; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.type = DataType::kE4M3; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.out_type = DataType::kFloat16; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.rows = 0; }));
    EXPECT_TRUE(refused([&](ProductArgs& a) { a.rows = kernel.most_rows == kMaxSkinnyRows ? 17 : 65535 * 64 + 1; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.n = 0; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.k = 12, a.x_step = a.weight_step = 16; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.k = 0; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.x_step = 12; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.weight_step = 0; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.out_step = 15; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.gate = ActivationKind::kSilu, a.out_step = 7; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.gate = ActivationKind::kSilu, a.n = 8; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.gate = ActivationKind::kGelu; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.n = a.out_step = (1 << 30) + 16; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.k = a.x_step = a.weight_step = (1 << 30) + 8; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.gate = ActivationKind::kSilu, a.out_type = DataType::kFloat32; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.gate = ActivationKind::kSilu, a.add = true; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.gate = ActivationKind::kSilu, a.relu = true; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.gate = ActivationKind::kSilu, a.bias = memory; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.x = nullptr; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.weight = memory + 2; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.out = memory + 1; }));
    EXPECT_TRUE(refused([](ProductArgs& a) { a.bias = memory + 1; }));
#if defined(BEAMLINE_EMULATED)
    if (kernel.name != kSkinny.name) {
      emulator::compute_capability = 8;
      EXPECT_EQ(kernel.run(good), LaunchError::kInvalidArgument) << "no wgmma";
      emulator::compute_capability = 9;
    }
#endif
    if (WhyNoGpu().empty()) continue;
    EXPECT_EQ(kernel.run(good), kernel.name == kSkinny.name ? LaunchError::kCuda : LaunchError::kInvalidArgument);
  }
}

}  // namespace
}  // namespace beamline::kernels
