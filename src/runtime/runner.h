// SPDX-License-Identifier: Apache-2.0
//
// What the engine sees of a loaded model: a batch executor over RequestJobs, a description of the model, and how to
// turn events into its input. Free of torch, so that the engine and its tests (with a fake runner) build without it.
// Thread-safety: const methods from any thread at any time; Encode, Decode and TryAttachContext as scheduler/executor.h
// says.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "beamline/catalogue.h"
#include "beamline/device_memory.h"
#include "beamline/device_passes.h"
#include "beamline/parallel.h"
#include "beamline/request.h"
#include "catalogue/snapshot.h"
#include "runtime/encoded_request.h"
#include "scheduler/executor.h"

namespace beamline::runtime {

struct ContextKey;  // request_job.h

struct ModelInfo {
  std::string family;   // "onerec_v1" or "t5"
  bool ranker = false;  // orders the search's candidates
  std::string version;  // names the bundle's content; part of every context key
  std::vector<uint32_t> level_sizes;
  std::string codebook_fingerprint;
  std::array<int, 2> window_lengths = {};  // events per pathway, in EncodedRequest::pathways order
  uint64_t parameters = 0;

  int levels() const { return static_cast<int>(level_sizes.size()); }
};

struct ContextCacheStats {
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t evictions = 0;
  int64_t bytes = 0;
  int64_t entries = 0;
};

class Runner : public scheduler::BatchExecutor {
 public:
  virtual const ModelInfo& info() const = 0;
  // The bundle's own catalogue.
  virtual std::shared_ptr<const catalogue::CatalogueSnapshot> catalogue() const = 0;
  // A request's history and user -> the model's input. Never fails: what is unknown becomes id 0 and is counted.
  virtual EncodedRequest BuildInput(const FeatureSource& source, const Catalogue& catalogue) const = 0;
  virtual ContextCacheStats context_cache_stats() const { return {}; }
  // Whether TryAttachContext would attach one now: what a request with this key is expected to cost. Cheap.
  virtual bool HoldsContext(const ContextKey&) const { return false; }
  virtual std::optional<DeviceMemory> GetDeviceMemory() const { return std::nullopt; }
  virtual std::optional<DevicePasses> GetDevicePasses() const { return std::nullopt; }
  // What loading it was estimated to take, by parts, for whoever runs out of memory beside it; empty: nobody estimated.
  virtual std::string memory_estimate() const { return {}; }
  // Why no batch can be executed in this process any more (its device has failed, its group was lost), UNAVAILABLE: all
  // batches end with it. OK: none is known. Cheap.
  virtual absl::Status fault() const { return absl::OkStatus(); }
  // Runs a few synthetic requests and the recorded ones, each with widths for every level, through both stages under
  // `score_rule`, so that the first real one is not slow; fails as they would. Eligibility is not run.
  virtual absl::Status WarmUp(absl::Span<const RecommendRequest> recorded, ScoreRule score_rule) = 0;
  // After a warm-up: keeps what the last batches ran on out of use while the result lives, so that another warm-up
  // reaches the next of those that run at once. Null: they share it.
  virtual std::shared_ptr<void> HoldWorker() { return nullptr; }
  // How often a batch of some size runs on a worker until later ones like it take the time that they will.
  virtual int runs_until_warm() const { return 1; }
};

class GroupLeader;  // group_leader.h

struct RunnerOptions {
  std::string bundle;                      // folder written by `beamline pack`
  std::string digest;                      // what IdentifyBundle said of it; ABORTED where it is another; empty: any
  std::string catalogue;                   // snapshot file used instead of the bundle's own; empty: the bundle's
  std::string device = "cpu";              // "cpu" or "cuda"; ChooseDevice for "auto"
  std::string dtype = "fp32";              // see beamline/dtype.h and backend/context.h
  bool allow_ungated_dtype = false;        // FP8 of a bundle without a passed gate of it (gate_report.h), too
  std::string backend = "auto";            // "aten", "cpu", "cuda", or "auto": the fastest there is
  std::optional<int> threads = 0;          // of the process's CPU backends; 0: one per core; nullopt: as they are
  int workers = 1;                         // concurrent Encode and Decode calls
  int64_t context_cache_bytes = 64 << 20;  // 0: no cache
  int64_t memory_limit_bytes = 0;          // of the host; 0: what the machine has available
  std::string tuning_folder;               // of what is measured on a GPU at warm-up; empty: in the user's cache folder
  std::shared_ptr<GroupLeader> group;      // of the ranks that hold the model together; null: this process alone
};

// The device of the options; of "auto", "cuda" where that works for dtype and backend, else "cpu", and the log says
// which and why. Asked once, at the start: what began on one device never goes on on another, whatever a driver does
// meanwhile.
absl::StatusOr<std::string> ChooseDevice(const RunnerOptions& options);

// Verifies the whole bundle, then loads it. Errors name the file, the field and the limit. Declared here, defined where
// torch is (runtime/load_runner.cc).
absl::StatusOr<std::unique_ptr<Runner>> LoadRunner(const RunnerOptions& options);

// Rank 0 of several (beamline/parallel.h): waits until all are there. Errors name the field. What it returns goes into
// the options of runners, whose device, dtype, backend and threads are those given here.
absl::StatusOr<std::shared_ptr<GroupLeader>> StartGroup(const RunnerOptions& options, const ParallelOptions& parallel);
// Another rank: loads and executes what rank 0 does, until that ends the group: OK; else why the group was lost.
absl::Status FollowGroup(const RunnerOptions& options, const ParallelOptions& parallel);

}  // namespace beamline::runtime
