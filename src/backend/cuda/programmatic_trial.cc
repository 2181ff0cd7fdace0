// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/programmatic_trial.h"

#include <algorithm>
#include <array>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>

#include "absl/strings/str_cat.h"
#include "backend/cuda/device_fault.h"
#include "backend/cuda/device_memory.h"
#include "base/run_catching.h"
#include "beamline/kernels/elementwise_cuda.h"
#include "beamline/kernels/product_cuda.h"

namespace beamline::backend::cuda {
namespace {

constexpr char kLaunchTrial[] = "a trial of programmatic launches";
constexpr int kRows = 16, kWidth = 256;
constexpr int kSteps = 24;  // even: exchanges come in pairs
constexpr int kPlaces = 3;
// Which step is the wide product, behind which steps there is a copy, or a sum.
constexpr int kWideStep = 12, kEvery = 4, kCopied = 1, kAdded = 2;
constexpr int kSums = kSteps / kEvery;
static_assert(kSteps % 2 == 0 && kWideStep % kEvery != kCopied && kWideStep % kEvery != kAdded);
// Of the wide product: more blocks than a device runs at once.
constexpr int64_t kWideColumns = 16384, kEmulatedWideColumns = 512;

// Values are small whole numbers, which bf16 has.
using Values = std::vector<c10::BFloat16>;

// A step exchanges the halves of every row and adds one, by a product: each block reads what all blocks wrote. A few
// steps' results are copied, a few get one more by a kernel that reads through the first-level cache, and one step is a
// product of several waves of blocks, of which the next reads the last.
class Chain {
 public:
  explicit Chain(c10::Device where) : wide_columns_(where.is_cuda() ? kWideColumns : kEmulatedWideColumns) {
    Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), kLaunchTrial);
    Values exchange(wide_columns_ * kWidth, 0);
    for (int64_t i = 0; i < wide_columns_; ++i) exchange[i * kWidth + (i + kWidth / 2) % kWidth] = 1;
    exchange_ = Upload(where, exchange);
    ones_ = Upload(where, Values(std::max<int64_t>(wide_columns_, kRows * kWidth), 1));
    wide_ = Upload(where, Values(kRows * wide_columns_, 0));
    for (at::Tensor& place : places_) place = Upload(where, Start());
  }
  ~Chain() { cudaStreamDestroy(stream_); }
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  cudaStream_t stream() const { return stream_; }

  // From the first place to the first place.
  cudaError_t Enqueue() const {
    int place = 0;
    const auto next = [&] { return places_[place = (place + 1) % kPlaces].mutable_data_ptr(); };
    Rows now{places_[0].const_data_ptr(), kWidth};
    for (int step = 0; step < kSteps; ++step) {
      const bool wide = step == kWideStep;
      void* out = wide ? wide_.mutable_data_ptr() : next();
      if (const cudaError_t error = Exchange(now, wide ? wide_columns_ : kWidth, out); error != cudaSuccess) {
        return error;
      }
      now = wide ? Rows{static_cast<c10::BFloat16*>(out) + wide_columns_ - kWidth, wide_columns_} : Rows{out, kWidth};
      cudaError_t error = cudaSuccess;
      if (step % kEvery == kCopied) error = Copy(now.data, out = next());
      if (step % kEvery == kAdded) error = AddOne(now.data, out = next());
      if (error != cudaSuccess) return error;
      if (!wide) now.data = out;
    }
    return place == 0 ? cudaSuccess : Copy(now.data, places_[0].mutable_data_ptr());
  }

