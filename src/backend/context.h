// SPDX-License-Identifier: Apache-2.0
//
// The context every op takes: which backend runs it, on which device and dtype, and what a training pass needs besides
// (dropout, its generator, a sink for expert loads). A plain value; one context is used by one thread at a time. The
// backend it points to is thread-safe, shared by all threads, and outlives it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "parallel/shard.h"

namespace beamline::backend {

class Backend;
class Communicator;

// What a batch has while it runs: storage and cores. Opaque; ends with the batch's context.
class BatchResources {
 public:
  virtual ~BatchResources() = default;
  virtual void End() {}   // see EndBatch
  virtual void Mark() {}  // see MarkBatch
  virtual double SecondsSinceMark() const { return 0; }
};

// What the batches of one model run on, each on one at a time: a device's streams with their storage and captured
// passes. Made by Backend::NewWorkers; ends when the last batch on it has. Thread-safe.
class BatchWorkers {
 public:
  virtual ~BatchWorkers() = default;
  // Takes the worker that the last batch ran on out of use while the result lives: for warm-ups, which are to reach
  // every worker that requests will meet. The one that was let go of last is the first to be used.
  virtual std::shared_ptr<void> Hold() = 0;
};

// How many tokens of one batch an MoE layer sent to each expert: what bias-based balancing is driven by.
struct ExpertLoad {
  std::string layer;            // the layer's weight prefix, e.g. "decoder.2.moe"
  std::vector<int64_t> tokens;  // [experts]
};

struct Context {
  const Backend* backend = nullptr;
  c10::Device device = c10::kCPU;
  c10::ScalarType dtype = c10::kFloat;        // of weights and activations; norm statistics, logits and scores are fp32
  bool graphs = true;                         // passes are captured where the backend can
  bool without_fp8 = false;                   // WithoutFp8
  std::shared_ptr<BatchWorkers> workers;      // of the context's model; null: the backend's, for all such contexts
  std::shared_ptr<BatchResources> resources;  // null outside of a batch: ops allocate, and run on one core
  Communicator* communicator = nullptr;       // of the ranks that hold the model together; null: this process alone

  // Training only.
  bool training = false;
  double dropout = 0;                               // probability, applied where training is set
  std::optional<at::Generator> generator;           // of dropout; seeded, so that a run repeats
  std::vector<ExpertLoad>* expert_loads = nullptr;  // null: not collected
  at::Tensor expert_rows;  // bool [rows] of the layers that run: those loads count, by aten; undefined: all
};

// device: "cpu", "cuda" or "cuda:N"; dtype: "fp32", "bf16" or, on the cpu backend, "int8". backend: "aten", the oracle
// of all others, on every device, where dtype is that of weights and activations, or "fp8" or "fp8_mixed", which add
// the rounding of the cuda backend's to bf16 (aten/aten_backend.h); "cpu", the fast one for inference on the CPU, where
// tensors are fp32 and dtype is the precision of the products with weights (cpu/cpu_backend.h); "cuda", the fast one
// for inference on a GPU, in a binary built with it, which knows "fp16", too, and "fp8" and "fp8_mixed": layers'
// products in E4M3 beside tensors in bf16 (beamline/dtype.h, cuda/fp8.h), on devices of compute capability 8.9; "auto",
// the fastest there is for the device.
absl::StatusOr<Context> MakeContext(absl::string_view device, absl::string_view dtype,
                                    absl::string_view backend = "aten");

// What backend "auto" comes to on a device of that name; others are themselves.
std::string BackendOf(absl::string_view device, absl::string_view backend);

// The share of a model's weights that the context's rank holds.
parallel::Shard ShardOf(const Context& ctx);

// A context for one batch on one thread.
Context BeginBatch(const Context& ctx);
// Waits until all of the batch is computed, and throws what went wrong on its device: for whoever leaves results there.
// What it leaves is for other batches from then on. Nothing may be computed in it afterwards. A batch that is not ended
// so waits when its context ends, too, but nobody learns how it went.
void EndBatch(Context& ctx);
// Between two parts of a batch of which the second uses what the first leaves: as far as that is enqueued, the device
// goes from one to the other by itself.
void MarkBatch(Context& ctx);
// What the device took from there to where it last brought something to the host; 0 where it does not say.
double SecondsSinceMark(const Context& ctx);

// While it lives and is on, layers' products of the context stay in its dtype where the backend would have them in FP8.
// Whether it is on may depend on the step alone, never on the batch: answers must not depend on company.
class WithoutFp8 {
 public:
  WithoutFp8(Context& ctx, bool on) : ctx_(ctx), before_(ctx.without_fp8) { ctx.without_fp8 = before_ || on; }
  ~WithoutFp8() { ctx_.without_fp8 = before_; }
  WithoutFp8(const WithoutFp8&) = delete;
  WithoutFp8& operator=(const WithoutFp8&) = delete;

 private:
  Context& ctx_;
  const bool before_;
};

// Threads that CPU ops may use, for the whole process; 0: one per core. Call it before the first op.
void SetThreads(int threads);

// A seeded generator for dropout; a GPU's is the process's default one, which ATen's fused dropout draws from.
at::Generator MakeGenerator(const Context& ctx, uint64_t seed);

// While one lives, ops on this thread record no gradients and make inference tensors.
using InferenceGuard = c10::InferenceMode;

}  // namespace beamline::backend
