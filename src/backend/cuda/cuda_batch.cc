// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/cuda_batch.h"

#include <algorithm>
#include <bit>
#include <exception>
#include <tuple>
#include <utility>

#include "backend/device_budget.h"
#include "beamline/kernels/beam_select_cuda.h"
#include "beamline/kernels/elementwise_cuda.h"

namespace beamline::backend::cuda {
namespace {

// Passes that become graphs have a few hundred shapes (room.h). A group's are as many as its clients ask for.
constexpr size_t kMostProducts = 4096;
constexpr size_t kMostSelectWorkspaces = 64;

}  // namespace

Worker::Worker(const CublasLt& lt, cublasLtHandle_t handle, c10::Device device)
    : lt(lt),
      handle(handle),
      device(device),
      workspace([device](int64_t elements, c10::ScalarType dtype) { return NewTensor(device, {elements}, dtype); }),
      staging(device),
      lt_workspace(NewTensor(device, {kLtWorkspaceBytes}, c10::ScalarType::Byte)) {
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
  Check(cudaEventCreate(&marked), "an event");
  Check(cudaEventCreate(&reached), "an event");
}

Worker::~Worker() {
  if (device.is_cuda()) cudaSetDevice(device.index());  // in any thread, as device_memory.cc
  products_.clear();
  cudaEventDestroy(reached);
  cudaEventDestroy(marked);
  cudaStreamDestroy(stream);
}

void Worker::Reset() {
  staging.Reset();
  counters = {};
}

Product& Worker::ProductFor(const ProductKind& kind, const ProductSteps& steps, int64_t rows) {
  const ProductKey key{{kind, steps}, rows};
  if (const auto found = products_.find(key); found != products_.end()) return found->second;
  if (products_.size() >= kMostProducts) products_.clear();
  return products_
      .emplace(std::piecewise_construct, std::forward_as_tuple(key), std::forward_as_tuple(lt, kind, steps, rows))
      .first->second;
}

void* Worker::SelectWorkspace(int32_t requests, int32_t rows) {
  // Graphs know the addresses of theirs, which come in few sizes; in a group, which has no graphs, requests choose
  // them.
  if (graphs.size() == 0 && select_workspaces_.size() >= kMostSelectWorkspaces &&
      !select_workspaces_.contains({requests, rows})) {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;  // of the first graph, which would not outlive this
    if (cudaStreamIsCapturing(stream, &capture) == cudaSuccess && capture == cudaStreamCaptureStatusNone) {
      select_workspaces_.clear();
    }
  }
  at::Tensor& memory = select_workspaces_[{requests, rows}];
  if (!memory.defined()) {
    const size_t bytes = kernels::BeamSelectWorkspaceBytes(requests, rows);
    TORCH_CHECK(bytes > 0, "cuda: a selection of ", requests, " requests and ", rows, " rows");
    at::Tensor made = NewTensor(device, {static_cast<int64_t>(bytes)}, c10::ScalarType::Byte);
    Check(kernels::BeamSelectPrepare(made.mutable_data_ptr(), requests, rows, stream), "beam selection");
    memory = std::move(made);
  }
  return memory.mutable_data_ptr();
}

char* Worker::PinnedScratch(size_t bytes) {
  if (scratch_.bytes() < bytes) scratch_ = PinnedMemory(std::bit_ceil(bytes));
  return scratch_.data();
}

std::shared_ptr<void> WorkerPool::Hold() {
  return std::shared_ptr<Worker>(
      Take().release(), [pool = shared_from_this()](Worker* worker) { pool->Give(std::unique_ptr<Worker>(worker)); });
}

std::unique_ptr<Worker> WorkerPool::Take() {
  if (device_.is_cuda()) Check(cudaSetDevice(device_.index()), "choosing the device");  // of the calling thread
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!free_.empty()) {
      std::unique_ptr<Worker> worker = std::move(free_.back());
      free_.pop_back();
      return worker;
    }
  }
  return std::make_unique<Worker>(lt_, handle_, device_);
}

