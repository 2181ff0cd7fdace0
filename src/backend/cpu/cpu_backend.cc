// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <utility>

#include <ATen/ops/empty.h>

#include "backend/cpu/resources.h"

namespace beamline::backend {
namespace {

constexpr double kFlopsPerPart = 3e6;  // what is worth waking another core for

}  // namespace

std::unique_ptr<Workspace> WorkspacePool::Take() {
  const std::lock_guard<std::mutex> lock(mu_);
  if (free_.empty()) return std::make_unique<Workspace>();
  std::unique_ptr<Workspace> workspace = std::move(free_.back());
  free_.pop_back();
  return workspace;
}

void WorkspacePool::Give(std::unique_ptr<Workspace> workspace) {
  const std::lock_guard<std::mutex> lock(mu_);
  free_.push_back(std::move(workspace));
}

Tensor Take(Context& ctx, at::IntArrayRef shape, c10::ScalarType dtype) {
  TORCH_CHECK(!ctx.training, "the cpu backend does not train: use aten");
  if (ctx.resources == nullptr) return at::empty(shape, c10::TensorOptions().dtype(dtype));
  return static_cast<CpuResources&>(*ctx.resources).workspace().Take(shape, dtype);
}

CpuBackend::CpuBackend(kernels::Precision precision)
    : precision_(precision), team_(std::make_shared<WorkerTeam>(1)), workspaces_(std::make_shared<WorkspacePool>()) {}

void CpuBackend::SetTeam(std::shared_ptr<WorkerTeam> team) {
  const std::lock_guard<std::mutex> lock(mu_);
  team_ = std::move(team);
}

ModelLimits CpuBackend::GetModelLimits() const {
  return precision_ == kernels::Precision::kInt8 ? Int8ModelLimits() : ModelLimits{};
}

int64_t CpuBackend::PackedWeightBytes() const {
  switch (precision_) {
    case kernels::Precision::kFp32:
      return 4;
    case kernels::Precision::kBf16:
      return 2;
    case kernels::Precision::kInt8:
      return 1;
  }
  return 4;
}

std::shared_ptr<BatchResources> CpuBackend::BeginBatch(const std::shared_ptr<BatchWorkers>&) const {
  const std::lock_guard<std::mutex> lock(mu_);
  return std::make_shared<CpuResources>(team_, workspaces_);
}

CpuBackend::Packed CpuBackend::Pack(const Tensor& weight, bool gated) const {
  return PackRows(weight, 0, weight.numel() / weight.size(-1), gated);
}

CpuBackend::Packed CpuBackend::PackRows(const Tensor& weight, int64_t first, int64_t rows, bool gated) const {
  return packed_.Get(weight, {first, rows, gated, precision_});
}

void CpuBackend::ForRowBlocks(Context& ctx, const RowLoop& loop,
                              absl::FunctionRef<void(int64_t, int64_t, float*)> f) const {
  int parts = 1;
  WorkerTeam* team = nullptr;
  if (ctx.resources != nullptr) {
    team = &static_cast<CpuResources&>(*ctx.resources).team();
    const double worth = loop.flops_per_row * static_cast<double>(loop.rows) / kFlopsPerPart;
    parts = static_cast<int>(std::clamp<double>(std::min<double>(worth, static_cast<double>(loop.rows)), 1,
                                                static_cast<double>(team->Share())));
  }
  const int64_t stride = (loop.scratch_floats + 15) / 16 * 16;
  const Tensor scratch = Take(ctx, {parts * std::max<int64_t>(stride, 1)});
  float* const first_scratch = scratch.mutable_data_ptr<float>();
  const auto part = [&](int i) {
    const int64_t begin = loop.rows * i / parts, end = loop.rows * (i + 1) / parts;
    // Blocks of one part are as equal as can be.
    const int64_t blocks = (end - begin + loop.block - 1) / loop.block;
    for (int64_t block = 0; block < blocks; ++block) {
      f(begin + (end - begin) * block / blocks, begin + (end - begin) * (block + 1) / blocks,
        first_scratch + i * stride);
    }
  };
  if (team == nullptr) return part(0);
  team->Run(parts, part);
}

Tensor CpuBackend::UploadInts(Context& ctx, absl::Span<const int32_t> values, absl::Span<const int64_t> shape) const {
  Tensor ints = Take(ctx, at::IntArrayRef(shape.data(), shape.size()), c10::kInt);
  TORCH_CHECK(ints.numel() == static_cast<int64_t>(values.size()), "upload: shape holds ", ints.numel(),
              " values, given ", values.size());
  std::copy(values.begin(), values.end(), ints.mutable_data_ptr<int32_t>());
  return ints;
}

}  // namespace beamline::backend
