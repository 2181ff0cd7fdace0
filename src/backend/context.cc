// SPDX-License-Identifier: Apache-2.0
#include "backend/context.h"

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "backend/aten/aten_backend.h"
#include "backend/communicator.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/device_name.h"
#include "backend/fp8_products.h"
#if defined(BEAMLINE_WITH_CUDA)
#include "backend/cuda/cuda_context.h"
#endif
#include "base/thread_pool.h"
#include "beamline/dtype.h"
#include "beamline/status.h"

namespace beamline::backend {
namespace {

// Stateless.
const AtenBackend& SharedAtenBackend(Fp8Products fp8) {
  static const std::array<AtenBackend, 3> backends{
      AtenBackend(Fp8Products::kNone), AtenBackend(Fp8Products::kAllButSelfAttention), AtenBackend(Fp8Products::kAll)};
  return backends[static_cast<int>(fp8)];
}

// One per precision; their threads live as long as the process.
CpuBackend& SharedCpuBackend(kernels::Precision precision) {
  static auto* const backends =
      new std::array<CpuBackend, 3>{CpuBackend(kernels::Precision::kFp32), CpuBackend(kernels::Precision::kBf16),
                                    CpuBackend(kernels::Precision::kInt8)};
  return (*backends)[static_cast<int>(precision)];
}

absl::StatusOr<kernels::Precision> ParsePrecision(absl::string_view dtype) {
  if (dtype == "fp32") return kernels::Precision::kFp32;
  if (dtype == "bf16") return kernels::Precision::kBf16;
  if (dtype == "int8") return kernels::Precision::kInt8;
  return absl::InvalidArgumentError(
      absl::StrCat("dtype: '", dtype, "' is unknown; use fp32, bf16, fp16, fp8, fp8_mixed or int8"));
}

// libtorch's CUDA half registers itself when it is loaded: one program, linked to the CPU half alone, is for both.
// Before anything asks ATen whether there is a CUDA, since it remembers the first answer. Empty: loaded.
const std::string& LoadTorchCuda() {
  static const std::string error = [] {
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr) return std::string();
    const char* reason = dlerror();
    return std::string(reason == nullptr ? "libtorch_cuda.so cannot be loaded" : reason);
  }();
  return error;
}

absl::Status CheckCuda(absl::string_view name, c10::Device device) {
  if (const std::string& error = LoadTorchCuda(); !error.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "device: '", name, "' asked for, but libtorch's CUDA half cannot be loaded (", error, "); use cpu"));
  }
  if (!at::hasCUDA()) {
    return absl::FailedPreconditionError(
        absl::StrCat("device: '", name, "' asked for, but this machine has no CUDA device or driver; use cpu"));
  }
  return CheckDeviceIsThere(name, device, static_cast<int>(at::getNumGPUs()));
}

// The cuda backend's context; its tensors are what the products run in, bf16 beside products in FP8.
absl::StatusOr<Context> MakeCudaContext(c10::Device device, absl::string_view dtype) {
  Context ctx;
  ctx.device = device;
  if (dtype == "int8") return absl::InvalidArgumentError("dtype: int8 runs on device cpu only; use fp32, bf16 or fp16");
  ctx.dtype = dtype == "bf16" || IsFp8(dtype) ? c10::kBFloat16 : dtype == "fp16" ? c10::kHalf : c10::kFloat;
#if defined(BEAMLINE_WITH_CUDA)
  BEAMLINE_ASSIGN_OR_RETURN(ctx.backend, cuda::BackendOf(device, Fp8ProductsOf(dtype)));
  return ctx;
#else
  return absl::FailedPreconditionError("backend: cuda is not in this binary, which was built without it; use aten");
#endif
}

#if defined(BEAMLINE_WITH_CUDA)
constexpr bool kHasCudaBackend = true;
#else
constexpr bool kHasCudaBackend = false;
#endif

absl::StatusOr<c10::Device> FindDevice(absl::string_view name) {
  absl::StatusOr<c10::Device> device = ParseDeviceName(name);
  if (device.ok() && device->is_cuda()) BEAMLINE_RETURN_IF_ERROR(CheckCuda(name, *device));
  return device;
}

}  // namespace

