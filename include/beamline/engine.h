// SPDX-License-Identifier: Apache-2.0
//
// The engine: histories in, ranked items out, no gRPC (concepts, ownership, threads: src/engine/README.md; a program
// that embeds it: tests/engine/embed_example.cc). Logs to your spdlog logger "beamline", else to stderr; never stdout.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "beamline/catalogue.h"
#include "beamline/device_memory.h"
#include "beamline/device_passes.h"
#include "beamline/parallel.h"
#include "beamline/ranker.h"
#include "beamline/request.h"
#include "beamline/user_history.h"

namespace beamline {

// One step of a ladder: a request that would wait so long for a worker gets at most so many beams per level.
struct NarrowingStep {
  absl::Duration wait;
  int beam_width = 1;
};

struct EngineOptions {
  std::string bundle;  // folder written by `beamline pack`
  // Watched for new versions: bundles in subfolders 1, 2, ...; empty: none. With both, `bundle` serves where the folder
  // holds none that can.
  std::string model_folder;
  absl::Duration model_poll_period = absl::Seconds(5);
  bool keep_previous_model = true;  // in memory, so that a rollback is instant
  // Snapshot file of any bundle's model; empty: the bundle's own. A new catalogue comes by a new file (`beamline pack
  // --catalogue-only`) renamed over this one and a Reload of the bundle that serves: Reload("") is one of `bundle`, or
  // of the newest version in model_folder.
  std::string catalogue;
  std::string device = "cpu";  // "cpu", "cuda", "cuda:N", or "auto": chosen when the engine is made, never again
  // Of the products: "fp32", "bf16", "fp16", "fp8" or "fp8_mixed" (on CUDA; dtype.h), "int8" (backend cpu).
  std::string dtype = "fp32";
  // fp8 and fp8_mixed are served of bundles alone that hold a passed quality gate of the one asked for (`beamline
  // evaluate --gate fp8 --out`, `beamline pack --gate`): others are FAILED_PRECONDITION, or, where this is set, a
  // warning. For weights whose answers do not matter, as of a benchmark.
  bool allow_ungated_dtype = false;
  std::string backend = "auto";  // "aten" (the reference), "cpu", "cuda", or "auto": the fastest there is
  // Of what is measured on a GPU at warm-up beside what the bundle holds (`beamline pack --tuning`); empty:
  // beamline/tuning in the user's cache.
  std::string tuning_folder;
  // Of the CPU backends; 0: one per core, or as many as a container's CPU quota. The process's: the engine made last
  // decides for all, and for libtorch's own, which is OpenMP's: its threads spin between loops, at the cost of whatever
  // shares their cores, unless the process was started with OMP_WAIT_POLICY=passive (as `beamline` starts itself).
  int threads = 0;
  int workers = 0;  // batches executed at once; 0: two on a GPU, where one encodes while the other decodes, else one
  ScoreRule score_rule = ScoreRule::kFull;
  int default_beam_width = 32;
  int max_beam_width = 1024;
  int max_top_k = 1000;
  int max_history = 4096;             // events per request; more is refused
  int max_eligibility_items = 50000;  // per deny or allow list
  int max_rules = 256;                // distinct compiled rules kept per snapshot
  int max_batch_rows = 2048;          // beam rows per decode step of one batch, each request's as the widest's
  int max_batch_requests = 64;
  int queue_capacity = 1024;  // requests waiting; more are refused
  // What by the measured costs cannot be answered in time is refused, at the door or while it waits. False: it waits
  // until its deadline, as in a benchmark of the queue itself.
  bool admission = true;
  absl::Duration max_queue_delay = absl::Milliseconds(2);
  absl::Duration default_deadline = absl::Seconds(2);
  // Under load, narrower beams instead of refusals: waits ascend, widths descend. A step further is taken where only
  // that meets the deadline; never fewer beams than top_k. The answer states it. Empty: beams are as asked for.
  std::vector<NarrowingStep> narrowing;
  // Spent at most, when the first model is loaded, on measuring what its batches cost, on a GPU once on each worker,
  // though the smallest runs until it is warm and once more; a fifth of it for one that is loaded while another serves.
  // 0: learnt from traffic alone.
  absl::Duration cost_measurement = absl::Milliseconds(500);
  int64_t context_cache_bytes = 64 << 20;           // 0: no cache
  std::shared_ptr<UserHistoryStore> history_store;  // asked for the history of requests that bring none; null: none
  std::shared_ptr<const Ranker> ranker;             // the final order of answers; null: the beam's own
  ParallelOptions parallel;                         // processes that hold the model together; this is rank 0
};

// One version the engine has loaded, or refused to.
struct ModelVersion {
  int64_t id = 0;             // 1, 2, ... in the order of loading
  std::string bundle;         // its folder
  std::string model_version;  // empty until loaded
  std::string catalogue_version;
  std::string state;  // loading, warming, serving, standby, draining, unloaded or refused
  std::string error;  // why it was refused
  absl::Time since;   // when it entered its state
  absl::Duration load_time, warm_up_time;
};

struct EngineStatus {
  bool ready = false;     // it takes requests and the last batches succeeded
  std::string not_ready;  // why not
  // Why this process can answer no request any more: its CUDA device has failed (a sticky error, which CUDA goes on
  // giving until the process ends), or the group is lost. Requests in flight fail with it, UNAVAILABLE, and so does
  // every later one, at once. The engine never ends a process: whoever embeds it looks here and does (`beamline serve`
  // exits within seconds). A further engine on that device would fail, too. OK: nothing of the kind is known.
  absl::Status fault;
  std::string device;  // what "auto" came to
  std::string dtype;
  std::string backend;  // what "auto" came to
  int workers = 0;      // batches executed at once: what 0 came to
  std::string model_version;
  std::string catalogue_version;
  std::string codebook_fingerprint;
  std::string family;
  bool ranker = false;  // the model has one, by whose value items are ordered instead of the beam's score
  int levels = 0;
  std::vector<uint32_t> level_sizes;
  // Events of a history that the model looks at, at most: the newest of any kind, and of positive feedback alone
  // (RecommendResult::dropped_events counts the others). 0: it has no such window.
  int short_term_events = 0, positive_events = 0;
  uint64_t parameters = 0;
  uint64_t num_items = 0;
  uint64_t num_sids = 0;
  int64_t queued = 0;     // waiting for encode or decode
  int64_t in_flight = 0;  // accepted, callback not run yet; one on its way into the queue may be counted twice
  uint64_t completed = 0;
  uint64_t failed = 0;    // cancelled, expired, broken, or cut off by a drain
  uint64_t rejected = 0;  // refused: invalid, queue full, cannot finish in time, stopping
  uint64_t narrowed = 0;  // completed with fewer beams than asked for
  uint64_t context_hits = 0;
  uint64_t context_misses = 0;
  uint64_t encode_batches = 0, encode_batched = 0;  // executed, and the requests in them
  uint64_t decode_batches = 0, decode_batched = 0, decode_rows = 0;
  uint64_t broken_batches = 0;         // that failed as a whole since one last gave an answer
  int64_t executing_rows = 0;          // beam rows of the batches being executed
  uint64_t expired = 0;                // of `failed`: out of time in a queue or in execution
  uint64_t expired_waiting = 0;        // of these, before their decode began
  int64_t context_cache_bytes = 0;     // held by encoded histories
  absl::Time last_success;             // when a batch last gave an answer; at first, when the warm-up did
  std::vector<ModelVersion> versions;  // by id; those long gone are forgotten
  uint64_t models_served = 0;          // that began to serve, rollbacks not counted
  uint64_t models_refused = 0;
  uint64_t rollbacks = 0;
  bool model_folder_unreadable = false;  // the watched folder, at the last look
  absl::Time last_swap = absl::InfinitePast();
  absl::Time catalogue_since = absl::InfinitePast();  // when it was loaded, by whichever model brought it first
};

// Thread-safe. Destroying it drains without a deadline, waits for a load under way, and returns after the last callback
// of either kind.
//
// Times are of the engine's own clock, Now(): the wall's when the process began to look, moved on steadily since, so
// that a step of the system's clock neither expires a queue nor stops it. A deadline is `engine.Now() +
// absl::Milliseconds(50)`; a time of a status is shown as `absl::Now() + (time - engine.Now())`.
//
// Callbacks run under no lock of the engine, and may be null. They may call Submit, a canceller, Reload and GetStatus,
// but of requests neither Recommend nor Drain, nor destroy the engine: they are what those wait for. They must not
// throw, and hold up others: a slow one its worker, with the answers that its batch has behind it, or whoever else ends
// while a store is asked. Who submits again from the callback of a refusal, which runs inside Submit, does so without
// end.
class Engine {
 public:
  using Callback = absl::AnyInvocable<void(absl::StatusOr<RecommendResult>)>;
  // Cancels its request when called; a no-op once the callback has started. Safe from any thread, any number of times.
  // The request ends with CANCELLED; in the last twentieth of the time it had when it came, or, once it is queued, then
  // (5 ms at least), with DEADLINE_EXCEEDED: a remote caller's own clock has run out.
  using Canceller = absl::AnyInvocable<void()>;

