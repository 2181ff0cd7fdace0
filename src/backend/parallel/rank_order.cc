// SPDX-License-Identifier: Apache-2.0
#include "backend/parallel/rank_order.h"

#include <ATen/ops/empty.h>

namespace beamline::backend {

using at::Tensor;

void ReduceInRankOrder(const Tensor& x, parallel::Shard shard, MovePieces move) {
  TORCH_CHECK(x.is_contiguous(), "all-reduce: the tensor is not contiguous");
  const Tensor flat = x.view({-1});
  const int64_t elements = flat.numel();
  std::vector<Tensor> shares, others;  // of x by rank; of this rank's share as the others have it
  for (int rank = 0; rank < shard.size; ++rank) {
    const parallel::Shard other = shard.of(rank);
    shares.push_back(flat.narrow(0, other.begin(elements), other.count(elements)));
  }
  const Tensor& own = shares[shard.rank];
  const auto stays = [&](int rank) { return rank == shard.rank && !shard.whole(); };
  for (int rank = 0; rank < shard.size; ++rank) {
    others.push_back(stays(rank) ? own : at::empty(own.sizes(), own.options()));
  }
  move(shares, others);

  Tensor sum = others[0].to(c10::kFloat, /*non_blocking=*/false, /*copy=*/true);
  for (int rank = 1; rank < shard.size; ++rank) sum.add_(others[rank]);
  own.copy_(sum);

  const std::vector<Tensor> sums(shard.size, own);
  move(sums, shares);
}

void GatherColumns(const Tensor& own, const Tensor& all, parallel::Shard shard, MovePieces move) {
  const int64_t rows = all.size(0), columns = all.size(1);
  TORCH_CHECK(own.size(0) == rows && own.size(1) == shard.count(columns), "all-gather: rank ", shard.rank, " has ",
              own.size(1), " of ", columns, " columns, its share are ", shard.count(columns));
  const std::vector<Tensor> mine(shard.size, own.contiguous());
  std::vector<Tensor> pieces(shard.size);
  for (int rank = 0; rank < shard.size; ++rank) {
    const bool stays = rank == shard.rank && !shard.whole();
    pieces[rank] = stays ? mine[0] : at::empty({rows, shard.of(rank).count(columns)}, own.options());
  }
  move(mine, pieces);
  for (int rank = 0; rank < shard.size; ++rank) {
    all.narrow(1, shard.of(rank).begin(columns), shard.of(rank).count(columns)).copy_(pieces[rank]);
  }
}

}  // namespace beamline::backend
