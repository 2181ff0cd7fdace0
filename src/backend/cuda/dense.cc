// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>

#include "backend/cuda/cuda_backend.h"
#include "beamline/kernels/activation_cuda.h"
#include "beamline/kernels/elementwise_cuda.h"
#include "beamline/kernels/head_product_cuda.h"
#include "beamline/kernels/moe_cuda.h"
#include "beamline/kernels/rms_norm_cuda.h"

namespace beamline::backend::cuda {
namespace {

std::optional<kernels::ActivationKind> ActivationKernel(Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return std::nullopt;
    case Activation::kRelu:
      return kernels::ActivationKind::kRelu;
    case Activation::kGelu:
      return kernels::ActivationKind::kGelu;
    case Activation::kGeluTanh:
      return kernels::ActivationKind::kGeluTanh;
    case Activation::kSilu:
      return kernels::ActivationKind::kSilu;
    case Activation::kLeakyRelu:
      return kernels::ActivationKind::kLeakyRelu;
  }
  return std::nullopt;
}

// What cuBLASLt computes on a product's way out.
std::optional<Epilogue> FusedActivation(Activation activation) {
  if (activation == Activation::kNone) return Epilogue::kNone;
  if (activation == Activation::kRelu) return Epilogue::kRelu;
  if (activation == Activation::kGeluTanh) return Epilogue::kGeluTanh;
  return std::nullopt;
}

ProductArrays RowsFrom(const ProductKind& kind, const ProductSteps& steps, ProductArrays arrays, int64_t first) {
  arrays.x = static_cast<const char*>(arrays.x) + first * steps.x * kernels::SizeOf(kind.type);
  arrays.out = static_cast<char*>(arrays.out) + first * steps.out * kernels::SizeOf(kind.out_type);
  if (arrays.row_scale != nullptr) arrays.row_scale += first;
  return arrays;
}

void CheckExperts(const MoeWeights& w) {
  TORCH_CHECK(w.bias.scalar_type() == c10::kFloat, "cuda: expert biases are fp32");
  TORCH_CHECK(w.gate.size(0) <= kernels::kMaxExperts && w.top_k <= kernels::kMaxExpertsPerRow, "cuda: ", w.gate.size(0),
              " experts of which a row takes ", w.top_k, "; at most ", kernels::kMaxExperts, " and ",
              kernels::kMaxExpertsPerRow);
}

int64_t LogitStep(int64_t vocab) { return (vocab + 7) / 8 * 8; }  // rows of logits are aligned

}  // namespace

void CudaBackend::Multiply(Context& ctx, const Rows& x, const ProductOptions& options, const Tensor& out) const {
  const Tensor& weight = options.weight;
  const int64_t n = weight.size(0), width = weight.size(1), k = options.columns == 0 ? width : options.columns;
  TORCH_CHECK(weight.scalar_type() == ctx.dtype && k % 8 == 0, "cuda: a weight of ", k,
              " columns; widths are multiples of 8");
  const ProductKind kind{.type = KernelType(ctx.dtype),
                         .out_type = KernelType(out.scalar_type()),
                         .n = n,
                         .k = k,
                         .epilogue = options.epilogue,
                         .bias = options.bias.defined(),
                         .add = options.add,
                         .alpha = options.alpha != 1,
                         .gate = options.gate};
  TORCH_CHECK(!kind.bias || options.bias.scalar_type() == out.scalar_type(), "cuda: a bias of another type");
  TORCH_CHECK(!kind.gate || (!kind.bias && !kind.add && options.out_step == 0 && kind.epilogue == Epilogue::kNone),
              "cuda: a gate and something else in one product");
  const ProductArrays arrays{.x = x.x,
                             .weight = static_cast<const char*>(weight.const_data_ptr()) +
                                       options.first_column * static_cast<int64_t>(weight.itemsize()),
                             .bias = kind.bias ? options.bias.const_data_ptr() : nullptr,
                             .ungated = kind.gate ? options.ungated.mutable_data_ptr() : nullptr,
                             .out = out.mutable_data_ptr(),
                             .alpha = options.alpha};
  const ProductSteps steps{x.step, width, options.out_step == 0 ? kind.columns() : options.out_step};
  Run(ctx, {kind, steps, x.count}, arrays);
}

