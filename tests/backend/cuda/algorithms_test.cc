// SPDX-License-Identifier: Apache-2.0
//
// Algorithms that give the same rows for every number of them: which are taken, told and carried over.
#include "backend/cuda/algorithms.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "backend/cuda/algorithm_trial.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_test.h"

namespace beamline::backend::cuda {
namespace {

class AlgorithmsOnDevice : public CudaBackendTest {
 protected:
  void SetUp() override {
    CudaBackendTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    ctx_ = BeginBatch(SharedContext());
    worker_ = &static_cast<CudaBatch&>(*ctx_->resources).worker();
    workspace_ = {worker_->lt_workspace.mutable_data_ptr(), worker_->lt_workspace.nbytes()};
  }
  Algorithms Fresh(bool warpgroups = false, std::string device = "test") const {
    return {worker_->lt, worker_->handle, {worker_->device, std::move(device), warpgroups}};
  }
  // What is taken for a product of so many rows.
  Algorithm Taken(Algorithms& algorithms, const ProductKind& kind, int64_t rows) const {
    return algorithms.For(kind, rows, workspace_, worker_->stream);
  }

  std::optional<Context> ctx_;
  Worker* worker_ = nullptr;
  LtWorkspace workspace_;
};

TEST(AlgorithmsTest, AClassThatIsNeverFarBehindBeatsOneThatIsFastestSomewhere) {
  const std::vector<std::vector<float>> times = {{1, 40}, {1.5f, 15}, {4, 10}};  // [class][number of rows]
  EXPECT_EQ(LeastSlowdown(times), 1u);
  EXPECT_EQ(LeastSlowdown(absl::MakeConstSpan(times).subspan(2)), 0u);
}

TEST(AlgorithmsTest, ChosenKernelsAreToldByTheNumbersOfRowsThatTakeThem) {
  const std::vector<Algorithm> choice = {{.kernel = ProductKernel::kSkinny},
                                         {.kernel = ProductKernel::kSkinny},
                                         {},
                                         {.kernel = ProductKernel::kDense128x256},
                                         {.kernel = ProductKernel::kSkinny}};
  EXPECT_EQ(DescribeKernels(choice, {1, 16, 64, 128}), "skinny to 16, cublaslt to 64, 128x256 to 128");
  EXPECT_EQ(DescribeKernels(choice, {1}), "skinny to 1") << "of the rest nothing is used";
}

TEST(AlgorithmsTest, WideProductsAreLookedAtForFewerRows) {
  const std::vector<int64_t> steps = {16, 256, 4096, 8192};
  const ProductKind head{.out_type = kernels::DataType::kFloat32, .n = 32768, .k = 512};
  EXPECT_EQ(MostRows({.n = 64, .k = 64}, steps), 8192);
  EXPECT_EQ(MostRows(head, steps), 256) << "4,096 rows of 130 KB are more than is left for trials";
  EXPECT_EQ(StepsOf(head, steps), (std::vector<int64_t>{16, 256}));
  ProductKind up{.type = kernels::DataType::kBFloat16, .out_type = kernels::DataType::kBFloat16, .n = 24576, .k = 1024};
  EXPECT_EQ(MostRows(up, steps), 8192);
  up.gate = kernels::ActivationKind::kSilu;
  EXPECT_EQ(MostRows(up, steps), 4096) << "with a gate there are two results";
}

TEST_F(AlgorithmsOnDevice, OnlyOneThatGivesEqualRowsIsTaken) {
  for (const auto type : {kernels::DataType::kFloat32, kernels::DataType::kBFloat16, kernels::DataType::kFloat16,
                          kernels::DataType::kE4M3}) {
    const bool narrow = type == kernels::DataType::kE4M3;
    Algorithms algorithms = Fresh();
    const auto taken_for = [&](const ProductKind& kind, int64_t rows) {
      return Taken(algorithms, kind, rows).lt.data[0];
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
    Algorithms same = Fresh();
    ASSERT_TRUE(same.Import(algorithms.Export()).ok());
    EXPECT_EQ(same.size(), algorithms.size());
    EXPECT_EQ(Taken(same, kind, 80).lt.data[0], taken);
    EXPECT_EQ(same.measured(), 0);
    EXPECT_EQ(same.Export(), algorithms.Export());
    Algorithms other = Fresh(false, "another");
    ASSERT_TRUE(other.Import(algorithms.Export()).ok());
    EXPECT_EQ(other.size(), 0);
    // Of the last algorithm, a kernel that there is not, and sums that are neither fast nor not.
    for (const auto& [from_end, word] : {std::pair{10, "5"}, {9, "2"}}) {
      std::vector<std::string> words = absl::StrSplit(algorithms.Export(), ' ');
      words[words.size() - from_end] = word;
      EXPECT_EQ(same.Import(absl::StrJoin(words, " ")).code(), absl::StatusCode::kInvalidArgument);
    }
    // Of the kind: what each word may be at most.
    const std::vector<std::string> lines = absl::StrSplit(algorithms.Export(), '\n');
    for (const auto& [field, most] : {std::pair{0, 3}, {1, 2}, {4, 2}, {5, 1}, {6, 1}, {7, 1}, {8, 1}, {9, 5}}) {
      for (const int word : {most, most + 1}) {
        std::vector<std::string> words = absl::StrSplit(lines[1], ' ');
        words[field] = absl::StrCat(word);
        const absl::Status status = Fresh().Import(absl::StrCat(lines[0], "\n", absl::StrJoin(words, " ")));
        EXPECT_EQ(status.ok(), word == most) << "field " << field << ": " << status;
      }
    }
    const absl::Status broken = same.Import(algorithms.Export() + "1 2 three\n");
    EXPECT_EQ(broken.message(), absl::StrCat("algorithms: line ", algorithms.size() + 2, " is none: '1 2 three'"));
  }
}

// An infinity is the same in whatever order it came about.
TEST_F(AlgorithmsOnDevice, AGatesTrialSeldomOverflows) {
  constexpr auto kHalf = kernels::DataType::kFloat16;
  const ProductKind kind{.type = kHalf, .out_type = kHalf, .n = 48, .k = 104, .gate = kernels::ActivationKind::kSilu};
  AlgorithmTrial trial({worker_->lt, worker_->device, {worker_->handle, workspace_, worker_->stream}}, kind,
                       kTrialRows);
  int64_t values = 0, infinite = 0;
  for (const Algorithm& algorithm : trial.Offered({kTrialRows}, /*fast_sums=*/false)) {
    const std::vector<char> bits = trial.EqualRows(algorithm);
    for (size_t i = 0; i < bits.size(); i += 2, ++values) {
      uint16_t half;
      std::memcpy(&half, &bits[i], 2);
      if ((half & 0x7c00) == 0x7c00) ++infinite;
    }
  }
  EXPECT_GT(values, 0);
  EXPECT_LT(infinite * 100, values);
}

#if defined(BEAMLINE_EMULATED_CUBLASLT)
// The emulator's products take no time, and of equals ours is the first.
TEST_F(AlgorithmsOnDevice, FewRowsTakeOurOwnProductWhereItGivesTheSameBits) {
  using kernels::DataType;
  const auto skinny = [&](const ProductKind& kind, int64_t rows) {
    Algorithms algorithms = Fresh();
    const bool is = Taken(algorithms, kind, rows).kernel == ProductKernel::kSkinny;
    Algorithms same = Fresh();
    EXPECT_TRUE(same.Import(algorithms.Export()).ok());
    EXPECT_EQ(Taken(same, kind, rows).kernel == ProductKernel::kSkinny, is);
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
    kind.add = true;
    kind.n = 208;  // in a narrow result few values show it
    kind.k = 16;
    for (const DataType out : {type, DataType::kFloat32}) {  // of equal sums another result
      kind.out_type = out;
      for (const bool alpha : {false, true}) {
        kind.alpha = alpha;
        EXPECT_TRUE(skinny(kind, 1));
        emulator::bias_first = true;
        EXPECT_FALSE(skinny(kind, 1));
        emulator::bias_first = false;
        emulator::alpha_rounded = true;
        EXPECT_EQ(skinny(kind, 1), !alpha);
        emulator::alpha_rounded = false;
      }
    }
    kind.epilogue = Epilogue::kGeluTanh;
    EXPECT_FALSE(skinny(kind, 1));
  }
  EXPECT_FALSE(skinny({.n = 24, .k = 104}, 1));
  EXPECT_FALSE(
      skinny({.type = DataType::kE4M3, .out_type = DataType::kBFloat16, .n = 48, .k = 112, .scaled = true}, 1));
}

// Here products of cuBLASLt take time, and ours none.
TEST_F(AlgorithmsOnDevice, ManyRowsTakeOurOwnProductWhereItIsFasterAndGivesTheSameBits) {
  using kernels::DataType;
  const auto taken = [&](Algorithms& algorithms, const ProductKind& kind) {
    return Taken(algorithms, kind, 80).kernel;
  };
  const auto taken_for = [&](const ProductKind& kind, bool warpgroups) {
    Algorithms algorithms = Fresh(warpgroups);
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
      Algorithms algorithms = Fresh(had);
      taken(algorithms, kind);
      for (const bool has : {true, false}) {
        Algorithms same = Fresh(has);
        ASSERT_TRUE(same.Import(algorithms.Export()).ok());
        EXPECT_EQ(taken(same, kind) == ProductKernel::kDense64x64, has);
        EXPECT_EQ(same.measured(), had == has ? 0 : 1);
      }
      Algorithms without = Fresh(false);
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
    constexpr size_t kWords = 10;  // of each number of rows, at the end
    std::vector<std::string> words = absl::StrSplit(lines[line], ' ');
    std::string* const choice = &words[words.size() - 2 * kWords];
    choice[0] = absl::StrCat(static_cast<int>(kernel));
    if (kernel != ProductKernel::kSkinny) choice[kWords] = choice[0];
    lines[line] = absl::StrJoin(words, " ");
  }
  return absl::StrJoin(lines, "\n");
}

TEST_F(AlgorithmsOnDevice, AGatedLayerGivesTheSameBitsByEveryKernel) {
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu}) {
    std::string tuning;
    std::map<int64_t, std::vector<float>> expected;
    for (const ProductKernel kernel : kProductKernels) {
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
        // Five rows are the skinny kernel's at first, seventy cuBLASLt's.
        EXPECT_TRUE(std::equal(expected[5].begin(), expected[5].end(), y.begin()));
      }
      const int refused = activation == Activation::kGelu ? 1 : 0;  // ours have no such gate: measured again
      EXPECT_EQ(backend->algorithms().measured(), tuning.empty() ? 2 : refused);
      if (tuning.empty()) tuning = backend->ExportTuning();
    }
  }
}

