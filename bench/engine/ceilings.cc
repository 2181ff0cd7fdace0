// SPDX-License-Identifier: Apache-2.0
#include "ceilings.h"

#include <ctime>

#include <ATen/ops/full.h>
#include <ATen/ops/mkldnn_linear.h>
#include <ATen/ops/mm.h>

#include "beamline/kernels/packed_gemm.h"

namespace beamline::bench {
namespace {

constexpr int64_t kSize = 2048;

at::Tensor Matrix(double value) { return at::full({kSize, kSize}, value, c10::TensorOptions().dtype(c10::kFloat)); }

double Own() {
  static const kernels::PackedGemm& gemm = kernels::BestGemm(kernels::Precision::kFp32);
  static const at::Tensor a = Matrix(0.5), b = Matrix(0.25), c = Matrix(0);
  static const at::Tensor packed = [] {
    at::Tensor bytes = at::full({gemm.packed_bytes({kSize, kSize})}, 0, c10::TensorOptions().dtype(c10::kByte));
    gemm.pack(b.const_data_ptr<float>(), {kSize, kSize}, bytes.mutable_data_ptr());
    return bytes;
  }();
  static const at::Tensor scratch =
      at::full({gemm.scratch_bytes(kSize, kSize)}, 0, c10::TensorOptions().dtype(c10::kByte));
  const double start = ThreadSeconds();
  gemm.run({.a = a.const_data_ptr<float>(),
            .lda = kSize,
            .m = kSize,
            .k = kSize,
            .b = packed.const_data_ptr(),
            .n = kSize,
            .c = c.mutable_data_ptr<float>(),
            .ldc = kSize,
            .panel_begin = 0,
            .panel_end = kernels::PanelCount(kSize),
            .scratch = scratch.mutable_data_ptr()});
  return ThreadSeconds() - start;
}

double TorchBlas() {
  static const at::Tensor a = Matrix(0.5), b = Matrix(0.25);
  const double start = ThreadSeconds();
  at::mm(a, b);
  return ThreadSeconds() - start;
}

double TorchOneDnn() {
  static const at::Tensor a = Matrix(0.5).to_mkldnn(), b = Matrix(0.25).to_mkldnn();
  const double start = ThreadSeconds();
  at::mkldnn_linear(a, b);
  return ThreadSeconds() - start;
}

}  // namespace

double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::vector<GemmLibrary> GemmLibraries() {
  return {{"own", &Own}, {"libtorch's BLAS", &TorchBlas}, {"libtorch's oneDNN", &TorchOneDnn}};
}

}  // namespace beamline::bench