void CudaBackend::Run(Context& ctx, const ProductShape& shape, const ProductArrays& arrays) const {
  const auto& [kind, steps, rows] = shape;
  CudaBatch& batch = BatchOf(ctx);
  Worker& worker = batch.worker();
  const LtWorkspace workspace{worker.lt_workspace.mutable_data_ptr(), worker.lt_workspace.nbytes()};
  const cudaStream_t stream = batch.stream();
  const int64_t most = algorithms_->MostRows(kind);
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t count = std::min(most, rows - first);
    const Algorithm algorithm = algorithms_->For(kind, count, workspace, stream);
    const ProductArrays part = RowsFrom(kind, steps, arrays, first);
    Check(worker.ProductFor(kind, steps, count).Run(part, algorithm, {handle_, workspace, stream}), "a product");
  }
}

Tensor CudaBackend::Activate(Context& ctx, const Tensor& x, Activation activation, bool gated) const {
  CudaBatch& batch = BatchOf(ctx);
  const std::optional<kernels::ActivationKind> kind = ActivationKernel(activation);
  TORCH_CHECK(kind, "cuda: a gate without an activation");
  const int64_t width = gated ? x.size(1) / 2 : x.size(1);
  Tensor y = gated ? batch.Take({x.size(0), width}, ctx.dtype) : x;
  Check(kernels::ActivationCuda({.type = KernelType(ctx.dtype),
                                 .kind = *kind,
                                 .gated = gated,
                                 .rows = x.size(0),
                                 .width = static_cast<int32_t>(width),
                                 .x = x.const_data_ptr(),
                                 .out = y.mutable_data_ptr()},
                                batch.stream()),
        "an activation");
  return y;
}

Tensor CudaBackend::Dense(Context& ctx, const Tensor& x, const DenseWeights& w, Activation activation) const {
  Tensor y = BatchOf(ctx).Take({x.size(0), w.weight.size(0)}, ctx.dtype);
  const std::optional<Epilogue> fused = FusedActivation(activation);
  Multiply(ctx, {x.const_data_ptr(), x.size(0), x.size(1)},
           {.weight = w.weight, .bias = w.bias, .epilogue = fused.value_or(Epilogue::kNone)}, y);
  return fused ? y : Activate(ctx, y, activation, /*gated=*/false);
}

Tensor CudaBackend::FeedForward(Context& ctx, const Tensor& x, const FeedForwardWeights& w) const {
  if (TakesFp8(ctx, w.up) && TakesFp8(ctx, w.down)) return FeedForwardFp8(ctx, x, w);
  const Tensor hidden = w.gated ? GatedProduct(ctx, x, w) : Dense(ctx, x, {.weight = w.up, .bias = {}}, w.activation);
  return LayerProduct(ctx, hidden, w.down);
}

Tensor CudaBackend::GatedProduct(Context& ctx, const Tensor& x, const FeedForwardWeights& w) const {
  if (TakesFp8(ctx, w.up)) return Activate(ctx, LayerProduct(ctx, x, w.up), w.activation, /*gated=*/true);
  const std::optional<kernels::ActivationKind> gate = ActivationKernel(w.activation);
  TORCH_CHECK(gate, "cuda: a gate without an activation");
  CudaBatch& batch = BatchOf(ctx);
  const int64_t n = w.up.size(0);
  Tensor y = batch.Take({x.size(0), n / 2}, ctx.dtype);
  Multiply(ctx, {x.const_data_ptr(), x.size(0), x.size(1)},
           {.weight = w.up, .gate = gate, .ungated = batch.Take({x.size(0), n}, ctx.dtype)}, y);
  return y;
}

