// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/algorithms.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "backend/cuda/algorithm_trial.h"
#include "base/log.h"
#include "beamline/kernels/product_cuda.h"
#include "beamline/status.h"

namespace beamline::backend::cuda {
namespace {

constexpr int64_t kMostTrialBytes = int64_t{512} << 20;
// Raised when old choices may not be taken over: for another form of the lines below, other bits of our own products,
// other trials.
constexpr int kTuningVersion = 5;
constexpr size_t kWords = 2 + std::extent_v<decltype(cublasLtMatmulAlgo_t::data)>;  // of an algorithm's text

std::string KindText(const ProductKind& kind) {
  return absl::StrCat(static_cast<int>(kind.type), " ", static_cast<int>(kind.out_type), " ", kind.n, " ", kind.k, " ",
                      static_cast<int>(kind.epilogue), " ", kind.bias ? 1 : 0, " ", kind.add ? 1 : 0, " ",
                      kind.alpha ? 1 : 0, " ", kind.scaled ? 1 : 0, " ",
                      kind.gate ? 1 + static_cast<int>(*kind.gate) : 0);
}

absl::string_view Name(ProductKernel kernel) {
  switch (kernel) {
    case ProductKernel::kCublasLt:
      return "cublaslt";
    case ProductKernel::kSkinny:
      return "skinny";
    case ProductKernel::kDense64x64:
      return "64x64";
    case ProductKernel::kDense64x128:
      return "64x128";
    case ProductKernel::kDense128x256:
      return "128x256";
  }
  return "?";
}

absl::string_view Name(kernels::DataType type) {
  switch (type) {
    case kernels::DataType::kFloat32:
      return "fp32";
    case kernels::DataType::kBFloat16:
      return "bf16";
    case kernels::DataType::kFloat16:
      return "fp16";
    case kernels::DataType::kE4M3:
      return "e4m3";
  }
  return "?";
}

}  // namespace

std::string DescribeKernels(absl::Span<const Algorithm> choice, absl::Span<const int64_t> rows) {
  std::string text;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i + 1 < rows.size() && choice[i + 1].kernel == choice[i].kernel) continue;
    absl::StrAppend(&text, text.empty() ? "" : ", ", Name(choice[i].kernel), " to ", rows[i]);
  }
  return text;
}

namespace {

bool IsDense(ProductKernel kernel) { return kernel >= ProductKernel::kDense64x64; }

// The fastest of algorithms that give the same bits, at that many rows; those that break this there are passed over.
std::pair<const Algorithm*, float> Fastest(AlgorithmTrial& trial, const std::vector<Algorithm>& algorithms,
                                           int64_t rows, const std::vector<char>& bits) {
  std::vector<std::pair<float, const Algorithm*>> by_time;
  by_time.reserve(algorithms.size());
  for (const Algorithm& algorithm : algorithms) by_time.emplace_back(trial.Time(algorithm, rows), &algorithm);
  std::sort(by_time.begin(), by_time.end());
  for (const auto& [milliseconds, algorithm] : by_time) {
    if (!std::isfinite(milliseconds)) break;
    // Fewer rows take it, too: a ragged number of them.
    if (rows < kTrialRows ||
        (trial.GivesRows(*algorithm, rows, bits) && trial.GivesRows(*algorithm, rows - rows / 5 - 1, bits))) {
      return {algorithm, milliseconds};
    }
  }
  return {nullptr, 0.0f};
}

}  // namespace

size_t LeastSlowdown(absl::Span<const std::vector<float>> times) {
  size_t best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (size_t choice = 0; choice < times.size(); ++choice) {
    double slowdown = 0;
    for (size_t step = 0; step < times[choice].size(); ++step) {
      float fastest = times[choice][step];
      for (const std::vector<float>& other : times) fastest = std::min(fastest, other[step]);
      slowdown += fastest > 0 ? times[choice][step] / fastest : 1;
    }
    if (slowdown >= least) continue;
    least = slowdown;
    best = choice;
  }
  return best;
}

