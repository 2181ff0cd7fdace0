// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/moe_cuda.h"

#include <algorithm>
#include <numeric>

#include "beamline/kernels/warpgroups_cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/drawn_shapes.h"

namespace beamline::kernels {
namespace {

constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16};

class MoeGpu : public GpuTest {};

void CheckRoute(DataType type, int rows, int width, int experts, int top_k) {
  std::mt19937 random(rows + experts);
  const float spread = 1.0f / std::sqrt(static_cast<float>(width));
  TypedBuffer x(type, Normal(random, static_cast<size_t>(rows) * width));
  const TypedBuffer gate(type, Normal(random, static_cast<size_t>(experts) * width, spread));
  const std::vector<float> bias = Normal(random, experts, 0.1f);
  const DeviceBuffer<float> bias_d(bias);
  DeviceBuffer<int32_t> expert(static_cast<size_t>(rows) * top_k);
  DeviceBuffer<float> weight(static_cast<size_t>(rows) * top_k);
  ASSERT_EQ(MoeRouteCuda({.type = type,
                          .rows = rows,
                          .width = width,
                          .experts = experts,
                          .top_k = top_k,
                          .x = x.data(),
                          .gate = gate.data(),
                          .bias = bias_d.data(),
                          .expert = expert.data(),
                          .weight = weight.data()},
                         nullptr),
            LaunchError::kOk);
  const std::vector<int32_t> chosen = expert.Download();
  const std::vector<float> weights = weight.Download();
  // A score is off by its dot product's rounding, some units of the sum of |products| (about 1), times sigmoid's slope.
  const double tolerance = (width / 32.0 + 16) * Epsilon(DataType::kFloat32);
  for (int row = 0; row < rows; ++row) {
    std::vector<double> score(experts), key(experts);
    for (int e = 0; e < experts; ++e) {
      double dot = 0;
      for (int i = 0; i < width; ++i) dot += double{x.host[row * width + i]} * gate.host[e * width + i];
      score[e] = 1 / (1 + std::exp(-dot));
      key[e] = score[e] + bias[e];
    }
    std::vector<int> order(experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return key[a] > key[b]; });
    double sum = 0;
    for (int j = 0; j < top_k; ++j) sum += score[chosen[row * top_k + j]];
    for (int j = 0; j < top_k; ++j) {
      const int e = chosen[row * top_k + j];
      ASSERT_TRUE(e >= 0 && e < experts);
      ASSERT_EQ(std::count(chosen.begin() + row * top_k, chosen.begin() + (row + 1) * top_k, e), 1);
      ASSERT_NEAR(key[e], key[order[j]], 4 * tolerance) << "row " << row;  // another one only within rounding
      ASSERT_NEAR(weights[row * top_k + j], score[e] / sum, 8 * tolerance);
    }
  }
}

TEST_F(MoeGpu, Route) {
  for (DataType type : kTypes) {
    CheckRoute(type, 9, 64, 24, 2);
    CheckRoute(type, 1, 8, 1, 1);
    CheckRoute(type, 5, 264, 33, 16);
    CheckRoute(type, 3, 1024, 256, 8);
  }
}

TEST_F(MoeGpu, DrawnRoutes) {
  ForDrawnShapes([](Draw& draw) {
    const DataType type = draw.Type();
    const int rows = draw.Size(70), width = draw.Eights(400), experts = draw.Size(kMaxExperts);
    CheckRoute(type, rows, width, experts, draw.Size(std::min(experts, kMaxExpertsPerRow)));
  });
}

TEST_F(MoeGpu, RouteBreaksTiesByIndexAndSurvivesNan) {
  const int width = 8, experts = 40, top_k = 3;
  std::vector<float> rows(2 * width, 0.0f);  // row 0: every score is one half
  for (int i = 0; i < width; ++i) rows[width + i] = NAN;
  const TypedBuffer x(DataType::kFloat32, rows), gate(DataType::kFloat32, std::vector<float>(experts * width, 1.0f));
  const DeviceBuffer<float> bias(std::vector<float>(experts, 0.0f));
  DeviceBuffer<int32_t> expert(2 * top_k);
  DeviceBuffer<float> weight(2 * top_k);
  ASSERT_EQ(MoeRouteCuda({.rows = 2,
                          .width = width,
                          .experts = experts,
                          .top_k = top_k,
                          .x = x.data(),
                          .gate = gate.data(),
                          .bias = bias.data(),
                          .expert = expert.data(),
                          .weight = weight.data()},
                         nullptr),
            LaunchError::kOk);
  EXPECT_EQ(expert.Download(), (std::vector<int32_t>{0, 1, 2, 0, 1, 2}));
  EXPECT_FLOAT_EQ(weight.Download()[0], 1.0f / 3);
  EXPECT_EQ(1e-12f + kMoeSumFloor, 1e-12f) << "ordinary sums keep their bits";
}

