// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include <ATen/ops/empty.h>

#include "backend/aten/aten_backend.h"

namespace beamline::backend {
namespace {

// To a GPU from pinned memory, which ATen keeps until the copy is done: the host goes on.
template <typename T>
Tensor Upload(const Context& ctx, absl::Span<const T> values, absl::Span<const int64_t> shape, c10::ScalarType dtype) {
  const auto options = c10::TensorOptions().dtype(dtype).pinned_memory(ctx.device.is_cuda());
  Tensor tensor = at::empty(at::IntArrayRef(shape.data(), shape.size()), options);
  TORCH_CHECK(tensor.numel() == static_cast<int64_t>(values.size()), "upload: shape holds ", tensor.numel(),
              " values, given ", values.size());
  if (!values.empty()) std::memcpy(tensor.data_ptr(), values.data(), values.size() * sizeof(T));
  return tensor.to(ctx.device, dtype, /*non_blocking=*/true);
}

template <typename T>
std::vector<T> Download(const Tensor& tensor, c10::ScalarType dtype) {
  const Tensor host = tensor.detach().to(c10::kCPU, dtype).contiguous();
  const T* data = host.const_data_ptr<T>();
  return std::vector<T>(data, data + host.numel());
}

}  // namespace

Tensor AtenBackend::UploadInts(Context& ctx, absl::Span<const int32_t> values, absl::Span<const int64_t> shape) const {
  return Upload(ctx, values, shape, c10::kInt);
}

Tensor AtenBackend::UploadFloats(Context& ctx, absl::Span<const float> values, absl::Span<const int64_t> shape) const {
  return Upload(ctx, values, shape, c10::kFloat);
}

Tensor AtenBackend::UploadWeight(Context& ctx, absl::Span<const float> values, absl::Span<const int64_t> shape) const {
  return Upload(ctx, values, shape, c10::kFloat).to(ctx.dtype);
}

std::vector<int32_t> AtenBackend::DownloadInts(Context& ctx, const Tensor& ints) const {
  return Download<int32_t>(ints, c10::kInt);
}

std::vector<float> AtenBackend::DownloadFloats(Context& ctx, const Tensor& floats) const {
  return Download<float>(floats, c10::kFloat);
}

}  // namespace beamline::backend
