// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/packed_weights.h"

#include <mutex>
#include <utility>

#include <ATen/ops/empty.h>

namespace beamline::backend {
namespace {

std::shared_ptr<const PackedWeight> Pack(const at::Tensor& weight, const PackedWeights::Slice& slice) {
  auto packed = std::make_shared<PackedWeight>();
  packed->gemm = &kernels::BestGemm(slice.precision);
  packed->k = weight.size(-1);
  packed->gated = slice.gated;
  packed->n = slice.gated ? slice.rows / 2 : slice.rows;
  TORCH_CHECK(slice.precision != kernels::Precision::kInt8 || packed->k <= kernels::kMaxInt8Depth, "a weight of ",
              packed->k, " columns in int8; at most ", kernels::kMaxInt8Depth);
  packed->panels = at::empty({packed->gemm->packed_bytes({packed->n, packed->k, slice.gated})},
                             c10::TensorOptions().dtype(c10::kByte));
  packed->gemm->pack(weight.const_data_ptr<float>() + slice.first * packed->k, {packed->n, packed->k, slice.gated},
                     packed->panels.mutable_data_ptr());
  return packed;
}

template <typename Entries>
void EraseExpired(Entries& entries) {
  absl::erase_if(entries, [](const auto& entry) { return entry.second.source.expired(); });
}

}  // namespace

void PackedWeight::Run(kernels::GemmArgs args) const {
  args.k = k;
  args.b = panels.const_data_ptr();
  args.gated = gated;
  args.n = n;
  if (args.panel_end == 0) args.panel_end = kernels::PanelCount(n);
  gemm->run(args);
}

std::shared_ptr<const PackedWeight> PackedWeights::Get(const at::Tensor& weight, const Slice& slice) {
  TORCH_CHECK(weight.scalar_type() == c10::kFloat && weight.is_contiguous(),
              "the cpu backend takes contiguous fp32 weights");
  const c10::Storage& storage = weight.storage();
  const Key key{storage.unsafeGetStorageImpl(), weight.storage_offset() + slice.first * weight.size(-1), slice.rows,
                slice.gated, slice.precision};
  {
    const std::shared_lock<std::shared_mutex> lock(mu_);
    if (const auto found = entries_.find(key); found != entries_.end()) return found->second.packed;
  }
  std::shared_ptr<const PackedWeight> packed = Pack(weight, slice);
  const std::unique_lock<std::shared_mutex> lock(mu_);
  EraseExpired(entries_);
  return entries_.try_emplace(key, Entry{storage.getWeakStorageImpl(), std::move(packed)}).first->second.packed;
}

void PackedWeights::ReleaseUnused() {
  const std::unique_lock<std::shared_mutex> lock(mu_);
  EraseExpired(entries_);
}

int64_t PackedWeights::size() const {
  const std::shared_lock<std::shared_mutex> lock(mu_);
  return static_cast<int64_t>(entries_.size());
}

int64_t PackedWeights::bytes() const {
  const std::shared_lock<std::shared_mutex> lock(mu_);
  int64_t bytes = 0;
  for (const auto& [key, entry] : entries_) bytes += static_cast<int64_t>(entry.packed->panels.nbytes());
  return bytes;
}

}  // namespace beamline::backend