void CheckGroup(int entries, int experts) {
  std::mt19937 random(entries);
  std::vector<int32_t> expert(entries);
  for (int32_t& e : expert) e = random() % experts;
  if (experts > 2) std::replace(expert.begin(), expert.end(), 1, 2);  // one without entries
  const DeviceBuffer<int32_t> expert_d(expert);
  DeviceBuffer<int32_t> begin(experts + 1), entry(entries), place(entries);
  ASSERT_EQ(MoeGroupCuda({entries, experts, expert_d.data(), begin.data(), entry.data(), place.data()}, nullptr),
            LaunchError::kOk);
  std::vector<int32_t> order(entries), counts(experts + 1, 0), places(entries);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return expert[a] < expert[b]; });
  for (int32_t e : expert) ++counts[e + 1];
  std::partial_sum(counts.begin(), counts.end(), counts.begin());
  for (int i = 0; i < entries; ++i) places[order[i]] = i;
  EXPECT_EQ(begin.Download(), counts);
  EXPECT_EQ(entry.Download(), order);
  EXPECT_EQ(place.Download(), places);
}

TEST_F(MoeGpu, Group) {
  for (int entries : {1, 31, 512, 513, 1500}) {
    for (int experts : {1, 3, 24}) CheckGroup(entries, experts);
  }
  if (!SmallShapesOnly()) CheckGroup(70000, 256);
}

TEST_F(MoeGpu, DrawnGroups) {
  ForDrawnShapes([](Draw& draw) {
    const int entries = draw.Size(3000);
    CheckGroup(entries, draw.Size(kMaxExperts));
  });
}

struct ProductShape {
  std::vector<int32_t> counts;  // entries of each expert
  int n = 0, k = 0, top_k = 1;
  bool gated = false;
};

void CheckProduct(DataType type, bool warpgroups, const ProductShape& shape) {
  const auto& [counts, n, k, top_k, gated] = shape;
  const int width = gated ? n / 2 : n;
  std::mt19937 random(n + k);
  const int experts = static_cast<int>(counts.size());
  std::vector<int32_t> begin(experts + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), begin.begin() + 1);
  const int entries = begin.back(), rows = (entries + top_k - 1) / top_k;
  std::vector<int32_t> entry(entries);
  std::iota(entry.begin(), entry.end(), 0);
  std::shuffle(entry.begin(), entry.end(), random);
  const TypedBuffer x(type, Normal(random, static_cast<size_t>(rows) * k));
  const TypedBuffer weight(type, Normal(random, static_cast<size_t>(experts) * n * k));
  TypedBuffer out(type, static_cast<size_t>(entries) * width);
  const DeviceBuffer<int32_t> begin_d(begin), entry_d(entry);
  ASSERT_NE(PrepareWarpgroups(), LaunchError::kCuda);
  ASSERT_EQ(GroupedProductCuda({.type = type,
                                .entries = entries,
                                .experts = experts,
                                .n = n,
                                .k = k,
                                .begin = begin_d.data(),
                                .entry = entry_d.data(),
                                .divisor = top_k,
                                .x = x.data(),
                                .weight = weight.data(),
                                .out = out.data(),
                                .warpgroups = warpgroups,
                                .gated = gated},
                               nullptr),
            LaunchError::kOk);
  Reference reference;
  for (int e = 0; e < experts; ++e) {
    for (int place = begin[e]; place < begin[e + 1]; ++place) {
      const float* row = x.host.data() + static_cast<size_t>(entry[place] / top_k) * k;
      const auto product = [&](int column) {  // and its rounding
        const float* w = weight.host.data() + (static_cast<size_t>(e) * n + column) * k;
        double sum = 0, size = 0;
        for (int i = 0; i < k; ++i) {
          sum += double{row[i]} * w[i];
          size += std::abs(double{row[i]} * w[i]);
        }
        return std::pair(sum, Epsilon(DataType::kFloat32) * (k + 8) * size);
      };
      for (int column = 0; column < width; ++column) {
        const auto [sum, error] = product(column);
        if (!gated) {
          reference.Add(sum, 1.01 * Epsilon(type) * std::abs(sum) + error);
          continue;
        }
        // SiLU's slope is at most 1.1, and it is at most |x|.
        const auto [value, value_error] = product(width + column);
        const double gate = sum / (1 + std::exp(-sum)), expected = gate * value;
        reference.Add(expected, (1.01 * Epsilon(type) + 8 * Epsilon(DataType::kFloat32)) * std::abs(expected) +
                                    1.1 * error * (std::abs(value) + value_error) + std::abs(gate) * value_error);
      }
    }
  }
  EXPECT_EQ(reference.Wrong(out.Download()), "")
      << Name(type) << " n " << n << " k " << k << (warpgroups ? " by wgmma" : "");
}

