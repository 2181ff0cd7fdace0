// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/graphs.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "backend/cuda/cuda_batch.h"
#include "base/out_of_memory.h"
#include "beamline/kernels/state_cuda.h"

namespace beamline::backend::cuda {
namespace {

constexpr int kCaptureAttempts = 3;
constexpr size_t kMostKeys = 4096;  // that are remembered

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

// By one launch: a copy for each would be a layer's worth of host time for each layer.
void CopyInputs(CudaBatch& batch, absl::Span<const at::Tensor> to, absl::Span<const at::Tensor> from) {
  kernels::CopyAllArgs args;
  const auto launch = [&] {
    if (args.count > 0) Check(kernels::CopyAllCuda(args, batch.stream()), "a graph's inputs");
    args.count = 0;
  };
  for (size_t i = 0; i < from.size(); ++i) {
    if (!from[i].defined() || from[i].nbytes() == 0) continue;
    args.from[args.count] = from[i].const_data_ptr();
    args.to[args.count] = to[i].mutable_data_ptr();
    args.bytes[args.count] = static_cast<int64_t>(from[i].nbytes());
    if (++args.count == kernels::kMaxCopied) launch();
  }
  launch();
}

}  // namespace

Graphs::~Graphs() {
  for (const Entry& entry : entries_) Destroy(entry.graph);
}

// Where graphs read inputs of these shapes. A place that became too small is kept by the graphs that were made with it.
std::vector<at::Tensor> Graphs::Places(CudaBatch& batch, const std::string& pass, absl::Span<const at::Tensor> inputs) {
  std::vector<at::Tensor>& kept = inputs_[pass.substr(0, pass.find(' '))];
  kept.resize(std::max(kept.size(), inputs.size()));
  std::vector<at::Tensor> places(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined()) continue;
    const auto bytes = std::bit_ceil(std::max<uint64_t>(inputs[i].nbytes(), 1));
    if (!kept[i].defined() || kept[i].nbytes() < bytes) {
      // Not of the batch's storage: a pass would miss it as it is captured, which may not allocate.
      kept[i] = NewTensor(batch.worker().device, {static_cast<int64_t>(bytes)}, c10::kByte);
    }
    places[i] = View(kept[i], 0, inputs[i].sizes(), inputs[i].scalar_type());
  }
  return places;
}

// False where the device has no more memory: op by op the pass fits, as it did before.
bool Graphs::MakePlaces(CudaBatch& batch, const std::string& pass, absl::Span<const at::Tensor> inputs, Entry& entry) {
  try {
    entry.inputs = Places(batch, pass, inputs);
    return true;
  } catch (const OutOfMemory&) {
    return false;
  }
}

void Graphs::DropOldest() {
  result_bytes_ -= entries_.back().result_bytes;
  Destroy(entries_.back().graph);
  entries_.pop_back();
}

// False, and no graph, where it fails: storage that another pass has kept since is missing, or the pass wants to wait.
bool Graphs::Capture(CudaBatch& batch, Entry& entry, Body body) {
  const cudaStream_t stream = batch.stream();
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a pass");
  cudaGraph_t graph = nullptr;
  bool good = true;
  try {
    entry.outputs = body(entry.inputs);
    batch.stream();  // what was put off belongs to the pass
  } catch (const c10::Error&) {
    good = false;
  } catch (...) {  // the stream must not stay in capture
    if (cudaStreamEndCapture(stream, &graph) == cudaSuccess && graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  good = cudaStreamEndCapture(stream, &graph) == cudaSuccess && good && graph != nullptr;
  good = good && cudaGraphInstantiate(&entry.graph, graph, 0) == cudaSuccess;
  if (good) {
    const GraphNodes nodes = CountNodes(graph);
    MaybeWriteGraph(graph, entry.key, nodes);
    nodes_.Add(nodes);
  }
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (good) {
    ++captures_;
    return true;
  }
  cudaGetLastError();  // said by what follows, if it lasts
  return false;
}

Graphs::Entry* Graphs::Find(CudaBatch& batch, const std::string& pass, absl::Span<const at::Tensor> inputs, Body body) {
  const std::string key = KeyOf(pass, inputs);
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
    return &entries_.front();
  }
  if (met_.size() >= kMostKeys) met_.clear();
  const auto [met, is_new] = met_.try_emplace(key, 0);
  if (is_new || met->second >= kCaptureAttempts) return nullptr;
  Entry entry{.key = key};
  if (!MakePlaces(batch, pass, inputs, entry) || !Capture(batch, entry, body)) {
    ++met->second;
    return nullptr;
  }
  for (const at::Tensor& output : entry.outputs) {
    if (output.defined()) entry.result_bytes += static_cast<int64_t>(output.storage().nbytes());
  }
  while (!entries_.empty() &&
         (entries_.size() >= limits_.graphs || result_bytes_ + entry.result_bytes > limits_.result_bytes)) {
    DropOldest();
  }
  result_bytes_ += entry.result_bytes;
  entries_.push_front(std::move(entry));
  return &entries_.front();
}

std::vector<at::Tensor> Graphs::Run(CudaBatch& batch, const std::string& pass, absl::Span<const at::Tensor> inputs,
                                    Body body) {
  Entry* const entry = Find(batch, pass, inputs, body);
  if (entry == nullptr) return body(inputs);
  CopyInputs(batch, entry->inputs, inputs);
  Check(cudaGraphLaunch(entry->graph, batch.stream()), "launching a pass");
  ++launches_;
  return entry->outputs;
}

}  // namespace beamline::backend::cuda