// What the activation gives exists in FP8 alone.
Tensor CudaBackend::FeedForwardFp8(Context& ctx, const Tensor& x, const FeedForwardWeights& w) const {
  const std::optional<kernels::ActivationKind> kind = ActivationKernel(w.activation);
  TORCH_CHECK(kind, "cuda: a feed-forward layer without an activation");
  const int64_t rows = x.size(0), width = w.down.size(1);
  const Tensor both = LayerProduct(ctx, x, w.up);
  const Fp8Matrix hidden = NewRows(ctx, rows, width);
  Check(kernels::ActivationCuda({.type = KernelType(ctx.dtype),
                                 .kind = *kind,
                                 .gated = w.gated,
                                 .rows = rows,
                                 .width = static_cast<int32_t>(width),
                                 .x = both.const_data_ptr(),
                                 .quantized = hidden.values.mutable_data_ptr<uint8_t>(),
                                 .row_scale = hidden.scale.mutable_data_ptr<float>()},
                                BatchOf(ctx).stream()),
        "an activation");
  Tensor y = BatchOf(ctx).Take({rows, w.down.size(0)}, ctx.dtype);
  MultiplyFp8(ctx, hidden, w.down, y);
  return y;
}

Tensor CudaBackend::RmsNorm(Context& ctx, const Tensor& x, const Tensor& weight, double epsilon) const {
  CudaBatch& batch = BatchOf(ctx);
  const std::optional<CudaBatch::Sum> sum = batch.TakeSum(x);
  Tensor y = batch.Take(x.sizes(), ctx.dtype);
  kernels::RmsNormArgs args{.type = KernelType(ctx.dtype),
                            .rows = x.size(0),
                            .width = static_cast<int32_t>(x.size(1)),
                            .epsilon = static_cast<float>(epsilon),
                            .x = x.mutable_data_ptr(),
                            .weight = weight.const_data_ptr(),
                            .out = y.mutable_data_ptr()};
  if (sum) {
    args.sum = args.x;
    args.x = sum->x.mutable_data_ptr();
    args.delta = sum->delta.const_data_ptr();
  }
  if (fp8_.on() && !ctx.without_fp8 && x.size(1) % kFp8Width == 0) {
    const Fp8Matrix rows = NewRows(ctx, x.size(0), x.size(1));
    args.quantized = rows.values.mutable_data_ptr<uint8_t>();
    args.row_scale = rows.scale.mutable_data_ptr<float>();
    batch.KeepQuantized(y, rows);
  }
  Check(kernels::RmsNormCuda(args, batch.stream()), "a norm");
  return y;
}

Tensor CudaBackend::Residual(Context& ctx, const Tensor& x, const Tensor& delta) const {
  CudaBatch& batch = BatchOf(ctx);
  Tensor y = batch.Take(x.sizes(), ctx.dtype);
  TORCH_CHECK(x.numel() % 8 == 0 && x.sizes() == delta.sizes(), "cuda: a residual of ", x.sizes(), " and ",
              delta.sizes());
  batch.AddLater({y, x, delta});
  return y;
}

Tensor CudaBackend::Dropout(Context& ctx, const Tensor& x) const {
  BatchOf(ctx);  // refuses training
  return x;
}

Tensor CudaBackend::LevelHead(Context& ctx, const Tensor& x, const HeadWeights& head, const LevelRows& of) const {
  CudaBatch& batch = BatchOf(ctx);
  const int64_t rows = x.size(0) / of.levels, vocab = head.weight.size(0), step = LogitStep(vocab);
  batch.KeepParts({}, {});  // lets go of the last step's logits
  const Tensor logits = batch.Take({of.batch, rows / of.batch, step}, c10::kFloat);
  const Rows from{
      static_cast<const char*>(x.const_data_ptr()) + of.level * x.size(1) * static_cast<int64_t>(x.itemsize()), rows,
      of.levels * x.size(1)};
  Tensor columns = View(logits, 0, {of.batch, rows / of.batch, vocab}, c10::kFloat);
  const int64_t sizes[] = {of.batch, rows / of.batch, vocab}, strides[] = {rows / of.batch * step, step, 1};
  columns.unsafeGetTensorImpl()->set_sizes_and_strides(at::IntArrayRef(sizes), at::IntArrayRef(strides));
  // Of a group's shard, or of every level's rows at once, nobody selects.
  if (warpgroups_ && ctx.dtype != c10::kFloat && ctx.communicator == nullptr && of.levels == 1) {
    batch.KeepParts(columns, FusedHead(ctx, from, head, columns));
  } else {
    Multiply(ctx, from,
             {.weight = head.weight, .bias = head.bias, .alpha = static_cast<float>(head.scale), .out_step = step},
             logits);
  }
  return columns;
}

