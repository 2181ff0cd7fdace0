// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/algorithm_trial.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>

#include <c10/util/BFloat16.h>
#include <c10/util/Float8_e4m3fn.h>
#include <c10/util/Half.h>

#include "backend/cuda/device_memory.h"

namespace beamline::backend::cuda {
namespace {

constexpr int64_t kUpToTrialRows[] = {1, 2, 3, 8, 16, 17, 33, 48, 64, 65, 100, 128, 129, kTrialRows};
constexpr int kAsked = 16;           // algorithms per number of rows
constexpr int64_t kAlignedRows = 4;  // scales begin at 16 bytes, or the library refuses the product
constexpr int kRepeats = 4;
// Cleared before products are timed, so that the device is busy until the host has started them all: small ones would
// be timed by how fast they are started.
constexpr int64_t kAheadBytes = int64_t{512} << 20;
// Weights are read in turns from copies of together so many bytes, more than a cache holds: a request streams them.
constexpr int64_t kColdBytes = int64_t{128} << 20;
constexpr int64_t kMostCopies = 64;

constexpr float kLargestE4M3 = 448;

// Values of a type, as bytes, and back.
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

// REQUIRES: not E4M3, which no result has.
std::vector<float> Widen(kernels::DataType type, absl::Span<const char> bytes) {
  const auto size = static_cast<size_t>(kernels::SizeOf(type));
  std::vector<float> values(bytes.size() / size);
  for (size_t i = 0; i < values.size(); ++i) {
    const char* const from = bytes.data() + size * i;
    if (type == kernels::DataType::kFloat32) {
      std::memcpy(&values[i], from, 4);
      continue;
    }
    uint16_t narrow;
    std::memcpy(&narrow, from, 2);
    values[i] = type == kernels::DataType::kBFloat16
                    ? static_cast<float>(c10::BFloat16(narrow, c10::BFloat16::from_bits()))
                    : static_cast<float>(c10::Half(narrow, c10::Half::from_bits()));
  }
  return values;
}

// Matrices whose product shows the order of its sums in every type. The second half of a row of x repeats the first,
// and every other row of the weight takes back in its second half what it gave in its first: of these sums nothing is
// left but their rounding. (Of ordinary sums a narrow result hides it: an algorithm whose order depends on the number
// of rows was admitted in fp16.) A gate's value is taken back where the gate is not: their product would
// overflow fp16 (which a tenth of the other sums does where k is 4,096). Magnitudes are spread, so that few and short
// terms round, too.
constexpr int kProbeExponents = 6;  // of two, up and down

// taken_back(row): whether the row is one of those.
template <class F>
std::vector<float> ProbeRows(int64_t rows, int64_t k, uint32_t seed, F taken_back) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> exponent(-kProbeExponents, kProbeExponents);
  std::vector<float> values(static_cast<size_t>(rows * k));
  for (int64_t row = 0; row < rows; ++row) {
    float* to = values.data() + row * k;
    const float sign = taken_back(row) ? -1.0f : 1.0f;
    for (int64_t i = 0; i < k; ++i)
      to[i] = i < k / 2 ? std::ldexp(normal(random), exponent(random)) : sign * to[i - k / 2];
  }
  return values;
}

std::vector<float> ProbeScales(int64_t count) {
  std::vector<float> scales(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) scales[i] = 0.5f + static_cast<float>(i % kTrialRows % 7);
  return scales;
}

}  // namespace

AlgorithmTrial::AlgorithmTrial(const Device& device, const ProductKind& kind, int64_t most_rows)
    : device_(device), kind_(kind), row_bytes_(kind.columns() * kernels::SizeOf(kind.out_type)) {
  const auto room = [&](size_t bytes) {
    return NewTensor(device_.where, {static_cast<int64_t>(bytes)}, c10::ScalarType::Byte);
  };
  const auto never = [](int64_t) { return false; };
  const auto every_other = [&](int64_t row) { return (row + (kind.gate && row >= kind.columns() ? 1 : 0)) % 2 == 0; };
  const int64_t most = std::max(kTrialRows, most_rows);
  x_ = Upload(kind.type, ProbeRows(kTrialRows, kind.k, 1, never), (most + kTrialRows - 1) / kTrialRows);
  if (device_.where.is_cuda()) {
    weight_copies_ = std::clamp<int64_t>(kColdBytes / (kind.n * kind.k * kernels::SizeOf(kind.type)), 1, kMostCopies);
  }
  weight_ = Upload(kind.type, ProbeRows(kind.n, kind.k, 2, every_other), weight_copies_);
  bias_ = Upload(kind.out_type, std::vector<float>(kind.n, 0));  // a value would hide what is left of a sum
  seen_bias_ = room(static_cast<size_t>(kind.n * kernels::SizeOf(kind.out_type)));
  if (kind.gate) ungated_ = room(static_cast<size_t>(most * kind.n * kernels::SizeOf(kind.out_type)));
  out_ = room(static_cast<size_t>(most * row_bytes_));
  row_scale_ = Upload(kernels::DataType::kFloat32, ProbeScales(most));
  column_scale_ = Upload(kernels::DataType::kFloat32, ProbeScales(kind.n));
  ahead_ = room(device_.where.is_cuda() ? kAheadBytes / 4 : 1);
  Check(cudaEventCreate(&begin_), "an event");
  Check(cudaEventCreate(&end_), "an event");
}

