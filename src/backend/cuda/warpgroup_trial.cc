// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/warpgroup_trial.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "backend/cuda/device_memory.h"
#include "base/run_catching.h"
#include "beamline/kernels/activation_cuda.h"
#include "beamline/kernels/attention_cuda.h"
#include "beamline/kernels/head_product_cuda.h"
#include "beamline/kernels/moe_cuda.h"
#include "beamline/kernels/product_cuda.h"

namespace beamline::backend::cuda {
namespace {

constexpr char kTrial[] = "a trial of wgmma";
// Of the difference's length to the answer's: both kernels round what they multiply and give to 8 or 11 bits, which
// gives .003; one row in a hundred that is another's gives .1.
constexpr double kMostDifference = 0.02;
constexpr int32_t kDepth = 392;  // of products; not a whole number of tiles, as little as their widths

// Where the trial works. Waits for its own stream alone: one of another thread may be captured.
class Bench {
 public:
  explicit Bench(c10::Device device) : where(device) {
    Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), kTrial);
  }
  ~Bench() { cudaStreamDestroy(stream); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  template <typename T>
  at::Tensor Poisoned(at::IntArrayRef shape) const {
    const at::Tensor made = NewTensor(where, shape, c10::CppTypeToScalarType<T>::value);
    Check(cudaMemsetAsync(made.mutable_data_ptr(), 0xff, made.nbytes(), stream), kTrial);
    return made;
  }
  template <typename T>
  at::Tensor Upload(const std::vector<T>& values) const {
    const at::Tensor rows = NewTensor(where, {static_cast<int64_t>(values.size())}, c10::CppTypeToScalarType<T>::value);
    Check(cudaMemcpyAsync(rows.mutable_data_ptr(), values.data(), rows.nbytes(), cudaMemcpyHostToDevice, stream),
          kTrial);
    Check(cudaStreamSynchronize(stream), kTrial);
    return rows;
  }
  template <typename T>
  std::vector<T> Download(const at::Tensor& from) const {
    std::vector<T> values(static_cast<size_t>(from.numel()));
    Check(cudaMemcpyAsync(values.data(), from.const_data_ptr(), from.nbytes(), cudaMemcpyDeviceToHost, stream), kTrial);
    Check(cudaStreamSynchronize(stream), kTrial);
    return values;
  }

  const c10::Device where;
  cudaStream_t stream = nullptr;
};

template <typename T>
at::Tensor RandomValues(const Bench& bench, int64_t count, uint32_t seed, float deviation = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) value = static_cast<T>(normal(random));
  return bench.Upload(values);
}

at::Tensor RandomOrders(const Bench& bench, int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> values(static_cast<size_t>(count));
  for (int32_t& value : values) value = static_cast<int32_t>(random() % 8);
  return bench.Upload(values);
}

// The difference's length over the answer's; a NaN where one is.
template <typename T>
double Difference(const std::vector<T>& actual, const std::vector<T>& answer) {
  double difference = 0, length = 0;
  for (size_t i = 0; i < answer.size(); ++i) {
    const double expected = static_cast<float>(answer[i]);
    difference += std::pow(static_cast<float>(actual[i]) - expected, 2);
    length += expected * expected;
  }
  return std::sqrt(difference / length);
}

// Between what `run` writes into `count` values by wgmma and without.
template <typename T>
double Difference(const Bench& bench, int64_t count, absl::FunctionRef<void(bool warpgroups, void* out)> run) {
  std::vector<T> answers[2];
  for (const bool warpgroups : {false, true}) {
    const at::Tensor out = bench.Poisoned<T>({count});
    run(warpgroups, out.mutable_data_ptr());
    answers[warpgroups] = bench.Download<T>(out);
  }
  return Difference(answers[1], answers[0]);
}

// The larger of two; a NaN is the largest.
double Larger(double a, double b) { return b <= a || std::isnan(a) ? a : b; }

