// SPDX-License-Identifier: Apache-2.0
//
// Stands in for CUDA's header of that name where kernels are compiled for the emulator: the part of the language and of
// the runtime that they and their tests use. Device memory is host memory.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include <malloc.h>

#include "kernels/emulator/emulator.h"

// NOLINTBEGIN(readability-identifier-naming): CUDA's names
#define BEAMLINE_EMULATED 1
#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __align__(bytes) alignas(bytes)
#define __shared__ static  // blocks run one after the other
#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};

inline void __syncthreads() { emulator::SyncBlock(false); }
inline int __syncthreads_or(int value) { return emulator::SyncBlock(value != 0) ? 1 : 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::Shuffle(mask, 0, 0); }
inline void __threadfence() {}

inline unsigned emulated_lane() { return threadIdx.x % 32; }
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int offset) {
  return emulator::Shuffle(mask, value, emulated_lane() ^ static_cast<unsigned>(offset));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int offset) {
  return emulator::Shuffle(mask, value, emulated_lane() + static_cast<unsigned>(offset));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int offset) {  // below lane 0 its own: no lane has so large a number
  return emulator::Shuffle(mask, value, emulated_lane() - static_cast<unsigned>(offset));
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return emulator::Shuffle(mask, value, static_cast<unsigned>(lane));
}

inline unsigned __ballot_sync(unsigned mask, bool value) {
  emulator::Exchange(mask, &value, sizeof(value));
  unsigned lanes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) != 0 && *static_cast<const bool*>(emulator::Lane(lane))) lanes |= 1u << lane;
  }
  return lanes;
}
inline bool __any_sync(unsigned mask, bool value) { return __ballot_sync(mask, value) != 0; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __activemask() { return 1u << emulated_lane(); }  // a thread never runs together with others

template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
void __stwb(T* p, const T& value) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T) != 0) emulator::Die("a vector store to a misaligned address");
  *p = value;
}
inline unsigned atomicAdd(unsigned* p, unsigned value) {
  const unsigned before = *p;
  *p += value;
  return before;
}
inline unsigned atomicMax(unsigned* p, unsigned value) {
  const unsigned before = *p;
  if (value > before) *p = value;
  return before;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

using cudaStream_t = CUstream_st*;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorECCUncorrectable = 214,
  cudaErrorNvlinkUncorrectable = 220,
  cudaErrorContained = 226,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorLaunchTimeout = 702,
  cudaErrorContextIsDestroyed = 709,
  cudaErrorAssert = 710,
  cudaErrorHardwareStackError = 714,
  cudaErrorIllegalInstruction = 715,
  cudaErrorMisalignedAddress = 716,
  cudaErrorInvalidAddressSpace = 717,
  cudaErrorInvalidPc = 718,
  cudaErrorLaunchFailure = 719,
  cudaErrorTensorMemoryLeak = 721,
  cudaErrorMpsClientTerminated = 810,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorExternalDevice = 911,
  cudaErrorUnknown = 999,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16F = 2, CUDA_R_16BF = 14, CUDA_R_8F_E4M3 = 28 };
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "cudaErrorIllegalAddress" : "emulated";
}
namespace emulator {
// What the host hears when it waits; a test sets it. The work waited for is done all the same.
inline std::atomic<cudaError_t> device_error{cudaSuccess};
inline thread_local cudaError_t last_error = cudaSuccess;  // of an allocation or a launch
}  // namespace emulator
inline cudaError_t cudaGetLastError() { return std::exchange(emulator::last_error, cudaSuccess); }
inline cudaError_t cudaDeviceSynchronize() {
  emulator::WaitForAll();
  return emulator::device_error;
}
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
namespace emulator {
inline thread_local int current_device = 0;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = emulator::current_device;
  return cudaSuccess;
}
namespace emulator {
inline int compute_capability = 9;  // a test may set less
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor   ? emulator::compute_capability
           : attribute == cudaDevAttrComputeCapabilityMinor ? 0
           : attribute == cudaDevAttrMultiProcessorCount    ? 2
                                                            : 227 * 1024;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  emulator::current_device = device;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
struct cudaDeviceProp {
  char name[256] = "emulator";
  int major = 9, minor = 0;
};
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  return cudaSuccess;
}

