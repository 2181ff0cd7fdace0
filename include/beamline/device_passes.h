// SPDX-License-Identifier: Apache-2.0
//
// How a device was asked for its passes (an encode; a search of all levels), since the process began to use it,
// warm-ups included: a graph is one call, where the ops enqueued one by one are hundreds. Plain values.
#pragma once

#include <cstdint>

namespace beamline {

struct DevicePasses {
  int64_t graph = 0;     // launched from a graph that was there
  int64_t captured = 0;  // made into a graph, and launched from it
  int64_t enqueued = 0;  // op by op: seen for the first time, or not to be captured
  // Nodes of all graphs that were made. Others copy, wait or allocate: there should be none.
  int64_t kernel_nodes = 0, memset_nodes = 0, other_nodes = 0;
};

}  // namespace beamline
