// SPDX-License-Identifier: Apache-2.0
#include "backend/aten/dropout.h"

#include <algorithm>
#include <mutex>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/native_dropout.h>

namespace beamline::backend {
namespace {

// splitmix64's finaliser: four 16-bit draws per call, depending on the draw's index alone, so that a mask is the same
// for any number of threads. Several times faster than bernoulli_.
uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

void FillMask(uint64_t seed, double keep, int64_t size, float* mask) {
  const uint32_t threshold = static_cast<uint32_t>(keep * 65536);
  const float scale = static_cast<float>(65536.0 / threshold);
  at::parallel_for(0, (size + 3) / 4, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const uint64_t bits = Mix(seed + 0x9e3779b97f4a7c15u * static_cast<uint64_t>(block + 1));
      for (int64_t i = 4 * block; i < std::min(size, 4 * block + 4); ++i) {
        mask[i] = (bits >> (16 * (i & 3)) & 0xffff) < threshold ? scale : 0.0f;
      }
    }
  });
}

}  // namespace

at::Tensor ApplyDropout(Context& ctx, const at::Tensor& x) {
  if (!ctx.training || ctx.dropout <= 0) return x;
  if (x.is_cuda()) return std::get<0>(at::native_dropout(x, ctx.dropout, /*train=*/true));  // one pass
  const double keep = 1 - ctx.dropout;
  at::Tensor mask = at::empty_like(x, x.options().requires_grad(false));
  if (ctx.device.is_cpu() && x.scalar_type() == c10::kFloat && ctx.generator && keep * 65536 >= 1) {
    at::Generator& generator = *ctx.generator;
    const std::lock_guard<std::mutex> lock(generator.mutex());
    const uint64_t seed = at::check_generator<at::CPUGeneratorImpl>(generator)->random64();
    FillMask(seed, keep, mask.numel(), mask.mutable_data_ptr<float>());
  } else {
    mask.bernoulli_(keep, ctx.generator).div_(keep);
  }
  return x * mask;
}

}  // namespace beamline::backend
