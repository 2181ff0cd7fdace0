// SPDX-License-Identifier: Apache-2.0
//
// The collectives of communicator.h, put together from one that moves bytes: every rank sends each other rank one piece
// and receives one from it. Reduce: rank r gets the r-th share of everybody's elements, adds them up in rank order, and
// hands the sum round.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/functional/function_ref.h"
#include "backend/communicator.h"

namespace beamline::backend {

// Pieces by rank, contiguous. sent[r] goes to rank r, received[r] comes from it; where both are the same memory there
// is nothing to move. (A group of one rank sends its pieces to itself, which is how one device tests all this.)
using MovePieces =
    absl::FunctionRef<void(const std::vector<at::Tensor>& sent, const std::vector<at::Tensor>& received)>;

void ReduceInRankOrder(const at::Tensor& x, parallel::Shard shard, MovePieces move);
void GatherColumns(const at::Tensor& own, const at::Tensor& all, parallel::Shard shard, MovePieces move);

}  // namespace beamline::backend