// Of so many heads over one pair of keys and values.
template <typename T>
double AttentionDifference(const Bench& bench, kernels::DataType type, int32_t head_dim, int32_t heads) {
  constexpr int32_t kQueries = 70, kKeys = 330, kReach = 20;  // two blocks, or two warpgroups; six steps
  const int64_t width = int64_t{heads} * head_dim;
  const at::Tensor query = RandomValues<T>(bench, kQueries * width, 1),
                   key_value = RandomValues<T>(bench, int64_t{kKeys} * 2 * head_dim, 2),
                   bias = RandomValues<float>(bench, int64_t{heads} * (2 * kReach + 1), 3),
                   order = RandomOrders(bench, kKeys, 4), limit = RandomOrders(bench, kQueries, 5);
  enum class Form { kPlain, kBias, kSameValue };
  double most = 0;
  for (const Form form : {Form::kPlain, Form::kBias, Form::kSameValue}) {
    most = Larger(most, Difference<T>(bench, query.numel(), [&](bool warpgroups, void* out) {
                    kernels::AttentionBatch batch;
                    batch.type = type;
                    batch.heads = heads;
                    batch.head_dim = head_dim;
                    batch.scale = 1 / std::sqrt(static_cast<float>(head_dim));
                    batch.query = query.const_data_ptr();
                    batch.key = key_value.const_data_ptr();
                    batch.value = key_value.const_data_ptr<T>() + (form == Form::kSameValue ? 0 : head_dim);
                    batch.out = out;
                    batch.query_step = batch.out_step = width;
                    batch.key_value_step = 2 * head_dim;
                    batch.requests = 1;
                    batch.max_queries = kQueries;
                    batch.max_keys = kKeys;
                    batch.key_order = order.const_data_ptr<int32_t>();
                    batch.query_limit = limit.const_data_ptr<int32_t>();
                    if (form == Form::kBias) batch.relative_bias = bias.const_data_ptr<float>();
                    batch.reach = kReach;
                    batch.warpgroups = warpgroups;
                    Check(kernels::AttentionCuda(batch, bench.stream), kTrial);
                  }));
  }
  return most;
}

// Two experts, one of which has `rows` rows; with gates against the product and the activation behind it.
template <typename T>
double ProductDifference(const Bench& bench, kernels::DataType type, int32_t rows) {
  constexpr int32_t kWidth = 336;
  const at::Tensor x = RandomValues<T>(bench, int64_t{rows + 1} * kDepth, 6),
                   weight = RandomValues<T>(bench, int64_t{2} * kWidth * kDepth, 7, 1 / std::sqrt(float{kDepth})),
                   begin = bench.Upload<int32_t>({0, 1, rows + 1});
  kernels::GroupedProductArgs args{.type = type,
                                   .entries = rows + 1,
                                   .experts = 2,
                                   .n = kWidth,
                                   .k = kDepth,
                                   .begin = begin.const_data_ptr<int32_t>(),
                                   .x = x.const_data_ptr(),
                                   .weight = weight.const_data_ptr()};
  const auto product = [&](bool warpgroups, bool gated, void* out) {
    args.warpgroups = warpgroups;
    args.gated = gated;
    args.out = out;
    Check(kernels::GroupedProductCuda(args, bench.stream), kTrial);
  };
  const int64_t values = int64_t{rows + 1} * kWidth;
  const double plain =
      Difference<T>(bench, values, [&](bool warpgroups, void* out) { product(warpgroups, /*gated=*/false, out); });
  const at::Tensor both = bench.Poisoned<T>({values});
  const double gated = Difference<T>(bench, values / 2, [&](bool warpgroups, void* out) {
    if (warpgroups) return product(true, /*gated=*/true, out);
    product(false, /*gated=*/false, both.mutable_data_ptr());
    Check(kernels::ActivationCuda(
              {.type = type, .rows = rows + 1, .width = kWidth / 2, .x = both.const_data_ptr(), .out = out},
              bench.stream),
          kTrial);
  });
  return Larger(plain, gated);
}

// Random rows and a weight, and their product as that of one expert, without wgmma.
template <typename T>
struct PortableProduct {
  PortableProduct(const Bench& of, kernels::DataType type, int32_t rows, int32_t n)
      : bench(of),
        args{.type = type, .entries = rows, .experts = 1, .n = n, .k = kDepth},
        x(RandomValues<T>(of, int64_t{rows} * kDepth, 8)),
        weight(RandomValues<T>(of, int64_t{n} * kDepth, 9, 2 / std::sqrt(float{kDepth}))),
        begin(of.Upload<int32_t>({0, rows})) {
    args.begin = begin.const_data_ptr<int32_t>();
    args.x = x.const_data_ptr();
    args.weight = weight.const_data_ptr();
  }
  void Run(void* out) {
    args.out = out;
    Check(kernels::GroupedProductCuda(args, bench.stream), kTrial);
  }

  const Bench& bench;
  kernels::GroupedProductArgs args;
  const at::Tensor x, weight, begin;
};

