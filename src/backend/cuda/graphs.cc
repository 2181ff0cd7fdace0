// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/graphs.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "backend/cuda/cuda_batch.h"

namespace beamline::backend::cuda {
namespace {

constexpr size_t kKeptGraphs = 32;  // of one worker
constexpr int kCaptureAttempts = 3;

std::string KeyOf(const std::string& pass, absl::Span<const at::Tensor> inputs) {
  std::string key = pass;
  for (const at::Tensor& input : inputs) {
    if (!input.defined()) {
      key += " -";
      continue;
    }
    absl::StrAppend(&key, " ", static_cast<int>(input.scalar_type()));
    for (const int64_t size : input.sizes()) absl::StrAppend(&key, "x", size);
  }
  return key;
}

void Destroy(cudaGraphExec_t graph) {
  if (graph != nullptr) cudaGraphExecDestroy(graph);
}

}  // namespace

Graphs::~Graphs() {
  for (const Entry& entry : entries_) Destroy(entry.graph);
}

Graphs::Entry& Graphs::Find(CudaBatch& batch, const std::string& key, absl::Span<const at::Tensor> inputs) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
    return entries_.front();
  }
  if (entries_.size() >= kKeptGraphs) {
    Destroy(entries_.back().graph);
    entries_.pop_back();
  }
  entries_.emplace_front();
  entries_.front().key = key;
  for (const at::Tensor& input : inputs) {
    entries_.front().inputs.push_back(input.defined() ? batch.Take(input.sizes(), input.scalar_type()) : at::Tensor());
  }
  return entries_.front();
}

// Leaves no graph where it fails: storage that another pass has kept since is missing, or the pass wants to wait.
void Graphs::Capture(CudaBatch& batch, Entry& entry, Body body) {
  const cudaStream_t stream = batch.stream();
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a pass");
  bool good = true;
  try {
    entry.outputs = body(entry.inputs);
    batch.stream();  // what was put off belongs to the pass
  } catch (const c10::Error&) {
    good = false;
  }
  cudaGraph_t graph = nullptr;
  good = cudaStreamEndCapture(stream, &graph) == cudaSuccess && good && graph != nullptr;
  good = good && cudaGraphInstantiate(&entry.graph, graph, 0) == cudaSuccess;
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (good) {
    ++captures_;
    return;
  }
  entry.graph = nullptr;
  entry.outputs.clear();
  ++entry.failures;
  cudaGetLastError();  // said by what follows, if it lasts
}

std::vector<at::Tensor> Graphs::Run(CudaBatch& batch, const std::string& pass, absl::Span<const at::Tensor> inputs,
                                    Body body) {
  Entry& entry = Find(batch, KeyOf(pass, inputs), inputs);
  const cudaStream_t stream = batch.stream();
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined()) continue;
    Check(cudaMemcpyAsync(entry.inputs[i].mutable_data_ptr(), inputs[i].const_data_ptr(), inputs[i].nbytes(),
                          cudaMemcpyDeviceToDevice, stream),
          "a graph's input");
  }
  if (entry.seen && entry.graph == nullptr && entry.failures < kCaptureAttempts) Capture(batch, entry, body);
  entry.seen = true;
  if (entry.graph == nullptr) return body(entry.inputs);
  Check(cudaGraphLaunch(entry.graph, stream), "launching a pass");
  ++launches_;
  return entry.outputs;
}

}  // namespace beamline::backend::cuda