std::vector<int64_t> RowSteps(c10::Device where) {
  if (!where.is_cuda()) return {kernels::kMaxSkinnyRows, kTrialRows};  // the tests' emulator: its times say nothing
  return {1, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
}

// As many as fit into the memory that is left for trials.
int64_t MostRows(const ProductKind& kind, const std::vector<int64_t>& steps) {
  const int64_t result = kind.n + (kind.gate ? kind.columns() : 0);
  const int64_t row_bytes = result * kernels::SizeOf(kind.out_type) + kind.k * kernels::SizeOf(kind.type);
  int64_t most = steps.front();
  for (const int64_t rows : steps) {
    if (rows <= kTrialRows || rows * row_bytes <= kMostTrialBytes) most = rows;
  }
  return most;
}

std::vector<int64_t> StepsOf(const ProductKind& kind, const std::vector<int64_t>& steps) {
  return {steps.begin(), std::upper_bound(steps.begin(), steps.end(), MostRows(kind, steps))};
}

Algorithm Algorithms::For(const ProductKind& kind, int64_t rows, const LtWorkspace& workspace, cudaStream_t stream) {
  const size_t step = std::lower_bound(steps_.begin(), steps_.end() - 1, rows) - steps_.begin();
  std::shared_ptr<std::mutex> measuring;  // held while this kind's choice is made, so that others' are not held up
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (const auto found = chosen_.find(kind); found != chosen_.end()) return found->second[step];
    std::shared_ptr<std::mutex>& of_kind = measuring_[kind];
    if (of_kind == nullptr) of_kind = std::make_shared<std::mutex>();
    measuring = of_kind;
  }
  const std::lock_guard<std::mutex> one_measures(*measuring);
  Choice choice;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (const auto found = chosen_.find(kind); found != chosen_.end()) return found->second[step];
    if (auto taken = imported_.extract(kind); !taken.empty()) choice = std::move(taken.mapped());
  }
  const bool known = !choice.empty() && Takes(kind, choice, workspace);
  if (!known) choice = Choose(kind, workspace, stream);
  if (!known) {
    LogEvent(spdlog::level::info, "kernels of a product chosen",
             {{"columns", kind.n},
              {"depth", kind.k},
              {"types", absl::StrCat(Name(kind.type), " to ", Name(kind.out_type))},
              {"gated", kind.gate.has_value()},
              {"kernels", DescribeKernels(choice, StepsOf(kind, steps_))}});
  }
  const std::lock_guard<std::mutex> lock(mu_);
  if (!known) ++measured_;
  return chosen_.emplace(kind, std::move(choice)).first->second[step];
}

bool Algorithms::Takes(const ProductKind& kind, const Choice& choice, const LtWorkspace& workspace) const {
  const auto* const somewhere = static_cast<const float*>(workspace.data);
  for (size_t step = 0; step < steps_.size(); ++step) {
    const Product product(lt_, kind, {kind.k, kind.k, kind.columns()}, steps_[step]);
    product.Bind({.bias = somewhere, .row_scale = somewhere, .column_scale = somewhere});
    if (IsDense(choice[step].kernel) && !device_.warpgroups) return false;
    if (!product.Takes({handle_, workspace, nullptr}, choice[step])) return false;
  }
  return true;
}

Algorithms::Choice Algorithms::Choose(const ProductKind& kind, const LtWorkspace& workspace,
                                      cudaStream_t stream) const {
  if (kind.type == kernels::DataType::kE4M3) {
    Choice choice = ChooseOf(kind, /*fast_sums=*/true, workspace, stream);
    if (!choice.empty()) return choice;
    LogEvent(spdlog::level::warn, "slower products: cuBLASLt has no fast sums of E4M3 here",
             {{"columns", kind.n}, {"depth", kind.k}});
  }
  Choice choice = ChooseOf(kind, /*fast_sums=*/false, workspace, stream);
  TORCH_CHECK(!choice.empty(), "cuda: no algorithm that cuBLASLt offers gives a weight of ", kind.n, " x ", kind.k,
              " the same rows in products of every size");
  return choice;
}

Algorithms::Choice Algorithms::ChooseOf(const ProductKind& kind, bool fast_sums, const LtWorkspace& workspace,
                                        cudaStream_t stream) const {
  const std::vector<int64_t> steps = StepsOf(kind, steps_);
  AlgorithmTrial trial({lt_, device_.where, {handle_, workspace, stream}}, kind, steps.back());
  std::vector<int64_t> sizes = steps;
  for (const int64_t rows : {1, 33, 4096}) sizes.push_back(rows);
  const std::vector<Algorithm> offered = trial.Offered(sizes, fast_sums);
  std::map<std::pair<std::vector<char>, std::vector<char>>, std::vector<Algorithm>> classes;  // by the bits they give
  for (const Algorithm& algorithm : offered) {
    std::vector<char> bits = trial.EqualRows(algorithm);
    if (bits.empty()) continue;
    std::vector<char> finished = trial.FinishedRows(algorithm, bits);
    if (!finished.empty()) classes[{std::move(bits), std::move(finished)}].push_back(algorithm);
  }
  std::vector<Choice> choices;
  std::vector<std::vector<float>> times;  // [choice][step]
  for (auto& [given, algorithms] : classes) {
    const auto& [bits, finished] = given;
    for (const ProductKernel kernel : kProductKernels) {
      const Algorithm own{.kernel = kernel};
      if (kernel == ProductKernel::kCublasLt || (IsDense(kernel) && !device_.warpgroups)) continue;
      if (!trial.Gives(own, bits) || trial.FinishedRows(own, bits) != finished) continue;
      algorithms.insert(IsDense(own.kernel) ? algorithms.end() : algorithms.begin(), own);  // of equals the first
    }
    Choice choice;
    std::vector<float> time;
    for (const int64_t rows : steps) {
      const auto [algorithm, milliseconds] = Fastest(trial, algorithms, rows, bits);
      if (algorithm == nullptr) break;
      choice.push_back(*algorithm);
      time.push_back(milliseconds);
    }
    if (choice.size() < steps.size()) continue;
    choice.resize(steps_.size(), choice.back());  // of no use
    choices.push_back(std::move(choice));
    times.push_back(std::move(time));
  }
  return choices.empty() ? Choice() : choices[LeastSlowdown(times)];
}

