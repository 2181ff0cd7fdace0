// SPDX-License-Identifier: Apache-2.0
#include "cuda/beam_select_core.h"
#include "cuda/block.cuh"
#include "cuda/launch.cuh"

namespace beamline::kernels {
namespace {

constexpr size_t kSortBytes = select::kSortShared * sizeof(select::Candidate);

// The first level has one row a request, with up to a level's codes as children: as many threads as a block can have.
// Later ones have a row per beam with few children each: small blocks, so that all rows of a request of 512 beams run
// at once.
template <int kThreadsOfBlock, int kBlocksOfMultiprocessor>
struct Shape {
  static constexpr int kThreads = kThreadsOfBlock;
  static constexpr int kBlocks = kBlocksOfMultiprocessor;
  using Block = CudaBlock<kThreads>;
};
using FirstLevel = Shape<1024, 1>;
using LaterLevel = Shape<256, 4>;
using Layout = select::Layout<FirstLevel::Block>;  // the same for both

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    NormaliseRows(const __grid_constant__ BeamSelectBatch batch) {
  AwaitPredecessors();
  __shared__ typename S::Block::Storage storage;
  typename S::Block block(storage);
  select::NormaliseRow(block, batch, static_cast<int32_t>(blockIdx.x));
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks) RefineRows(const __grid_constant__ BeamSelectBatch batch) {
  AwaitPredecessors();
  __shared__ typename S::Block::Storage storage;
  typename S::Block block(storage);
  select::RefineRow(block, batch, static_cast<int32_t>(blockIdx.x));
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks) CollectRows(const __grid_constant__ BeamSelectBatch batch) {
  AwaitPredecessors();
  __shared__ typename S::Block::Storage storage;
  typename S::Block block(storage);
  select::CollectRow(block, batch, static_cast<int32_t>(blockIdx.x), DynamicShared<select::Candidate>());
}

// The last kernel leaves the state as the first wants it: where one is refused, those after it would read another
// selection's, and so would the next selection.
template <class S>
LaunchError LaunchLevel(const BeamSelectBatch& batch, unsigned blocks, CudaStream stream) {
  LaunchError error = Launch(NormaliseRows<S>, {blocks, S::kThreads}, stream, batch);
  if (error != LaunchError::kOk) return error;
  error = Launch(RefineRows<S>, {blocks, S::kThreads}, stream, batch);
  if (error == LaunchError::kOk) error = Launch(CollectRows<S>, {blocks, S::kThreads, kSortBytes}, stream, batch);
  if (error != LaunchError::kOk) {
    cudaMemsetAsync(batch.workspace, 0, Layout{batch.requests, batch.rows}.state_bytes(), stream);
  }
  return error;
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
  return ValidSelectSizes(requests, rows) ? Layout{requests, rows}.bytes() : 0;
}

LaunchError BeamSelectPrepare(void* workspace, int32_t requests, int32_t rows, CudaStream stream) {
  if (!ValidSelectSizes(requests, rows) || workspace == nullptr || !IsAligned(workspace)) {
    return LaunchError::kInvalidArgument;
  }
  // Above 48 KB a kernel's shared memory is asked for once, outside of any capture.
  for (const auto collect : {CollectRows<FirstLevel>, CollectRows<LaterLevel>}) {
    if (cudaFuncSetAttribute(collect, cudaFuncAttributeMaxDynamicSharedMemorySize, kSortBytes) != cudaSuccess) {
      return LaunchError::kCuda;
    }
  }
  const size_t bytes = Layout{requests, rows}.state_bytes();
  return cudaMemsetAsync(workspace, 0, bytes, stream) == cudaSuccess ? LaunchError::kOk : LaunchError::kCuda;
}

LaunchError BeamSelectCuda(const BeamSelectBatch& batch, CudaStream stream) {
  if (!Valid(batch)) return LaunchError::kInvalidArgument;
  if (batch.level == 0) return LaunchLevel<FirstLevel>(batch, batch.requests, stream);
  return LaunchLevel<LaterLevel>(batch, batch.rows, stream);
}

}  // namespace beamline::kernels
