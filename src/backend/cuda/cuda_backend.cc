// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "backend/cuda/programmatic_trial.h"
#include "backend/cuda/warpgroup_trial.h"
#include "backend/room.h"
#include "base/log.h"
#include "beamline/kernels/attention_cuda.h"
#include "beamline/kernels/programmatic_cuda.h"
#include "beamline/kernels/warpgroups_cuda.h"
#include "beamline/status.h"

namespace beamline::backend::cuda {
namespace {

// The values of a float tensor of any type.
float WideValue(const char* at, c10::ScalarType dtype) {
  switch (dtype) {
    case c10::kBFloat16: {
      c10::BFloat16 value;
      std::memcpy(&value, at, sizeof(value));
      return static_cast<float>(value);
    }
    case c10::kHalf: {
      c10::Half value;
      std::memcpy(&value, at, sizeof(value));
      return static_cast<float>(value);
    }
    default: {
      float value;
      std::memcpy(&value, at, sizeof(value));
      return value;
    }
  }
}

template <typename Narrow>
std::vector<Narrow> Narrowed(absl::Span<const float> values) {
  return {values.begin(), values.end()};
}

int64_t Elements(absl::Span<const int64_t> shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

at::IntArrayRef Shape(absl::Span<const int64_t> shape) { return {shape.data(), shape.size()}; }

// Brings back a tensor's rows, which may stand apart from each other, and gives f each element's place in the answer.
template <typename F>
void DownloadEach(Context& ctx, DeviceFault& fault, const Tensor& tensor, F f) {
  const int64_t size = static_cast<int64_t>(tensor.itemsize()), count = tensor.numel();
  if (count == 0) return;
  int64_t last = 0;  // element, counted from the first
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) last += (tensor.size(dim) - 1) * tensor.stride(dim);
  const size_t bytes = static_cast<size_t>((last + 1) * size);
  std::vector<char> outside;  // of a batch: all that was enqueued is waited for
  const char* from = nullptr;
  if (ctx.resources != nullptr) {
    from = BatchOf(ctx).Download(tensor.const_data_ptr(), bytes);
  } else {
    outside.resize(bytes);
    fault.Check(cudaDeviceSynchronize(), "download");
    fault.Check(cudaMemcpy(outside.data(), tensor.const_data_ptr(), bytes, cudaMemcpyDeviceToHost), "download");
    from = outside.data();
  }
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, at = 0;
    for (int64_t dim = tensor.dim() - 1; dim >= 0; --dim) {
      at += rest % tensor.size(dim) * tensor.stride(dim);
      rest /= tensor.size(dim);
    }
    f(i, from + at * size);
  }
}

// Of what is tried at the start, to go without where it is wrong, with a warning: that costs speed, not a start. What
// else may go wrong is an error: later it would look like another fault.
absl::StatusOr<bool> IsRight(const absl::StatusOr<std::string>& wrong, absl::string_view what, const char* off_switch,
                             const char* warning) {
  if (!wrong.ok()) {
    return absl::Status(wrong.status().code(),
                        absl::StrCat("device: ", what, " cannot be tried: ", wrong.status().message(), "; ", off_switch,
                                     "=0 goes without them"));
  }
  if (!wrong->empty()) LogEvent(spdlog::level::warn, warning, {{"difference", *wrong}});
  return wrong->empty();
}

absl::Status SettleLaunches(c10::Device where) {
  if (!where.is_cuda() || !kernels::ProgrammaticLaunch()) return absl::OkStatus();  // the emulator's tests try it
  BEAMLINE_ASSIGN_OR_RETURN(const bool right,
                            IsRight(TryProgrammaticLaunch(where), "programmatic launches", kernels::kProgrammaticSwitch,
                                    "slower launches: kernels cannot be launched while the one before works here"));
  if (!right) kernels::LeaveProgrammaticLaunch();
  return absl::OkStatus();
}

absl::StatusOr<bool> TakesWarpgroups(c10::Device where) {
  const kernels::LaunchError prepared = kernels::PrepareWarpgroups();
  if (prepared == kernels::LaunchError::kInvalidArgument) return false;
  absl::StatusOr<std::string> differs = std::string();
  if (prepared != kernels::LaunchError::kOk) {
    differs = absl::InternalError(cudaGetErrorString(cudaGetLastError()));
  } else if (where.is_cuda()) {  // the emulator's tests try it themselves
    differs = TryWarpgroups(where);
  }
  return IsRight(differs, "the kernels with wgmma", kernels::kWarpgroupsSwitch,
                 "slower kernels: those with wgmma give other answers here");
}

}  // namespace