std::string BackendOf(absl::string_view device, absl::string_view backend) {
  if (backend != "auto") return std::string(backend);
  if (device == "cpu") return "cpu";
  return kHasCudaBackend ? "cuda" : "aten";
}

absl::StatusOr<Context> MakeContext(absl::string_view device, absl::string_view dtype, absl::string_view backend) {
  if (backend != "auto" && backend != "aten" && backend != "cpu" && backend != "cuda") {
    return absl::InvalidArgumentError(absl::StrCat("backend: '", backend, "' is unknown; use auto, aten, cpu or cuda"));
  }
  const bool cuda_alone = dtype == "fp16" || IsFp8(dtype);
  BEAMLINE_ASSIGN_OR_RETURN(const kernels::Precision precision, ParsePrecision(cuda_alone ? "bf16" : dtype));
  BEAMLINE_ASSIGN_OR_RETURN(const c10::Device where, FindDevice(device));
  if (backend == "cuda" && !where.is_cuda()) {
    return absl::InvalidArgumentError("backend: cuda runs on device cuda only; use auto, aten or cpu");
  }
  const std::string chosen = BackendOf(device, backend);
  if (chosen == "cuda") {
    return MakeCudaContext(where, dtype);
  }
  const Fp8Products fp8_oracle = backend == "aten" ? Fp8ProductsOf(dtype) : Fp8Products::kNone;
  if (cuda_alone && fp8_oracle == Fp8Products::kNone) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype: ", dtype, " runs on device cuda with backend cuda alone; ",
                     IsFp8(dtype) ? absl::StrCat("backend aten computes, slowly, what ", dtype, " rounds; else ") : "",
                     "use fp32 or bf16"));
  }
  if (backend == "cpu" && !where.is_cpu()) {
    return absl::InvalidArgumentError("backend: cpu runs on device cpu only; use auto or aten");
  }
  if (chosen == "cpu") {  // its tensors stay fp32
    return Context{.backend = &SharedCpuBackend(precision)};
  }
  if (precision == kernels::Precision::kInt8) {
    return absl::InvalidArgumentError(
        "dtype: int8 runs on device cpu with backend cpu alone; name that backend, or use fp32 or bf16");
  }
  return Context{.backend = &SharedAtenBackend(fp8_oracle),
                 .device = where,
                 .dtype = precision == kernels::Precision::kBf16 ? c10::kBFloat16 : c10::kFloat};
}

parallel::Shard ShardOf(const Context& ctx) {
  return ctx.communicator == nullptr ? parallel::Shard{} : ctx.communicator->shard();
}

Context BeginBatch(const Context& ctx) {
  Context batch = ctx;
  batch.resources = ctx.backend->BeginBatch(ctx.workers);
  return batch;
}

void EndBatch(Context& ctx) {
  if (ctx.resources != nullptr) ctx.resources->End();
}

void MarkBatch(Context& ctx) {
  if (ctx.resources != nullptr) ctx.resources->Mark();
}

double SecondsSinceMark(const Context& ctx) { return ctx.resources != nullptr ? ctx.resources->SecondsSinceMark() : 0; }

void SetThreads(int threads) {
  threads = ThreadsOrCores(threads);
  at::set_num_threads(threads);
  static std::mutex mu;
  const std::lock_guard<std::mutex> lock(mu);
  static std::shared_ptr<WorkerTeam> team;
  if (team != nullptr && team->threads() == threads) return;
  team = std::make_shared<WorkerTeam>(threads);
  for (const auto precision : {kernels::Precision::kFp32, kernels::Precision::kBf16, kernels::Precision::kInt8}) {
    SharedCpuBackend(precision).SetTeam(team);
  }
}

at::Generator MakeGenerator(const Context& ctx, uint64_t seed) {
  if (ctx.device.is_cpu()) return at::detail::createCPUGenerator(seed);
  at::Generator generator = at::globalContext().defaultGenerator(ctx.device);
  generator.set_current_seed(seed);
  return generator;
}

}  // namespace beamline::backend
