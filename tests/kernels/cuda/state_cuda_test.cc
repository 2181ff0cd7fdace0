// SPDX-License-Identifier: Apache-2.0
//
// A search's state between its steps, and the small things between sublayers.
#include "beamline/kernels/state_cuda.h"

#include <algorithm>

#include "beamline/kernels/elementwise_cuda.h"
#include "kernels/cuda/device.h"

namespace beamline::kernels {
namespace {

constexpr DataType kFloatTypes[] = {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16};

std::vector<int32_t> RandomInts(std::mt19937& random, size_t count, int32_t below) {
  std::vector<int32_t> values(count);
  for (int32_t& value : values) value = static_cast<int32_t>(random() % static_cast<uint32_t>(below));
  return values;
}

class StateGpu : public GpuTest {};

TEST_F(StateGpu, Visibility) {
  std::mt19937 random(3);
  for (const auto& [requests, tokens, groups] : {std::tuple{1, 1, 1}, {3, 7, 2}, {2, 700, 300}}) {
    std::vector<int32_t> order = RandomInts(random, requests * tokens, 9),
                         limit = RandomInts(random, requests * groups, 9);
    for (int32_t& of_token : order) of_token = random() % 3 == 0 ? kHiddenOrder : of_token;
    for (int i = 0; i < tokens; ++i) order[i] = kHiddenOrder;  // the first request has nothing
    const DeviceBuffer<int32_t> device_order(order), device_limit(limit);
    for (const int form : {0, 1, 2, 3}) {  // given limits, none, the tokens' own, and own of counted tokens
      const int of_groups = form < 2 ? groups : tokens;
      DeviceBuffer<int32_t> out(requests * (tokens + of_groups + 1));
      ASSERT_EQ(VisibilityCuda({.requests = requests,
                                .tokens = tokens,
                                .groups = of_groups,
                                .order = form == 3 ? nullptr : device_order.data(),
                                .limit = form == 0 ? device_limit.data() : nullptr,
                                .own_order = form >= 2,
                                .out = out.data()},
                               nullptr),
                LaunchError::kOk);
      std::vector<int32_t> orders = order, limits, keys(requests, 0);
      for (int i = 0; i < requests * tokens && form == 3; ++i) orders[i] = i % tokens;
      for (int i = 0; i < requests * of_groups; ++i) {
        limits.push_back(form == 0 ? limit[i] : form == 1 ? kHiddenOrder - 1 : orders[i]);
      }
      for (int i = 0; i < requests * tokens; ++i) {
        const auto first = limits.begin() + i / tokens * of_groups;
        if (orders[i] <= *std::max_element(first, first + of_groups)) keys[i / tokens] = i % tokens + 1;
      }
      std::vector<int32_t> expected = orders;
      expected.insert(expected.end(), limits.begin(), limits.end());
      expected.insert(expected.end(), keys.begin(), keys.end());
      EXPECT_EQ(out.Download(), expected) << form;
    }
  }
}

TEST_F(StateGpu, LineageFollowsTheParents) {
  std::mt19937 random(5);
  const int requests = 3, widths[] = {1, 5, 300, 2};
  std::vector<std::vector<std::vector<int32_t>>> paths(requests);  // [request][row][step]
  DeviceBuffer<int32_t> lineage(0);
  for (int step = 0; step < 3; ++step) {
    const int rows = widths[step + 1], parent_rows = widths[step];
    const std::vector<int32_t> parents = RandomInts(random, requests * rows, parent_rows);
    const DeviceBuffer<int32_t> device_parents(parents);
    DeviceBuffer<int32_t> out((step + 1) * requests * rows);
    ASSERT_EQ(ExtendLineageCuda({.requests = requests,
                                 .rows = rows,
                                 .parent_rows = parent_rows,
                                 .steps = step,
                                 .lineage = lineage.data(),
                                 .parents = device_parents.data(),
                                 .out = out.data()},
                                nullptr),
              LaunchError::kOk);
    const std::vector<int32_t> got = out.Download();
    for (int b = 0; b < requests; ++b) {
      std::vector<std::vector<int32_t>> next;
      for (int r = 0; r < rows; ++r) {
        const int32_t parent = parents[b * rows + r];
        next.push_back(step == 0 ? std::vector<int32_t>() : paths[b][parent]);
        next.back().push_back(parent);
        for (int s = 0; s <= step; ++s) ASSERT_EQ(got[(s * requests + b) * rows + r], next.back()[s]);
      }
      paths[b] = next;
    }
    lineage = std::move(out);
  }
}

TEST_F(StateGpu, NextStepTakesTheActiveSlots) {
  const int requests = 3, slots = 4, rows = 3;
  const DeviceBuffer<int32_t> count(std::vector<int32_t>{0, 2, 4});
  const DeviceBuffer<uint16_t> code(std::vector<uint16_t>{9, 9, 9, 9, 65535, 1, 9, 9, 2, 3, 4, 5});
  const DeviceBuffer<int32_t> parent(std::vector<int32_t>{7, 7, 7, 7, 1, 0, 7, 7, 3, 2, 1, 0});
  DeviceBuffer<int32_t> codes(requests * rows), parents(requests * rows);
  NextStepArgs args{.requests = requests,
                    .slots = slots,
                    .rows = rows,
                    .count = count.data(),
                    .code = code.data(),
                    .parent = parent.data(),
                    .codes = codes.data(),
                    .parents = parents.data()};
  ASSERT_EQ(NextStepCuda(args, nullptr), LaunchError::kOk);
  EXPECT_EQ(codes.Download(), (std::vector<int32_t>{0, 0, 0, 65535, 1, 0, 2, 3, 4}));
  EXPECT_EQ(parents.Download(), (std::vector<int32_t>{0, 0, 0, 1, 0, 0, 3, 2, 1}));
  args.rows = slots + 1;
  EXPECT_EQ(NextStepCuda(args, nullptr), LaunchError::kInvalidArgument);
}

TEST_F(StateGpu, NodesAreRankedWithinTheirRequest) {
  const int slots = 300;
  const std::vector<int32_t> count = {300, 0, 7, 400};  // of the last the slots there are
  std::mt19937 random(2);
  std::vector<uint32_t> node(count.size() * slots), expected(node.size(), 0xffffffffu);
  for (uint32_t& one : node) one = random();  // different ones but for a chance of 1 in 50,000
  for (size_t b = 0; b < count.size(); ++b) {
    const auto begin = node.begin() + b * slots;
    const int active = std::min(count[b], slots);
    for (int i = 0; i < active; ++i) {
      expected[b * slots + i] =
          static_cast<uint32_t>(std::count_if(begin, begin + active, [&](uint32_t other) { return other < begin[i]; }));
    }
  }
  const DeviceBuffer<int32_t> count_d(count);
  const DeviceBuffer<uint32_t> node_d(node);
  const DeviceBuffer<uint32_t> rank(std::vector<uint32_t>(node.size(), 0xffffffffu));  // unwritten behind the count
  ASSERT_EQ(RankNodesCuda(
                {.requests = 4, .slots = slots, .count = count_d.data(), .node = node_d.data(), .rank = rank.data()},
                nullptr),
            LaunchError::kOk);
  EXPECT_EQ(rank.Download(), expected);
}

TEST_F(StateGpu, ContextsLeaveAndEnterBatches) {
  std::mt19937 random(7);
  for (const int words : {1, 5, 700}) {
    const int tokens = 300;
    std::vector<int32_t> order = RandomInts(random, tokens, 5), x = RandomInts(random, tokens * words, 1 << 30);
    std::vector<int32_t> expected;
    for (int t = 0; t < tokens; ++t) {
      if (random() % 2 == 0) order[t] = kHiddenOrder;
      if (order[t] != kHiddenOrder) expected.insert(expected.end(), x.begin() + t * words, x.begin() + (t + 1) * words);
    }
    const int count = static_cast<int>(expected.size()) / words;
    const DeviceBuffer<int32_t> device_order(order), device_x(x);
    DeviceBuffer<int32_t> taken(expected.size());
    DeviceBuffer<int32_t> taken_order(static_cast<size_t>(count));
    TakeVisibleArgs take{.tokens = tokens, .count = 2, .order = device_order.data()};
    take.row_bytes[0] = 4, take.x[0] = device_order.data(), take.out[0] = taken_order.data();
    take.row_bytes[1] = 4 * words, take.x[1] = device_x.data(), take.out[1] = taken.data();
    ASSERT_EQ(TakeVisibleCuda(take, nullptr), LaunchError::kOk);
    ASSERT_EQ(taken.Download(), expected);
    std::vector<int32_t> expected_order;
    std::copy_if(order.begin(), order.end(), std::back_inserter(expected_order),
                 [](int32_t of_token) { return of_token != kHiddenOrder; });
    ASSERT_EQ(taken_order.Download(), expected_order);

    const int capacity = count + 3;
    DeviceBuffer<int32_t> stacked(3 * capacity * words);
    StackRowsArgs args{.requests = 3, .capacity = capacity, .row_bytes = 4 * words, .fill = 77, .out = stacked.data()};
    args.rows[0] = taken.data(), args.count[0] = count;
    args.rows[2] = device_x.data(), args.count[2] = 2;
    ASSERT_EQ(StackRowsCuda(args, nullptr), LaunchError::kOk);
    std::vector<int32_t> wanted(3 * capacity * words, 77);
    std::copy(expected.begin(), expected.end(), wanted.begin());
    std::copy_n(x.begin(), 2 * words, wanted.begin() + 2 * capacity * words);
    EXPECT_EQ(stacked.Download(), wanted);
    args.count[2] = capacity + 1;
    EXPECT_EQ(StackRowsCuda(args, nullptr), LaunchError::kInvalidArgument);
  }
}

// Of every alignment and length, the shortest shorter than any vector, the longest longer than the blocks of one copy.
TEST_F(StateGpu, CopiesAreExactAndTouchNothingElse) {
  std::mt19937 random(8);
  constexpr int kBytes = 6 << 20;
  std::vector<uint8_t> from(kBytes), to(kBytes, 0xee);
  for (uint8_t& byte : from) byte = static_cast<uint8_t>(random());
  const DeviceBuffer<uint8_t> device_from(from);
  DeviceBuffer<uint8_t> device_to(to);
  CopyAllArgs args;
  int64_t at = 0;
  for (const int64_t bytes : {1, 2, 3, 4, 15, 16, 17, 48, 4096, 4097, 20000, 5 << 20}) {
    for (const int shift : {0, 1, 4, 8}) {
      if (bytes == 5 << 20 && shift > 0) continue;
      at = (at + 31) / 16 * 16;
      const int64_t source = bytes == 5 << 20 ? 0 : at + shift, target = at + (shift == 8 ? 4 : shift);
      args.from[args.count] = device_from.data() + source;
      args.to[args.count] = device_to.data() + target;
      args.bytes[args.count++] = bytes;
      std::copy_n(from.begin() + source, bytes, to.begin() + target);
      at = target + bytes + 1;
    }
  }
  ASSERT_LE(at, kBytes);
  ASSERT_EQ(CopyAllCuda(args, nullptr), LaunchError::kOk);
  EXPECT_EQ(device_to.Download(), to);
}

class ElementwiseGpu : public GpuTest {};

TEST_F(ElementwiseGpu, SumsAndGates) {
  std::mt19937 random(9);
  for (const DataType type : kFloatTypes) {
    const int64_t rows = 37;
    const int32_t width = 56;
    const size_t count = rows * width;
    const TypedBuffer x(type, Normal(random, count)), y(type, Normal(random, count)), bias(type, Normal(random, width));
    const std::vector<float> gates = Normal(random, count, 3.0f);
    const DeviceBuffer<float> gate(gates);
    TypedBuffer sum(type, count), gated(type, count);
    ASSERT_EQ(AddCuda({type, rows * width, x.data(), y.data(), sum.data()}, nullptr), LaunchError::kOk);
    ASSERT_EQ(GatedSumCuda({type, rows, width, x.data(), gate.data(), bias.data(), y.data(), gated.data()}, nullptr),
              LaunchError::kOk);
    Reference sums, gated_sums;
    for (size_t i = 0; i < count; ++i) {
      const double added = double{x.host[i]} + y.host[i];
      sums.Add(added, 1.01 * Epsilon(type) * std::abs(added) + 1e-9);
      const double opened = 1 / (1 + std::exp(-(double{gates[i]} + bias.host[i % width])));
      const double value = x.host[i] + opened * y.host[i];
      gated_sums.Add(value,
                     1.01 * Epsilon(type) * std::abs(value) + 1e-6 * (std::abs(x.host[i]) + std::abs(y.host[i])));
    }
    EXPECT_EQ(sums.Wrong(sum.Download()), "") << Name(type);
    EXPECT_EQ(gated_sums.Wrong(gated.Download()), "") << Name(type);
    EXPECT_EQ(AddCuda({type, 12, x.data(), y.data(), sum.data()}, nullptr), LaunchError::kInvalidArgument);
  }
}

TEST_F(ElementwiseGpu, RowsAreRepeated) {
  std::mt19937 random(11);
  for (const DataType type : kFloatTypes) {
    const int32_t width = 16;
    const TypedBuffer x(type, Normal(random, 12 * width));
    TypedBuffer out(type, 30 * width);
    // Row 2 of each of 3 requests' 4, ten times.
    ASSERT_EQ(RepeatRowsCuda({.type = type,
                              .rows = 30,
                              .width = width,
                              .repeat = 10,
                              .period = 3,
                              .step = 4,
                              .first = 2,
                              .x = x.data(),
                              .out = out.data()},
                             nullptr),
              LaunchError::kOk);
    std::vector<float> expected;
    for (int r = 0; r < 30; ++r) {
      const auto row = x.host.begin() + (r / 10 * 4 + 2) * width;
      expected.insert(expected.end(), row, row + width);
    }
    EXPECT_EQ(out.Download(), expected);
  }
}

TEST(StateCudaArguments, AreChecked) {
  static int32_t memory[16] __attribute__((aligned(16)));
  // Not where an element may begin.
  auto* const between = reinterpret_cast<int32_t*>(reinterpret_cast<char*>(memory) + 2);
  const auto refused = [](auto launch, auto args, auto change) {
    change(args);
    return launch(args, nullptr) == LaunchError::kInvalidArgument;
  };
  const VisibilityArgs visibility{.requests = 1, .tokens = 2, .groups = 1, .out = memory};
  const auto visibility_refused = [&](auto change) { return refused(VisibilityCuda, visibility, change); };
  EXPECT_TRUE(visibility_refused([](VisibilityArgs& a) { a.requests = 0; }));
  EXPECT_TRUE(visibility_refused([](VisibilityArgs& a) { a.requests = 2, a.tokens = 1 << 30; }));
  EXPECT_TRUE(visibility_refused([](VisibilityArgs& a) { a.groups = kMaxStateRows + 1; }));
  EXPECT_TRUE(visibility_refused([](VisibilityArgs& a) { a.own_order = true; }));
  EXPECT_TRUE(visibility_refused([&](VisibilityArgs& a) { a.order = between; }));
  EXPECT_TRUE(visibility_refused([&](VisibilityArgs& a) { a.limit = between; }));
  EXPECT_TRUE(visibility_refused([&](VisibilityArgs& a) { a.out = between; }));

  const ExtendLineageArgs extend{
      .requests = 1, .rows = 1, .parent_rows = 1, .steps = 1, .lineage = memory, .parents = memory, .out = memory + 4};
  const auto extend_refused = [&](auto change) { return refused(ExtendLineageCuda, extend, change); };
  EXPECT_TRUE(extend_refused([](ExtendLineageArgs& a) { a.lineage = nullptr; }));
  EXPECT_TRUE(extend_refused([](ExtendLineageArgs& a) { a.steps = 65; }));
  EXPECT_TRUE(extend_refused([&](ExtendLineageArgs& a) { a.lineage = between; }));
  EXPECT_TRUE(extend_refused([&](ExtendLineageArgs& a) { a.parents = between; }));
  EXPECT_TRUE(extend_refused([&](ExtendLineageArgs& a) { a.out = between; }));

  auto* const nodes = reinterpret_cast<uint32_t*>(memory);
  const RankNodesArgs rank{.requests = 1, .slots = 1, .count = memory, .node = nodes, .rank = nodes + 4};
  const auto rank_refused = [&](auto change) { return refused(RankNodesCuda, rank, change); };
  EXPECT_TRUE(rank_refused([](RankNodesArgs& a) { a.slots = 0; }));
  EXPECT_TRUE(rank_refused([](RankNodesArgs& a) { a.node = nullptr; }));
  EXPECT_TRUE(rank_refused([&](RankNodesArgs& a) { a.rank = reinterpret_cast<uint32_t*>(between); }));

  const NextStepArgs next{.requests = 1,
                          .slots = 1,
                          .rows = 1,
                          .count = memory,
                          .code = reinterpret_cast<const uint16_t*>(memory),
                          .parent = memory,
                          .codes = memory + 4,
                          .parents = memory + 8};
  const auto next_refused = [&](auto change) { return refused(NextStepCuda, next, change); };
  EXPECT_TRUE(next_refused([](NextStepArgs& a) { a.rows = 0; }));
  EXPECT_TRUE(next_refused([&](NextStepArgs& a) { a.count = between; }));
  EXPECT_TRUE(next_refused(
      [](NextStepArgs& a) { a.code = reinterpret_cast<const uint16_t*>(reinterpret_cast<const char*>(memory) + 1); }));
  EXPECT_TRUE(next_refused([&](NextStepArgs& a) { a.parent = between; }));
  EXPECT_TRUE(next_refused([&](NextStepArgs& a) { a.codes = between; }));
  EXPECT_TRUE(next_refused([&](NextStepArgs& a) { a.parents = between; }));

  TakeVisibleArgs take{.tokens = 1, .count = 1, .order = memory};
  take.row_bytes[0] = 4, take.x[0] = memory, take.out[0] = memory + 4;
  const auto take_refused = [&](auto change) { return refused(TakeVisibleCuda, take, change); };
  EXPECT_TRUE(take_refused([](TakeVisibleArgs& a) { a.row_bytes[0] = 6; }));
  EXPECT_TRUE(take_refused([](TakeVisibleArgs& a) { a.row_bytes[0] = (int64_t{1} << 30) + 4; }));
  EXPECT_TRUE(take_refused([](TakeVisibleArgs& a) { a.count = 0; }));
  EXPECT_TRUE(take_refused([](TakeVisibleArgs& a) { a.count = kMaxTaken + 1; }));
  EXPECT_TRUE(take_refused([](TakeVisibleArgs& a) { a.count = 2; })) << "the second is not there";
  EXPECT_TRUE(take_refused([](TakeVisibleArgs& a) { a.tokens = kMaxStateRows + 1; }));
  EXPECT_TRUE(take_refused([&](TakeVisibleArgs& a) { a.order = between; }));
  EXPECT_TRUE(take_refused([&](TakeVisibleArgs& a) { a.x[0] = between; }));
  EXPECT_TRUE(take_refused([&](TakeVisibleArgs& a) { a.out[0] = between; }));

  StackRowsArgs stack{.requests = 1, .capacity = 1, .row_bytes = 4, .out = memory + 4};
  stack.rows[0] = memory, stack.count[0] = 1;
  const auto stack_refused = [&](auto change) { return refused(StackRowsCuda, stack, change); };
  EXPECT_TRUE(stack_refused([](StackRowsArgs& a) { a.requests = kMaxStacked + 1; }));
  EXPECT_TRUE(stack_refused([](StackRowsArgs& a) { a.requests = 2, a.capacity = 1 << 30; }));
  EXPECT_TRUE(stack_refused([](StackRowsArgs& a) { a.rows[0] = nullptr; }));
  EXPECT_TRUE(stack_refused([&](StackRowsArgs& a) { a.rows[0] = between; }));
  EXPECT_TRUE(stack_refused([&](StackRowsArgs& a) { a.out = between; }));

  CopyAllArgs copy{.count = 1};
  copy.from[0] = memory, copy.to[0] = memory + 4, copy.bytes[0] = 4;
  const auto copy_refused = [&](auto change) { return refused(CopyAllCuda, copy, change); };
  EXPECT_TRUE(copy_refused([](CopyAllArgs& a) { a.count = 0; }));
  EXPECT_TRUE(copy_refused([](CopyAllArgs& a) { a.count = kMaxCopied + 1; }));
  EXPECT_TRUE(copy_refused([](CopyAllArgs& a) { a.from[0] = nullptr; }));
  EXPECT_TRUE(copy_refused([](CopyAllArgs& a) { a.to[0] = nullptr; }));
  EXPECT_TRUE(copy_refused([](CopyAllArgs& a) { a.bytes[0] = 0; }));
  if (WhyNoGpu().empty()) return;
  EXPECT_EQ(VisibilityCuda(visibility, nullptr), LaunchError::kCuda);
  EXPECT_EQ(ExtendLineageCuda(extend, nullptr), LaunchError::kCuda);
  EXPECT_EQ(NextStepCuda(next, nullptr), LaunchError::kCuda);
  EXPECT_EQ(TakeVisibleCuda(take, nullptr), LaunchError::kCuda);
  EXPECT_EQ(StackRowsCuda(stack, nullptr), LaunchError::kCuda);
  EXPECT_EQ(CopyAllCuda(copy, nullptr), LaunchError::kCuda);
}

TEST(ElementwiseCudaArguments, AreChecked) {
  static int32_t memory[16] __attribute__((aligned(16)));
  const auto add = [](int64_t count) {
    return AddCuda({.count = count, .x = memory, .y = memory, .out = memory}, nullptr);
  };
  EXPECT_EQ(add(12), LaunchError::kInvalidArgument);
  EXPECT_EQ(add(kMaxElements + 8), LaunchError::kInvalidArgument);
  const RepeatRowsArgs repeat{.rows = 1, .width = 8, .x = memory, .out = memory + 8};
  const auto refused = [&](auto change) {
    RepeatRowsArgs args = repeat;
    change(args);
    return RepeatRowsCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](RepeatRowsArgs& a) { a.x = memory + 1; }));
  EXPECT_TRUE(refused([](RepeatRowsArgs& a) { a.width = kMaxRowWidth + 8; }));
  EXPECT_TRUE(refused([](RepeatRowsArgs& a) { a.rows = (int64_t{1} << 31) + 1; }));
  EXPECT_TRUE(refused([](RepeatRowsArgs& a) { a.width = 1 << 10, a.rows = 1 << 29; }));
  EXPECT_TRUE(refused([](RepeatRowsArgs& a) { a.repeat = 0; }));
  EXPECT_TRUE(refused([](RepeatRowsArgs& a) { a.period = 0; }));
  EXPECT_TRUE(refused([](RepeatRowsArgs& a) { a.step = -1; }));
  EXPECT_TRUE(refused([](RepeatRowsArgs& a) { a.first = -1; }));
  EXPECT_EQ(GatedSumCuda({.rows = 1, .width = 8, .trunk = memory, .code = memory, .out = memory}, nullptr),
            LaunchError::kInvalidArgument);
  if (!WhyNoGpu().empty()) EXPECT_EQ(add(8), LaunchError::kCuda);
}

}  // namespace
}  // namespace beamline::kernels
