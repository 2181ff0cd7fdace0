// SPDX-License-Identifier: Apache-2.0
//
// The search of the cuda backend. Every request has the same number of slots, room for its widest level's. Widths,
// rules and constraints are read from device memory; one download brings the beams of all levels and the errors.
#pragma once

#include <string>
#include <vector>

#include "backend/cuda/cuda_batch.h"
#include "backend/cuda/packed_beams.h"
#include "backend/cuda/trie_cache.h"
#include "backend/device_search.h"

namespace beamline::backend::cuda {

class CudaSearch final : public DeviceSearch {
 public:
  CudaSearch(const Context& ctx, TrieCache& tries, absl::Span<const DeviceSearchRequest> requests);

  std::string shape() const override;
  at::Tensor input() const override { return input_; }
  at::Tensor result() const override { return beams_; }
  void Bind(const at::Tensor& input) override {
    input_ = input;
    selected_ = 0;
  }
  void BindResult(const at::Tensor& result) override { beams_ = result; }
  void Select(Context& ctx, const at::Tensor& logits, int level, int32_t first_code) override;
  void SelectEnd(Context& ctx, const at::Tensor& logits, int32_t end_code) override;
  void Rank(Context& ctx, const at::Tensor& states, const RankerWeights& weights) override;
  StepTensors NextStep(Context& ctx) override;
  void Finish(Context& ctx) override;
  kernels::BeamSlots Beams(int level, int request) const override;
  kernels::SelectError Error(int request) const override;
  absl::Span<const float> Values(int request) const override;

 private:
  kernels::DeviceBeams DeviceLevel(int level) const;
  const kernels::ConstraintView* Constraints() const;
  const int32_t* Numbers() const;  // behind the constraints
  // Places in beams_, in words.
  int64_t FirstError() const;
  int64_t FirstValue() const { return FirstError() + requests_; }
  // A selection from these logits; widths are those of `level`.
  kernels::BeamSelectBatch SelectionOf(Context& ctx, const at::Tensor& logits, int level, int32_t first_code) const;
  // The trie of an end token: every beam has one child, of code 0.
  kernels::ConstraintView UploadEnd(CudaBatch& batch) const;

  const int requests_;
  bool scores_end_ = false;
  bool ranked_ = false;
  int levels_ = 0;             // without the end token's
  int selected_ = 0;           // levels so far
  std::vector<int32_t> rows_;  // per level: room for the widest request's beams
  int32_t each_ = 1;           // slots of a request
  // One behind the other: constraints [requests], the end token's [requests] if it is scored, row_begin [requests + 1],
  // widths [levels][requests], rules [requests].
  at::Tensor input_;
  // int32: the levels one behind the other, the end's, the errors [requests], and of a ranked search the values
  // [slots].
  at::Tensor beams_;
  std::vector<int32_t> host_;
};

}  // namespace beamline::backend::cuda
