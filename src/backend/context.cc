// SPDX-License-Identifier: Apache-2.0
#include "backend/context.h"

#include <algorithm>
#include <thread>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "backend/aten/aten_backend.h"

namespace beamline::backend {
namespace {

const AtenBackend& SharedAtenBackend() {
  static const AtenBackend backend;  // stateless
  return backend;
}

}  // namespace

absl::StatusOr<Context> MakeContext(absl::string_view device, absl::string_view dtype) {
  Context ctx;
  ctx.backend = &SharedAtenBackend();
  if (dtype == "fp32") {
    ctx.dtype = c10::kFloat;
  } else if (dtype == "bf16") {
    ctx.dtype = c10::kBFloat16;
  } else {
    return absl::InvalidArgumentError(absl::StrCat("dtype: '", dtype, "' is unknown; use fp32 or bf16"));
  }
  if (device == "cpu") return ctx;
  try {
    ctx.device = c10::Device(std::string(device));
  } catch (const c10::Error&) {
    return absl::InvalidArgumentError(absl::StrCat("device: '", device, "' is unknown; use cpu, cuda or cuda:N"));
  }
  if (!ctx.device.is_cuda()) {
    return absl::InvalidArgumentError(absl::StrCat("device: '", device, "' is unknown; use cpu, cuda or cuda:N"));
  }
  if (!at::hasCUDA()) {
    return absl::FailedPreconditionError(
        absl::StrCat("device: '", device, "' asked for, but libtorch's CUDA backend is not loaded; use cpu"));
  }
  return ctx;
}

void SetThreads(int threads) {
  at::set_num_threads(threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
}

at::Generator MakeGenerator(const Context& ctx, uint64_t seed) {
  if (ctx.device.is_cpu()) return at::detail::createCPUGenerator(seed);
  at::Generator generator = at::globalContext().defaultGenerator(ctx.device).clone();
  generator.set_current_seed(seed);
  return generator;
}

}  // namespace beamline::backend
