// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "backend/cuda/cuda_backend.h"
#include "beamline/kernels/state_cuda.h"

namespace beamline::backend::cuda {
namespace {

// Four bytes of `fill` in a type.
uint32_t FillBits(int32_t fill, c10::ScalarType dtype) {
  uint32_t bits = 0;
  const auto twice = [&](auto value) {
    uint16_t half;
    std::memcpy(&half, &value, sizeof(half));
    bits = static_cast<uint32_t>(half) << 16 | half;
  };
  const float value = static_cast<float>(fill);
  switch (dtype) {
    case c10::kInt:
      std::memcpy(&bits, &fill, sizeof(bits));
      break;
    case c10::kBFloat16:
      twice(c10::BFloat16(value));
      break;
    case c10::kHalf:
      twice(c10::Half(value));
      break;
    default:
      std::memcpy(&bits, &value, sizeof(bits));
  }
  return bits;
}

}  // namespace

Tensor CudaBackend::ExtendLineage(Context& ctx, const Tensor& lineage, const Tensor& parents) const {
  CudaBatch& batch = BatchOf(ctx);
  const int64_t requests = parents.size(0), rows = parents.size(1), steps = lineage.defined() ? lineage.size(2) : 0;
  Tensor extended = batch.Take({requests, rows, steps + 1}, c10::kInt);
  Check(kernels::ExtendLineageCuda({.requests = static_cast<int32_t>(requests),
                                    .rows = static_cast<int32_t>(rows),
                                    // The first parents are the requests' own rows.
                                    .parent_rows = steps == 0 ? 1 : static_cast<int32_t>(lineage.size(1)),
                                    .steps = static_cast<int32_t>(steps),
                                    .lineage = steps == 0 ? nullptr : lineage.const_data_ptr<int32_t>(),
                                    .parents = parents.const_data_ptr<int32_t>(),
                                    .out = extended.mutable_data_ptr<int32_t>()},
                                   batch.stream()),
        "a lineage");
  return extended;
}

// Kept by the context cache, hence not from the batch's storage. An order that this batch uploaded is known here, so
// nothing is waited for. All layers of a request leave by one launch: one for each would be a request's whole way from
// its encode to its search.
std::vector<Tensor> CudaBackend::TakeAllVisible(Context& ctx, absl::Span<const Tensor> xs, const Tensor& order,
                                                int64_t row) const {
  CudaBatch& batch = BatchOf(ctx);
  const int64_t tokens = order.size(1);
  const Tensor own = View(order, row * tokens * 4, {tokens}, c10::kInt);
  std::vector<int32_t> brought;
  const auto* orders = static_cast<const int32_t*>(batch.HostCopy(own));
  if (orders == nullptr) {
    brought = DownloadInts(ctx, own);
    orders = brought.data();
  }
  const int64_t count =
      std::count_if(orders, orders + tokens, [](int32_t of_token) { return of_token != kPaddingOrder; });
  std::vector<Tensor> visible;
  visible.reserve(xs.size());
  for (const Tensor& x : xs) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape.erase(shape.begin());
    shape[0] = count;
    visible.push_back(kept_.Take(shape, x.scalar_type()));
    batch.Hold(visible.back());
  }
  if (count == 0) return visible;
  const cudaStream_t stream = batch.stream();
  for (size_t first = 0; first < xs.size(); first += kernels::kMaxTaken) {
    kernels::TakeVisibleArgs args;
    args.tokens = static_cast<int32_t>(tokens);
    args.order = own.const_data_ptr<int32_t>();
    args.count = static_cast<int32_t>(std::min<size_t>(kernels::kMaxTaken, xs.size() - first));
    for (int32_t i = 0; i < args.count; ++i) {
      const Tensor& x = xs[first + i];
      args.row_bytes[i] = static_cast<int64_t>(x.nbytes()) / (x.size(0) * tokens);
      args.x[i] = static_cast<const char*>(x.const_data_ptr()) + row * tokens * args.row_bytes[i];
      args.out[i] = visible[first + i].mutable_data_ptr();
    }
    Check(kernels::TakeVisibleCuda(args, stream), "taking a context out of a batch");
  }
  return visible;
}

Tensor CudaBackend::TakeVisible(Context& ctx, const Tensor& x, const Tensor& order, int64_t row) const {
  return TakeAllVisible(ctx, {x}, order, row)[0];
}

Tensor CudaBackend::StackPadded(Context& ctx, absl::Span<const Tensor> rows, int64_t capacity, int32_t fill) const {
  CudaBatch& batch = BatchOf(ctx);
  std::vector<int64_t> shape = rows[0].sizes().vec();
  int64_t row_bytes = static_cast<int64_t>(rows[0].itemsize());
  for (size_t dim = 1; dim < shape.size(); ++dim) row_bytes *= shape[dim];
  shape[0] = capacity;
  shape.insert(shape.begin(), static_cast<int64_t>(rows.size()));
  Tensor stacked = batch.Take(shape, rows[0].scalar_type());
  const cudaStream_t stream = batch.stream();
  for (size_t first = 0; first < rows.size(); first += kernels::kMaxStacked) {
    kernels::StackRowsArgs args;
    args.requests = static_cast<int32_t>(std::min<size_t>(kernels::kMaxStacked, rows.size() - first));
    args.capacity = static_cast<int32_t>(capacity);
    args.row_bytes = row_bytes;
    args.fill = FillBits(fill, rows[0].scalar_type());
    for (int32_t i = 0; i < args.requests; ++i) {
      if (!rows[first + i].defined()) continue;
      args.rows[i] = rows[first + i].const_data_ptr();
      args.count[i] = static_cast<int32_t>(rows[first + i].size(0));
    }
    args.out = static_cast<char*>(stacked.mutable_data_ptr()) + static_cast<int64_t>(first) * capacity * row_bytes;
    Check(kernels::StackRowsCuda(args, stream), "stacking contexts");
  }
  return stacked;
}

// By one launch, as one stack of all.
std::vector<Tensor> CudaBackend::StackAllPadded(Context& ctx, absl::Span<const Tensor> rows, int64_t stacks,
                                                int64_t capacity) const {
  const Tensor all = StackPadded(ctx, rows, capacity, 0);
  std::vector<int64_t> shape = all.sizes().vec();
  shape[0] /= stacks;
  const int64_t bytes = static_cast<int64_t>(all.nbytes()) / stacks;
  std::vector<Tensor> stacked;
  stacked.reserve(static_cast<size_t>(stacks));
  for (int64_t i = 0; i < stacks; ++i) stacked.push_back(View(all, i * bytes, shape, all.scalar_type()));
  return stacked;
}

}  // namespace beamline::backend::cuda
