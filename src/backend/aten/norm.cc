// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "backend/aten/aten_backend.h"

namespace beamline::backend {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// ATen's rms_norm runs as a dozen elementwise passes on the CPU, a fifth of a training step; these are two.
constexpr int64_t kRowsPerTask = 256;

struct Rows {
  int64_t count, d;
};

struct ForwardArgs {
  const float *x, *weight;
  double epsilon;
  float *y, *inverse_rms;
};

void Forward(Rows rows, const ForwardArgs& args) {
  at::parallel_for(0, rows.count, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* in = args.x + row * rows.d;
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < rows.d; ++i) sum += in[i] * in[i];
      const float scale = static_cast<float>(1 / std::sqrt(double{sum} / static_cast<double>(rows.d) + args.epsilon));
      args.inverse_rms[row] = scale;
      for (int64_t i = 0; i < rows.d; ++i) args.y[row * rows.d + i] = in[i] * scale * args.weight[i];
    }
  });
}

struct BackwardArgs {
  const float *x, *weight, *inverse_rms, *grad_y;
  float *grad_x, *grad_weight;  // grad_weight [tasks, d], summed afterwards in task order
};

// With n = x * s, s = 1 / rms: dx = s * (w dy - n * mean(w dy n)), dw = sum over rows of dy n.
void Backward(Rows rows, const BackwardArgs& args) {
  const int64_t tasks = (rows.count + kRowsPerTask - 1) / kRowsPerTask, d = rows.d;
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin * kRowsPerTask; row < std::min(rows.count, end * kRowsPerTask); ++row) {
      const float *x = args.x + row * d, *dy = args.grad_y + row * d, *w = args.weight;
      const float s = args.inverse_rms[row];
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < d; ++i) dot += w[i] * dy[i] * x[i];
      const float mean = dot * s / static_cast<float>(d);
      float* dx = args.grad_x + row * d;
      float* dw = args.grad_weight + row / kRowsPerTask * d;
      for (int64_t i = 0; i < d; ++i) {
        const float n = x[i] * s;
        dx[i] = s * (w[i] * dy[i] - n * mean);
        dw[i] += dy[i] * n;
      }
    }
  });
}

class CpuRmsNorm : public torch::autograd::Function<CpuRmsNorm> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, double epsilon) {
    const Rows rows{x.size(0), x.size(1)};
    Tensor y = at::empty_like(x), inverse_rms = at::empty({rows.count}, x.options());
    Forward(rows, {x.const_data_ptr<float>(), weight.const_data_ptr<float>(), epsilon, y.mutable_data_ptr<float>(),
                   inverse_rms.mutable_data_ptr<float>()});
    ctx->save_for_backward({x, weight, inverse_rms});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor grad_y = grads[0].contiguous();
    const Rows rows{saved[0].size(0), saved[0].size(1)};
    Tensor grad_x = at::empty_like(saved[0]);
    Tensor partial = at::zeros({(rows.count + kRowsPerTask - 1) / kRowsPerTask, rows.d}, grad_y.options());
    Backward(rows, {.x = saved[0].const_data_ptr<float>(),
                    .weight = saved[1].const_data_ptr<float>(),
                    .inverse_rms = saved[2].const_data_ptr<float>(),
                    .grad_y = grad_y.const_data_ptr<float>(),
                    .grad_x = grad_x.mutable_data_ptr<float>(),
                    .grad_weight = partial.mutable_data_ptr<float>()});
    return {grad_x, partial.sum(0), Tensor()};
  }
};

}  // namespace

// ATen takes the statistics of bf16 rows in fp32.
Tensor AtenBackend::RmsNorm(Context& ctx, const Tensor& x, const Tensor& weight, double epsilon) const {
  const bool cpu = x.is_cpu() && x.scalar_type() == c10::kFloat && weight.scalar_type() == c10::kFloat;
  if (cpu && x.dim() == 2 && x.is_contiguous()) return CpuRmsNorm::apply(x, weight, epsilon);
  return at::rms_norm(x, weight.sizes(), weight, epsilon);
}

}  // namespace beamline::backend
