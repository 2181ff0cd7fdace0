// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/programmatic_trial.h"

#include <array>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>

#include "absl/strings/str_cat.h"
#include "backend/cuda/device_fault.h"
#include "backend/cuda/device_memory.h"
#include "base/run_catching.h"
#include "beamline/kernels/product_cuda.h"

namespace beamline::backend::cuda {
namespace {

constexpr char kLaunchTrial[] = "a trial of programmatic launches";
constexpr int kRows = 16, kWidth = 256;
// Of a chain; a whole number of times around the places, and of exchanges.
constexpr int kSteps = 24, kCopyEvery = 4, kPlaces = 3;
static_assert(kSteps % 2 == 0 && (kSteps + kSteps / kCopyEvery) % kPlaces == 0);

// Values are small whole numbers, which bf16 has.
using Values = std::vector<c10::BFloat16>;

// A step exchanges the halves of every row and adds one, by a product: each block reads what all blocks wrote.
class Chain {
 public:
  explicit Chain(c10::Device where) {
    Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), kLaunchTrial);
    Values exchange(kWidth * kWidth, 0);
    for (int i = 0; i < kWidth; ++i) exchange[i * kWidth + (i + kWidth / 2) % kWidth] = 1;
    exchange_ = Upload(where, exchange);
    ones_ = Upload(where, Values(kWidth, 1));
    for (at::Tensor& place : places_) place = Upload(where, Start());
  }
  ~Chain() { cudaStreamDestroy(stream_); }
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  cudaStream_t stream() const { return stream_; }

  cudaError_t Enqueue() const {
    int at = 0;
    const auto move = [&] { return std::exchange(at, (at + 1) % kPlaces); };
    for (int step = 0; step < kSteps; ++step) {
      const int from = move();
      if (kernels::SkinnyProductCuda({.rows = kRows,
                                      .n = kWidth,
                                      .k = kWidth,
                                      .x = places_[from].const_data_ptr(),
                                      .weight = exchange_.const_data_ptr(),
                                      .x_step = kWidth,
                                      .weight_step = kWidth,
                                      .out_step = kWidth,
                                      .bias = ones_.const_data_ptr(),
                                      .out = places_[at].mutable_data_ptr()},
                                     stream_) != kernels::LaunchError::kOk) {
        return cudaGetLastError();
      }
      if (step % kCopyEvery > 0) continue;
      const int copied = move();
      if (const cudaError_t error = cudaMemcpyAsync(places_[at].mutable_data_ptr(), places_[copied].const_data_ptr(),
                                                    places_[copied].nbytes(), cudaMemcpyDeviceToDevice, stream_);
          error != cudaSuccess) {
        return error;
      }
    }
    return cudaSuccess;
  }

  // Twice the chain, once more captured.
  cudaError_t RunGraph() const {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) return error;
    const cudaError_t enqueued = Enqueue();
    error = cudaStreamEndCapture(stream_, &graph);
    if (enqueued != cudaSuccess) error = enqueued;
    if (error == cudaSuccess) error = cudaGraphInstantiate(&executable, graph, 0);
    for (int run = 0; run < 2 && error == cudaSuccess; ++run) error = cudaGraphLaunch(executable, stream_);
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
    for (c10::BFloat16& value : expected) value += static_cast<float>(chains * kSteps);
    return values == expected;
  }

 private:
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

  cudaStream_t stream_ = nullptr;
  at::Tensor exchange_, ones_;
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
        if (!chain.IsAfter(3)) return "a graph of such kernels gives other values";
        return "";
      },
      absl::StatusCode::kResourceExhausted);
}

}  // namespace beamline::backend::cuda