AlgorithmTrial::~AlgorithmTrial() {
  cudaStreamSynchronize(device_.on.stream);
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
}

// Waits: then the bytes may go.
void AlgorithmTrial::CopyTo(const at::Tensor& to, const std::vector<char>& bytes) const {
  Check(cudaMemcpyAsync(to.mutable_data_ptr(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice, device_.on.stream),
        "trying algorithms");
  Check(cudaStreamSynchronize(device_.on.stream), "trying algorithms");
}

// `copies` times the values, one behind the other.
at::Tensor AlgorithmTrial::Upload(kernels::DataType type, const std::vector<float>& values, int64_t copies) const {
  const std::vector<char> bytes = Narrow(type, values);
  const auto size = static_cast<int64_t>(bytes.size());
  at::Tensor tensor = NewTensor(device_.where, {size * copies}, c10::ScalarType::Byte);
  char* const to = static_cast<char*>(tensor.mutable_data_ptr());
  CopyTo(tensor, bytes);
  for (int64_t copy = 1; copy < copies; ++copy) {
    Check(cudaMemcpyAsync(to + copy * size, to, bytes.size(), cudaMemcpyDeviceToDevice, device_.on.stream),
          "trying algorithms");
  }
  return tensor;
}

Product AlgorithmTrial::MakeProduct(int64_t rows) const {
  Product product(device_.lt, kind_, {kind_.k, kind_.k, kind_.columns()}, rows);
  product.Bind(Arrays(0));
  return product;
}

ProductArrays AlgorithmTrial::Arrays(int64_t first_row, int64_t weight_copy) const {
  const int64_t element = kernels::SizeOf(kind_.type);
  return {.x = static_cast<const char*>(x_.const_data_ptr()) + first_row * kind_.k * element,
          .weight = static_cast<const char*>(weight_.const_data_ptr()) + weight_copy * kind_.n * kind_.k * element,
          .bias = bias_.const_data_ptr(),
          .row_scale = static_cast<const float*>(row_scale_.const_data_ptr()) + first_row,
          .column_scale = static_cast<const float*>(column_scale_.const_data_ptr()),
          .ungated = kind_.gate ? ungated_.mutable_data_ptr() : nullptr,
          .out = out_.mutable_data_ptr()};
}

std::vector<Algorithm> AlgorithmTrial::Offered(absl::Span<const int64_t> rows, bool fast_sums) const {
  std::vector<Algorithm> offered;
  for (const int64_t count_of_rows : rows) {
    cublasLtMatmulHeuristicResult_t results[kAsked] = {};
    int count = 0;
    if (MakeProduct(count_of_rows).Heuristic(device_.on, fast_sums, absl::MakeSpan(results), &count) !=
        CUBLAS_STATUS_SUCCESS) {
      continue;
    }
    for (int i = 0; i < count; ++i) {
      const auto same = [&](const Algorithm& other) {
        return std::memcmp(&other.lt, &results[i].algo, sizeof(other.lt)) == 0;
      };
      if (results[i].state == CUBLAS_STATUS_SUCCESS && std::none_of(offered.begin(), offered.end(), same)) {
        offered.push_back({.fast_sums = fast_sums, .lt = results[i].algo});
      }
    }
  }
  return offered;
}

bool AlgorithmTrial::Start(const Algorithm& algorithm, int64_t rows, int64_t first_row) {
  const Product product = MakeProduct(rows);
  if (!product.Takes(device_.on, algorithm)) return false;
  Check(cudaMemsetAsync(out_.mutable_data_ptr(), 0, static_cast<size_t>(rows * row_bytes_), device_.on.stream),
        "trying algorithms");
  return product.Run(Arrays(first_row), algorithm, device_.on) == CUBLAS_STATUS_SUCCESS;
}

std::vector<char> AlgorithmTrial::Rows(int64_t first, int64_t count) const {
  std::vector<char> bits(static_cast<size_t>(count * row_bytes_));
  Check(cudaMemcpyAsync(bits.data(), static_cast<const char*>(out_.const_data_ptr()) + first * row_bytes_, bits.size(),
                        cudaMemcpyDeviceToHost, device_.on.stream),
        "trying algorithms");
  Check(cudaStreamSynchronize(device_.on.stream), "trying algorithms");
  return bits;
}

std::vector<char> AlgorithmTrial::EqualRows(const Algorithm& algorithm) {
  if (!Start(algorithm, kTrialRows, 0)) return {};
  std::vector<char> all = Rows(0, kTrialRows);
  for (const int64_t rows : kUpToTrialRows) {
    if (rows < kTrialRows && !GivesLastRows(algorithm, rows, all)) return {};
  }
  return all;
}

bool AlgorithmTrial::GivesLastRows(const Algorithm& algorithm, int64_t rows, const std::vector<char>& bits) {
  const int64_t first = (kTrialRows - rows) / kAlignedRows * kAlignedRows;
  if (!Start(algorithm, rows, first)) return false;
  const std::vector<char> some = Rows(0, rows);
  return std::equal(some.begin(), some.end(), bits.begin() + first * row_bytes_);
}

bool AlgorithmTrial::Gives(const Algorithm& algorithm, const std::vector<char>& bits) {
  bool any = false;
  for (const int64_t rows : kUpToTrialRows) {
    if (!MakeProduct(rows).Takes(device_.on, algorithm)) continue;
    if (!GivesLastRows(algorithm, rows, bits)) return false;
    any = true;
  }
  return any;
}

std::vector<char> AlgorithmTrial::FinishedRows(const Algorithm& algorithm, const std::vector<char>& bits) {
  constexpr int64_t kRows = 16;
  const int64_t columns = kind_.columns();
  if (!kind_.alpha && !kind_.bias && !kind_.add) return {bits.begin(), bits.begin() + kRows * row_bytes_};
  ProductArrays arrays = Arrays(0);
  if (kind_.alpha) arrays.alpha = 0.3f;
  std::vector<float> sums = Widen(kind_.out_type, absl::MakeSpan(bits).first(kRows * row_bytes_));
  for (float& sum : sums) sum *= arrays.alpha;
  // The bias takes back the first row, what was there the others: in whatever order both are added.
  std::vector<float> bias(columns, 0), before(sums.size());
  if (kind_.bias) std::transform(sums.begin(), sums.begin() + columns, bias.begin(), std::negate<>());
  for (size_t i = 0; i < sums.size(); ++i) before[i] = -(sums[i] + bias[i % columns]);
  CopyTo(seen_bias_, Narrow(kind_.out_type, bias));
  CopyTo(out_, Narrow(kind_.out_type, before));
  arrays.bias = seen_bias_.const_data_ptr();
  const cublasStatus_t status = MakeProduct(kRows).Run(arrays, algorithm, device_.on);
  return status == CUBLAS_STATUS_SUCCESS ? Rows(0, kRows) : std::vector<char>();
}

bool AlgorithmTrial::GivesRows(const Algorithm& algorithm, int64_t rows, const std::vector<char>& bits) {
  if (!Start(algorithm, rows, 0)) return false;
  const int64_t last = (rows - 1) / kTrialRows * kTrialRows;
  for (const int64_t first : {int64_t{0}, last / kTrialRows / 2 * kTrialRows, last}) {
    const std::vector<char> some = Rows(first, std::min(kTrialRows, rows - first));
    if (!std::equal(some.begin(), some.end(), bits.begin())) return false;
  }
  return true;
}

float AlgorithmTrial::Time(const Algorithm& algorithm, int64_t rows) {
  constexpr float kNever = std::numeric_limits<float>::infinity();
  const Product product = MakeProduct(rows);
  if (!product.Takes(device_.on, algorithm)) return kNever;
  for (int64_t cleared = 0; cleared < kAheadBytes && device_.where.is_cuda(); cleared += ahead_.numel()) {
    Check(cudaMemsetAsync(ahead_.mutable_data_ptr(), 0, ahead_.nbytes(), device_.on.stream), "trying algorithms");
  }
  for (int i = 0; i <= kRepeats; ++i) {
    if (i == 1) Check(cudaEventRecord(begin_, device_.on.stream), "an event");
    const ProductArrays arrays = Arrays(0, i % weight_copies_);
    if (product.Run(arrays, algorithm, device_.on) != CUBLAS_STATUS_SUCCESS) {
      return kNever;
    }
  }
  Check(cudaEventRecord(end_, device_.on.stream), "an event");
  Check(cudaEventSynchronize(end_), "trying algorithms");
  float milliseconds = 0;
  Check(cudaEventElapsedTime(&milliseconds, begin_, end_), "an event");
  return milliseconds / kRepeats;
}

}  // namespace beamline::backend::cuda
