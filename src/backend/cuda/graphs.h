// SPDX-License-Identifier: Apache-2.0
//
// CUDA graphs of passes that repeat: what a pass enqueued for inputs of some shapes is captured once and launched again
// for other inputs of the same shapes. Inputs are first copied to where the graph reads them, and all that varies
// (lengths, widths, the trie's arrays) is in them. The first pass of a key runs as it is, so that storage exists and
// algorithms are chosen, the second is captured; one that had to allocate after all runs as it is once more, and one
// that cannot be captured in three passes does so for ever. Belongs to a worker: storage that a graph writes to is its
// workspace's, in the order of its stream.
#pragma once

#include <list>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "backend/cuda/device_memory.h"

namespace beamline::backend::cuda {

class CudaBatch;

class Graphs {
 public:
  using Body = absl::FunctionRef<std::vector<at::Tensor>(absl::Span<const at::Tensor>)>;

  Graphs() = default;
  ~Graphs();
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  // What body(inputs) gives. The results of a graph are overwritten by its next launch.
  std::vector<at::Tensor> Run(CudaBatch& batch, const std::string& pass, absl::Span<const at::Tensor> inputs,
                              Body body);

  int64_t launches() const { return launches_; }
  int64_t captures() const { return captures_; }  // graphs made so far

 private:
  struct Entry {
    std::string key;
    std::vector<at::Tensor> inputs, outputs;
    cudaGraphExec_t graph = nullptr;
    bool seen = false;
    int failures = 0;  // to capture it
  };
  Entry& Find(CudaBatch& batch, const std::string& key, absl::Span<const at::Tensor> inputs);
  void Capture(CudaBatch& batch, Entry& entry, Body body);

  std::list<Entry> entries_;  // used last comes first
  int64_t launches_ = 0, captures_ = 0;
};

}  // namespace beamline::backend::cuda