std::string Algorithms::Header() const {
  return absl::StrCat("cublaslt ", lt_.version(), " with products ", kTuningVersion,
                      device_.warpgroups ? " and wgmma" : "", " on ", device_.name);
}

std::string Algorithms::Export() const {
  const std::lock_guard<std::mutex> lock(mu_);
  std::string text = Header() + "\n";
  std::map<ProductKind, Choice> all = chosen_;
  all.insert(imported_.begin(), imported_.end());
  for (const auto& [kind, choice] : all) {
    absl::StrAppend(&text, KindText(kind));
    for (const Algorithm& algorithm : choice) {
      absl::StrAppend(&text, " ", static_cast<int>(algorithm.kernel), " ", algorithm.fast_sums ? 1 : 0);
      for (const uint64_t word : algorithm.lt.data) absl::StrAppend(&text, " ", word);
    }
    text += '\n';
  }
  return text;
}

absl::StatusOr<std::map<ProductKind, Algorithms::Choice>> Algorithms::Parse(absl::string_view text) const {
  std::map<ProductKind, Choice> imported;
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (lines[0] != Header()) return imported;
  for (size_t line = 1; line < lines.size(); ++line) {
    if (lines[line].empty()) continue;
    constexpr size_t kFields = 10;
    Choice choice(steps_.size());
    const std::vector<absl::string_view> words = absl::StrSplit(lines[line], ' ');
    std::vector<uint64_t> values(kFields + choice.size() * kWords);
    bool good = words.size() == values.size();
    for (size_t i = 0; good && i < words.size(); ++i) good = absl::SimpleAtoi(words[i], &values[i]);
    good = good && values[0] <= 3 && values[1] <= 2 && values[2] > 0 && values[2] <= (1u << 30) && values[3] > 0 &&
           values[3] <= (1u << 30) && values[4] <= 2 && values[5] <= 1 && values[6] <= 1 && values[7] <= 1 &&
           values[8] <= 1 && values[9] <= 1 + static_cast<uint64_t>(kernels::kLastActivation);
    for (size_t step = 0; good && step < choice.size(); ++step) {
      good = values[kFields + step * kWords] < std::size(kProductKernels) && values[kFields + step * kWords + 1] <= 1;
    }
    if (!good) {
      return absl::InvalidArgumentError(absl::StrCat("algorithms: line ", line + 1, " is none: '", lines[line], "'"));
    }
    for (size_t step = 0; step < choice.size(); ++step) {
      const uint64_t* const words = values.data() + kFields + step * kWords;
      choice[step].kernel = static_cast<ProductKernel>(words[0]);
      choice[step].fast_sums = words[1] == 1;
      std::copy_n(words + 2, kWords - 2, choice[step].lt.data);
    }
    const ProductKind kind{
        static_cast<kernels::DataType>(values[0]),
        static_cast<kernels::DataType>(values[1]),
        static_cast<int64_t>(values[2]),
        static_cast<int64_t>(values[3]),
        static_cast<Epilogue>(values[4]),
        values[5] == 1,
        values[6] == 1,
        values[7] == 1,
        values[8] == 1,
        values[9] == 0 ? std::nullopt : std::optional(static_cast<kernels::ActivationKind>(values[9] - 1))};
    imported.emplace(kind, std::move(choice));
  }
  return imported;
}

absl::Status Algorithms::Import(absl::string_view text) {
  BEAMLINE_ASSIGN_OR_RETURN(const auto imported, Parse(text));
  const std::lock_guard<std::mutex> lock(mu_);
  for (const auto& [kind, choice] : imported) {
    if (chosen_.count(kind) == 0) imported_.insert_or_assign(kind, choice);
  }
  return absl::OkStatus();
}

absl::Status Algorithms::Adopt(absl::string_view text) {
  BEAMLINE_ASSIGN_OR_RETURN(const auto adopted, Parse(text));
  const std::lock_guard<std::mutex> lock(mu_);
  for (const auto& [kind, choice] : adopted) {
    const auto used = chosen_.find(kind);
    if (used != chosen_.end() && used->second == choice) continue;  // it was looked at already
    if (used != chosen_.end()) chosen_.erase(used);
    imported_.insert_or_assign(kind, choice);
  }
  return absl::OkStatus();
}

int64_t Algorithms::size() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return static_cast<int64_t>(chosen_.size() + imported_.size());
}

int64_t Algorithms::measured() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return measured_;
}

}  // namespace beamline::backend::cuda
