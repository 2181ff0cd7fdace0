// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/packed_weights.h"

#include <mutex>
#include <utility>

#include <ATen/ops/empty.h>

namespace beamline::backend {
namespace {

std::shared_ptr<const PackedWeight> Pack(const at::Tensor& weight, const PackedWeights::Slice& slice) {
  auto packed = std::make_shared<PackedWeight>();
  packed->k = weight.size(-1);
  packed->gated = slice.gated;
  packed->n = slice.gated ? slice.rows / 2 : slice.rows;
  const int64_t floats = kernels::PackedFloats(packed->n, packed->k) * (slice.gated ? 2 : 1);
  packed->panels = at::empty({floats}, c10::TensorOptions().dtype(c10::kFloat));
  const float* from = weight.const_data_ptr<float>() + slice.first * packed->k;
  float* to = packed->panels.mutable_data_ptr<float>();
  if (slice.gated) {
    kernels::PackGatedWeight(from, packed->n, packed->k, to);
  } else {
    kernels::PackWeight(from, packed->n, packed->k, to);
  }
  return packed;
}

}  // namespace

std::shared_ptr<const PackedWeight> PackedWeights::Get(const at::Tensor& weight, const Slice& slice) {
  TORCH_CHECK(weight.scalar_type() == c10::kFloat && weight.is_contiguous(),
              "the cpu backend takes contiguous fp32 weights");
  const c10::Storage& storage = weight.storage();
  const Key key{storage.unsafeGetStorageImpl(), weight.storage_offset() + slice.first * weight.size(-1), slice.rows,
                slice.gated};
  {
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    if (const auto found = entries_.find(key); found != entries_.end()) return found->second.packed;
  }
  std::shared_ptr<const PackedWeight> packed = Pack(weight, slice);
  const std::unique_lock<std::shared_mutex> lock(mutex_);
  absl::erase_if(entries_, [](const auto& entry) { return entry.second.source.expired(); });
  return entries_.try_emplace(key, Entry{storage.getWeakStorageImpl(), std::move(packed)}).first->second.packed;
}

int64_t PackedWeights::size() const {
  const std::shared_lock<std::shared_mutex> lock(mutex_);
  return static_cast<int64_t>(entries_.size());
}

}  // namespace beamline::backend