  virtual ~Engine() = default;

  // Never blocks. `done` runs exactly once, on an engine thread, inside Submit when the request is refused or nothing
  // is eligible, or inside Drain when the time is up while the request is prepared: INVALID_ARGUMENT names the field;
  // RESOURCE_EXHAUSTED: the queue is full, or by the measured costs the answer would come too late (beamline/retry.h
  // says when to try again); DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE (stopping, or EngineStatus::fault) and INTERNAL
  // (`non_finite_logits`, execution failed) say what they say.
  virtual Canceller Submit(RecommendRequest request, Callback done) = 0;
  // Submit and wait.
  absl::StatusOr<RecommendResult> Recommend(RecommendRequest request);

  // Loads a bundle in the background, verifies it and warms it up, then swaps it in: a request is answered by the
  // version that served when it was submitted, and no answer mixes two. An empty `bundle` is the newest version of
  // `model_folder`, else `bundle` of the options, read again. `done` runs once, with what is serving now, or with why
  // the bundle was refused while the old version went on: on the thread that loads, which has only the time that nobody
  // else wants (so it should hold no lock for long), inside the call where that is refused (RESOURCE_EXHAUSTED: eight
  // wait already), or where the engine is destroyed (UNAVAILABLE).
  using ReloadCallback = absl::AnyInvocable<void(absl::StatusOr<ModelVersion>)>;
  virtual void Reload(std::string bundle, ReloadCallback done) = 0;
  // Back to the version before, at once where it is still loaded. FAILED_PRECONDITION: there is none, or its bundle is
  // no longer what it was. ABORTED: another version began to serve while the call waited for a load under way.
  virtual void Rollback(ReloadCallback done) = 0;

