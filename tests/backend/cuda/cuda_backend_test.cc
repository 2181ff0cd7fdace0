// SPDX-License-Identifier: Apache-2.0
//
// What the cuda backend has besides the op set: batches that allocate nothing and copy once, tries that go to the
// device once, graphs.
#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "backend/cuda/cuda_test.h"
#include "beamline/kernels/warpgroups_cuda.h"
#include "gtest/gtest.h"

namespace beamline::backend::cuda {
namespace {

TEST_F(CudaBackendTest, LaterBatchesAllocateNothingAndUploadOnce) {
  for (const char* dtype : {"fp32", "fp8"}) {
    Context shared = SharedContext(dtype);
    const int64_t d = 32, tokens = 9;
    const SelfAttentionWeights self{.qkv = Weight(shared, 3 * d, d), .out = Weight(shared, d, d), .heads = 4};
    const CrossAttentionWeights cross{Weight(shared, d, d), Weight(shared, 2 * d, d), Weight(shared, d, d), 4};
    const FeedForwardWeights ffn{.up = Weight(shared, 2 * d, d), .down = Weight(shared, d, d)};
    const Tensor table = Weight(shared, 50, d), norm = View(Weight(shared, 1, d), 0, {d}, shared.dtype);
    int64_t allocations[3];
    for (int64_t& count : allocations) {
      Context ctx = BeginBatch(shared);
      const Tensor order = UploadInts(ctx, std::vector<int32_t>(tokens, 0), {1, tokens});
      const Tensor ids = UploadInts(ctx, std::vector<int32_t>(tokens, 3), {1, tokens, 1});
      const Tensor x = EmbedFeatures(ctx, {{.table = table}}, FeatureFusion::kSum, ids);
      const Tensor mask = PaddingMask(ctx, order);
      const Tensor key_value = ContextKeyValue(ctx, x, cross, {1});
      LineageCache cache;
      Tensor h = x;
      for (int layer = 0; layer < 3; ++layer) {
        h = RmsNorm(ctx, h, norm, 1e-6);
        h = Residual(ctx, h, SelfAttention(ctx, h, self, {mask}));
        h = Residual(ctx, h, CrossAttention(ctx, h, cross, {key_value, mask}));
        h = Residual(ctx, h, FeedForward(ctx, h, ffn));
      }
      auto& batch = static_cast<CudaBatch&>(*ctx.resources);
      EXPECT_EQ(batch.counters().downloads, 0) << "nothing waits";
      DownloadFloats(ctx, h);
      EXPECT_EQ(batch.counters().uploads, 1);
      EXPECT_EQ(batch.counters().downloads, 1);
      count = batch.worker().workspace.allocations();
    }
    EXPECT_GT(allocations[0], 0);
    EXPECT_EQ(allocations[1], allocations[0]);
    EXPECT_EQ(allocations[2], allocations[0]);
  }
}

TEST_F(CudaBackendTest, KeptMemoryIsTakenAgainByItsSizeAndLittleMoreThanIsAskedFor) {
  Tensor outlives;
  {
    KeptMemory kept(SharedContext().device);
    std::vector<Tensor> held;
    for (int i = 0; i < 4; ++i) held.push_back(kept.Take({11, 100}, c10::kFloat));
    EXPECT_EQ(held[0].sizes(), at::IntArrayRef({11, 100}));
    EXPECT_EQ(held[0].storage().nbytes(), 1280u * 4) << "not 2,048 elements";
    const void* const third = held[2].const_data_ptr();
    const Tensor view = View(held[2], 0, {1}, c10::kFloat);
    held[2].reset();
    EXPECT_NE((outlives = kept.Take({1100}, c10::kFloat)).const_data_ptr(), third) << "a view holds it";
    EXPECT_EQ(kept.allocations(), 5);
    const void* const second = held[1].const_data_ptr();
    held[1].reset();
    EXPECT_EQ((held[1] = kept.Take({2400}, c10::kHalf)).const_data_ptr(), second);
    EXPECT_EQ(kept.allocations(), 5);
    EXPECT_FALSE(kept.ReleaseFree());
    held.clear();
    EXPECT_TRUE(kept.ReleaseFree());
    held.push_back(kept.Take({1100}, c10::kFloat));
    EXPECT_EQ(kept.allocations(), 6) << "the device had them back";
  }
  EXPECT_EQ(outlives.numel(), 1100);
}

#if defined(BEAMLINE_EMULATED_CUBLASLT)
// Contexts of other lengths, or of a model that is gone, must not be what a batch has no memory for.
TEST_F(CudaBackendTest, WhatIsKeptAndFreeIsGivenBackBeforeMemoryRunsOut) {
  const c10::Device device = SharedContext().device;
  KeptMemory kept(device);
  const size_t memory = emulator::memory;
  Tensor held = kept.Take({16 << 20}, c10::kByte);
  kept.Take({32 << 20}, c10::kByte);
  emulator::memory = emulator::allocated + (size_t{1} << 20);
  const Tensor other = NewTensor(device, {24 << 20}, c10::kByte);
  EXPECT_THROW(NewTensor(device, {24 << 20}, c10::kByte), std::bad_alloc) << "the other is held";
  held.reset();
  EXPECT_NO_THROW(kept.Take({20 << 20}, c10::kByte));
  emulator::memory = memory;
}

// Two batches run out of memory at once, and what is kept goes back in the other's thread.
TEST_F(CudaBackendTest, WhatAnotherThreadGivesBackIsEnoughToo) {
  const c10::Device device = SharedContext().device;
  const size_t memory = emulator::memory;
  KeptMemory kept(device);
  const Reserve other(device, [&] { emulator::memory = memory; });
  emulator::memory = emulator::allocated + (size_t{1} << 20);
  EXPECT_NO_THROW(NewTensor(device, {2 << 20}, c10::kByte));
  emulator::memory = memory;
}
#endif

// What a batch ran on last is still in the cache; and models share none of it.
TEST_F(CudaBackendTest, TheWorkerThatWasUsedLastIsTakenFirst) {
  Context ctx = SharedContext(), other = ctx;
  ctx.workers = ctx.backend->NewWorkers();
  other.workers = ctx.backend->NewWorkers();
  for (const bool first_ends_first : {true, false}) {
    Context a = BeginBatch(ctx), b = BeginBatch(ctx);
    const Worker* const of_a = &static_cast<CudaBatch&>(*a.resources).worker();
    const Worker* const of_b = &static_cast<CudaBatch&>(*b.resources).worker();
    EXPECT_NE(of_a, of_b);
    (first_ends_first ? a : b).resources.reset();
    (first_ends_first ? b : a).resources.reset();
    const Context of_other = BeginBatch(other);
    EXPECT_NE(&static_cast<CudaBatch&>(*of_other.resources).worker(), of_a);
    EXPECT_NE(&static_cast<CudaBatch&>(*of_other.resources).worker(), of_b);
    EXPECT_EQ(ctx.workers->Hold().get(), first_ends_first ? of_b : of_a);
  }
}

// What a head by wgmma knows of its rows reaches the selection of these logits alone; the next head has their memory.
TEST_F(CudaBackendTest, AHeadKeepsWhatASelectionReads) {
  for (const char* dtype : {"fp32", "bf16"}) {
    Context shared = SharedContext(dtype), ctx = BeginBatch(shared);
    const bool fused = shared.dtype != c10::kFloat && kernels::PrepareWarpgroups() == kernels::LaunchError::kOk;
    const HeadWeights head{.weight = Weight(shared, 136, 16)};
    const Tensor x = Weight(shared, 6, 16);
    auto& batch = static_cast<CudaBatch&>(*ctx.resources);
    Tensor logits = LevelHead(ctx, x, head, {.batch = 2});
    EXPECT_EQ(batch.PartsOf(logits) != nullptr, fused) << dtype;
    EXPECT_EQ(batch.PartsOf(x), nullptr) << dtype;
    const int64_t allocations = batch.worker().workspace.allocations();
    logits.reset();
    logits = LevelHead(ctx, x, head, {.batch = 2});
    EXPECT_EQ(batch.worker().workspace.allocations(), allocations) << dtype;
    const Tensor later = LevelHead(ctx, x, head, {.batch = 3});
    EXPECT_EQ(batch.PartsOf(logits), nullptr) << "another head's";
    EXPECT_EQ(batch.PartsOf(later) != nullptr, fused) << dtype;
  }
}

TEST_F(CudaBackendTest, TellsTheMemoryOfTheDevice) {
  const Context ctx = SharedContext();
  const int64_t bytes = int64_t{256} << 20;  // far more than others use or let go of meanwhile
  const std::optional<DeviceMemory> before = ctx.backend->GetDeviceMemory();
  const Tensor large = NewTensor(ctx.device, {bytes}, c10::kByte);
  const std::optional<DeviceMemory> during = ctx.backend->GetDeviceMemory();
  ASSERT_TRUE(before.has_value());
  ASSERT_TRUE(during.has_value());
  EXPECT_GT(before->free, bytes);
  EXPECT_GE(before->total, before->free);
  EXPECT_EQ(during->total, before->total);
  EXPECT_NEAR(static_cast<double>(before->free - during->free), static_cast<double>(bytes), 64 << 20);
}

// A norm adds the residual before it; whoever else reads the sum finds it, too.
TEST_F(CudaBackendTest, SumsArePutOffAndNeverForgotten) {
  for (const char* dtype : {"fp32", "bf16", "fp16"}) {
    Context shared = SharedContext(dtype);
    Context ctx = BeginBatch(shared);
    const int64_t rows = 5, d = 40;
    const Tensor x = Weight(shared, rows, d, -0.3f), delta = Weight(shared, rows, d, 0.4f);
    const Tensor weight = View(Weight(shared, 1, d), 0, {d}, ctx.dtype);
    const Tensor at_once = Residual(ctx, x, delta);
    const std::vector<float> sum = DownloadFloats(ctx, at_once);
    const std::vector<float> norm = DownloadFloats(ctx, RmsNorm(ctx, at_once, weight, 1e-6));
    const Tensor fused = Residual(ctx, x, delta);
    EXPECT_EQ(DownloadFloats(ctx, RmsNorm(ctx, fused, weight, 1e-6)), norm) << dtype;
    EXPECT_EQ(DownloadFloats(ctx, fused), sum) << dtype;
    const Tensor first = Residual(ctx, x, delta), second = Residual(ctx, first, delta);
    EXPECT_EQ(DownloadFloats(ctx, RmsNorm(ctx, first, weight, 1e-6)), norm) << dtype;
    EXPECT_EQ(DownloadFloats(ctx, first), sum) << dtype;
    EXPECT_NE(DownloadFloats(ctx, second), sum) << dtype;
  }
}

// The same row alone, first, last and in the middle of others.
TEST_F(CudaBackendTest, RowsDoNotDependOnTheirCompany) {
  for (const char* dtype : {"fp32", "bf16", "fp16", "fp8"}) {
    Context shared = SharedContext(dtype);
    Context ctx = BeginBatch(shared);
    const int64_t d = 64;
    const FeedForwardWeights ffn{.up = Weight(shared, 2 * d, d, -0.3f), .down = Weight(shared, d, d, -0.2f)};
    const Tensor many = Weight(shared, 37, d, -0.25f);
    const std::vector<float> all = DownloadFloats(ctx, FeedForward(ctx, many, ffn));
    for (const int64_t rows : {1, 2, 3, 5, 20}) {
      for (const int64_t first : {int64_t{0}, int64_t{11}, 37 - rows}) {
        const Tensor some =
            View(many, first * d * static_cast<int64_t>(many.itemsize()), {rows, d}, many.scalar_type());
        const std::vector<float> alone = DownloadFloats(ctx, FeedForward(ctx, some, ffn));
        for (int64_t i = 0; i < rows * d; ++i) ASSERT_EQ(alone[i], all[first * d + i]) << dtype << " " << rows;
      }
    }
  }
}

TEST_F(CudaBackendTest, RefusesWidthsThatKernelsDoNotTakeAndWorkOutsideOfABatch) {
  Context shared = SharedContext(), ctx = BeginBatch(shared);
  const Tensor weight = Weight(shared, 8, 12), x = Weight(shared, 3, 12);
  EXPECT_THROW(Dense(ctx, x, {.weight = weight, .bias = {}}), c10::Error);
  EXPECT_THROW(RmsNorm(ctx, x, x, 1e-6), c10::Error);
  EXPECT_THROW(RmsNorm(shared, Weight(shared, 1, 8), Weight(shared, 1, 8), 1e-6), c10::Error);
}

// Configurations may ask for more than the kernels take: whoever loads one is told what, not that widths are wrong.
TEST_F(CudaBackendTest, RefusesExpertsAndHeadsBeyondItsLimitsByName) {
  Context shared = SharedContext(), ctx = BeginBatch(shared);
  const auto message = [](const std::function<void()>& run) -> std::string {
    try {
      run();
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "taken";
  };
  const Tensor x = Weight(shared, 1, 8);
  const auto choose = [&](int64_t experts, int top_k) {
    const MoeWeights moe{.gate = Weight(shared, experts, 8),
                         .bias = View(Weight(shared, 1, experts), 0, {experts}, c10::kFloat),
                         .up = View(Weight(shared, experts * 16, 8), 0, {experts, 16, 8}, c10::kFloat),
                         .down = View(Weight(shared, experts * 8, 8), 0, {experts, 8, 8}, c10::kFloat),
                         .top_k = top_k};
    return message([&] { MoeFeedForward(ctx, x, moe); });
  };
  EXPECT_EQ(choose(20, 16), "taken");
  EXPECT_EQ(choose(20, 17), "cuda: 20 experts of which a row takes 17; at most 256 and 16");
  EXPECT_EQ(choose(257, 1), "cuda: 257 experts of which a row takes 1; at most 256 and 16");
  const auto attend = [&](int64_t head_dim) {
    const SelfAttentionWeights w{.qkv = Weight(shared, 3 * head_dim, 8), .out = Weight(shared, 8, head_dim)};
    const Tensor order = UploadInts(ctx, {0}, {1, 1});
    return message([&] { SelfAttention(ctx, x, w, {PaddingMask(ctx, order)}); });
  };
  EXPECT_EQ(attend(256), "taken");
  EXPECT_EQ(attend(264), "cuda: heads of 264 columns; multiples of 8 up to 256");
}

TEST_F(CudaBackendTest, TriesWithAnIdGoToTheDeviceOnce) {
  TrieCache tries;
  const uint16_t codes[] = {1, 4, 7};
  kernels::ConstraintView view;
  view.trie.levels = 1;
  view.trie.level[0] = {.codes = codes, .offsets = nullptr, .num_nodes = 3};
  view.snapshot_trie = view.trie;
  Context shared = SharedContext();
  const auto codes_of = [&](uint64_t id) {
    Context ctx = BeginBatch(shared);
    view.trie.id = view.snapshot_trie.id = id;
    TrieCache::Sent sent;
    return tries.Upload(static_cast<CudaBatch&>(*ctx.resources), view, 0, sent).trie.level[0].codes;
  };
  const uint16_t* first = codes_of(11);
  EXPECT_NE(first, codes);
  EXPECT_EQ(codes_of(11), first);
  EXPECT_NE(codes_of(12), first);
  codes_of(0);
  EXPECT_EQ(tries.size(), 2);
  for (uint64_t id = 20; id < 30; ++id) codes_of(id);
  EXPECT_EQ(tries.size(), 3) << "old snapshots are let go of";
}

#if defined(BEAMLINE_EMULATED_CUBLASLT)

// Runs `other` while `slow`, on a thread of its own, waits for the device. False: `other` waited for it, too.
bool RunsBeside(const std::function<void()>& slow, const std::function<void()>& other) {
  absl::Notification waits, done;
  std::atomic<bool> in_time = false;
  std::thread thread([&] {
    static thread_local bool is_slow = false;
    is_slow = true;
    emulator::while_waiting = [&] {
      if (!is_slow || waits.HasBeenNotified()) return;
      waits.Notify();
      in_time = done.WaitForNotificationWithTimeout(absl::Seconds(20));
    };
    slow();
  });
  EXPECT_TRUE(waits.WaitForNotificationWithTimeout(absl::Seconds(60))) << "nobody waited for the device";
  other();
  done.Notify();
  thread.join();
  emulator::while_waiting = nullptr;
  return in_time;
}

// A load brings a new trie, and quantises its weights, on a thread that gives way to all others: what is there already
// must not wait for that.
TEST_F(CudaBackendTest, WhatIsThereIsFoundWhileMoreGoesUp) {
  TrieCache tries;
  const uint16_t codes[] = {1, 4, 7};
  Context shared = SharedContext("bf16");
  const auto codes_of = [&](uint64_t id) {
    kernels::ConstraintView view;
    view.trie.levels = 1;
    view.trie.id = id;
    view.trie.level[0] = {.codes = codes, .offsets = nullptr, .num_nodes = 3};
    view.snapshot_trie = view.trie;
    Context ctx = BeginBatch(shared);
    TrieCache::Sent sent;
    return tries.Upload(static_cast<CudaBatch&>(*ctx.resources), view, 0, sent).trie.level[0].codes;
  };
  const uint16_t* first = codes_of(11);
  EXPECT_TRUE(RunsBeside([&] { codes_of(12); }, [&] { EXPECT_EQ(codes_of(11), first); }));

  Fp8Weights weights;
  const Tensor old = Weight(shared, 32, 32), fresh = Weight(shared, 48, 32);
  const auto values_of = [&](const Tensor& weight) {
    Context ctx = BeginBatch(shared);
    return weights.Get(static_cast<CudaBatch&>(*ctx.resources), weight).values.const_data_ptr();
  };
  const void* quantized = values_of(old);
  EXPECT_TRUE(RunsBeside([&] { values_of(fresh); }, [&] { EXPECT_EQ(values_of(old), quantized); }));
}

// A group's clients choose their beams, and each number of rows has a workspace: a worker does not keep them all.
TEST_F(CudaBackendTest, WorkspacesOfSelectionsHaveALimit) {
  constexpr int32_t kRows = 400;
  Context shared = SharedContext(), ctx = BeginBatch(shared);
  Worker& worker = static_cast<CudaBatch&>(*ctx.resources).worker();
  const size_t before = emulator::allocated, each = kernels::BeamSelectWorkspaceBytes(1, kRows);
  size_t most = 0;
  for (int32_t rows = 1; rows <= kRows; ++rows) {
    EXPECT_EQ(worker.SelectWorkspace(1, rows), worker.SelectWorkspace(1, rows)) << rows;
    most = std::max(most, emulator::allocated - before);
  }
  EXPECT_LE(most, 70 * each);
}

#endif

// Requests share their rules: they go up once.
TEST_F(CudaBackendTest, RulesThatRequestsShareAreSentOnce) {
  TrieCache tries;
  const uint16_t codes[] = {1, 4, 7};
  const uint64_t rules[] = {5, 3};
  kernels::ConstraintView view;
  view.trie.levels = 1;
  view.trie.id = 1;
  view.trie.level[0] = {.codes = codes, .offsets = nullptr, .num_nodes = 3};
  view.snapshot_trie = view.trie;
  Context shared = SharedContext(), ctx = BeginBatch(shared);
  TrieCache::Sent sent;
  const auto rule_of = [&](const uint64_t* rule) {
    view.eligibility[0].rule_bits = rule;
    return tries.Upload(static_cast<CudaBatch&>(*ctx.resources), view, 0, sent).eligibility[0].rule_bits;
  };
  const uint64_t* first = rule_of(&rules[0]);
  EXPECT_EQ(rule_of(&rules[0]), first);
  EXPECT_NE(rule_of(&rules[1]), first);
  EXPECT_EQ(rule_of(nullptr), nullptr);
}

// A product of more rows than equal bits were looked at for is done in parts, each row as it would be alone.
TEST_F(CudaBackendTest, ManyRowsAreMultipliedInParts) {
  for (const char* dtype : {"fp32", "bf16"}) {
    Context shared = SharedContext(dtype), ctx = BeginBatch(shared);
    const auto& backend = static_cast<const CudaBackend&>(*ctx.backend);
    const int64_t d = 16, most = RowSteps(ctx.device).back(), rows = most + 37;
    const Tensor weight = Weight(shared, 8, d, -0.3f), x = Weight(shared, rows, d, -0.2f);
    EXPECT_EQ(backend.algorithms().MostRows(
                  {.type = KernelType(ctx.dtype), .out_type = KernelType(ctx.dtype), .n = 8, .k = d}),
              most);
    const std::vector<float> all = DownloadFloats(ctx, Dense(ctx, x, {.weight = weight, .bias = {}}));
    for (const int64_t row : {int64_t{0}, most - 1, most, rows - 1}) {
      const Tensor one = View(x, row * d * static_cast<int64_t>(x.itemsize()), {1, d}, x.scalar_type());
      const std::vector<float> alone = DownloadFloats(ctx, Dense(ctx, one, {.weight = weight, .bias = {}}));
      for (int64_t i = 0; i < 8; ++i) ASSERT_EQ(alone[i], all[row * 8 + i]) << dtype << " row " << row;
    }
  }
}

class GraphsTest : public CudaBackendTest {
 protected:
  // x + x of so many elements, as a pass of that kind.
  std::vector<float> Twice(Graphs& graphs, const char* pass, int64_t elements, float value) {
    Context ctx = BeginBatch(shared_);
    CudaBatch& batch = static_cast<CudaBatch&>(*ctx.resources);
    const Tensor x = UploadFloats(ctx, std::vector<float>(elements, value), {elements});
    const std::vector<Tensor> sums = graphs.Run(batch, pass, {x}, [&](absl::Span<const Tensor> in) {
      ++bodies_;
      if (fails_) throw std::bad_alloc();
      Tensor sum = batch.Take(in[0].sizes(), c10::kFloat);
      batch.AddLater({sum, in[0], in[0]});
      batch.stream();
      return std::vector<Tensor>{sum};
    });
    return DownloadFloats(ctx, sums[0]);
  }

  Context shared_ = SharedContext();
  int bodies_ = 0;
  bool fails_ = false;
};

TEST_F(GraphsTest, AKeyThatWasMetIsCapturedAtOnceAgain) {
  Graphs graphs({.graphs = 2});
  const auto run = [&](int64_t elements, float value) {
    EXPECT_EQ(Twice(graphs, "twice", elements, value), std::vector<float>(elements, 2 * value)) << elements;
  };
  for (const int64_t elements : {64, 128}) {
    for (int round = 0; round < 4; ++round) run(elements, static_cast<float>(elements + round));
  }
  EXPECT_EQ(graphs.captures(), 2);
  EXPECT_EQ(graphs.launches(), 6) << "all but the first of each";
  EXPECT_EQ(bodies_, 4);
  for (int round = 0; round < 3; ++round) run(1000, static_cast<float>(round));  // takes the place of 64's
  EXPECT_EQ(graphs.captures(), 3);
  EXPECT_EQ(graphs.size(), 2u);
  run(128, 5);
  EXPECT_EQ(graphs.captures(), 3) << "was used later than 64's";
  run(64, 6);
  EXPECT_EQ(graphs.captures(), 4) << "its second pass was long ago";
  EXPECT_EQ(bodies_, 7);
}

#if defined(BEAMLINE_EMULATED_CUBLASLT)
// What a graph reads its inputs from is memory that the ops alone do not take.
TEST_F(GraphsTest, APassThatFitsOpByOpIsNotLostForItsGraph) {
  constexpr int64_t kMany = 3 << 20;  // more than other tests have left behind
  Graphs graphs;
  EXPECT_EQ(Twice(graphs, "twice", kMany, 1), std::vector<float>(kMany, 2));
  emulator::allocations_allowed = emulator::allocations.load();
  EXPECT_EQ(Twice(graphs, "twice", kMany, 3), std::vector<float>(kMany, 6));
  emulator::allocations_allowed = ~size_t{0};
  EXPECT_EQ(graphs.captures(), 0);
  EXPECT_EQ(Twice(graphs, "twice", kMany, 5), std::vector<float>(kMany, 10));
  EXPECT_EQ(graphs.captures(), 1) << "there is memory again";
}
#endif

TEST_F(GraphsTest, ResultsHaveALimit) {
  Graphs graphs({.graphs = 100, .result_bytes = 10000});
  for (int64_t elements = 800; elements < 864; elements += 8) {
    for (int round = 0; round < 3; ++round) {
      EXPECT_EQ(Twice(graphs, "twice", elements, 3), std::vector<float>(elements, 6.0f));
    }
  }
  EXPECT_EQ(graphs.captures(), 8);
  EXPECT_EQ(graphs.size(), 2u) << "of 4 KiB each";
  EXPECT_LE(graphs.result_bytes(), 10000);
}

// Inputs of one kind lie at one place: a smaller size takes no more memory, and another kind leaves them alone.
TEST_F(GraphsTest, InputsOfAKindShareTheirPlace) {
  Graphs graphs;
  int64_t allocations = 0;
  for (const int64_t elements : {4096, 64, 4000}) {
    for (int round = 0; round < 3; ++round) {
      Context ctx = BeginBatch(shared_);
      CudaBatch& batch = static_cast<CudaBatch&>(*ctx.resources);
      const auto same = [&](const char* pass, float value) {
        const Tensor x = UploadFloats(ctx, std::vector<float>(elements, value), {elements});
        return graphs.Run(batch, pass, {x}, [](absl::Span<const Tensor> in) { return std::vector<Tensor>{in[0]}; })[0];
      };
      const Tensor first = same("encode 1", 1), second = same("search 1", 2);
      EXPECT_EQ(DownloadFloats(ctx, first), std::vector<float>(elements, 1.0f)) << elements;
      EXPECT_EQ(DownloadFloats(ctx, second), std::vector<float>(elements, 2.0f)) << elements;
      if (elements < 4096) {
        EXPECT_EQ(batch.worker().workspace.allocations(), allocations);
      }
      allocations = batch.worker().workspace.allocations();
    }
  }
  EXPECT_EQ(graphs.captures(), 6);
}

TEST_F(GraphsTest, ACopyAmongTheNodesOfAPassIsSeen) {
  Graphs graphs;
  for (int round = 0; round < 3; ++round) Twice(graphs, "twice", 64, 1);
  EXPECT_EQ(graphs.captures(), 1);
  EXPECT_EQ(graphs.nodes().kernels, 1);
  EXPECT_EQ(graphs.nodes().others, 0);
  Context ctx = BeginBatch(shared_);
  CudaBatch& batch = static_cast<CudaBatch&>(*ctx.resources);
  const Tensor x = UploadFloats(ctx, std::vector<float>(64, 3), {64});
  for (int round = 0; round < 3; ++round) {
    const auto copy = [&](absl::Span<const Tensor> in) {
      Tensor to = batch.Take(in[0].sizes(), c10::kFloat);
      Check(cudaMemcpyAsync(to.mutable_data_ptr(), in[0].const_data_ptr(), in[0].nbytes(), cudaMemcpyDeviceToDevice,
                            batch.stream()),
            "a copy");
      return std::vector<Tensor>{to};
    };
    EXPECT_EQ(DownloadFloats(ctx, graphs.Run(batch, "copy", {x}, copy)[0]), std::vector<float>(64, 3));
  }
  EXPECT_EQ(graphs.captures(), 2);
  EXPECT_EQ(graphs.nodes().kernels, 1);
  EXPECT_EQ(graphs.nodes().others, 1);
}

TEST_F(GraphsTest, AnExceptionInACaptureLeavesTheStreamUsable) {
  Context ctx = BeginBatch(shared_);
  CudaBatch& batch = static_cast<CudaBatch&>(*ctx.resources);
  Graphs graphs;
  const auto run = [&] {
    return graphs.Run(batch, "same", {}, [&](absl::Span<const Tensor>) {
      if (fails_) throw std::bad_alloc();
      return std::vector<Tensor>();
    });
  };
  run();
  fails_ = true;
  EXPECT_THROW(run(), std::bad_alloc);
  fails_ = false;
  EXPECT_EQ(DownloadFloats(ctx, UploadFloats(ctx, std::vector<float>{3}, {1})), std::vector<float>{3});
  run();
  EXPECT_EQ(graphs.captures(), 1);
}

}  // namespace
}  // namespace beamline::backend::cuda
