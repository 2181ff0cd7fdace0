// SPDX-License-Identifier: Apache-2.0
//
// What the cuda backend has besides the op set: algorithms that give the same rows for every number of them, batches
// that allocate nothing and copy once, tries that go to the device once.
#include "backend/cuda/cuda_backend.h"

#include <cstdlib>
#include <map>
#include <new>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "backend/test_context.h"
#include "beamline/kernels/warpgroups_cuda.h"
#include "gtest/gtest.h"

namespace beamline::backend::cuda {
namespace {

Context SharedContext(const char* dtype = "fp32") { return *MakeCudaTestContext(dtype); }

class CudaBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    const absl::Status status = MakeCudaTestContext("fp32").status();
    if (!status.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << status;
    ASSERT_TRUE(status.ok()) << status;
  }
};

Tensor Weight(Context& ctx, int64_t rows, int64_t columns, float first = 0.01f) {
  std::vector<float> values(rows * columns);
  for (size_t i = 0; i < values.size(); ++i) values[i] = first + 0.001f * static_cast<float>(i * 7919 % 613);
  return UploadWeight(ctx, values, {rows, columns});
}

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
      const Tensor key_value = ContextKeyValue(ctx, x, cross, 1);
      LineageCache cache;
      Tensor h = x;
      for (int layer = 0; layer < 3; ++layer) {
        h = RmsNorm(ctx, h, norm, 1e-6);
        h = Residual(ctx, h, SelfAttention(ctx, h, self, mask));
        h = Residual(ctx, h, CrossAttention(ctx, h, cross, key_value, mask));
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

TEST(AlgorithmsTest, AClassThatIsNeverFarBehindBeatsOneThatIsFastestSomewhere) {
  const std::vector<std::vector<float>> times = {{1, 40}, {1.5f, 15}, {4, 10}};  // [class][number of rows]
  EXPECT_EQ(LeastSlowdown(times), 1u);
  EXPECT_EQ(LeastSlowdown(absl::MakeConstSpan(times).subspan(2)), 0u);
}

TEST_F(CudaBackendTest, OnlyOneThatGivesEqualRowsIsTaken) {
  Context ctx = BeginBatch(SharedContext());
  Worker& worker = static_cast<CudaBatch&>(*ctx.resources).worker();
  const LtWorkspace workspace{worker.lt_workspace.mutable_data_ptr(), worker.lt_workspace.nbytes()};
  for (const auto type : {kernels::DataType::kFloat32, kernels::DataType::kBFloat16, kernels::DataType::kFloat16,
                          kernels::DataType::kE4M3}) {
    const bool narrow = type == kernels::DataType::kE4M3;
    Algorithms algorithms(worker.lt, worker.handle, Algorithms::Device{worker.device, "test"});
    const auto taken_for = [&](const ProductKind& kind, int64_t rows) {
      return algorithms.For(kind, rows, workspace, worker.stream).lt.data[0];
    };
#if defined(BEAMLINE_EMULATED_CUBLASLT)
    // Few and short sums of a narrow result show the order, too (32 terms of E4M3 are added at once).
    const kernels::DataType out = narrow ? kernels::DataType::kBFloat16 : type;
    for (const int64_t n : {narrow ? 32 : 8, 16, 48}) {
      for (const int64_t k : {narrow ? 48 : 16, narrow ? 64 : 32, narrow ? 208 : 200}) {
        for (const bool scaled : {false, narrow}) {
          const ProductKind one{.type = type, .out_type = out, .n = n, .k = k, .scaled = scaled};
          EXPECT_EQ(taken_for(one, 80), emulator::kAscending) << n << " x " << k;
        }
      }
    }
#endif
    ProductKind kind{.type = type, .out_type = kernels::DataType::kFloat32, .n = 24, .k = 104, .bias = true};
    if (narrow) kind = {.type = type, .out_type = kernels::DataType::kBFloat16, .n = 48, .k = 112, .scaled = true};
    const uint64_t taken = taken_for(kind, 80);
#if defined(BEAMLINE_EMULATED_CUBLASLT)
    EXPECT_EQ(taken, emulator::kAscending);
#endif
    // Carried over to another process on the same device, and to no other.
    Algorithms same(worker.lt, worker.handle, Algorithms::Device{worker.device, "test"});
    ASSERT_TRUE(same.Import(algorithms.Export()).ok());
    EXPECT_EQ(same.size(), algorithms.size());
    EXPECT_EQ(same.For(kind, 80, workspace, worker.stream).lt.data[0], taken);
    EXPECT_EQ(same.measured(), 0);
    EXPECT_EQ(same.Export(), algorithms.Export());
    Algorithms other(worker.lt, worker.handle, Algorithms::Device{worker.device, "another"});
    ASSERT_TRUE(other.Import(algorithms.Export()).ok());
    EXPECT_EQ(other.size(), 0);
    // Of the last algorithm, a kernel that there is not, and sums that are neither fast nor not.
    for (const auto& [from_end, word] : {std::pair{10, "5"}, {9, "2"}}) {
      std::vector<std::string> words = absl::StrSplit(algorithms.Export(), ' ');
      words[words.size() - from_end] = word;
      EXPECT_EQ(same.Import(absl::StrJoin(words, " ")).code(), absl::StatusCode::kInvalidArgument);
    }
    const absl::Status broken = same.Import(algorithms.Export() + "1 2 three\n");
    EXPECT_EQ(broken.message(), absl::StrCat("algorithms: line ", algorithms.size() + 2, " is none: '1 2 three'"));
  }
}

#if defined(BEAMLINE_EMULATED_CUBLASLT)
// The emulator's products take no time, and of equals ours is the first.
TEST_F(CudaBackendTest, FewRowsTakeOurOwnProductWhereItGivesTheSameBits) {
  Context ctx = BeginBatch(SharedContext());
  Worker& worker = static_cast<CudaBatch&>(*ctx.resources).worker();
  const LtWorkspace workspace{worker.lt_workspace.mutable_data_ptr(), worker.lt_workspace.nbytes()};
  using kernels::DataType;
  const auto skinny = [&](const ProductKind& kind, int64_t rows) {
    Algorithms algorithms(worker.lt, worker.handle, Algorithms::Device{worker.device, "test"});
    const bool is = algorithms.For(kind, rows, workspace, worker.stream).kernel == ProductKernel::kSkinny;
    Algorithms same(worker.lt, worker.handle, Algorithms::Device{worker.device, "test"});
    EXPECT_TRUE(same.Import(algorithms.Export()).ok());
    EXPECT_EQ(same.For(kind, rows, workspace, worker.stream).kernel == ProductKernel::kSkinny, is);
    EXPECT_EQ(same.measured(), 0);
    return is;
  };
  for (const DataType type : {DataType::kBFloat16, DataType::kFloat16}) {
    ProductKind kind{.type = type, .out_type = type, .n = 24, .k = 104, .bias = true};
    for (const int64_t rows : {1, 16}) EXPECT_TRUE(skinny(kind, rows));
    EXPECT_FALSE(skinny(kind, 17));
    emulator::sum_group = 8;
    EXPECT_FALSE(skinny(kind, 1));
    emulator::sum_group = 16;
    kind.out_type = DataType::kFloat32;
    kind.add = true;
    EXPECT_TRUE(skinny(kind, 1));
    emulator::bias_first = true;
    EXPECT_FALSE(skinny(kind, 1)) << "of equal sums another result";
    emulator::bias_first = false;
    kind.epilogue = Epilogue::kGeluTanh;
    EXPECT_FALSE(skinny(kind, 1));
  }
  EXPECT_FALSE(skinny({.n = 24, .k = 104}, 1));
  EXPECT_FALSE(
      skinny({.type = DataType::kE4M3, .out_type = DataType::kBFloat16, .n = 48, .k = 112, .scaled = true}, 1));
}

// Here products of cuBLASLt take time, and ours none.
TEST_F(CudaBackendTest, ManyRowsTakeOurOwnProductWhereItIsFasterAndGivesTheSameBits) {
  Context ctx = BeginBatch(SharedContext());
  Worker& worker = static_cast<CudaBatch&>(*ctx.resources).worker();
  const LtWorkspace workspace{worker.lt_workspace.mutable_data_ptr(), worker.lt_workspace.nbytes()};
  using kernels::DataType;
  const auto taken = [&](Algorithms& algorithms, const ProductKind& kind) {
    return algorithms.For(kind, 80, workspace, worker.stream).kernel;
  };
  const auto taken_for = [&](const ProductKind& kind, bool warpgroups) {
    Algorithms algorithms(worker.lt, worker.handle, {worker.device, "test", warpgroups});
    return taken(algorithms, kind);
  };
  for (const std::optional<kernels::ActivationKind> gate :
       {std::optional<kernels::ActivationKind>(), std::optional(kernels::ActivationKind::kGeluTanh)}) {
    const ProductKind kind{
        .type = DataType::kBFloat16, .out_type = DataType::kBFloat16, .n = 48, .k = 104, .gate = gate};
    EXPECT_EQ(taken_for(kind, true), ProductKernel::kCublasLt) << "of equals it is the first";
    emulator::product_ms = 1;
    EXPECT_EQ(taken_for(kind, true), ProductKernel::kDense64x64);
    EXPECT_EQ(taken_for(kind, false), ProductKernel::kCublasLt);
    emulator::sum_group = 8;
    EXPECT_EQ(taken_for(kind, true), ProductKernel::kCublasLt);
    emulator::sum_group = 16;
    // Who has such kernels takes no choice that was made without them, and the other way round.
    for (const bool had : {true, false}) {
      Algorithms algorithms(worker.lt, worker.handle, {worker.device, "test", had});
      taken(algorithms, kind);
      for (const bool has : {true, false}) {
        Algorithms same(worker.lt, worker.handle, {worker.device, "test", has});
        ASSERT_TRUE(same.Import(algorithms.Export()).ok());
        EXPECT_EQ(taken(same, kind) == ProductKernel::kDense64x64, has);
        EXPECT_EQ(same.measured(), had == has ? 0 : 1);
      }
      Algorithms without(worker.lt, worker.handle, {worker.device, "test", false});
      ASSERT_TRUE(without.Import(absl::StrReplaceAll(algorithms.Export(), {{" and wgmma", ""}})).ok());
      EXPECT_EQ(taken(without, kind), ProductKernel::kCublasLt) << "nor where a file only says so";
    }
    emulator::product_ms = 0;
  }
}

// A choice of algorithms in which another kernel was the fastest everywhere, the skinny one of few rows alone.
std::string WithKernel(const std::string& tuning, ProductKernel kernel) {
  std::vector<std::string> lines = absl::StrSplit(tuning, '\n');
  for (size_t line = 1; line < lines.size(); ++line) {
    if (lines[line].empty()) continue;
    constexpr size_t kFields = 9, kWords = 10;  // of a kind, and of each number of rows
    std::vector<std::string> words = absl::StrSplit(lines[line], ' ');
    EXPECT_EQ(words.size(), kFields + 2 * kWords);
    words[kFields] = absl::StrCat(static_cast<int>(kernel));
    if (kernel != ProductKernel::kSkinny) words[kFields + kWords] = words[kFields];
    lines[line] = absl::StrJoin(words, " ");
  }
  return absl::StrJoin(lines, "\n");
}

TEST_F(CudaBackendTest, AGatedLayerGivesTheSameBitsByEveryKernel) {
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu}) {
    std::string tuning;
    std::map<int64_t, std::vector<float>> expected;
    for (const auto kernel : {ProductKernel::kCublasLt, ProductKernel::kSkinny, ProductKernel::kDense64x64,
                              ProductKernel::kDense64x128, ProductKernel::kDense128x256}) {
      const std::unique_ptr<CudaBackend> backend = MakeCudaTestBackend();
      if (!tuning.empty()) {
        ASSERT_TRUE(backend->ImportTuning(WithKernel(tuning, kernel)).ok());
      }
      Context shared = SharedContext("bf16");
      shared.backend = backend.get();
      shared.workers = backend->NewWorkers();
      Context ctx = BeginBatch(shared);
      FeedForwardWeights ffn{.up = Weight(shared, 2 * 72, 40, -0.3f), .down = Weight(shared, 40, 72, -0.2f)};
      ffn.activation = activation;
      for (const int64_t rows : {5, 70, 300}) {  // the last in two products
        std::vector<float>& of_rows = expected[rows];
        const std::vector<float> y = DownloadFloats(ctx, FeedForward(ctx, Weight(shared, rows, 40, -0.3f), ffn));
        if (of_rows.empty()) of_rows = y;
        EXPECT_EQ(y, of_rows) << "kernel " << static_cast<int>(kernel) << ", rows " << rows;
      }
      const int refused = activation == Activation::kGelu ? 1 : 0;  // ours have no such gate: measured again
      EXPECT_EQ(backend->algorithms().measured(), tuning.empty() ? 2 : refused);
      if (tuning.empty()) tuning = backend->ExportTuning();
    }
  }
}