// -- Memory. Filled with NaNs, as nobody may read what was not written.
namespace emulator {
inline std::atomic<size_t> memory{size_t{64} << 30};  // all that the device has: a test may set less
inline std::atomic<size_t> allocated{0};
inline std::mutex devices_mu;
inline std::map<void*, int> device_of;                       // guarded by devices_mu
inline std::atomic<size_t> allocations{0};                   // asked for so far
inline std::atomic<size_t> allocations_allowed{~size_t{0}};  // later ones fail
}  // namespace emulator
inline cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const size_t taken = emulator::allocated;
  *total = emulator::memory;
  *free = *total > taken ? *total - taken : 0;
  return cudaSuccess;
}
template <class T>
cudaError_t cudaMalloc(T** p, size_t bytes) {
  if (emulator::InvalidatesCapture()) return cudaErrorStreamCaptureUnsupported;
  const bool fits =
      emulator::allocations++ < emulator::allocations_allowed && emulator::allocated + bytes <= emulator::memory;
  void* memory = nullptr;  // not a byte more than was asked for: AddressSanitizer sees what is beyond
  *p = fits && posix_memalign(&memory, 256, std::max<size_t>(bytes, 1)) == 0 ? static_cast<T*>(memory) : nullptr;
  if (*p == nullptr) return emulator::last_error = cudaErrorMemoryAllocation;
  emulator::allocated += malloc_usable_size(*p);
  {
    const std::lock_guard<std::mutex> lock(emulator::devices_mu);
    emulator::device_of[*p] = emulator::current_device;
  }
  std::memset(static_cast<void*>(*p), 0xff, bytes < (1u << 22) ? bytes : (1u << 22));
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* p) {
  emulator::WaitForAll();
  {
    const std::lock_guard<std::mutex> lock(emulator::devices_mu);
    if (const auto of = emulator::device_of.extract(p); !of.empty() && of.mapped() != emulator::current_device) {
      emulator::Die("memory is freed by a thread that uses another device");
    }
  }
  emulator::allocated -= malloc_usable_size(p);
  std::free(p);
  return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void** p, size_t bytes) { return cudaMalloc(p, bytes); }
inline cudaError_t cudaFreeHost(void* p) { return cudaFree(p); }
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  if (stream != nullptr && stream->capture != nullptr) ++stream->captured_memsets;
  emulator::Enqueue(stream, [=] { std::memset(p, value, bytes); });
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* p, int value, size_t bytes) { return cudaMemsetAsync(p, value, bytes, nullptr); }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (stream != nullptr && stream->capture != nullptr) ++stream->captured_copies;
  emulator::Enqueue(stream, [=] {
    if (bytes > 0) std::memcpy(to, from, bytes);
  });
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  emulator::WaitForAll();
  cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return emulator::device_error;
}

// -- Streams and events. An event knows the stream it was recorded on; waiting for it runs all that the stream has.
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;
namespace emulator {
inline double clock_ms = 0;  // what takes time moves it: nothing, unless a test lets it (cublasLt.h)
}
struct CUevent_st {
  cudaStream_t stream = nullptr;
  double at_ms = 0;
};
using cudaEvent_t = CUevent_st*;
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = emulator::NewStream();
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  emulator::DeleteStream(stream);
  return cudaSuccess;
}
namespace emulator {
inline std::atomic<int> waits{0};            // of the host for a stream
inline std::function<void()> while_waiting;  // a test may hold up whoever does
}  // namespace emulator
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (emulator::InvalidatesCapture()) return cudaErrorStreamCaptureUnsupported;
  ++emulator::waits;
  emulator::WaitFor(stream);
  if (emulator::while_waiting) emulator::while_waiting();
  return emulator::device_error;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = stream;
  event->at_ms = emulator::clock_ms;
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaStreamSynchronize(event->stream); }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->stream == stream || event->stream == nullptr) return cudaSuccess;
  if (emulator::InvalidatesCapture()) return cudaErrorStreamCaptureUnsupported;
  emulator::WaitFor(event->stream);
  return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = static_cast<float>(end->at_ms - begin->at_ms);
  return cudaSuccess;
}

