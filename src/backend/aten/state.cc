// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include "backend/aten/aten_backend.h"

namespace beamline::backend {

// int64, as gather wants it; opaque to the caller.
Tensor AtenBackend::ExtendLineage(Context& ctx, const Tensor& lineage, const Tensor& parents) const {
  const Tensor parent = parents.to(c10::kLong).unsqueeze(2);  // [batch, rows, 1]
  if (!lineage.defined()) return parent;
  const Tensor ancestors = lineage.gather(1, parent.expand({-1, -1, lineage.size(2)}));
  return at::cat({ancestors, parent}, 2);
}

Tensor AtenBackend::TakeVisible(Context& ctx, const Tensor& x, const Tensor& order, int64_t row) const {
  const Tensor visible = order.select(0, row).le(kSeesAllOrders).nonzero().view({-1});
  return x.select(0, row).index_select(0, visible);
}

Tensor AtenBackend::StackPadded(Context& ctx, absl::Span<const Tensor> rows, int64_t capacity, int32_t fill) const {
  std::vector<int64_t> shape = rows[0].sizes().vec();
  shape[0] = capacity;
  shape.insert(shape.begin(), static_cast<int64_t>(rows.size()));
  Tensor stacked = at::full(shape, fill, rows[0].options());
  for (size_t row = 0; row < rows.size(); ++row) {
    if (!rows[row].defined()) continue;
    stacked.select(0, static_cast<int64_t>(row)).narrow(0, 0, rows[row].size(0)).copy_(rows[row]);
  }
  return stacked;
}

Tensor AtenBackend::GatherRows(Context&, const Tensor& x, const Tensor& rows) const {
  return x.index_select(0, rows.clamp_min(0)).masked_fill(rows.lt(0).unsqueeze(1), 0);
}

Tensor AtenBackend::TakeRows(Context&, const Tensor& x, int64_t first, int64_t count) const {
  return x.narrow(0, first, count).clone(at::MemoryFormat::Contiguous);
}

Tensor AtenBackend::JoinRows(Context&, absl::Span<const Tensor> parts) const {
  return at::cat(at::ArrayRef<Tensor>(parts.data(), parts.size()), 0);
}

}  // namespace beamline::backend
