// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/skinny_product_cuda.h"

#include <algorithm>

#include "kernels/cuda/device.h"

namespace beamline::kernels {
namespace {

constexpr DataType kTypes[] = {DataType::kBFloat16, DataType::kFloat16};

class SkinnyProductGpu : public GpuTest {};

struct Shape {
  int rows, n, k;
  int x_pad = 0, weight_pad = 0, out_pad = 0;  // elements between rows beyond their length
};

struct Options {
  DataType out_type = DataType::kBFloat16;
  bool bias = false, add = false, relu = false;
  float scale = 1;
};

void CheckProduct(DataType type, const Shape& s, const Options& options) {
  std::mt19937 random(s.n + s.k + s.rows);
  const int x_step = s.k + s.x_pad, weight_step = s.k + s.weight_pad, out_step = s.n + s.out_pad;
  const TypedBuffer x(type, Normal(random, static_cast<size_t>(s.rows) * x_step));
  const TypedBuffer weight(type, Normal(random, static_cast<size_t>(s.n) * weight_step));
  const TypedBuffer bias(options.out_type, Normal(random, s.n));
  const TypedBuffer out(options.out_type, Normal(random, static_cast<size_t>(s.rows) * out_step));
  ASSERT_EQ(SkinnyProductCuda({.type = type,
                               .out_type = options.out_type,
                               .rows = s.rows,
                               .n = s.n,
                               .k = s.k,
                               .x = x.data(),
                               .weight = weight.data(),
                               .x_step = x_step,
                               .weight_step = weight_step,
                               .out_step = out_step,
                               .scale = options.scale,
                               .add = options.add,
                               .relu = options.relu,
                               .bias = options.bias ? bias.data() : nullptr,
                               .out = out.data()},
                              nullptr),
            LaunchError::kOk);
  Reference reference;
  for (int row = 0; row < s.rows; ++row) {
    for (int column = 0; column < out_step; ++column) {
      const double before = out.host[row * out_step + column];
      if (column >= s.n) {  // between rows nothing is written
        reference.Add(before, 0x1p-60);
        continue;
      }
      double sum = 0, size = 0;
      for (int i = 0; i < s.k; ++i) {
        const double term = options.scale * double{x.host[row * x_step + i]} * weight.host[column * weight_step + i];
        sum += term;
        size += std::abs(term);
      }
      if (options.add) sum += before, size += std::abs(before);
      if (options.bias) sum += bias.host[column], size += std::abs(bias.host[column]);
      if (options.relu) sum = std::max(sum, 0.0);
      reference.Add(sum,
                    1.01 * Epsilon(options.out_type) * std::abs(sum) + Epsilon(DataType::kFloat32) * (s.k + 8) * size);
    }
  }
  EXPECT_EQ(reference.Wrong(out.Download()), "")
      << Name(type) << " to " << Name(options.out_type) << ": " << s.rows << " rows, n " << s.n << ", k " << s.k;
}

TEST_F(SkinnyProductGpu, AgainstDoublePrecision) {
  for (const DataType type : kTypes) {
    CheckProduct(type, {1, 1, 8}, {.out_type = type});
    CheckProduct(type, {1, 16, 64}, {.out_type = DataType::kFloat32});
    CheckProduct(type, {2, 37, 72, 8, 16, 3}, {.out_type = type, .bias = true});
    CheckProduct(type, {8, 32, 1000}, {.out_type = DataType::kFloat32, .bias = true, .scale = 0.125f});
    CheckProduct(type, {9, 17, 776, 0, 8, 0}, {.out_type = type, .add = true});
    CheckProduct(type, {16, 48, 768}, {.out_type = DataType::kFloat32, .add = true, .scale = 3});
    CheckProduct(type, {16, 100, 136, 64, 0, 4}, {.out_type = type, .bias = true, .add = true, .relu = true});
    if (!SmallShapesOnly()) CheckProduct(type, {1, 8192, 1536}, {.out_type = DataType::kFloat32});
    if (!SmallShapesOnly()) CheckProduct(type, {13, 1536, 4096}, {.out_type = type});
  }
}

// fp32 sums of these rows of x, one behind the other.
std::vector<float> Products(const TypedBuffer& x, const TypedBuffer& weight, int k,
                            std::pair<int, int> first_and_count) {
  const auto [first, count] = first_and_count;
  const int n = static_cast<int>(weight.host.size()) / k;
  const TypedBuffer out(DataType::kFloat32, static_cast<size_t>(count) * n);
  EXPECT_EQ(SkinnyProductCuda({.type = x.type,
                               .out_type = DataType::kFloat32,
                               .rows = count,
                               .n = n,
                               .k = k,
                               .x = x.at(static_cast<size_t>(first) * k),
                               .weight = weight.data(),
                               .x_step = k,
                               .weight_step = k,
                               .out_step = n,
                               .out = out.data()},
                              nullptr),
            LaunchError::kOk);
  return out.Download();
}

// A row's bits depend neither on how many rows there are, nor on its place among them.
TEST_F(SkinnyProductGpu, CompanyChangesNothing) {
  for (const DataType type : kTypes) {
    std::mt19937 random(6);
    const int n = 40, k = 840, rows = kMaxSkinnyRows;
    const TypedBuffer x(type, Normal(random, size_t{rows} * k)), weight(type, Normal(random, size_t{n} * k));
    const std::vector<float> all = Products(x, weight, k, {0, rows});
    for (const auto& [first, count] : {std::pair{0, 1}, {15, 1}, {3, 8}, {5, 9}}) {
      const std::vector<float> some = Products(x, weight, k, {first, count});
      ASSERT_TRUE(std::equal(some.begin(), some.end(), all.begin() + first * n)) << Name(type) << " row " << first;
    }
  }
}

// Of a row that holds an infinity or a NaN the others know nothing.
TEST_F(SkinnyProductGpu, RowsKeepTheirSpecialValues) {
  const int n = 16, k = 128;
  std::vector<float> rows(size_t{3} * k, 1.0f);
  rows[k] = NAN;
  rows[2 * k + 5] = INFINITY;
  const TypedBuffer x(DataType::kBFloat16, rows), weight(DataType::kBFloat16, std::vector<float>(size_t{n} * k, 1.0f));
  const std::vector<float> result = Products(x, weight, k, {0, 3});
  for (int column = 0; column < n; ++column) {
    EXPECT_EQ(result[column], 128.0f);
    EXPECT_TRUE(std::isnan(result[n + column]));
    EXPECT_EQ(result[2 * n + column], INFINITY);
  }
}

TEST(SkinnyProductCudaArguments, AreChecked) {
  static char memory[64] __attribute__((aligned(16)));
  const SkinnyProductArgs good{.rows = 1,
                               .n = 1,
                               .k = 8,
                               .x = memory,
                               .weight = memory,
                               .x_step = 8,
                               .weight_step = 8,
                               .out_step = 1,
                               .out = memory};
  const auto refused = [&](auto change) {
    SkinnyProductArgs args = good;
    change(args);
    return SkinnyProductCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.type = a.out_type = DataType::kFloat32; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.type = DataType::kE4M3; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.out_type = DataType::kFloat16; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.rows = 0; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.rows = kMaxSkinnyRows + 1; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.n = 0; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.k = 12, a.x_step = a.weight_step = 16; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.k = 0; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.x_step = 12; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.weight_step = 0; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.out_step = 0; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.x = nullptr; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.weight = memory + 2; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.out = memory + 1; }));
  EXPECT_TRUE(refused([](SkinnyProductArgs& a) { a.bias = memory + 1; }));
  if (WhyNoGpu().empty()) return;
  EXPECT_EQ(SkinnyProductCuda(good, nullptr), LaunchError::kCuda);
}

}  // namespace
}  // namespace beamline::kernels