  // The snapshot that new requests are pinned to.
  virtual std::shared_ptr<const Catalogue> catalogue() const = 0;
  virtual EngineStatus GetStatus() const = 0;
  // Nullopt: the model is in the host's memory, or its backend does not tell. Asks the driver; not for every request.
  virtual std::optional<DeviceMemory> GetDeviceMemory() const { return std::nullopt; }
  // Nullopt: the model's backend has no passes (all but `cuda`), or it is shared by a group.
  virtual std::optional<DevicePasses> GetDevicePasses() const { return std::nullopt; }
  // Refuses new requests, then waits for those in flight, at most until `deadline`: those left then, also those whose
  // history store hangs, end with UNAVAILABLE. False: there were some. Returns after the last request's callback; loads
  // are left alone.
  virtual bool Drain(absl::Time deadline) = 0;
  // The clock of deadlines and of every time that the engine tells.
  virtual absl::Time Now() const = 0;
};

// Loads, verifies and warms up; errors name the file or option at fault. As rank 0 of several it first waits for the
// others; once the group is lost, every request fails with UNAVAILABLE, and only a new engine helps.
absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const EngineOptions& options);

// Any other rank: executes its share of what rank 0 does, of models under the same paths or, for rank 0's `bundle`, its
// own `bundle`. Of the options it takes bundle, device, dtype, backend, threads and parallel. Returns OK once rank 0
// has ended the group, UNAVAILABLE once the group is lost, or what was wrong at the start.
absl::Status FollowEngine(const EngineOptions& options);

}  // namespace beamline
