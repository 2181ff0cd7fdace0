// SPDX-License-Identifier: Apache-2.0
#include "cuda/beam_select_core.h"
#include "cuda/block.cuh"
#include "cuda/launch.cuh"

namespace beamline::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 4;  // on a multiprocessor: the rows of one request of 512 beams at once
constexpr size_t kSortBytes = select::kSortShared * sizeof(select::Candidate);
using Block = CudaBlock<kThreads>;

__global__ void __launch_bounds__(kThreads, kBlocks) NormaliseRows(const __grid_constant__ BeamSelectBatch batch) {
  __shared__ Block::Storage storage;
  Block block(storage);
  select::NormaliseRow(block, batch, static_cast<int32_t>(blockIdx.x));
}

__global__ void __launch_bounds__(kThreads, kBlocks) RefineRows(const __grid_constant__ BeamSelectBatch batch) {
  __shared__ Block::Storage storage;
  Block block(storage);
  select::RefineRow(block, batch, static_cast<int32_t>(blockIdx.x));
}

__global__ void __launch_bounds__(kThreads, kBlocks) CollectRows(const __grid_constant__ BeamSelectBatch batch) {
  __shared__ Block::Storage storage;
  Block block(storage);
  select::CollectRow(block, batch, static_cast<int32_t>(blockIdx.x), DynamicShared<select::Candidate>());
}

bool HasSlots(const DeviceBeams& beams) {
  return beams.node != nullptr && beams.score != nullptr && beams.parent != nullptr && beams.code != nullptr &&
         beams.log_prob != nullptr && beams.count != nullptr;
}

bool Valid(const BeamSelectBatch& batch) {
  if (batch.logits == nullptr || batch.vocab < 1 || batch.vocab > (1 << 24) || batch.ld < batch.vocab) return false;
  if (batch.logits_each < 0 || batch.first_code < 0 || batch.first_code >= batch.vocab) return false;
  if (batch.level < 0 || batch.level >= kMaxTrieLevels) return false;
  if (!ValidSelectSizes(batch.requests, batch.rows) || !IsAligned(batch.workspace)) return false;
  if (batch.row_begin == nullptr || batch.width == nullptr || batch.rule == nullptr || batch.constraint == nullptr ||
      batch.error == nullptr || batch.workspace == nullptr || !HasSlots(batch.out)) {
    return false;
  }
  if (batch.level == 0) return true;
  if (batch.in.node == nullptr || batch.in.score == nullptr || batch.in.count == nullptr) return false;
  return batch.lineage_out == nullptr || batch.lineage_in != nullptr;
}

}  // namespace

size_t BeamSelectWorkspaceBytes(int32_t requests, int32_t rows) {
  return ValidSelectSizes(requests, rows) ? select::Layout<Block>{requests, rows}.bytes() : 0;
}

LaunchError BeamSelectPrepare(void* workspace, int32_t requests, int32_t rows, CudaStream stream) {
  if (!ValidSelectSizes(requests, rows) || workspace == nullptr || !IsAligned(workspace)) {
    return LaunchError::kInvalidArgument;
  }
  // Above 48 KB a kernel's shared memory is asked for once, outside of any capture.
  if (cudaFuncSetAttribute(CollectRows, cudaFuncAttributeMaxDynamicSharedMemorySize, kSortBytes) != cudaSuccess) {
    return LaunchError::kCuda;
  }
  const size_t bytes = select::Layout<Block>{requests, rows}.state_bytes();
  return cudaMemsetAsync(workspace, 0, bytes, stream) == cudaSuccess ? LaunchError::kOk : LaunchError::kCuda;
}

LaunchError BeamSelectCuda(const BeamSelectBatch& batch, CudaStream stream) {
  if (!Valid(batch)) return LaunchError::kInvalidArgument;
  const unsigned blocks = batch.level == 0 ? batch.requests : batch.rows;
  Launch(NormaliseRows, {blocks, kThreads}, stream, batch);
  Launch(RefineRows, {blocks, kThreads}, stream, batch);
  Launch(CollectRows, {blocks, kThreads, kSortBytes}, stream, batch);
  return Launched();
}

}  // namespace beamline::kernels
