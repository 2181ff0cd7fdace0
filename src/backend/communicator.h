// SPDX-License-Identifier: Apache-2.0
//
// What the ranks of a tensor-parallel group do with tensors (Megatron-LM, 1909.08053): sum what each computed of the
// same rows, or put side by side what each computed of the columns. All ranks call the same in the same order; the
// calls throw c10::Error with the reason once the group is lost.
//
// Every element of a sum is added up in rank order, in fp32, and rounded once: the same bits on every rank, whatever
// the number of rows, which is what keeps answers independent of their company (backend contract, order of reduction).
// Hence no ring or tree of a library's choice, whose order depends on where in the buffer an element lies; the bytes
// sent are those of a ring.
//
// One thread uses a communicator at a time. The group belongs to the caller and outlives it.
#pragma once

#include <memory>

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "parallel/process_group.h"

namespace beamline::backend {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual parallel::Shard shard() const = 0;

  // In place. REQUIRES: contiguous, fp32, bf16 or fp16, the same shape on every rank.
  virtual void AllReduce(const at::Tensor& x) = 0;
  // own [rows, columns of this rank] -> all [rows, columns], rank r's from shard().of(r).begin(columns) on. REQUIRES:
  // one dtype; own may have any strides.
  virtual void AllGather(const at::Tensor& own, const at::Tensor& all) = 0;
};

// Over the group's own connections; tensors on the CPU.
std::unique_ptr<Communicator> MakeTcpCommunicator(parallel::ProcessGroup* group);

// NCCL on this rank's device (a null group: one rank by itself); the group carries the id at the start, and its loss
// ends what waits. UNIMPLEMENTED where the build has no NCCL, FAILED_PRECONDITION where libnccl.so.2 cannot be loaded
// or a call of it fails.
absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(parallel::ProcessGroup* group, c10::Device device);

// The one for the device.
absl::StatusOr<std::unique_ptr<Communicator>> MakeCommunicator(parallel::ProcessGroup* group, c10::Device device);

}  // namespace beamline::backend