// Another rank's, once this one has used what it measured itself.
TEST_F(AlgorithmsOnDevice, AChoiceIsAdoptedInThePlaceOfOneThatIsUsed) {
  const ProductKind kind{
      .type = kernels::DataType::kBFloat16, .out_type = kernels::DataType::kBFloat16, .n = 48, .k = 112};
  Algorithms algorithms = Fresh();
  Taken(algorithms, kind, 40);
  const std::string measured = algorithms.Export();
  EXPECT_EQ(Taken(algorithms, kind, 5).kernel, ProductKernel::kSkinny);
  std::vector<std::string> words = absl::StrSplit(measured, ' ');
  std::string* const of_few = &words[words.size() - 20];
  std::copy_n(of_few + 10, 9, of_few);  // cuBLASLt's for all rows
  const std::string other = absl::StrJoin(words, " ");
  ASSERT_TRUE(algorithms.Import(other).ok());
  EXPECT_EQ(algorithms.Export(), measured) << "what is used stays";
  ASSERT_TRUE(algorithms.Adopt(other).ok());
  EXPECT_EQ(Taken(algorithms, kind, 5).kernel, ProductKernel::kCublasLt);
  EXPECT_EQ(algorithms.Export(), other);
  ASSERT_TRUE(algorithms.Adopt(other).ok());
  EXPECT_EQ(Taken(algorithms, kind, 5).kernel, ProductKernel::kCublasLt) << "the same again";
  EXPECT_EQ(algorithms.measured(), 1);
  EXPECT_FALSE(algorithms.Adopt(algorithms.Header() + "\nnone").ok());
}