Tensor CudaBackend::FusedHead(Context& ctx, const Rows& x, const HeadWeights& head, const Tensor& logits) const {
  const int64_t vocab = head.weight.size(0), k = head.weight.size(1);
  TORCH_CHECK(head.weight.scalar_type() == ctx.dtype && k % 8 == 0, "cuda: a head of ", k,
              " columns; widths are multiples of 8");
  TORCH_CHECK(!head.bias.defined() || head.bias.scalar_type() == c10::kFloat, "cuda: a head's bias of another type");
  Tensor parts = BatchOf(ctx).Take({x.count, kernels::RowParts(static_cast<int32_t>(vocab)), 2}, c10::kFloat);
  Check(kernels::HeadProductCuda({.type = KernelType(ctx.dtype),
                                  .rows = static_cast<int32_t>(x.count),
                                  .vocab = static_cast<int32_t>(vocab),
                                  .k = static_cast<int32_t>(k),
                                  .x = x.x,
                                  .x_step = x.step,
                                  .weight = head.weight.const_data_ptr(),
                                  .bias = head.bias.defined() ? head.bias.const_data_ptr<float>() : nullptr,
                                  .scale = static_cast<float>(head.scale),
                                  .logits = logits.mutable_data_ptr<float>(),
                                  .ld = logits.stride(1),
                                  .parts = reinterpret_cast<kernels::RowPart*>(parts.mutable_data_ptr())},
                                 BatchOf(ctx).stream()),
        "a head");
  return parts;
}

Tensor CudaBackend::GatedFusion(Context& ctx, const Tensor& trunk, const Tensor& code, const DenseWeights& gate) const {
  CudaBatch& batch = BatchOf(ctx);
  const int64_t rows = trunk.size(0), d = trunk.size(1);
  const Tensor opened = batch.Take({rows, d}, c10::kFloat);
  Multiply(ctx, {trunk.const_data_ptr(), rows, d}, {.weight = gate.weight, .columns = d}, opened);
  Multiply(ctx, {code.const_data_ptr(), rows, d}, {.weight = gate.weight, .add = true, .first_column = d, .columns = d},
           opened);
  Tensor y = batch.Take(trunk.sizes(), ctx.dtype);
  Check(kernels::GatedSumCuda({.type = KernelType(ctx.dtype),
                               .rows = rows,
                               .width = static_cast<int32_t>(d),
                               .trunk = trunk.const_data_ptr(),
                               .gate = opened.const_data_ptr<float>(),
                               .bias = gate.bias.defined() ? gate.bias.const_data_ptr() : nullptr,
                               .code = code.const_data_ptr(),
                               .out = y.mutable_data_ptr()},
                              batch.stream()),
        "the fusion of trunk and code");
  return y;
}