// Of a dense product in such tiles; with gates to the portable activation behind the portable product.
template <typename T>
double DenseDifference(const Bench& bench, kernels::DataType type, kernels::DenseTile tile) {
  constexpr int32_t kRows = 200, kWidth = 336;
  PortableProduct<T> portable(bench, type, kRows, kWidth);
  const at::Tensor ungated = bench.Poisoned<T>({kRows, kWidth});
  const auto dense = [&](std::optional<kernels::ActivationKind> gate, void* out) {
    Check(kernels::DenseProductCuda({.type = type,
                                     .out_type = type,
                                     .rows = kRows,
                                     .n = kWidth,
                                     .k = kDepth,
                                     .x = portable.args.x,
                                     .weight = portable.args.weight,
                                     .x_step = kDepth,
                                     .weight_step = kDepth,
                                     .out_step = gate ? kWidth / 2 : kWidth,
                                     .gate = gate,
                                     .out = out},
                                    tile, bench.stream),
          kTrial);
  };
  double most = Difference<T>(bench, int64_t{kRows} * kWidth, [&](bool warpgroups, void* out) {
    if (warpgroups) return dense(std::nullopt, out);
    portable.Run(out);
  });
  for (const kernels::ActivationKind gate : kernels::kProductGates) {
    most = Larger(most, Difference<T>(bench, int64_t{kRows} * kWidth / 2, [&](bool warpgroups, void* out) {
                    if (warpgroups) return dense(gate, out);
                    portable.Run(ungated.mutable_data_ptr());
                    Check(kernels::ActivationCuda({.type = type,
                                                   .kind = gate,
                                                   .rows = kRows,
                                                   .width = kWidth / 2,
                                                   .x = ungated.const_data_ptr(),
                                                   .out = out},
                                                  bench.stream),
                          kTrial);
                  }));
  }
  return most;
}

// Of the head's logits; and of its parts to theirs.
template <typename T>
double HeadDifference(const Bench& bench, kernels::DataType type, int32_t rows) {
  constexpr int32_t kVocab = 328, kParts = kernels::RowParts(kVocab);
  PortableProduct<T> portable(bench, type, rows, kVocab);
  const at::Tensor answer = bench.Poisoned<T>({rows, kVocab}), logits = bench.Poisoned<float>({rows, kVocab}),
                   parts = bench.Poisoned<float>({rows, kParts, 2});
  Check(kernels::HeadProductCuda({.type = type,
                                  .rows = rows,
                                  .vocab = kVocab,
                                  .k = kDepth,
                                  .x = portable.args.x,
                                  .x_step = kDepth,
                                  .weight = portable.args.weight,
                                  .logits = logits.mutable_data_ptr<float>(),
                                  .ld = kVocab,
                                  .parts = reinterpret_cast<kernels::RowPart*>(parts.mutable_data_ptr())},
                                 bench.stream),
        kTrial);
  portable.Run(answer.mutable_data_ptr());
  const std::vector<float> actual = bench.Download<float>(logits), sums = bench.Download<float>(parts);
  const std::vector<T> narrow = bench.Download<T>(answer);
  double most = Difference(actual, std::vector<float>(narrow.begin(), narrow.end()));
  for (int32_t part = 0; part < rows * kParts; ++part) {
    const int32_t first = part % kParts * kernels::kPartColumns, last = std::min(first + kernels::kPartColumns, kVocab);
    const float* row = actual.data() + int64_t{part / kParts} * kVocab;
    const float max = *std::max_element(row + first, row + last);
    double sum = 0;
    for (int32_t i = first; i < last; ++i) sum += std::exp(double{row[i]} - max);
    most = Larger(most, sums[2 * part] == max ? std::abs(sums[2 * part + 1] / sum - 1) : INFINITY);
  }
  return most;
}

// Empty, or what differs.
template <typename T>
std::string TryType(const Bench& bench, kernels::DataType type, absl::string_view name) {
  int device = 0, multiprocessors = 0;
  Check(cudaGetDevice(&device), kTrial);
  Check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), kTrial);
  std::string found;
  const auto judge = [&](absl::string_view what, double difference) {
    if (difference <= kMostDifference || !found.empty()) return;  // a NaN is not
    found = absl::StrCat(name, ", ", what, ": differs from the portable kernel by ", difference, ", more than ",
                         kMostDifference);
  };
  for (const int32_t head_dim : {32, 64, 96, 128}) {
    for (const int32_t heads : {1, multiprocessors}) {
      judge(absl::StrCat("attention with heads of ", head_dim), AttentionDifference<T>(bench, type, head_dim, heads));
      if (!found.empty()) return found;
    }
  }
  for (const int32_t rows : {70, 200}) {
    judge("the experts' product", ProductDifference<T>(bench, type, rows));
    judge("the head", HeadDifference<T>(bench, type, rows));
  }
  using kernels::DenseTile;
  for (const DenseTile tile : {DenseTile::k64x64, DenseTile::k64x128, DenseTile::k128x256}) {
    judge(absl::StrCat("a dense product, tile ", static_cast<int>(tile)), DenseDifference<T>(bench, type, tile));
  }
  return found;
}

}  // namespace

absl::StatusOr<std::string> TryWarpgroups(c10::Device where) {
  return ReturnCatching(
      kTrial,
      [&]() -> absl::StatusOr<std::string> {
        const Bench bench(where);
        std::string found = TryType<c10::BFloat16>(bench, kernels::DataType::kBFloat16, "bf16");
        if (found.empty()) found = TryType<c10::Half>(bench, kernels::DataType::kFloat16, "fp16");
        return found;
      },
      absl::StatusCode::kResourceExhausted);
}

}  // namespace beamline::backend::cuda