TEST_F(CudaBackendTest, SumsOfE4M3StayInTheTensorCoresWhereTheyCan) {
  Context ctx = BeginBatch(SharedContext());
  Worker& worker = static_cast<CudaBatch&>(*ctx.resources).worker();
  const LtWorkspace workspace{worker.lt_workspace.mutable_data_ptr(), worker.lt_workspace.nbytes()};
  using kernels::DataType;
  for (const bool scaled : {true, false}) {
    const ProductKind kind{.type = DataType::kE4M3,
                           .out_type = scaled ? DataType::kBFloat16 : DataType::kFloat32,
                           .n = 48,
                           .k = 112,
                           .scaled = scaled};
    Algorithms algorithms(worker.lt, worker.handle, Algorithms::Device{worker.device, "test"});
    EXPECT_TRUE(algorithms.For(kind, 40, workspace, worker.stream).fast_sums);
    Algorithms same(worker.lt, worker.handle, Algorithms::Device{worker.device, "test"});
    ASSERT_TRUE(same.Import(algorithms.Export()).ok());
    EXPECT_TRUE(same.For(kind, 40, workspace, worker.stream).fast_sums);
    EXPECT_EQ(same.measured(), 0);
    emulator::offers_fast_sums = false;
    Algorithms exact(worker.lt, worker.handle, Algorithms::Device{worker.device, "test"});
    ASSERT_TRUE(exact.Import(algorithms.Export()).ok());
    EXPECT_FALSE(exact.For(kind, 40, workspace, worker.stream).fast_sums);
    EXPECT_EQ(exact.measured(), 1) << "a library that cannot: measured again";
    emulator::offers_fast_sums = true;
  }
  Algorithms of_others(worker.lt, worker.handle, Algorithms::Device{worker.device, "test"});
  const ProductKind bf16{.type = DataType::kBFloat16, .out_type = DataType::kBFloat16, .n = 48, .k = 112};
  EXPECT_FALSE(of_others.For(bf16, 40, workspace, worker.stream).fast_sums);
}
#endif

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

TEST(AlgorithmsTest, WideProductsAreLookedAtForFewerRows) {
  const std::vector<int64_t> steps = {16, 256, 4096, 8192};
  const ProductKind head{.out_type = kernels::DataType::kFloat32, .n = 32768, .k = 512};
  EXPECT_EQ(MostRows({.n = 64, .k = 64}, steps), 8192);
  EXPECT_EQ(MostRows(head, steps), 256) << "4,096 rows of 130 KB are more than is left for trials";
  ProductKind up{.type = kernels::DataType::kBFloat16, .out_type = kernels::DataType::kBFloat16, .n = 24576, .k = 1024};
  EXPECT_EQ(MostRows(up, steps), 8192);
  up.gate = kernels::ActivationKind::kSilu;
  EXPECT_EQ(MostRows(up, steps), 4096) << "with a gate there are two results";
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
