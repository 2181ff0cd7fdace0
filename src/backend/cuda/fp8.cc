// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/fp8.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backend/cuda/cuda_backend.h"
#include "beamline/kernels/quantize_cuda.h"

namespace beamline::backend::cuda {

absl::StatusOr<Fp8Scaling> Fp8ScalingOf(int major, int minor, absl::string_view device) {
  if (major < 8 || (major == 8 && minor < 9)) {
    return absl::FailedPreconditionError(
        absl::StrCat("dtype: fp8 and fp8_mixed need a device of compute capability 8.9, and ", device, " has ", major,
                     ".", minor, "; use bf16 or fp16"));
  }
  return major == 9 ? Fp8Scaling::kInProduct : Fp8Scaling::kAfter;  // cuBLASLt has vectors of scales for Hopper alone
}

void QuantizeTo(CudaBatch& batch, const Fp8Source& source, const Fp8Matrix& to) {
  Check(kernels::QuantizeRowsCuda({.type = KernelType(source.dtype),
                                   .rows = source.rows,
                                   .width = static_cast<int32_t>(source.columns),
                                   .x_step = source.step,
                                   .x = source.x,
                                   .quantized = to.values.mutable_data_ptr<uint8_t>(),
                                   .row_scale = to.scale.mutable_data_ptr<float>()},
                                  batch.stream()),
        "quantising rows");
}

std::shared_ptr<Fp8Weights::Entry> Fp8Weights::Find(const at::Tensor& weight) {
  std::shared_ptr<Entry> let_go;  // as below
  const std::lock_guard<std::mutex> lock(mu_);
  std::shared_ptr<Entry>& entry = entries_[weight.const_data_ptr()];
  if (entry == nullptr || entry->source.expired()) let_go = std::exchange(entry, std::make_shared<Entry>(weight));
  return entry;
}

Fp8Matrix Fp8Weights::Get(CudaBatch& batch, const at::Tensor& weight) {
  const std::shared_ptr<Entry> entry = Find(weight);
  const std::lock_guard<std::mutex> lock(entry->mu);
  if (entry->matrix.values.defined()) return entry->matrix;
  ReleaseUnused();  // before more is taken
  TORCH_CHECK(weight.dim() == 2 && weight.is_contiguous(), "cuda: a weight to quantise is a dense matrix");
  const int64_t rows = weight.size(0), columns = weight.size(1);
  const c10::Device where = batch.worker().device;
  const Fp8Matrix made{NewTensor(where, {rows, columns}, c10::kByte), NewTensor(where, {rows}, c10::kFloat)};
  QuantizeTo(batch, {weight.const_data_ptr(), rows, columns, columns, weight.scalar_type()}, made);
  Check(cudaStreamSynchronize(batch.stream()), "quantising a weight");  // other streams read it
  return entry->matrix = made;
}

void Fp8Weights::ReleaseUnused() {
  std::vector<std::shared_ptr<Entry>> unused;  // freed, which waits for the device, when nobody waits for the lock
  const std::lock_guard<std::mutex> lock(mu_);
  absl::erase_if(entries_, [&](const auto& entry) {
    if (entry.second->source.expired()) unused.push_back(entry.second);
    return entry.second->source.expired();
  });
}

int64_t Fp8Weights::size() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return static_cast<int64_t>(entries_.size());
}

bool CudaBackend::TakesFp8(const Context& ctx, const Tensor& weight) const {
  return fp8_.on() && !ctx.without_fp8 && weight.size(0) % kFp8Width == 0 && weight.size(1) % kFp8Width == 0;
}

Fp8Matrix CudaBackend::NewRows(Context& ctx, int64_t rows, int64_t columns) const {
  CudaBatch& batch = BatchOf(ctx);
  return {batch.Take({rows, columns}, c10::kByte), batch.Take({rows}, c10::kFloat)};
}

void CudaBackend::LayerProduct(Context& ctx, const Rows& x, const Tensor& weight, const Tensor& out) const {
  if (!TakesFp8(ctx, weight)) return Multiply(ctx, x, {.weight = weight}, out);
  CudaBatch& batch = BatchOf(ctx);
  const int64_t columns = weight.size(1);
  if (x.step == columns) {
    if (const Fp8Matrix* of_norm = batch.QuantizedRows(x.x, x.count); of_norm != nullptr) {
      return MultiplyFp8(ctx, *of_norm, weight, out);
    }
  }
  const Fp8Matrix rows = NewRows(ctx, x.count, columns);
  QuantizeTo(batch, {x.x, x.count, columns, x.step, ctx.dtype}, rows);
  MultiplyFp8(ctx, rows, weight, out);
}

void CudaBackend::SelfProduct(Context& ctx, const Rows& x, const Tensor& weight, const Tensor& out) const {
  if (fp8_.products == Fp8Products::kAllButSelfAttention) return Multiply(ctx, x, {.weight = weight}, out);
  LayerProduct(ctx, x, weight, out);
}

Tensor CudaBackend::LayerProduct(Context& ctx, const Tensor& x, const Tensor& weight) const {
  Tensor y = BatchOf(ctx).Take({x.size(0), weight.size(0)}, ctx.dtype);
  LayerProduct(ctx, {x.const_data_ptr(), x.size(0), x.size(1)}, weight, y);
  return y;
}

void CudaBackend::MultiplyFp8(Context& ctx, const Fp8Matrix& x, const Tensor& weight, const Tensor& out) const {
  CudaBatch& batch = BatchOf(ctx);
  const Fp8Matrix narrow = fp8_weights_.Get(batch, weight);
  const int64_t rows = x.values.size(0), n = weight.size(0), k = weight.size(1);
  const bool in_product = fp8_.scaling == Fp8Scaling::kInProduct;
  const Tensor product = in_product ? out : batch.Take({rows, n}, c10::kFloat);
  const ProductKind kind{.type = kernels::DataType::kE4M3,
                         .out_type = KernelType(product.scalar_type()),
                         .n = n,
                         .k = k,
                         .scaled = in_product};
  Run(ctx, {kind, {k, k, n}, rows},
      {.x = x.values.const_data_ptr(),
       .weight = narrow.values.const_data_ptr(),
       .row_scale = x.scale.const_data_ptr<float>(),
       .column_scale = narrow.scale.const_data_ptr<float>(),
       .out = product.mutable_data_ptr()});
  if (in_product) return;
  Check(kernels::ScaleProductCuda({.type = KernelType(ctx.dtype),
                                   .rows = rows,
                                   .width = static_cast<int32_t>(n),
                                   .x = product.const_data_ptr<float>(),
                                   .row_scale = x.scale.const_data_ptr<float>(),
                                   .column_scale = narrow.scale.const_data_ptr<float>(),
                                   .out_step = n,
                                   .out = out.mutable_data_ptr()},
                                  batch.stream()),
        "scaling a product");
}

}  // namespace beamline::backend::cuda