// Route, group by expert, two grouped products around the activation, combine with the shared experts' result.
Tensor CudaBackend::MoeFeedForward(Context& ctx, const Tensor& x, const MoeWeights& w) const {
  CudaBatch& batch = BatchOf(ctx);
  const kernels::DataType type = KernelType(ctx.dtype);
  const int64_t rows = x.size(0), d = x.size(1), width = w.down.size(2), entries = rows * w.top_k;
  const int32_t experts = static_cast<int32_t>(w.gate.size(0));
  CheckExperts(w);
  const Tensor expert = batch.Take({entries}, c10::kInt), weight = batch.Take({entries}, c10::kFloat);
  Check(kernels::MoeRouteCuda({.type = type,
                               .rows = static_cast<int32_t>(rows),
                               .width = static_cast<int32_t>(d),
                               .experts = experts,
                               .top_k = w.top_k,
                               .x = x.const_data_ptr(),
                               .gate = w.gate.const_data_ptr(),
                               .bias = w.bias.const_data_ptr<float>(),
                               .expert = expert.mutable_data_ptr<int32_t>(),
                               .weight = weight.mutable_data_ptr<float>()},
                              batch.stream()),
        "routing to experts");
  const Tensor begin = batch.Take({experts + 1}, c10::kInt), entry = batch.Take({entries}, c10::kInt),
               place = batch.Take({entries}, c10::kInt);
  Check(kernels::MoeGroupCuda({.entries = static_cast<int32_t>(entries),
                               .experts = experts,
                               .expert = expert.const_data_ptr<int32_t>(),
                               .begin = begin.mutable_data_ptr<int32_t>(),
                               .entry = entry.mutable_data_ptr<int32_t>(),
                               .place = place.mutable_data_ptr<int32_t>()},
                              batch.stream()),
        "grouping by expert");
  kernels::GroupedProductArgs product{.type = type,
                                      .entries = static_cast<int32_t>(entries),
                                      .experts = experts,
                                      .n = static_cast<int32_t>(2 * width),
                                      .k = static_cast<int32_t>(d),
                                      .begin = begin.const_data_ptr<int32_t>(),
                                      .entry = entry.const_data_ptr<int32_t>(),
                                      .divisor = w.top_k,
                                      .x = x.const_data_ptr(),
                                      .weight = w.up.const_data_ptr(),
                                      .warpgroups = warpgroups_};
  const bool gated = warpgroups_ && ctx.dtype != c10::kFloat;  // by the product itself
  Tensor hidden = batch.Take({entries, gated ? width : 2 * width}, ctx.dtype);
  product.out = hidden.mutable_data_ptr();
  product.gated = gated;
  Check(kernels::GroupedProductCuda(product, batch.stream()), "the experts' first product");
  if (!gated) hidden = Activate(ctx, hidden, Activation::kSilu, /*gated=*/true);
  const Tensor results = batch.Take({entries, d}, ctx.dtype);
  product.n = static_cast<int32_t>(d);
  product.k = static_cast<int32_t>(width);
  product.entry = nullptr;
  product.divisor = 1;
  product.gated = false;
  product.x = hidden.const_data_ptr();
  product.weight = w.down.const_data_ptr();
  product.out = results.mutable_data_ptr();
  Check(kernels::GroupedProductCuda(product, batch.stream()), "the experts' second product");
  Tensor shared;
  if (w.shared_up.defined()) {
    shared = FeedForward(ctx, x, {.up = w.shared_up, .down = w.shared_down});
  }
  Tensor y = batch.Take(x.sizes(), ctx.dtype);
  Check(kernels::MoeCombineCuda({.type = type,
                                 .rows = static_cast<int32_t>(rows),
                                 .width = static_cast<int32_t>(d),
                                 .top_k = w.top_k,
                                 .y = results.const_data_ptr(),
                                 .place = place.const_data_ptr<int32_t>(),
                                 .weight = weight.const_data_ptr<float>(),
                                 .shared = shared.defined() ? shared.const_data_ptr() : nullptr,
                                 .out = y.mutable_data_ptr()},
                                batch.stream()),
        "combining experts");
  if (ctx.expert_loads != nullptr) {
    const std::vector<int32_t> begins = DownloadInts(ctx, begin);
    std::vector<int64_t> tokens(experts);
    for (int32_t e = 0; e < experts; ++e) tokens[e] = begins[e + 1] - begins[e];
    ctx.expert_loads->push_back({w.layer, std::move(tokens)});
  }
  return y;
}

}  // namespace beamline::backend::cuda
