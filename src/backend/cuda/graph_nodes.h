// SPDX-License-Identifier: Apache-2.0
//
// What a captured graph asks of the device. Of a pass that is kernels, and the memsets that cuBLASLt may ask for: no
// copy, nothing to wait for, nothing that the host does.
#pragma once

#include <cstdint>
#include <string>

#include <cuda_runtime.h>

namespace beamline::backend::cuda {

// The variable of the environment that names a folder for the graphs of this process: each is written there as it is
// made, a file of Graphviz with its nodes, kernels by name and grid, as the driver tells them. Not set: none is.
inline constexpr char kGraphFolderSwitch[] = "BEAMLINE_GRAPH_FOLDER";

struct GraphNodes {
  int64_t kernels = 0, memsets = 0;
  int64_t others = 0;  // copies, events, host functions, allocations, graphs in graphs; what cannot be told counts, too

  void Add(const GraphNodes& more);
};

GraphNodes CountNodes(cudaGraph_t graph);

// To graph-PROCESS-NUMBER-PASS.dot of that folder, where there is one; what goes wrong is in the log alone. `key` is
// the pass and the shapes of its inputs.
void MaybeWriteGraph(cudaGraph_t graph, const std::string& key, const GraphNodes& nodes);

}  // namespace beamline::backend::cuda
