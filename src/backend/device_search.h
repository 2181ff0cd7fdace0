// SPDX-License-Identifier: Apache-2.0
//
// A search whose beams stay where the next step reads them: between its first upload and its end nothing goes to or
// comes from the host, so that a whole decode is enqueued without waiting. The beams of every level are those of
// kernels::BeamSelectCpu. Made by a backend that has it (ops.h, BeginSearch); belongs to one batch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/types/span.h"
#include "backend/context.h"
#include "backend/op_types.h"
#include "beamline/kernels/beam_select.h"

namespace beamline::backend {

// One request; what the pointers name lives until the search has ended.
struct DeviceSearchRequest {
  const kernels::ConstraintView* constraint = nullptr;
  std::vector<int32_t> widths;  // per level, 0..kernels::kMaxBeamWidth; all 0: the request is skipped
  kernels::ScoreRule rule = kernels::ScoreRule::kFull;
  bool scores_end = false;  // of all requests or of none: an end token comes behind the last level
  bool ranked = false;      // of all requests or of none: the beams of the last level get values; not with an end token
};

class DeviceSearch {
 public:
  virtual ~DeviceSearch() = default;

  // What its kernels are launched for: rows of every level. Part of a pass's name.
  virtual std::string shape() const = 0;
  // All that the search reads (widths, rules, constraints) and all that it writes, so that it can be part of a pass
  // (ops.h, RunPass): one that is bound to other memory of the same shape begins anew there.
  virtual at::Tensor input() const = 0;
  virtual at::Tensor result() const = 0;
  virtual void Bind(const at::Tensor& input) = 0;
  virtual void BindResult(const at::Tensor& result) = 0;

  // Selects the beams of `level` (levels in order) from fp32 logits [batch, rows, vocab]: at level 0 one row for each
  // request, later as many as the widest request keeps at the level before.
  virtual void Select(Context& ctx, const at::Tensor& logits, int level, int32_t first_code) = 0;

  // Behind the last level: adds the log-probability of the end token, `end_code` of the logits, and orders by the sum.
  virtual void SelectEnd(Context& ctx, const at::Tensor& logits, int32_t end_code) = 0;

  // Behind the last level of a search that is ranked: the value of every beam, from the states of the rows that it was
  // selected from, [batch * rows, width].
  virtual void Rank(Context& ctx, const at::Tensor& states, const RankerWeights& weights) = 0;

  // The beams selected last as the next step's input, int32 [batch, widest request's rows]; inactive rows are zeros.
  struct StepTensors {
    at::Tensor codes;
    at::Tensor parents;
  };
  virtual StepTensors NextStep(Context& ctx) = 0;

  // Waits, once, and brings all levels to the host; they were all selected.
  virtual void Finish(Context& ctx) = 0;
  // After Finish: the beams of a level, none of one that failed or of a level after it; and the first error. The level
  // behind the last is the end token's; its nodes are leaves.
  virtual kernels::BeamSlots Beams(int level, int request) const = 0;
  virtual kernels::SelectError Error(int request) const = 0;
  // After Finish of a search that was ranked: of the last level's beams, in their order.
  virtual absl::Span<const float> Values(int request) const = 0;
};

}  // namespace beamline::backend
