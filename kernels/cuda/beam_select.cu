// SPDX-License-Identifier: Apache-2.0
#include "cuda/beam_select_core.h"
#include "cuda/block.cuh"
#include "cuda/launch.cuh"

namespace beamline::kernels {
namespace {

constexpr size_t kSortBytes = select::kSortShared * sizeof(select::Candidate);

// The first level has one row a request, with up to a level's codes as children: as many threads as a block can have,
// and one kernel. Later ones have a row per beam with few children each: small blocks, so that all rows of a request of
// 512 beams run at once.
constexpr unsigned kFirstThreads = 1024, kThreads = 256, kBlocksOfMultiprocessor = 4;
using FirstBlock = CudaBlock<kFirstThreads>;
using RowBlock = CudaBlock<kThreads>;
using Layout = select::Layout<RowBlock>;  // the same for both

__global__ void __launch_bounds__(kFirstThreads) SelectFirstRows(const __grid_constant__ BeamSelectBatch batch) {
  AwaitPredecessors();
  __shared__ FirstBlock::Storage storage;
  FirstBlock block(storage);
  select::SelectFirst(block, batch, static_cast<int32_t>(blockIdx.x), DynamicShared<select::Candidate>());
}

__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    NormaliseRows(const __grid_constant__ BeamSelectBatch batch) {
  AwaitPredecessors();
  __shared__ RowBlock::Storage storage;
  RowBlock block(storage);
  select::NormaliseRow(block, batch, static_cast<int32_t>(blockIdx.x));
}

__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    RefineRows(const __grid_constant__ BeamSelectBatch batch) {
  AwaitPredecessors();
  __shared__ RowBlock::Storage storage;
  RowBlock block(storage);
  select::RefineRow(block, batch, static_cast<int32_t>(blockIdx.x));
}

__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    CollectRows(const __grid_constant__ BeamSelectBatch batch) {
  AwaitPredecessors();
  __shared__ RowBlock::Storage storage;
  RowBlock block(storage);
  select::CollectRow(block, batch, static_cast<int32_t>(blockIdx.x), DynamicShared<select::Candidate>());
}

// The last kernel leaves the state as the first wants it: where one is refused, those after it would read another
// selection's, and so would the next selection.
LaunchError LaunchLaterLevel(const BeamSelectBatch& batch, CudaStream stream) {
  const unsigned blocks = static_cast<unsigned>(batch.rows);
  LaunchError error = Launch(NormaliseRows, {blocks, kThreads}, stream, batch);
  if (error != LaunchError::kOk) return error;
  error = Launch(RefineRows, {blocks, kThreads}, stream, batch);
  if (error == LaunchError::kOk) error = Launch(CollectRows, {blocks, kThreads, kSortBytes}, stream, batch);
  if (error != LaunchError::kOk) {
    cudaMemsetAsync(batch.workspace, 0, Layout{batch.requests, batch.rows}.state_bytes(), stream);
  }
  return error;
}

bool HasSlots(const DeviceBeams& beams) {
  return beams.node != nullptr && beams.score != nullptr && beams.parent != nullptr && beams.code != nullptr &&
         beams.log_prob != nullptr && beams.count != nullptr &&
         AreNaturallyAligned(beams.node, beams.score, beams.parent, beams.code, beams.log_prob, beams.count);
}

bool Valid(const BeamSelectBatch& batch) {
  if (batch.logits == nullptr || batch.vocab < 1 || batch.vocab > kMaxVocabulary || batch.ld < batch.vocab)
    return false;
  if (batch.logits_each < 0 || batch.first_code < 0 || batch.first_code >= batch.vocab) return false;
  if (batch.level < 0 || batch.level >= kMaxTrieLevels) return false;
  if (!ValidSelectSizes(batch.requests, batch.rows) || !IsAligned(batch.workspace)) return false;
  if (batch.row_begin == nullptr || batch.width == nullptr || batch.rule == nullptr || batch.constraint == nullptr ||
      batch.error == nullptr || batch.workspace == nullptr || !HasSlots(batch.out)) {
    return false;
  }
  if (!AreNaturallyAligned(batch.logits, batch.parts, batch.row_begin, batch.width, batch.rule, batch.constraint,
                           batch.lineage_in, batch.lineage_out, batch.error)) {
    return false;
  }
  if (batch.level == 0) return true;
  if (batch.in.node == nullptr || batch.in.score == nullptr || batch.in.count == nullptr ||
      !AreNaturallyAligned(batch.in.node, batch.in.score, batch.in.count)) {
    return false;
  }
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
  for (const auto kernel : {SelectFirstRows, CollectRows}) {
    if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSortBytes) != cudaSuccess) {
      return LaunchError::kCuda;
    }
  }
  const size_t bytes = Layout{requests, rows}.state_bytes();
  return cudaMemsetAsync(workspace, 0, bytes, stream) == cudaSuccess ? LaunchError::kOk : LaunchError::kCuda;
}

LaunchError BeamSelectCuda(const BeamSelectBatch& batch, CudaStream stream) {
  if (!Valid(batch)) return LaunchError::kInvalidArgument;
  if (batch.level > 0) return LaunchLaterLevel(batch, stream);
  const unsigned blocks = static_cast<unsigned>(batch.requests);
  return Launch(SelectFirstRows, {blocks, kFirstThreads, kSortBytes}, stream, batch);
}

}  // namespace beamline::kernels
