// SPDX-License-Identifier: Apache-2.0
#include "backend/workspace.h"

#include <algorithm>
#include <bit>

#include <ATen/ops/empty.h>

namespace beamline::backend {

at::Tensor Workspace::Take(at::IntArrayRef shape, c10::ScalarType dtype) {
  uint64_t elements = 1;
  for (const int64_t size : shape) elements *= static_cast<uint64_t>(size);
  const int size_class = std::bit_width(std::max<uint64_t>(elements, 64) - 1);
  std::vector<at::Tensor>& tensors = tensors_[{dtype, size_class}];
  for (at::Tensor& tensor : tensors) {
    if (tensor.use_count() == 1 && tensor.storage().use_count() == 1) {
      tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
      return tensor;
    }
  }
  ++allocations_;
  const int64_t capacity = int64_t{1} << size_class;
  at::Tensor tensor = allocate_ ? allocate_(capacity, dtype) : at::empty({capacity}, c10::TensorOptions().dtype(dtype));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  tensors.push_back(tensor);
  return tensor;
}

}  // namespace beamline::backend
