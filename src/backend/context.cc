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
#include "backend/cpu/cpu_backend.h"
#include "beamline/status.h"

namespace beamline::backend {
namespace {

const AtenBackend& SharedAtenBackend() {
  static const AtenBackend backend;  // stateless
  return backend;
}

// Its threads live as long as the process.
CpuBackend& SharedCpuBackend() {
  static CpuBackend* const backend = new CpuBackend;
  return *backend;
}

absl::StatusOr<const Backend*> ChooseBackend(const Context& ctx, absl::string_view backend) {
  const bool cpu_fits = ctx.device.is_cpu() && ctx.dtype == c10::kFloat;
  if (backend == "aten" || (backend == "auto" && !cpu_fits)) return &SharedAtenBackend();
  if (backend != "cpu" && backend != "auto") {
    return absl::InvalidArgumentError(absl::StrCat("backend: '", backend, "' is unknown; use auto, aten or cpu"));
  }
  if (!cpu_fits) return absl::InvalidArgumentError("backend: cpu runs on device cpu in fp32 only; use auto or aten");
  return &SharedCpuBackend();
}

absl::StatusOr<Context> DeviceContext(absl::string_view device, absl::string_view dtype) {
  Context ctx;
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

}  // namespace

absl::StatusOr<Context> MakeContext(absl::string_view device, absl::string_view dtype, absl::string_view backend) {
  BEAMLINE_ASSIGN_OR_RETURN(Context ctx, DeviceContext(device, dtype));
  BEAMLINE_ASSIGN_OR_RETURN(ctx.backend, ChooseBackend(ctx, backend));
  return ctx;
}

Context BeginBatch(const Context& ctx) {
  Context batch = ctx;
  batch.resources = ctx.backend->BeginBatch();
  return batch;
}

void SetThreads(int threads) {
  if (threads <= 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  at::set_num_threads(threads);
  SharedCpuBackend().SetThreads(threads);
}

at::Generator MakeGenerator(const Context& ctx, uint64_t seed) {
  if (ctx.device.is_cpu()) return at::detail::createCPUGenerator(seed);
  at::Generator generator = at::globalContext().defaultGenerator(ctx.device).clone();
  generator.set_current_seed(seed);
  return generator;
}

}  // namespace beamline::backend