TEST_F(AlgorithmsOnDevice, SumsOfE4M3StayInTheTensorCoresWhereTheyCan) {
  using kernels::DataType;
  for (const bool scaled : {true, false}) {
    const ProductKind kind{.type = DataType::kE4M3,
                           .out_type = scaled ? DataType::kBFloat16 : DataType::kFloat32,
                           .n = 48,
                           .k = 112,
                           .scaled = scaled};
    Algorithms algorithms = Fresh();
    EXPECT_TRUE(Taken(algorithms, kind, 40).fast_sums);
    Algorithms same = Fresh();
    ASSERT_TRUE(same.Import(algorithms.Export()).ok());
    EXPECT_TRUE(Taken(same, kind, 40).fast_sums);
    EXPECT_EQ(same.measured(), 0);
    emulator::offers_fast_sums = false;
    Algorithms exact = Fresh();
    ASSERT_TRUE(exact.Import(algorithms.Export()).ok());
    EXPECT_FALSE(Taken(exact, kind, 40).fast_sums);
    EXPECT_EQ(exact.measured(), 1) << "a library that cannot: measured again";
    emulator::offers_fast_sums = true;
  }
  Algorithms of_others = Fresh();
  const ProductKind bf16{.type = DataType::kBFloat16, .out_type = DataType::kBFloat16, .n = 48, .k = 112};
  EXPECT_FALSE(Taken(of_others, bf16, 40).fast_sums);
}
#endif

}  // namespace
}  // namespace beamline::backend::cuda
