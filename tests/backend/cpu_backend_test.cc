// SPDX-License-Identifier: Apache-2.0
//
// What the cpu backend has besides the op set: storage that is reused, weights packed once, helpers shared by batches.
#include "backend/cpu/cpu_backend.h"

#include <atomic>
#include <chrono>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include <ATen/ops/empty.h>

#include "backend/cpu/resources.h"
#include "gtest/gtest.h"

namespace beamline::backend {
namespace {

TEST(Workspace, ReusesWhatNobodyHolds) {
  Workspace workspace;
  const Tensor kept = workspace.Take({3, 50});
  const void* first = workspace.Take({10, 10}).const_data_ptr();  // let go of at once
  EXPECT_EQ(workspace.allocations(), 2);
  const Tensor again = workspace.Take({100});
  EXPECT_EQ(again.const_data_ptr(), first);
  EXPECT_EQ(again.sizes(), at::IntArrayRef({100}));
  EXPECT_EQ(workspace.allocations(), 2);

  Tensor view = workspace.Take({64}).narrow(0, 0, 1);
  EXPECT_EQ(workspace.allocations(), 3);
  EXPECT_NE(workspace.Take({64}).const_data_ptr(), view.const_data_ptr()) << "a view holds its storage";
  EXPECT_EQ(workspace.allocations(), 4);
  EXPECT_NE(workspace.Take({64}, c10::kInt).scalar_type(), c10::kFloat);
  EXPECT_GE(static_cast<int64_t>(kept.storage().nbytes()), 150 * 4);
}

// A whole feed-forward and attention, batch after batch: the first allocates, the others do not; weights pack once.
TEST(CpuBackend, LaterBatchesAllocateNothing) {
  CpuBackend backend;
  Context shared;
  shared.backend = &backend;
  const int64_t d = 32, rows = 40, tokens = 9;
  const std::vector<float> values(3 * d * d, 0.01f);
  const auto weight = [&](int64_t n) { return UploadWeight(shared, absl::MakeSpan(values).first(n * d), {n, d}); };
  const SelfAttentionWeights self{weight(3 * d), weight(d), 4};
  const CrossAttentionWeights cross{weight(d), weight(2 * d), weight(d), 4};
  const FeedForwardWeights ffn{.up = weight(2 * d), .down = weight(d)};
  const Tensor x = weight(rows), context = weight(tokens);
  int64_t allocations[3];
  for (int64_t& count : allocations) {
    Context ctx = BeginBatch(shared);
    const Tensor order = UploadInts(ctx, std::vector<int32_t>(tokens, 0), {1, tokens});
    const Tensor key_value = ContextKeyValue(ctx, context, cross, {1});
    LineageCache cache;
    for (int layer = 0; layer < 3; ++layer) {
      Tensor h = Residual(ctx, x, LineageAttention(ctx, x, self, {.last = true, .cache = cache}));
      h = Residual(ctx, h, CrossAttention(ctx, h, cross, {key_value, PaddingMask(ctx, order)}));
      FeedForward(ctx, h, ffn);
    }
    count = static_cast<CpuResources&>(*ctx.resources).workspace().allocations();
  }
  EXPECT_GT(allocations[0], 0);
  EXPECT_EQ(allocations[1], allocations[0]);
  EXPECT_EQ(allocations[2], allocations[0]);
}

// Of every kind of table and every width up to some: an element's token is the same bits in any batch.
TEST(CpuBackend, FeaturesAreTheSameBitsInAnyCompany) {
  const Context shared = *MakeContext("cpu", "fp32", "cpu");
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  constexpr int64_t kElements = 12, kLength = 3;
  for (int64_t width = 1; width <= 80; ++width) {
    Context ctx = BeginBatch(shared);
    const auto table = [&](int64_t rows) {
      std::vector<float> values(rows * width);
      for (float& value : values) value = normal(random);
      return UploadWeight(ctx, values, {rows, width});
    };
    const std::vector<FeatureTable> tables = {
        {table(256), FeatureLookup::kIndex}, {table(255), FeatureLookup::kFromOne}, {table(8), FeatureLookup::kBitSum}};
    std::vector<int32_t> ids(kElements * 3);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 256);
    for (const FeatureFusion fusion : {FeatureFusion::kConcat, FeatureFusion::kSum}) {
      const Tensor batch = UploadInts(ctx, ids, {kElements / kLength, kLength, 3});
      const std::vector<float> together = DownloadFloats(ctx, EmbedFeatures(ctx, tables, fusion, batch));
      const int64_t floats = static_cast<int64_t>(together.size()) / kElements;
      for (int64_t i = 0; i < kElements; ++i) {
        const Tensor one = UploadInts(ctx, absl::MakeSpan(ids).subspan(i * 3, 3), {1, 1, 3});
        const std::vector<float> expected(together.begin() + i * floats, together.begin() + (i + 1) * floats);
        ASSERT_EQ(DownloadFloats(ctx, EmbedFeatures(ctx, tables, fusion, one)), expected) << width;
      }
    }
  }
}

TEST(CpuBackend, FeaturesAreTheSameBitsOnAnyNumberOfCores) {
  CpuBackend backend;
  Context shared = *MakeContext("cpu", "fp32", "cpu");
  shared.backend = &backend;
  std::vector<float> values(256 * 40);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 1 / static_cast<float>(i + 1);
  const Tensor table = UploadWeight(shared, values, {256, 40});
  const std::vector<FeatureTable> tables = {
      {table, FeatureLookup::kFromOne}, {table.narrow(0, 0, 8), FeatureLookup::kBitSum}, {table}};
  for (const FeatureFusion fusion : {FeatureFusion::kConcat, FeatureFusion::kSum}) {
    const auto embed = [&](int cores, int32_t elements) {
      backend.SetTeam(std::make_shared<WorkerTeam>(cores));
      Context ctx = BeginBatch(shared);
      std::vector<int32_t> ids(int64_t{elements} * 3);
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 31 / 3 % 256);
      const Tensor x = EmbedFeatures(ctx, tables, fusion, UploadInts(ctx, ids, {elements, 1, 3}));
      return DownloadFloats(ctx, x);
    };
    const std::vector<float> all = embed(1, 5000);
    EXPECT_EQ(embed(3, 5000), all);
    const std::vector<float> few = embed(3, 7);  // never split
    EXPECT_TRUE(std::equal(few.begin(), few.end(), all.begin()));
    EXPECT_TRUE(embed(3, 0).empty());
  }
}