CudaBatch& BatchOf(Context& ctx) {
  TORCH_CHECK(!ctx.training, "the cuda backend does not train: use aten");
  TORCH_CHECK(ctx.resources != nullptr, "the cuda backend computes inside of a batch");
  return static_cast<CudaBatch&>(*ctx.resources);
}

absl::StatusOr<std::unique_ptr<CudaBackend>> CudaBackend::Make(const CublasLt& lt, c10::Device where, Fp8 fp8) {
  std::string name = "emulator";
  if (where.is_cuda()) {
    cudaDeviceProp properties;
    cudaError_t error = cudaSetDevice(where.index());
    if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties, where.index());
    int driver = 0;
    if (error == cudaSuccess) error = cudaDriverGetVersion(&driver);
    if (error != cudaSuccess) {
      return absl::FailedPreconditionError(
          absl::StrCat("device: cuda:", where.index(), " cannot be used: ", cudaGetErrorString(error)));
    }
    if (properties.major < 8) {
      return absl::FailedPreconditionError(absl::StrCat("device: cuda:", where.index(), " is a ", properties.name,
                                                        " of compute capability ", properties.major, ".",
                                                        properties.minor, "; the kernels need 8.0"));
    }
    name = absl::StrCat(properties.name, " driver ", driver);
  }
  cublasLtHandle_t handle = nullptr;
  if (const cublasStatus_t status = lt.create(&handle); status != CUBLAS_STATUS_SUCCESS) {
    return absl::InternalError(absl::StrCat("cuBLASLt cannot be used: status ", static_cast<int>(status)));
  }
  if (kernels::AttentionPrepare() != kernels::LaunchError::kOk) {
    return absl::InternalError(
        absl::StrCat("device: the kernels do not run here: ", cudaGetErrorString(cudaGetLastError())));
  }
  BEAMLINE_RETURN_IF_ERROR(SettleLaunches(where));
  BEAMLINE_ASSIGN_OR_RETURN(const bool warpgroups, TakesWarpgroups(where));
  return std::unique_ptr<CudaBackend>(new CudaBackend(lt, handle, {where, std::move(name), warpgroups}, fp8));
}

CudaBackend::CudaBackend(const CublasLt& lt, cublasLtHandle_t handle, Device device, Fp8 fp8)
    : lt_(lt),
      handle_(handle),
      where_(device.where),
      warpgroups_(device.warpgroups),
      algorithms_(std::make_unique<Algorithms>(lt, handle,
                                               Algorithms::Device{where_, std::move(device.name), device.warpgroups})),
      workers_(std::make_shared<WorkerPool>(lt, handle, where_)),
      kept_(where_),
      fp8_(fp8) {}

CudaBackend::~CudaBackend() = default;  // the handle lives as long as the process, as backends do

std::shared_ptr<BatchResources> CudaBackend::BeginBatch(const std::shared_ptr<BatchWorkers>& workers) const {
  return std::make_shared<CudaBatch>(workers == nullptr ? workers_ : std::static_pointer_cast<WorkerPool>(workers),
                                     fault_);
}

std::shared_ptr<BatchWorkers> CudaBackend::NewWorkers() const {
  return std::make_shared<WorkerPool>(lt_, handle_, where_);
}

std::optional<c10::Stream> CudaBackend::StreamOf(Context& ctx) const {
  if (ctx.resources == nullptr) return std::nullopt;
  const cudaStream_t stream = BatchOf(ctx).stream();
  if (!where_.is_cuda()) return std::nullopt;
  // As c10::cuda::getStreamFromExternal, of libtorch's CUDA half: the id of a stream not its own is its address.
  return c10::Stream(c10::Stream::UNSAFE, where_, reinterpret_cast<c10::StreamId>(stream));
}

std::string CudaBackend::TuningName() const {
  std::string name = algorithms_->Header();
  for (char& c : name) c = absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' ? c : '-';
  return name;
}

std::optional<DeviceMemory> CudaBackend::GetDeviceMemory() const {
  size_t free = 0, total = 0;
  if (where_.is_cuda() && cudaSetDevice(where_.index()) != cudaSuccess) return std::nullopt;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return std::nullopt;
  return DeviceMemory{.total = static_cast<int64_t>(total), .free = static_cast<int64_t>(free)};
}

int64_t CudaBackend::RoomFor(const Context& ctx, int64_t size, int64_t fewest) const {
  return ctx.graphs && ctx.communicator == nullptr ? RoomInFewSizes(std::max(size, fewest)) : size;
}