void WorkerPool::Give(std::unique_ptr<Worker> worker) {
  const std::lock_guard<std::mutex> lock(mu_);
  free_.push_back(std::move(worker));
}

CudaBatch::CudaBatch(std::shared_ptr<WorkerPool> pool, std::shared_ptr<DeviceFault> fault)
    : pool_(std::move(pool)),
      fault_(std::move(fault)),
      worker_(pool_->Take()),
      exceptions_(std::uncaught_exceptions()) {
  worker_->Reset();
}

CudaBatch::~CudaBatch() {
  if (!ended_) fault_->Note(cudaStreamSynchronize(worker_->stream), "the end of a batch");
  held_.clear();
  made_.clear();
  later_.reset();
  quantized_ = {};
  parts_ = {};
  // A batch that ran out of memory has filled its worker's workspace, which the other models' batches need.
  if (std::uncaught_exceptions() > exceptions_) {
    worker_.reset();
  } else {
    pool_->Give(std::move(worker_));
  }
}

void CudaBatch::End() {
  fault_->Check(cudaStreamSynchronize(stream()), "the end of a batch");
  ended_ = true;
}

// What passes kept for those behind them is for none of the next part.
void CudaBatch::Mark() {
  Check(cudaEventRecord(worker_->marked, stream()), "an event");
  quantized_ = {};
  parts_ = {};
  marked_ = Marked::kYes;
}

double CudaBatch::SecondsSinceMark() const {
  float milliseconds = 0;
  if (marked_ != Marked::kReached) return 0;
  Check(cudaEventElapsedTime(&milliseconds, worker_->marked, worker_->reached), "the time of a batch");
  return 1e-3 * milliseconds;
}

void CudaBatch::AddLater(Sum sum) {
  stream();  // adds the one before
  later_ = std::move(sum);
}

std::optional<CudaBatch::Sum> CudaBatch::TakeSum(const at::Tensor& x) {
  if (!later_ || !later_->sum.is_same(x)) return std::nullopt;
  return std::exchange(later_, std::nullopt);
}

const Fp8Matrix* CudaBatch::QuantizedRows(const void* rows, int64_t count) const {
  const bool known =
      quantized_.of.defined() && quantized_.of.const_data_ptr() == rows && quantized_.of.size(0) == count;
  return known ? &quantized_.rows : nullptr;
}

const kernels::RowPart* CudaBatch::PartsOf(const at::Tensor& logits) const {
  const bool known = parts_.of.defined() && parts_.of.const_data_ptr() == logits.const_data_ptr() &&
                     parts_.of.sizes() == logits.sizes();
  return known ? reinterpret_cast<const kernels::RowPart*>(parts_.parts.const_data_ptr()) : nullptr;
}

cudaStream_t CudaBatch::stream() {
  worker_->staging.Flush(worker_->stream);
  if (const std::optional<Sum> sum = std::exchange(later_, std::nullopt)) {
    Check(kernels::AddCuda({.type = KernelType(sum->sum.scalar_type()),
                            .count = sum->sum.numel(),
                            .x = sum->x.const_data_ptr(),
                            .y = sum->delta.const_data_ptr(),
                            .out = sum->sum.mutable_data_ptr()},
                           worker_->stream),
          "a residual");
  }
  worker_->counters.uploads = worker_->staging.copies();
  return worker_->stream;
}

const char* CudaBatch::Download(const void* from, size_t bytes) {
  char* to = worker_->PinnedScratch(std::max<size_t>(bytes, 1));
  const cudaStream_t on = stream();
  Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, on), "copy to the host");
  if (marked_ != Marked::kNo) {
    Check(cudaEventRecord(worker_->reached, on), "an event");
    marked_ = Marked::kReached;
  }
  fault_->Check(cudaStreamSynchronize(on), "a batch");
  ++worker_->counters.downloads;
  return to;
}

}  // namespace beamline::backend::cuda