TEST(PackedWeights, PacksOnceAndForgetsWhatIsGone) {
  PackedWeights packed;
  Context ctx = *MakeContext("cpu", "fp32");
  Tensor weight = UploadWeight(ctx, std::vector<float>(12, 1.0f), {4, 3});
  const auto whole = packed.Get(weight, {0, 4, false});
  EXPECT_EQ(packed.Get(weight, {0, 4, false}), whole);
  EXPECT_NE(packed.Get(weight, {2, 2, false}), whole);
  EXPECT_EQ(packed.Get(weight, {0, 4, true})->n, 2);
  EXPECT_EQ(packed.size(), 3);
  weight = UploadWeight(ctx, std::vector<float>(12, 2.0f), {4, 3});
  EXPECT_NE(packed.Get(weight, {0, 4, false}), whole);
  EXPECT_EQ(packed.size(), 1);
  EXPECT_THROW(packed.Get(weight.t(), {0, 3, false}), c10::Error);
  packed.ReleaseUnused();
  EXPECT_EQ(packed.size(), 1) << "somebody holds it";
  weight = Tensor();
  packed.ReleaseUnused();
  EXPECT_EQ(packed.bytes(), 0);
}

TEST(WorkerTeam, EveryPartRunsOnceWhoeverIsIdle) {
  WorkerTeam team(3);
  std::atomic<int> wrong{0};
  const auto batch = [&] {
    for (int run = 0; run < 300; ++run) {
      std::vector<std::atomic<int>> counts(1 + run % 7);
      team.Run(static_cast<int>(counts.size()), [&](int part) { ++counts[part]; });
      for (const auto& count : counts) wrong += count != 1;
    }
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) callers.emplace_back(batch);
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

// Out of memory in one part: the others end first, since they use the caller's frame, and the team goes on.
TEST(WorkerTeam, WhatAPartThrowsReachesTheCallerAfterAllHaveEnded) {
  WorkerTeam team(3);
  for (int thrower = 0; thrower < 3; ++thrower) {
    std::atomic<int> running{0};
    const auto part = [&](int i) {
      ++running;
      std::this_thread::sleep_for(std::chrono::milliseconds(i == thrower ? 0 : 20));
      --running;
      if (i == thrower) throw std::bad_alloc();
    };
    EXPECT_THROW(team.Run(3, part), std::bad_alloc) << thrower;
    EXPECT_EQ(running, 0);
    std::atomic<int> done{0};
    team.Run(3, [&](int) { ++done; });
    EXPECT_EQ(done, 3);
  }
}

TEST(WorkerTeam, BatchesShareTheCores) {
  WorkerTeam team(8);
  EXPECT_EQ(team.Share(), 8);
  team.Enter();
  EXPECT_EQ(team.Share(), 8);
  team.Enter();
  EXPECT_EQ(team.Share(), 4);
  for (int i = 0; i < 20; ++i) team.Enter();
  EXPECT_EQ(team.Share(), 1);
}

TEST(CpuBackend, IsWhatAutoComesToOnTheCpu) {
  EXPECT_EQ(BackendOf("cpu", "auto"), "cpu");
  EXPECT_EQ(BackendOf("cpu", "aten"), "aten");
  EXPECT_NE(BackendOf("cuda:1", "auto"), "cpu");
}

TEST(CpuBackend, RefusesWhatItCannotDoByName) {
  EXPECT_EQ(MakeContext("cpu", "fp32", "mkl").status().message(),
            "backend: 'mkl' is unknown; use auto, aten, cpu or cuda");
  EXPECT_EQ(MakeContext("cpu", "int4", "cpu").status().message(),
            "dtype: 'int4' is unknown; use fp32, bf16, fp16, fp8, fp8_mixed or int8");
  EXPECT_EQ(MakeContext("cpu", "int8", "aten").status().message(),
            "dtype: int8 runs on device cpu with backend cpu alone; name that backend, or use fp32 or bf16");
  EXPECT_EQ(MakeContext("cpu", "fp32", "cuda").status().message(),
            "backend: cuda runs on device cuda only; use auto, aten or cpu");
  EXPECT_EQ(MakeContext("cpu", "fp16", "auto").status().message(),
            "dtype: fp16 runs on device cuda with backend cuda alone; use fp32 or bf16");
  for (const char* dtype : {"fp32", "bf16", "int8"}) {
    ASSERT_TRUE(MakeContext("cpu", dtype, "cpu").ok()) << dtype;
    EXPECT_EQ(MakeContext("cpu", dtype, "auto")->backend, MakeContext("cpu", dtype, "cpu")->backend);
    EXPECT_EQ(MakeContext("cpu", dtype, "cpu")->dtype, c10::kFloat) << "its tensors";
  }
  EXPECT_NE(MakeContext("cpu", "fp32", "cpu")->backend, MakeContext("cpu", "bf16", "cpu")->backend);
  EXPECT_EQ(MakeContext("cpu", "bf16", "aten")->dtype, c10::kBFloat16);
}

}  // namespace
}  // namespace beamline::backend
