// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/algorithms.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <c10/util/Float8_e4m3fn.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "backend/cuda/device_memory.h"

namespace beamline::backend::cuda {
namespace {

// Rows of the largest product that is tried, and of the others, whose rows are the last ones of it.
constexpr int64_t kAllRows = 256;
constexpr int64_t kProbeRows[] = {1, 2, 3, 8, 17, 33, 100};
constexpr int kAsked = 16;  // algorithms per number of rows

constexpr float kLargestE4M3 = 448;

// Values of a type, as bytes.
std::vector<char> Narrow(kernels::DataType type, const std::vector<float>& values) {
  std::vector<char> bytes(values.size() * static_cast<size_t>(kernels::SizeOf(type)));
  for (size_t i = 0; i < values.size(); ++i) {
    if (type == kernels::DataType::kFloat32) {
      std::memcpy(bytes.data() + 4 * i, &values[i], 4);
    } else if (type == kernels::DataType::kBFloat16) {
      const c10::BFloat16 narrow(values[i]);
      std::memcpy(bytes.data() + 2 * i, &narrow, 2);
    } else if (type == kernels::DataType::kFloat16) {
      const c10::Half narrow(values[i]);
      std::memcpy(bytes.data() + 2 * i, &narrow, 2);
    } else {
      const c10::Float8_e4m3fn narrow(std::clamp(values[i], -kLargestE4M3, kLargestE4M3));
      std::memcpy(bytes.data() + i, &narrow, 1);
    }
  }
  return bytes;
}

// Matrices whose product shows the order of its sums in every type. The second half of a row of x repeats the first,
// and every other row of the weight takes back in its second half what it gave in its first: of these sums nothing is
// left but their rounding. (Of ordinary sums a narrow result hides it: an algorithm whose order depends on the number
// of rows was admitted in fp16.)
// Magnitudes are spread, so that few and short terms round, too.
constexpr int kProbeExponents = 6;  // of two, up and down

std::vector<float> ProbeRows(int64_t rows, int64_t k, uint32_t seed, bool take_back) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> exponent(-kProbeExponents, kProbeExponents);
  std::vector<float> values(static_cast<size_t>(rows * k));
  for (int64_t row = 0; row < rows; ++row) {
    float* to = values.data() + row * k;
    const float sign = take_back && row % 2 == 0 ? -1.0f : 1.0f;
    for (int64_t i = 0; i < k; ++i)
      to[i] = i < k / 2 ? std::ldexp(normal(random), exponent(random)) : sign * to[i - k / 2];
  }
  return values;
}

std::vector<float> ProbeScales(int64_t count) {
  std::vector<float> scales(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) scales[i] = 0.5f + static_cast<float>(i % 7);
  return scales;
}

// One shape of weight with such values, and what an algorithm makes of it.
class Trial {
 public:
  Trial(const CublasLt& lt, cublasLtHandle_t handle, c10::Device where, const ProductKind& kind,
        const LtWorkspace& workspace, cudaStream_t stream)
      : lt_(lt), handle_(handle), kind_(kind), workspace_(workspace), stream_(stream) {
    const auto upload = [&](kernels::DataType type, const std::vector<float>& values) {
      const std::vector<char> bytes = Narrow(type, values);
      at::Tensor tensor = NewTensor(where, {static_cast<int64_t>(bytes.size())}, c10::ScalarType::Byte);
      Check(cudaMemcpyAsync(tensor.mutable_data_ptr(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream),
            "trying algorithms");
      Check(cudaStreamSynchronize(stream), "trying algorithms");
      return tensor;
    };
    x_ = upload(kind.type, ProbeRows(kAllRows, kind.k, 1, /*take_back=*/false));
    weight_ = upload(kind.type, ProbeRows(kind.n, kind.k, 2, /*take_back=*/true));
    bias_ = upload(kind.out_type, std::vector<float>(kind.n, 0));  // a value would hide what is left of a sum
    out_ = upload(kind.out_type, std::vector<float>(kAllRows * kind.n, 0));
    row_scale_ = upload(kernels::DataType::kFloat32, ProbeScales(kAllRows));
    column_scale_ = upload(kernels::DataType::kFloat32, ProbeScales(kind.n));
    Check(cudaEventCreate(&begin_), "an event");
    Check(cudaEventCreate(&end_), "an event");
  }
  ~Trial() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  Product MakeProduct(int64_t rows) const {
    Product product(lt_, kind_, {kind_.k, kind_.k, kind_.n}, rows);
    product.Bind(Arrays(0));
    return product;
  }

  // Whether the algorithm gives the same rows in products of every size.
  bool RowsAreEqual(const cublasLtMatmulAlgo_t& algorithm) {
    const std::vector<char> all = Run(algorithm, kAllRows);
    if (all.empty()) return false;
    for (const int64_t rows : kProbeRows) {
      const std::vector<char> some = Run(algorithm, rows);
      if (some.empty() || std::memcmp(some.data(), all.data() + all.size() - some.size(), some.size()) != 0) {
        return false;
      }
    }
    return true;
  }

  // Milliseconds of a product of one row and of one of all.
  float Time(const cublasLtMatmulAlgo_t& algorithm) {
    constexpr int kRepeats = 5;
    float total = 0;
    for (const int64_t rows : {int64_t{1}, kAllRows}) {
      const Product product = MakeProduct(rows);
      for (int i = 0; i <= kRepeats; ++i) {
        if (i == 1) Check(cudaEventRecord(begin_, stream_), "an event");
        Check(product.Run(handle_, Arrays(0), algorithm, workspace_, stream_), "trying algorithms");
      }
      Check(cudaEventRecord(end_, stream_), "an event");
      Check(cudaEventSynchronize(end_), "trying algorithms");
      float milliseconds = 0;
      Check(cudaEventElapsedTime(&milliseconds, begin_, end_), "an event");
      total += milliseconds / kRepeats;
    }
    return total;
  }

 private:
  ProductArrays Arrays(int64_t first_row) const {
    const char* x = static_cast<const char*>(x_.const_data_ptr()) + first_row * kind_.k * kernels::SizeOf(kind_.type);
    return {x,
            weight_.const_data_ptr(),
            bias_.const_data_ptr(),
            static_cast<const float*>(row_scale_.const_data_ptr()) + first_row,
            static_cast<const float*>(column_scale_.const_data_ptr()),
            out_.mutable_data_ptr()};
  }

  // The product of the last `rows` rows; empty where the algorithm cannot do it.
  std::vector<char> Run(const cublasLtMatmulAlgo_t& algorithm, int64_t rows) {
    const Product product = MakeProduct(rows);
    if (!product.Takes(handle_, algorithm, workspace_.bytes)) return {};
    std::vector<char> result(static_cast<size_t>(rows * kind_.n * kernels::SizeOf(kind_.out_type)));
    Check(cudaMemsetAsync(out_.mutable_data_ptr(), 0, result.size(), stream_), "trying algorithms");
    if (product.Run(handle_, Arrays(kAllRows - rows), algorithm, workspace_, stream_) != CUBLAS_STATUS_SUCCESS) {
      return {};
    }
    Check(cudaMemcpyAsync(result.data(), out_.const_data_ptr(), result.size(), cudaMemcpyDeviceToHost, stream_),
          "trying algorithms");
    Check(cudaStreamSynchronize(stream_), "trying algorithms");
    return result;
  }

  const CublasLt& lt_;
  const cublasLtHandle_t handle_;
  const ProductKind kind_;
  const LtWorkspace workspace_;
  const cudaStream_t stream_;
  at::Tensor x_, weight_, bias_, out_, row_scale_, column_scale_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

std::string KindText(const ProductKind& kind) {
  return absl::StrCat(static_cast<int>(kind.type), " ", static_cast<int>(kind.out_type), " ", kind.n, " ", kind.k, " ",
                      static_cast<int>(kind.epilogue), " ", kind.bias ? 1 : 0, " ", kind.add ? 1 : 0, " ",
                      kind.scaled ? 1 : 0);
}

}  // namespace

cublasLtMatmulAlgo_t Algorithms::For(const ProductKind& kind, const LtWorkspace& workspace, cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(mutex_);  // one measures, others wait for its choice
  if (const auto found = chosen_.find(kind); found != chosen_.end()) return found->second;
  if (const auto taken = imported_.extract(kind); !taken.empty() && Takes(kind, taken.mapped(), workspace)) {
    return chosen_.emplace(kind, taken.mapped()).first->second;
  }
  const cublasLtMatmulAlgo_t algorithm = Choose(kind, workspace, stream);
  ++measured_;
  return chosen_.emplace(kind, algorithm).first->second;
}

bool Algorithms::Takes(const ProductKind& kind, const cublasLtMatmulAlgo_t& algorithm,
                       const LtWorkspace& workspace) const {
  const Product product(lt_, kind, {kind.k, kind.k, kind.n}, kAllRows);
  const auto* const somewhere = static_cast<const float*>(workspace.data);
  product.Bind({.bias = somewhere, .row_scale = somewhere, .column_scale = somewhere});
  return product.Takes(handle_, algorithm, workspace.bytes);
}

cublasLtMatmulAlgo_t Algorithms::Choose(const ProductKind& kind, const LtWorkspace& workspace,
                                        cudaStream_t stream) const {
  Trial trial(lt_, handle_, where_, kind, workspace, stream);
  std::vector<cublasLtMatmulAlgo_t> candidates;
  for (const int64_t rows : {kAllRows, int64_t{1}, int64_t{4096}, int64_t{33}}) {
    cublasLtMatmulHeuristicResult_t results[kAsked] = {};
    int count = 0;
    if (trial.MakeProduct(rows).Heuristic(handle_, workspace.bytes, kAsked, results, &count) != CUBLAS_STATUS_SUCCESS) {
      continue;
    }
    for (int i = 0; i < count; ++i) {
      const auto same = [&](const cublasLtMatmulAlgo_t& other) {
        return std::memcmp(&other, &results[i].algo, sizeof(other)) == 0;
      };
      bool known = false;
      for (const cublasLtMatmulAlgo_t& candidate : candidates) known |= same(candidate);
      if (!known && results[i].state == CUBLAS_STATUS_SUCCESS) candidates.push_back(results[i].algo);
    }
  }
  const cublasLtMatmulAlgo_t* best = nullptr;
  float best_time = std::numeric_limits<float>::infinity();
  for (const cublasLtMatmulAlgo_t& candidate : candidates) {
    if (!trial.RowsAreEqual(candidate)) continue;
    const float time = trial.Time(candidate);
    if (time >= best_time) continue;
    best = &candidate;
    best_time = time;
  }
  TORCH_CHECK(best != nullptr, "cuda: none of ", candidates.size(), " algorithms of cuBLASLt gives a weight of ",
              kind.n, " x ", kind.k, " the same rows in products of every size");
  return *best;
}

std::string Algorithms::Header() const { return absl::StrCat("cublaslt ", lt_.version(), " on ", device_); }

std::string Algorithms::Export() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string text = Header() + "\n";
  std::map<ProductKind, cublasLtMatmulAlgo_t> all = chosen_;
  all.insert(imported_.begin(), imported_.end());
  for (const auto& [kind, algorithm] : all) {
    absl::StrAppend(&text, KindText(kind));
    for (const uint64_t word : algorithm.data) absl::StrAppend(&text, " ", word);
    text += '\n';
  }
  return text;
}

absl::Status Algorithms::Import(absl::string_view text) {
  std::map<ProductKind, cublasLtMatmulAlgo_t> imported;
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (lines[0] != Header()) return absl::OkStatus();
  for (size_t line = 1; line < lines.size(); ++line) {
    if (lines[line].empty()) continue;
    constexpr size_t kFields = 8;
    cublasLtMatmulAlgo_t algorithm = {};
    const std::vector<absl::string_view> words = absl::StrSplit(lines[line], ' ');
    uint64_t values[kFields + std::size(algorithm.data)] = {};
    bool good = words.size() == std::size(values);
    for (size_t i = 0; good && i < words.size(); ++i) good = absl::SimpleAtoi(words[i], &values[i]);
    good = good && values[0] <= 3 && values[1] <= 2 && values[2] > 0 && values[2] <= (1u << 30) && values[3] > 0 &&
           values[3] <= (1u << 30) && values[4] <= 2 && values[5] <= 1 && values[6] <= 1 && values[7] <= 1;
    if (!good) {
      return absl::InvalidArgumentError(absl::StrCat("algorithms: line ", line + 1, " is none: '", lines[line], "'"));
    }
    std::memcpy(algorithm.data, values + kFields, sizeof(algorithm.data));
    const ProductKind kind{static_cast<kernels::DataType>(values[0]),
                           static_cast<kernels::DataType>(values[1]),
                           static_cast<int64_t>(values[2]),
                           static_cast<int64_t>(values[3]),
                           static_cast<Epilogue>(values[4]),
                           values[5] == 1,
                           values[6] == 1,
                           values[7] == 1};
    imported.emplace(kind, algorithm);
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [kind, algorithm] : imported) {
    if (chosen_.count(kind) == 0) imported_.insert_or_assign(kind, algorithm);
  }
  return absl::OkStatus();
}

int64_t Algorithms::size() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int64_t>(chosen_.size() + imported_.size());
}

int64_t Algorithms::measured() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return measured_;
}

}  // namespace beamline::backend::cuda
