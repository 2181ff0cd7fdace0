// SPDX-License-Identifier: Apache-2.0
#include "backend/workspace.h"

#include <algorithm>
#include <bit>

#include <ATen/ops/empty.h>

#include "backend/room.h"

namespace beamline::backend {

int64_t Workspace::Capacity(int64_t elements) const {
  const int64_t least = std::max<int64_t>(elements, 64);
  return use_ == For::kLong ? RoomInFewSizes(least) : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(least)));
}

at::Tensor Workspace::Take(at::IntArrayRef shape, c10::ScalarType dtype) {
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  const int64_t capacity = Capacity(elements);
  Class& of_size = classes_[{dtype, capacity}];
  for (size_t i = 0; i < of_size.tensors.size(); ++i) {
    const size_t at = (of_size.next + i) % of_size.tensors.size();
    at::Tensor& tensor = of_size.tensors[at];
    if (tensor.use_count() == 1 && tensor.storage().use_count() == 1) {
      if (use_ == For::kLong) of_size.next = at + 1;
      tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
      return tensor;
    }
  }
  ++allocations_;
  at::Tensor tensor = allocate_ ? allocate_(capacity, dtype) : at::empty({capacity}, c10::TensorOptions().dtype(dtype));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  of_size.tensors.push_back(tensor);
  return tensor;
}

}  // namespace beamline::backend