TEST_F(MoeGpu, GroupedProduct) {
  std::vector<int32_t> many(70, 1);  // of experts, looked at 32 at a time
  many[30] = many[33] = 0;
  many[31] = many[32] = many[69] = 66;
  for (DataType type : kTypes) {
    for (const bool warpgroups : {false, true}) {
      CheckProduct(type, warpgroups, {.counts = {1}, .n = 8, .k = 8});
      CheckProduct(type, warpgroups, {.counts = {3, 0, 65, 64, 1}, .n = 136, .k = 40, .top_k = 2});
      CheckProduct(type, warpgroups, {.counts = {70, 2}, .n = 128, .k = 456});
      CheckProduct(type, warpgroups, {.counts = {130, 3}, .n = 264, .k = 200});  // full enough for larger blocks
      CheckProduct(type, warpgroups, {.counts = many, .n = 8, .k = 16, .top_k = 2});
      if (warpgroups && type != DataType::kFloat32 && PrepareWarpgroups() == LaunchError::kOk) {
        CheckProduct(type, warpgroups, {.counts = {3, 0, 65, 1}, .n = 304, .k = 40, .top_k = 2, .gated = true});
        CheckProduct(type, warpgroups, {.counts = {130, 3}, .n = 272, .k = 328, .gated = true});
      }
      if (SmallShapesOnly()) continue;
      CheckProduct(type, warpgroups, {.counts = {200, 0, 1, 700}, .n = 2816, .k = 1024, .top_k = 2});
    }
  }
}

TEST_F(MoeGpu, DrawnProducts) {
  ForDrawnShapes([](Draw& draw) {
    const DataType type = draw.Type();
    const bool warpgroups = draw.Coin();
    ProductShape shape{.n = draw.Eights(400), .k = draw.Eights(500), .top_k = draw.Size(4)};
    for (int experts = draw.Size(40); experts > 0; --experts) {
      shape.counts.push_back(draw.Coin() ? draw.Below(3) : draw.Size(experts < 4 ? 150 : 20));
    }
    shape.counts.push_back(1);  // never none at all
    shape.gated = warpgroups && type != DataType::kFloat32 && shape.n % 16 == 0 && draw.Coin() &&
                  PrepareWarpgroups() == LaunchError::kOk;
    CheckProduct(type, warpgroups, shape);
  });
}

// A row's bits do not depend on which rows, and how many, share its tile.
TEST_F(MoeGpu, CompanyChangesNothing) {
  for (DataType type : kTypes) {
    for (const bool warpgroups : {false, true}) {
      std::mt19937 random(4);
      const int n = 24, k = 392, rows = 90;
      const TypedBuffer x(type, Normal(random, size_t{rows} * k)), weight(type, Normal(random, size_t{n} * k));
      const auto run = [&](int first, int count) {
        TypedBuffer out(type, static_cast<size_t>(count) * n);
        const DeviceBuffer<int32_t> begin(std::vector<int32_t>{0, count});
        EXPECT_NE(PrepareWarpgroups(), LaunchError::kCuda);
        EXPECT_EQ(GroupedProductCuda({.type = type,
                                      .entries = count,
                                      .experts = 1,
                                      .n = n,
                                      .k = k,
                                      .begin = begin.data(),
                                      .x = x.at(static_cast<size_t>(first) * k),
                                      .weight = weight.data(),
                                      .out = out.data(),
                                      .warpgroups = warpgroups},
                                     nullptr),
                  LaunchError::kOk);
        return out.Download();
      };
      const std::vector<float> all = run(0, rows);
      for (int row : {0, 7, 63, 64, 89}) {
        const std::vector<float> alone = run(row, 1);
        ASSERT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + row * n))
            << Name(type) << " row " << row << (warpgroups ? " by wgmma" : "");
      }
    }
  }
}

