// SPDX-License-Identifier: Apache-2.0
//
// CUDA graphs of passes that repeat: what a pass enqueued for inputs of some shapes is captured once and launched again
// for other inputs of the same shapes. Inputs are first copied to where the graph reads them, and all that varies
// (lengths, widths, the trie's arrays) is in them. The first pass of a key runs as it is, so that storage exists and
// algorithms are chosen, the second is captured; one that had to allocate after all runs as it is once more, and one
// that cannot be captured in three passes does so for ever. Belongs to a worker: storage that a graph writes to is its
// workspace's, in the order of its stream. So passes of one kind, the first word of their names, read their inputs at
// one place; each has memory of its own for its results alone, and there is a limit to that: what was launched longest
// ago goes.
#pragma once

#include <list>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "backend/cuda/device_memory.h"
#include "backend/cuda/graph_nodes.h"

namespace beamline::backend::cuda {

class CudaBatch;

class Graphs {
 public:
  using Body = absl::FunctionRef<std::vector<at::Tensor>(absl::Span<const at::Tensor>)>;

  struct Limits {
    size_t graphs = 256;  // some 350 to 700 kernels each, of which the driver keeps a few hundred bytes
    int64_t result_bytes = int64_t{4} << 30;
  };

  Graphs() = default;
  explicit Graphs(const Limits& limits) : limits_(limits) {}
  ~Graphs();
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  // What body(inputs) gives. The results of a graph are overwritten by the next pass of its kind.
  std::vector<at::Tensor> Run(CudaBatch& batch, const std::string& pass, absl::Span<const at::Tensor> inputs,
                              Body body);

  int64_t launches() const { return launches_; }
  int64_t captures() const { return captures_; }      // graphs made so far
  const GraphNodes& nodes() const { return nodes_; }  // of all of these
  size_t size() const { return entries_.size(); }
  int64_t result_bytes() const { return result_bytes_; }

 private:
  struct Entry {
    std::string key;
    std::vector<at::Tensor> inputs, outputs;
    int64_t result_bytes = 0;
    cudaGraphExec_t graph = nullptr;
  };
  // The graph of that key, captured now if it is time to; null: the pass runs as it is.
  Entry* Find(CudaBatch& batch, const std::string& pass, absl::Span<const at::Tensor> inputs, Body body);
  bool Capture(CudaBatch& batch, Entry& entry, Body body);
  bool MakePlaces(CudaBatch& batch, const std::string& pass, absl::Span<const at::Tensor> inputs, Entry& entry);
  std::vector<at::Tensor> Places(CudaBatch& batch, const std::string& pass, absl::Span<const at::Tensor> inputs);
  void DropOldest();

  const Limits limits_;
  std::list<Entry> entries_;                                          // used last comes first
  absl::flat_hash_map<std::string, std::vector<at::Tensor>> inputs_;  // bytes that graphs read, by kind of pass
  absl::flat_hash_map<std::string, int> met_;  // keys: how often a capture failed; they outlive graphs
  int64_t launches_ = 0, captures_ = 0, result_bytes_ = 0;
  GraphNodes nodes_;
};

}  // namespace beamline::backend::cuda
