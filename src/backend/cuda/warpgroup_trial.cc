// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/warpgroup_trial.h"

#include <algorithm>
#include <cmath>
#include <cstring>
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
#include "beamline/kernels/attention_cuda.h"
#include "beamline/kernels/head_product_cuda.h"
#include "beamline/kernels/moe_cuda.h"
#include "beamline/status.h"

namespace beamline::backend::cuda {
namespace {

constexpr char kTrial[] = "a trial of wgmma";
// Of the difference's length to the answer's: both kernels round what they multiply and give to 8 or 11 bits, which
// gives .003; one row in a hundred that is another's gives .1.
constexpr double kMostDifference = 0.02;
constexpr float kHeadScale = 0.1f;  // logits of some units

template <typename T>
at::Tensor OnDevice(c10::Device where, const std::vector<T>& values) {
  const at::Tensor rows = NewTensor(where, {static_cast<int64_t>(values.size())}, c10::CppTypeToScalarType<T>::value);
  Check(cudaMemcpy(rows.mutable_data_ptr(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), kTrial);
  return rows;
}

template <typename T>
at::Tensor RandomValues(c10::Device where, int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) value = static_cast<T>(normal(random));
  return OnDevice(where, values);
}

at::Tensor RandomOrders(c10::Device where, int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> values(static_cast<size_t>(count));
  for (int32_t& value : values) value = static_cast<int32_t>(random() % 8);
  return OnDevice(where, values);
}

// What `run` writes into `count` values by wgmma, against what it writes without: the difference's length over the
// answer's. Infinite where it cannot be launched.
template <typename T>
double Difference(c10::Device where, int64_t count,
                  absl::FunctionRef<kernels::LaunchError(bool warpgroups, void* out)> run) {
  std::vector<T> answers[2];
  for (const bool warpgroups : {false, true}) {
    const at::Tensor out = NewTensor(where, {count}, c10::CppTypeToScalarType<T>::value);
    Check(cudaMemset(out.mutable_data_ptr(), 0xff, out.nbytes()), kTrial);
    if (run(warpgroups, out.mutable_data_ptr()) != kernels::LaunchError::kOk) return INFINITY;
    Check(cudaDeviceSynchronize(), kTrial);
    answers[warpgroups].resize(static_cast<size_t>(count));
    Check(cudaMemcpy(answers[warpgroups].data(), out.const_data_ptr(), out.nbytes(), cudaMemcpyDeviceToHost), kTrial);
  }
  double difference = 0, length = 0;
  for (size_t i = 0; i < answers[0].size(); ++i) {
    const double expected = static_cast<float>(answers[0][i]);
    difference += std::pow(static_cast<float>(answers[1][i]) - expected, 2);
    length += expected * expected;
  }
  return std::sqrt(difference / length);
}

// Of so many heads over one pair of keys and values.
template <typename T>
double AttentionDifference(c10::Device where, kernels::DataType type, int32_t head_dim, int32_t heads) {
  constexpr int32_t kQueries = 70, kKeys = 330, kReach = 20;  // two blocks, or two warpgroups; six steps
  const int64_t width = int64_t{heads} * head_dim;
  const at::Tensor query = RandomValues<T>(where, kQueries * width, 1),
                   key_value = RandomValues<T>(where, int64_t{kKeys} * 2 * head_dim, 2),
                   bias = RandomValues<float>(where, int64_t{heads} * (2 * kReach + 1), 3),
                   order = RandomOrders(where, kKeys, 4), limit = RandomOrders(where, kQueries, 5);
  double most = 0;
  for (const bool with_bias : {false, true}) {
    const double difference = Difference<T>(where, query.numel(), [&](bool warpgroups, void* out) {
      kernels::AttentionBatch batch;
      batch.type = type;
      batch.heads = heads;
      batch.head_dim = head_dim;
      batch.scale = 1 / std::sqrt(static_cast<float>(head_dim));
      batch.query = query.const_data_ptr();
      batch.key = key_value.const_data_ptr();
      batch.value = key_value.const_data_ptr<T>() + head_dim;
      batch.out = out;
      batch.query_step = batch.out_step = width;
      batch.key_value_step = 2 * head_dim;
      batch.requests = 1;
      batch.max_queries = kQueries;
      batch.max_keys = kKeys;
      batch.key_order = order.const_data_ptr<int32_t>();
      batch.query_limit = limit.const_data_ptr<int32_t>();
      if (with_bias) batch.relative_bias = bias.const_data_ptr<float>();
      batch.reach = kReach;
      batch.warpgroups = warpgroups;
      return kernels::AttentionCuda(batch, nullptr);
    });
    if (!(difference <= most)) most = difference;  // a NaN stays
  }
  return most;
}

// Two experts, one of which has `rows` rows.
template <typename T>
double ProductDifference(c10::Device where, kernels::DataType type, int32_t rows) {
  constexpr int32_t kWidth = 328, kDepth = 392;  // neither is a whole number of tiles
  const at::Tensor x = RandomValues<T>(where, int64_t{rows + 1} * kDepth, 6),
                   weight = RandomValues<T>(where, int64_t{2} * kWidth * kDepth, 7),
                   begin = OnDevice<int32_t>(where, {0, 1, rows + 1});
  return Difference<T>(where, int64_t{rows + 1} * kWidth, [&](bool warpgroups, void* out) {
    return kernels::GroupedProductCuda({.type = type,
                                        .entries = rows + 1,
                                        .experts = 2,
                                        .n = kWidth,
                                        .k = kDepth,
                                        .begin = begin.const_data_ptr<int32_t>(),
                                        .x = x.const_data_ptr(),
                                        .weight = weight.const_data_ptr(),
                                        .out = out,
                                        .warpgroups = warpgroups},
                                       nullptr);
  });
}

// Of the head's logits to those of a product of one expert; and of its parts to theirs.
template <typename T>
double HeadDifference(c10::Device where, kernels::DataType type, int32_t rows) {
  constexpr int32_t kVocab = 328, kDepth = 392, kParts = kernels::RowParts(kVocab);
  const at::Tensor x = RandomValues<T>(where, int64_t{rows} * kDepth, 8),
                   weight = RandomValues<T>(where, int64_t{kVocab} * kDepth, 9),
                   begin = OnDevice<int32_t>(where, {0, rows}), logits = NewTensor(where, {rows, kVocab}, c10::kFloat),
                   parts = NewTensor(where, {rows, kParts, 2}, c10::kFloat),
                   portable = NewTensor(where, {rows, kVocab}, c10::CppTypeToScalarType<T>::value);
  for (const at::Tensor& out : {logits, parts}) Check(cudaMemset(out.mutable_data_ptr(), 0xff, out.nbytes()), kTrial);
  const kernels::LaunchError launched[] = {
      kernels::HeadProductCuda({.type = type,
                                .rows = rows,
                                .vocab = kVocab,
                                .k = kDepth,
                                .x = x.const_data_ptr(),
                                .x_step = kDepth,
                                .weight = weight.const_data_ptr(),
                                .scale = kHeadScale,
                                .logits = logits.mutable_data_ptr<float>(),
                                .ld = kVocab,
                                .parts = reinterpret_cast<kernels::RowPart*>(parts.mutable_data_ptr())},
                               nullptr),
      kernels::GroupedProductCuda({.type = type,
                                   .entries = rows,
                                   .experts = 1,
                                   .n = kVocab,
                                   .k = kDepth,
                                   .begin = begin.const_data_ptr<int32_t>(),
                                   .x = x.const_data_ptr(),
                                   .weight = weight.const_data_ptr(),
                                   .out = portable.mutable_data_ptr()},
                                  nullptr)};
  for (const kernels::LaunchError error : launched) {
    if (error != kernels::LaunchError::kOk) return INFINITY;
  }
  Check(cudaDeviceSynchronize(), kTrial);
  const auto download = [](const at::Tensor& from, auto value) {
    std::vector<decltype(value)> values(static_cast<size_t>(from.numel()));
    Check(cudaMemcpy(values.data(), from.const_data_ptr(), from.nbytes(), cudaMemcpyDeviceToHost), kTrial);
    return values;
  };
  const std::vector<float> actual = download(logits, float{}), sums = download(parts, float{});
  const std::vector<T> expected = download(portable, T{});
  double difference = 0, length = 0, most = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double logit = kHeadScale * static_cast<float>(expected[i]);
    difference += std::pow(actual[i] - logit, 2);
    length += logit * logit;
  }
  most = std::sqrt(difference / length);
  for (int32_t part = 0; part < rows * kParts; ++part) {
    const int32_t first = part % kParts * kernels::kPartColumns;
    const float* from = actual.data() + int64_t{part / kParts} * kVocab;
    const float max = *std::max_element(from + first, from + std::min(first + kernels::kPartColumns, kVocab));
    double sum = 0;
    for (int32_t i = first; i < std::min(first + kernels::kPartColumns, kVocab); ++i)
      sum += std::exp(double{from[i]} - max);
    const double off = sums[2 * part] == max ? std::abs(sums[2 * part + 1] / sum - 1) : INFINITY;
    if (!(off <= most)) most = off;  // a NaN stays
  }
  return most;
}

template <typename T>
absl::Status TryType(c10::Device where, kernels::DataType type, absl::string_view name) {
  const auto judge = [&](absl::string_view what, double difference) {
    if (difference <= kMostDifference) return absl::OkStatus();  // a NaN is not
    return absl::InternalError(absl::StrCat(name, ", ", what, ": differs from the portable kernel by ", difference,
                                            ", more than ", kMostDifference));
  };
  int device = 0, multiprocessors = 0;
  Check(cudaGetDevice(&device), kTrial);
  Check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), kTrial);
  for (const int32_t head_dim : {32, 64, 96, 128}) {
    for (const int32_t heads : {1, multiprocessors}) {
      BEAMLINE_RETURN_IF_ERROR(judge(absl::StrCat("attention with heads of ", head_dim),
                                     AttentionDifference<T>(where, type, head_dim, heads)));
    }
  }
  for (const int32_t rows : {70, 200}) {
    BEAMLINE_RETURN_IF_ERROR(judge("the experts' product", ProductDifference<T>(where, type, rows)));
    BEAMLINE_RETURN_IF_ERROR(judge("the head", HeadDifference<T>(where, type, rows)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status TryWarpgroups(c10::Device where) {
  return ReturnCatching(kTrial, [&]() -> absl::Status {
    BEAMLINE_RETURN_IF_ERROR(TryType<c10::BFloat16>(where, kernels::DataType::kBFloat16, "bf16"));
    return TryType<c10::Half>(where, kernels::DataType::kFloat16, "fp16");
  });
}

}  // namespace beamline::backend::cuda