int64_t CudaBackend::RowsToPack(const Context& ctx, int64_t tokens, int64_t padded) const {
  return ctx.graphs && ctx.communicator == nullptr ? RowsInQuarters(tokens, padded) : std::min(tokens, padded);
}

std::vector<Tensor> CudaBackend::RunPass(Context& ctx, const std::string& pass, absl::Span<const Tensor> inputs,
                                         PassBody body) const {
  CudaBatch& batch = BatchOf(ctx);
  if (!ctx.graphs || ctx.expert_loads != nullptr) {  // loads are brought to the host
    ++passes_by_ops_;
    return body(inputs);
  }
  Graphs& graphs = batch.worker().graphs;
  const int64_t captures = graphs.captures(), launches = graphs.launches();
  const GraphNodes nodes = graphs.nodes();
  std::vector<Tensor> results = graphs.Run(batch, pass, inputs, body);
  ++(graphs.captures() > captures   ? passes_captured_
     : graphs.launches() > launches ? passes_by_graph_
                                    : passes_by_ops_);
  kernel_nodes_ += graphs.nodes().kernels - nodes.kernels;
  memset_nodes_ += graphs.nodes().memsets - nodes.memsets;
  other_nodes_ += graphs.nodes().others - nodes.others;
  return results;
}

std::optional<DevicePasses> CudaBackend::GetDevicePasses() const {
  return DevicePasses{.graph = passes_by_graph_,
                      .captured = passes_captured_,
                      .enqueued = passes_by_ops_,
                      .kernel_nodes = kernel_nodes_,
                      .memset_nodes = memset_nodes_,
                      .other_nodes = other_nodes_};
}

Tensor CudaBackend::Upload(Context& ctx, const HostArray& from, absl::Span<const int64_t> shape) const {
  TORCH_CHECK(Elements(shape) == from.count, "upload: shape holds ", Elements(shape), " values, given ", from.count);
  if (ctx.resources != nullptr) return BatchOf(ctx).Upload(from.values, Shape(shape), from.dtype);
  if (where_.is_cuda()) fault_->Check(cudaSetDevice(where_.index()), "choosing the device");
  Tensor tensor = NewTensor(where_, Shape(shape), from.dtype);
  if (from.count > 0) {
    fault_->Check(cudaMemcpy(tensor.mutable_data_ptr(), from.values, tensor.nbytes(), cudaMemcpyHostToDevice),
                  "upload");
    fault_->Check(cudaStreamSynchronize(nullptr), "upload");  // batches' streams do not wait for this one
  }
  return tensor;
}

Tensor CudaBackend::UploadInts(Context& ctx, absl::Span<const int32_t> values, absl::Span<const int64_t> shape) const {
  return Upload(ctx, {values.data(), static_cast<int64_t>(values.size()), c10::kInt}, shape);
}

Tensor CudaBackend::UploadFloats(Context& ctx, absl::Span<const float> values, absl::Span<const int64_t> shape) const {
  return Upload(ctx, {values.data(), static_cast<int64_t>(values.size()), c10::kFloat}, shape);
}

Tensor CudaBackend::UploadWeight(Context& ctx, absl::Span<const float> values, absl::Span<const int64_t> shape) const {
  Context outside = ctx;  // weights outlive batches
  outside.resources = nullptr;
  const int64_t count = static_cast<int64_t>(values.size());
  switch (ctx.dtype) {
    case c10::kBFloat16:
      return Upload(outside, {Narrowed<c10::BFloat16>(values).data(), count, ctx.dtype}, shape);
    case c10::kHalf:
      return Upload(outside, {Narrowed<c10::Half>(values).data(), count, ctx.dtype}, shape);
    default:
      return Upload(outside, {values.data(), count, c10::kFloat}, shape);
  }
}

std::vector<int32_t> CudaBackend::DownloadInts(Context& ctx, const Tensor& ints) const {
  std::vector<int32_t> values(ints.numel());
  DownloadEach(ctx, *fault_, ints, [&](int64_t i, const char* at) { std::memcpy(&values[i], at, sizeof(int32_t)); });
  return values;
}

std::vector<float> CudaBackend::DownloadFloats(Context& ctx, const Tensor& floats) const {
  std::vector<float> values(floats.numel());
  DownloadEach(ctx, *fault_, floats,
               [&](int64_t i, const char* at) { values[i] = WideValue(at, floats.scalar_type()); });
  return values;
}

}  // namespace beamline::backend::cuda
