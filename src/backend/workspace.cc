// SPDX-License-Identifier: Apache-2.0
#include "backend/workspace.h"

#include <algorithm>
#include <bit>

#include <ATen/ops/empty.h>

namespace beamline::backend {

at::Tensor Workspace::Take(at::IntArrayRef shape, c10::ScalarType dtype) {
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  const auto capacity = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(elements, 64))));
  std::vector<at::Tensor>& tensors = tensors_[{dtype, capacity}];
  for (at::Tensor& tensor : tensors) {
    if (tensor.use_count() == 1 && tensor.storage().use_count() == 1) {
      tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
      return tensor;
    }
  }
  ++allocations_;
  at::Tensor tensor = allocate_ ? allocate_(capacity, dtype) : at::empty({capacity}, c10::TensorOptions().dtype(dtype));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  tensors.push_back(tensor);
  return tensor;
}

}  // namespace beamline::backend
