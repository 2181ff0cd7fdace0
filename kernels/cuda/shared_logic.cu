// SPDX-License-Identifier: Apache-2.0
//
// Compiles the walk and the order that CPU and CUDA selection share (constraint.h, candidate_order.h) for the device,
// so that a change which only a host compiler accepts is found where nvcc is and no GPU. One thread per candidate
// child: its sort key, or the largest key where it is not alive.
#include "beamline/kernels/candidate_order.h"
#include "beamline/kernels/constraint.h"

namespace beamline::kernels {

__global__ void CandidateKeys(ConstraintView constraint, int level, const uint32_t* parents, const uint32_t* nodes,
                              const float* scores, int count, uint64_t* keys) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  const NodeRange children = Children(constraint.trie, level, parents[i]);
  const EligibilityLevelView& eligibility = constraint.eligibility[level];
  const bool alive = nodes[i] >= children.begin && nodes[i] < children.end &&
                     IsAlive(eligibility, DeadAmong(eligibility, children), nodes[i]);
  keys[i] = alive ? OrderKey(scores[i], SnapshotNode(constraint, level, nodes[i])) : ~uint64_t{0};
}

}  // namespace beamline::kernels
