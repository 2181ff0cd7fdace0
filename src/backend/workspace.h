// SPDX-License-Identifier: Apache-2.0
//
// Storage for what ops return during one batch: after the first batch of a shape, no op takes storage from the heap
// (the headers of views are the heap's). A tensor that was taken is free again when nobody but the workspace holds it
// or a view of it, so storage is reused while it is still in the cache. Storage comes in powers of two. One thread
// takes at a time; tensors may be let go of in any thread, and may outlive the workspace.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace beamline::backend {

class Workspace {
 public:
  // Makes a contiguous tensor of that many elements.
  using Allocate = std::function<at::Tensor(int64_t elements, c10::ScalarType dtype)>;

  Workspace() = default;  // of CPU tensors
  explicit Workspace(Allocate allocate) : allocate_(std::move(allocate)) {}

  // A contiguous tensor of undefined values.
  at::Tensor Take(at::IntArrayRef shape, c10::ScalarType dtype = c10::kFloat);

  // Tensors made so far: constant once every shape in use was seen.
  int64_t allocations() const { return allocations_; }

 private:
  Allocate allocate_;
  std::map<std::pair<c10::ScalarType, int64_t>, std::vector<at::Tensor>> tensors_;  // by capacity in elements
  int64_t allocations_ = 0;
};

}  // namespace beamline::backend
