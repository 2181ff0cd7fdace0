// SPDX-License-Identifier: Apache-2.0
//
// What one running batch has on a device: a stream, storage, page-locked memory for its inputs and answers, the
// workspaces of cuBLASLt and of beam selection. A worker lends all this to one batch after another, so that, once every
// shape was seen, batches allocate nothing. A batch waits for its stream when it ends, and nowhere else but where it
// brings something back to the host; an error that it meets there and that ends the device is noted. What it made for
// others is complete when it has ended, so no batch waits for another's stream.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "backend/context.h"
#include "backend/cuda/algorithms.h"
#include "backend/cuda/device_fault.h"
#include "backend/cuda/fp8.h"
#include "backend/cuda/graphs.h"
#include "backend/cuda/staging.h"
#include "backend/workspace.h"
#include "beamline/kernels/beam_select_cuda.h"

namespace beamline::backend::cuda {

// What a batch cost, for tests and metrics.
struct BatchCounters {
  int64_t uploads = 0;    // host-to-device copies
  int64_t downloads = 0;  // device-to-host copies, each of which waited for the stream
};

// One stream and what goes with it. Used by one batch at a time.
class Worker {
 public:
  Worker(const CublasLt& lt, cublasLtHandle_t handle, c10::Device device);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void Reset();
  Product& ProductFor(const ProductKind& kind, const ProductSteps& steps, int64_t rows);
  // Prepared for selections of that shape.
  void* SelectWorkspace(int32_t requests, int32_t rows);
  char* PinnedScratch(size_t bytes);

  const CublasLt& lt;
  const cublasLtHandle_t handle;
  const c10::Device device;
  cudaStream_t stream = nullptr;
  cudaEvent_t marked = nullptr, reached = nullptr;  // MarkBatch; the last download behind it
  Workspace workspace;
  Staging staging;
  at::Tensor lt_workspace;
  BatchCounters counters;
  Graphs graphs;

 private:
  using ProductKey = std::pair<std::pair<ProductKind, ProductSteps>, int64_t>;
  std::map<ProductKey, Product> products_;
  std::map<std::pair<int32_t, int32_t>, at::Tensor> select_workspaces_;
  PinnedMemory scratch_{4096};
};

// Workers that no batch uses right now.
class WorkerPool final : public BatchWorkers, public std::enable_shared_from_this<WorkerPool> {
 public:
  WorkerPool(const CublasLt& lt, cublasLtHandle_t handle, c10::Device device)
      : lt_(lt), handle_(handle), device_(device) {}

  std::shared_ptr<void> Hold() override;

  std::unique_ptr<Worker> Take();
  void Give(std::unique_ptr<Worker> worker);

 private:
  const CublasLt& lt_;
  const cublasLtHandle_t handle_;
  const c10::Device device_;
  std::mutex mu_;
  std::vector<std::unique_ptr<Worker>> free_;  // guarded by mu_; the one used last comes last
};

class CudaBatch final : public BatchResources {
 public:
  CudaBatch(std::shared_ptr<WorkerPool> pool, std::shared_ptr<DeviceFault> fault);
  ~CudaBatch() override;
  void End() override;
  void Mark() override;
  double SecondsSinceMark() const override;

  at::Tensor Take(at::IntArrayRef shape, c10::ScalarType dtype) { return worker_->workspace.Take(shape, dtype); }
  at::Tensor Upload(const void* values, at::IntArrayRef shape, c10::ScalarType dtype) {
    return worker_->staging.Add(values, shape, dtype);
  }
  // A sum that nobody has asked for yet: a norm that follows adds on its way (rms_norm_cuda.h), anything else finds it
  // added.
  struct Sum {
    at::Tensor sum, x, delta;
  };
  void AddLater(Sum sum);
  // The sum that `x` stands for, if it is still to be added; it is the caller's to do then.
  std::optional<Sum> TakeSum(const at::Tensor& x);

  // What a norm made of its rows in FP8 besides, for the products that follow: the last norm's.
  void KeepQuantized(at::Tensor rows, Fp8Matrix quantized) { quantized_ = {std::move(rows), std::move(quantized)}; }
  const Fp8Matrix* QuantizedRows(const void* rows, int64_t count) const;

  // What a head made of its logits besides, for the selection that follows: the last head's.
  void KeepParts(at::Tensor logits, at::Tensor parts) { parts_ = {std::move(logits), std::move(parts)}; }
  const kernels::RowPart* PartsOf(const at::Tensor& logits) const;  // null: none of these

  // For the next launch, which comes after all uploads and sums so far.
  cudaStream_t stream();
  // Copies `bytes` to page-locked memory and waits for them; valid until the next call.
  const char* Download(const void* from, size_t bytes);
  const void* HostCopy(const at::Tensor& tensor) const { return worker_->staging.HostCopy(tensor); }
  // Keeps something alive until the batch has ended.
  void Hold(std::shared_ptr<const void> held) { held_.push_back(std::move(held)); }
  // The same for storage of the backend that this batch writes to: let go of before, another batch could take it.
  void Hold(at::Tensor made) { made_.push_back(std::move(made)); }

  Worker& worker() { return *worker_; }
  const BatchCounters& counters() const { return worker_->counters; }

 private:
  const std::shared_ptr<WorkerPool> pool_;
  const std::shared_ptr<DeviceFault> fault_;
  std::unique_ptr<Worker> worker_;
  const int exceptions_;  // that were under way when it began
  std::vector<std::shared_ptr<const void>> held_;
  std::vector<at::Tensor> made_;
  std::optional<Sum> later_;
  bool ended_ = false;
  enum class Marked : uint8_t { kNo, kYes, kReached } marked_ = Marked::kNo;
  struct Quantized {
    at::Tensor of;  // held, so that the address stays its own
    Fp8Matrix rows;
  };
  Quantized quantized_;
  struct Parts {
    at::Tensor of;     // held, likewise
    at::Tensor parts;  // fp32 [rows, kernels::RowParts(vocab), 2]
  };
  Parts parts_;
};

}  // namespace beamline::backend::cuda