TEST_F(MoeGpu, Combine) {
  for (DataType type : kTypes) {
    for (bool with_shared : {false, true}) {
      std::mt19937 random(8);
      const int rows = 21, width = 40, top_k = 3;
      const TypedBuffer y(type, Normal(random, size_t{rows} * top_k * width));
      const TypedBuffer shared(type, Normal(random, size_t{rows} * width));
      std::vector<int32_t> place(rows * top_k);
      std::iota(place.begin(), place.end(), 0);
      std::shuffle(place.begin(), place.end(), random);
      const std::vector<float> weight = Normal(random, rows * top_k);
      const DeviceBuffer<int32_t> place_d(place);
      const DeviceBuffer<float> weight_d(weight);
      TypedBuffer out(type, size_t{rows} * width);
      ASSERT_EQ(MoeCombineCuda({.type = type,
                                .rows = rows,
                                .width = width,
                                .top_k = top_k,
                                .y = y.data(),
                                .place = place_d.data(),
                                .weight = weight_d.data(),
                                .shared = with_shared ? shared.data() : nullptr,
                                .out = out.data()},
                               nullptr),
                LaunchError::kOk);
      Reference reference;
      for (int row = 0; row < rows; ++row) {
        for (int i = 0; i < width; ++i) {
          double sum = with_shared ? shared.host[row * width + i] : 0, size = std::abs(sum);
          for (int j = 0; j < top_k; ++j) {
            const double term = double{weight[row * top_k + j]} * y.host[place[row * top_k + j] * width + i];
            sum += term;
            size += std::abs(term);
          }
          reference.Add(sum, 1.01 * Epsilon(type) * std::abs(sum) + 8 * Epsilon(DataType::kFloat32) * size);
        }
      }
      EXPECT_EQ(reference.Wrong(out.Download()), "") << Name(type);
    }
  }
}