  // A graph of the chain, the chain, the graph again, of which none is waited for.
  cudaError_t RunGraph() const {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) return error;
    const cudaError_t enqueued = Enqueue();
    error = cudaStreamEndCapture(stream_, &graph);
    if (enqueued != cudaSuccess) error = enqueued;
    if (error == cudaSuccess) error = cudaGraphInstantiate(&executable, graph, 0);
    if (error == cudaSuccess) error = cudaGraphLaunch(executable, stream_);
    if (error == cudaSuccess) error = Enqueue();
    if (error == cudaSuccess) error = cudaGraphLaunch(executable, stream_);
    const cudaError_t finished = cudaStreamSynchronize(stream_);
    if (executable != nullptr) cudaGraphExecDestroy(executable);
    if (graph != nullptr) cudaGraphDestroy(graph);
    return error == cudaSuccess ? finished : error;
  }

  // Whether the values are those after so many chains.
  bool IsAfter(int chains) const {
    Values values(kRows * kWidth);
    Check(cudaMemcpyAsync(values.data(), places_[0].const_data_ptr(), places_[0].nbytes(), cudaMemcpyDeviceToHost,
                          stream_),
          kLaunchTrial);
    Check(cudaStreamSynchronize(stream_), kLaunchTrial);
    Values expected = Start();
    for (c10::BFloat16& value : expected) value += static_cast<float>(chains * (kSteps + kSums));
    return values == expected;
  }

 private:
  struct Rows {
    const void* data;
    int64_t step;
  };
  static cudaError_t Told(kernels::LaunchError error) {
    if (error == kernels::LaunchError::kOk) return cudaSuccess;
    const cudaError_t why = cudaGetLastError();
    return why == cudaSuccess ? cudaErrorInvalidValue : why;
  }
  cudaError_t Exchange(const Rows& x, int64_t columns, void* out) const {
    return Told(kernels::SkinnyProductCuda({.rows = kRows,
                                            .n = static_cast<int32_t>(columns),
                                            .k = kWidth,
                                            .x = x.data,
                                            .weight = exchange_.const_data_ptr(),
                                            .x_step = x.step,
                                            .weight_step = kWidth,
                                            .out_step = columns,
                                            .bias = ones_.const_data_ptr(),
                                            .out = out},
                                           stream_));
  }
  cudaError_t Copy(const void* from, void* to) const {
    return cudaMemcpyAsync(to, from, places_[0].nbytes(), cudaMemcpyDeviceToDevice, stream_);
  }
  cudaError_t AddOne(const void* x, void* out) const {
    return Told(kernels::AddCuda({.type = kernels::DataType::kBFloat16,
                                  .count = kRows * kWidth,
                                  .x = x,
                                  .y = ones_.const_data_ptr(),
                                  .out = out},
                                 stream_));
  }
  static Values Start() {
    Values values(kRows * kWidth);
    for (int i = 0; i < kRows * kWidth; ++i) values[i] = static_cast<float>((i / kWidth + i) % 64);
    return values;
  }
  at::Tensor Upload(c10::Device where, const Values& values) const {
    const at::Tensor made = NewTensor(where, {static_cast<int64_t>(values.size())}, c10::kBFloat16);
    Check(cudaMemcpyAsync(made.mutable_data_ptr(), values.data(), made.nbytes(), cudaMemcpyHostToDevice, stream_),
          kLaunchTrial);
    Check(cudaStreamSynchronize(stream_), kLaunchTrial);
    return made;
  }

  const int64_t wide_columns_;
  cudaStream_t stream_ = nullptr;
  at::Tensor exchange_, ones_, wide_;
  std::array<at::Tensor, kPlaces> places_;
};

}  // namespace

absl::StatusOr<std::string> TryProgrammaticLaunch(c10::Device where) {
  return ReturnCatching(
      kLaunchTrial,
      [&]() -> absl::StatusOr<std::string> {
        const Chain chain(where);
        const auto wrong = [](const char* what, cudaError_t error) -> absl::StatusOr<std::string> {
          std::string said = absl::StrCat(what, ": ", cudaGetErrorString(error));
          if (EndsContext(error)) return absl::InternalError(said);
          cudaGetLastError();  // what is launched later has nothing of it
          return said;
        };
        cudaError_t error = chain.Enqueue();
        const cudaError_t finished = cudaStreamSynchronize(chain.stream());
        if (error == cudaSuccess) error = finished;
        if (error != cudaSuccess) return wrong("a chain of kernels", error);
        if (!chain.IsAfter(1)) return "a chain of kernels gives other values";
        if (error = chain.RunGraph(); error != cudaSuccess) return wrong("a graph of such kernels", error);
        if (!chain.IsAfter(4)) return "a graph of such kernels gives other values";
        return "";
      },
      absl::StatusCode::kResourceExhausted);
}

}  // namespace beamline::backend::cuda
