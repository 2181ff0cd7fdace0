// SPDX-License-Identifier: Apache-2.0
//
// Storage for what ops return during one batch: after the first batch of a shape, no op takes storage from the heap
// (the headers of views are the heap's). A tensor that was taken is free again when nobody but the workspace holds it
// or a view of it, so storage is reused while it is still in the cache; what is kept longer (a cached context) is
// reused once it was let go of. One thread takes at a time; tensors may be let go of in any thread, and may outlive the
// workspace.
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

  enum class For {
    kBatch,  // storage in powers of two; the first free tensor is taken, which is still in the cache
    kLong,   // less than a quarter more than asked for; thousands are held, the oldest of which are let go of first
  };

  Workspace() = default;  // of CPU tensors
  explicit Workspace(Allocate allocate, For use = For::kBatch) : allocate_(std::move(allocate)), use_(use) {}

  // A contiguous tensor of undefined values.
  at::Tensor Take(at::IntArrayRef shape, c10::ScalarType dtype = c10::kFloat);

  // Tensors made so far: constant once every shape in use was seen.
  int64_t allocations() const { return allocations_; }

 private:
  struct Class {
    std::vector<at::Tensor> tensors;
    size_t next = 0;  // where to look first
  };
  int64_t Capacity(int64_t elements) const;

  Allocate allocate_;
  For use_ = For::kBatch;
  std::map<std::pair<c10::ScalarType, int64_t>, Class> classes_;  // by capacity in elements
  int64_t allocations_ = 0;
};

}  // namespace beamline::backend