TEST(MoeCudaArguments, AreChecked) {
  static char memory[64] __attribute__((aligned(16)));
  int32_t* ints = reinterpret_cast<int32_t*>(memory);
  float* floats = reinterpret_cast<float*>(memory);
  const MoeRouteArgs route{.rows = 1,
                           .width = 8,
                           .experts = 4,
                           .top_k = 2,
                           .x = memory,
                           .gate = memory,
                           .bias = floats,
                           .expert = ints,
                           .weight = floats};
  const auto route_refused = [&](auto change) {
    MoeRouteArgs args = route;
    change(args);
    return MoeRouteCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(route_refused([](MoeRouteArgs& a) { a.rows = 0; }));
  EXPECT_TRUE(route_refused([](MoeRouteArgs& a) { a.width = 10; }));
  EXPECT_TRUE(route_refused([](MoeRouteArgs& a) { a.width = kMaxRowWidth + 8; }));
  EXPECT_TRUE(route_refused([](MoeRouteArgs& a) { a.experts = kMaxExperts + 1; }));
  EXPECT_TRUE(route_refused([](MoeRouteArgs& a) { a.top_k = 5; }));
  EXPECT_TRUE(route_refused([](MoeRouteArgs& a) { a.bias = nullptr; }));
  EXPECT_TRUE(route_refused([](MoeRouteArgs& a) { a.x = memory + 1; }));
  EXPECT_TRUE(route_refused([](MoeRouteArgs& a) { Misalign(a.gate); }));
  EXPECT_TRUE(route_refused([](MoeRouteArgs& a) { Misalign(a.bias); }));
  EXPECT_TRUE(route_refused([](MoeRouteArgs& a) { Misalign(a.expert); }));
  EXPECT_TRUE(route_refused([](MoeRouteArgs& a) { Misalign(a.weight); }));
  EXPECT_EQ(MoeGroupCuda({0, 4, ints, ints, ints, ints}, nullptr), LaunchError::kInvalidArgument);
  EXPECT_EQ(MoeGroupCuda({(1 << 30) + 1, 4, ints, ints, ints, ints}, nullptr), LaunchError::kInvalidArgument);
  EXPECT_EQ(MoeGroupCuda({4, 0, ints, ints, ints, ints}, nullptr), LaunchError::kInvalidArgument);
  EXPECT_EQ(MoeGroupCuda({4, 4, nullptr, ints, ints, ints}, nullptr), LaunchError::kInvalidArgument);
  const auto group_refused = [&](auto change) {
    MoeGroupArgs args{4, 4, ints, ints, ints, ints};
    change(args);
    return MoeGroupCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(group_refused([](MoeGroupArgs& a) { Misalign(a.expert); }));
  EXPECT_TRUE(group_refused([](MoeGroupArgs& a) { Misalign(a.begin); }));
  EXPECT_TRUE(group_refused([](MoeGroupArgs& a) { Misalign(a.entry); }));
  EXPECT_TRUE(group_refused([](MoeGroupArgs& a) { Misalign(a.place); }));
  const GroupedProductArgs product{
      .entries = 1, .experts = 1, .n = 8, .k = 8, .begin = ints, .x = memory, .weight = memory, .out = memory};
  const auto product_refused = [&](auto change) {
    GroupedProductArgs args = product;
    change(args);
    return GroupedProductCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { a.entries = 0; }));
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { a.entries = 1 << 23; }));  // more tiles than a grid has rows
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { a.entries = 64 * 65535; }));
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { a.entries = 0x7fffffff; }));
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { a.n = 4; }));
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { a.n = kMaxRowWidth + 8; }));
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { a.k = 12; }));
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { a.k = kMaxRowWidth + 8; }));
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { a.divisor = 2; }));  // without entries
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { a.weight = nullptr; }));
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { a.gated = true; }));  // without wgmma
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) {
    a.type = DataType::kBFloat16;
    a.gated = a.warpgroups = true;
    a.n = 24;
  }));
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { Misalign(a.begin); }));
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { Misalign(a.entry); }));
  EXPECT_TRUE(product_refused([](GroupedProductArgs& a) { Misalign(a.out); }));
  const MoeCombineArgs combine{
      .rows = 1, .width = 8, .top_k = 1, .y = memory, .place = ints, .weight = floats, .out = memory};
  const auto combine_refused = [&](auto change) {
    MoeCombineArgs args = combine;
    change(args);
    return MoeCombineCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(combine_refused([](MoeCombineArgs& a) { a.rows = 0; }));
  EXPECT_TRUE(combine_refused([](MoeCombineArgs& a) { a.rows = 1 << 30, a.top_k = 2; }));
  EXPECT_TRUE(combine_refused([](MoeCombineArgs& a) { a.width = kMaxRowWidth + 8; }));
  EXPECT_TRUE(combine_refused([](MoeCombineArgs& a) { a.width = kMaxRowWidth, a.rows = 1 << 22; }));
  EXPECT_TRUE(combine_refused([](MoeCombineArgs& a) { a.top_k = kMaxExpertsPerRow + 1; }));
  EXPECT_TRUE(combine_refused([](MoeCombineArgs& a) { a.place = nullptr; }));
  EXPECT_TRUE(combine_refused([](MoeCombineArgs& a) { Misalign(a.y); }));
  EXPECT_TRUE(combine_refused([](MoeCombineArgs& a) { Misalign(a.place); }));
  EXPECT_TRUE(combine_refused([](MoeCombineArgs& a) { Misalign(a.weight); }));
  EXPECT_TRUE(combine_refused([](MoeCombineArgs& a) { Misalign(a.shared); }));
  EXPECT_TRUE(combine_refused([](MoeCombineArgs& a) { Misalign(a.out); }));
  if (WhyNoGpu().empty()) return;
  EXPECT_EQ(MoeRouteCuda(route, nullptr), LaunchError::kCuda);
  EXPECT_EQ(GroupedProductCuda(product, nullptr), LaunchError::kCuda);
  EXPECT_EQ(MoeCombineCuda(combine, nullptr), LaunchError::kCuda);
}

}  // namespace
}  // namespace beamline::kernels