// -- Graphs: what a captured stream was asked for, to be asked for again.
struct CUgraph_st {
  std::vector<std::function<void()>> nodes;
  size_t copies = 0, memsets = 0;  // of them
};
using cudaGraph_t = CUgraph_st*;
using cudaGraphExec_t = CUgraph_st*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
inline cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status =
      stream != nullptr && stream->capture != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  stream->capture = &(new CUgraph_st)->nodes;
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = reinterpret_cast<CUgraph_st*>(stream->capture);  // its first member
  stream->capture = nullptr;
  (*graph)->copies = std::exchange(stream->captured_copies, 0);
  (*graph)->memsets = std::exchange(stream->captured_memsets, 0);
  if (!stream->capture_broken) return cudaSuccess;
  stream->capture_broken = false;
  delete *graph;
  *graph = nullptr;
  return cudaErrorStreamCaptureInvalidated;
}
using cudaGraphNode_t = uintptr_t;  // the node's type
enum cudaGraphNodeType {
  cudaGraphNodeTypeKernel,
  cudaGraphNodeTypeMemcpy,
  cudaGraphNodeTypeMemset,
  cudaGraphNodeTypeHost,
  cudaGraphNodeTypeEmpty = 5,
  cudaGraphNodeTypeWaitEvent = 6,
  cudaGraphNodeTypeEventRecord = 7,
  cudaGraphNodeTypeMemAlloc = 10,
  cudaGraphNodeTypeMemFree = 11,
};
inline cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  for (size_t i = 0; nodes != nullptr && i < *count; ++i) {
    nodes[i] = i < graph->copies                    ? cudaGraphNodeTypeMemcpy
               : i < graph->copies + graph->memsets ? cudaGraphNodeTypeMemset
                                                    : cudaGraphNodeTypeKernel;
  }
  *count = graph->nodes.size();
  return cudaSuccess;
}
inline cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  *type = static_cast<cudaGraphNodeType>(node);
  return cudaSuccess;
}
enum { cudaGraphDebugDotFlagsKernelNodeParams = 1 << 2 };
inline cudaError_t cudaGraphDebugDotPrint(cudaGraph_t graph, const char* path, unsigned int) {
  size_t count = graph->nodes.size();
  std::vector<cudaGraphNode_t> nodes(count);
  cudaGraphGetNodes(graph, nodes.data(), &count);
  std::ofstream to(path);
  to << "digraph {\n";
  for (const cudaGraphNode_t node : nodes) to << "  node_of_type_" << node << ";\n";
  to << "}\n";
  return to.flush() ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new CUgraph_st(*graph);
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  for (const auto& node : graph->nodes) emulator::Enqueue(stream, node);
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

// -- Launches.
enum cudaLaunchAttributeID {
  cudaLaunchAttributeProgrammaticStreamSerialization = 6,
  cudaLaunchAttributePreferredSharedMemoryCarveout = 14
};
enum cudaSharedCarveout { cudaSharedmemCarveoutMaxShared = 100 };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
    unsigned sharedMemCarveout;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
namespace emulator {
inline std::atomic<cudaError_t> launch_error{cudaSuccess};  // what launches are refused with; a test sets it
// Dynamic shared memory that kernels were allowed, beyond what each may have unasked.
inline std::map<void*, size_t> allowed_shared;
inline constexpr size_t kSharedUnasked = 48 * 1024;
inline std::atomic<int> launches_before_error{0};  // that are not refused
// Kernels of a programmatic launch do not wait for the one before, or not in graphs; a test sets it.
inline bool broken_programmatic = false, broken_programmatic_graphs = false;
}  // namespace emulator
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  if (emulator::launch_error != cudaSuccess && emulator::launches_before_error-- <= 0) {
    return emulator::last_error = emulator::launch_error;
  }
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& set = config->attrs[i];
    const bool known = set.id == cudaLaunchAttributeProgrammaticStreamSerialization
                           ? set.val.programmaticStreamSerializationAllowed == 1
                           : set.id == cudaLaunchAttributePreferredSharedMemoryCarveout &&
                                 set.val.sharedMemCarveout == cudaSharedmemCarveoutMaxShared;
    if (!known) return emulator::last_error = cudaErrorInvalidValue;
  }
  const auto allowed = emulator::allowed_shared.find(reinterpret_cast<void*>(kernel));
  if (config->dynamicSmemBytes >
      (allowed == emulator::allowed_shared.end() ? emulator::kSharedUnasked : allowed->second)) {
    return emulator::last_error = cudaErrorInvalidValue;
  }
  emulator::Enqueue(
      config->stream,
      [=, shape = *config] {
        emulator::Run(shape.gridDim, shape.blockDim.x, shape.dynamicSmemBytes, [&] { kernel(arguments...); });
      },
      config->numAttrs > 0 && (emulator::broken_programmatic ||
                               (emulator::broken_programmatic_graphs && config->stream->capture != nullptr)));
  return cudaSuccess;
}
struct cudaFuncAttributes {
  int ptxVersion = 0;
};
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  attributes->ptxVersion = 10 * emulator::compute_capability;
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel kernel, cudaFuncAttribute, size_t bytes) {
  emulator::allowed_shared[reinterpret_cast<void*>(kernel)] = bytes;
  return cudaSuccess;
}
// NOLINTEND(readability-identifier-naming)
