// SPDX-License-Identifier: Apache-2.0
//
// Runs a loaded model for the scheduler: encodes what the context cache does not hold, packs contexts to decode
// batches, searches. Errors of the tensor library end here as statuses: a batch that fails as a whole fails its
// requests with one status, a request with bad data fails alone. Immutable but for the cache; thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "backend/backend.h"
#include "backend/context.h"
#include "model/model.h"
#include "runtime/bundle.h"
#include "runtime/context_cache.h"
#include "runtime/feature_builder.h"
#include "runtime/group_leader.h"
#include "runtime/request_job.h"
#include "runtime/runner.h"
#include "runtime/tuning_cache.h"

namespace beamline::runtime {

class ModelRunner final : public Runner {
 public:
  // What a runner is made of.
  struct Parts {
    backend::Context context;
    std::unique_ptr<const model::Model> model;
    std::shared_ptr<const Vocabulary> vocabulary;
    std::shared_ptr<const catalogue::CatalogueSnapshot> catalogue;
    std::string model_version;
    std::string codebook_fingerprint;
    int64_t context_cache_bytes = 0;
    std::string memory_estimate;  // of the bundle, told where a trial runs out of memory
    int workers = 1;
    std::shared_ptr<GroupModel> group;  // of the model on the other ranks; null: there are none
    TuningCache tuning;                 // saved after warm-ups
  };
  explicit ModelRunner(Parts parts);

  const ModelInfo& info() const override { return info_; }
  std::shared_ptr<const catalogue::CatalogueSnapshot> catalogue() const override { return parts_.catalogue; }
  EncodedRequest BuildInput(const FeatureSource& source, const Catalogue& catalogue) const override {
    return features_.Build(source, catalogue);
  }
  ContextCacheStats context_cache_stats() const override { return cache_.stats(); }
  bool HoldsContext(const ContextKey& key) const override { return cache_.Contains(key); }
  std::optional<DeviceMemory> GetDeviceMemory() const override { return parts_.context.backend->GetDeviceMemory(); }
  std::optional<DevicePasses> GetDevicePasses() const override {  // a group's ranks go step by step
    return parts_.group != nullptr ? std::nullopt : parts_.context.backend->GetDevicePasses();
  }
  std::string memory_estimate() const override { return parts_.memory_estimate; }
  absl::Status fault() const override;
  absl::Status WarmUp(absl::Span<const RecommendRequest> recorded, ScoreRule score_rule) override;
  std::shared_ptr<void> HoldWorker() override {
    return parts_.context.workers == nullptr ? nullptr : parts_.context.workers->Hold();
  }
  int runs_until_warm() const override {  // a group's ranks go step by step
    return parts_.group != nullptr ? 1 : parts_.context.backend->RunsUntilWarm();
  }

  int max_concurrency() const override { return parts_.group == nullptr ? parts_.workers : 1; }
  bool computes_on_host() const override { return parts_.context.device.is_cpu(); }
  bool TryAttachContext(scheduler::Job& job) override;
  std::vector<absl::Status> Encode(absl::Span<scheduler::Job* const> jobs) override;
  std::vector<absl::Status> Decode(absl::Span<scheduler::Job* const> jobs, scheduler::StepGate gate) override;
  // A group's ranks take turns at encodes and decodes.
  bool chains() const override { return parts_.group == nullptr && parts_.context.backend->RunsBehindTheHost(); }
  Chained EncodeAndDecode(absl::Span<scheduler::Job* const> jobs, scheduler::StepGate gate) override;

 private:
  // Ends after the model: what the backend packed of its weights goes with it.
  struct WeightRelease {
    const backend::Backend* backend;
    ~WeightRelease() { backend->ReleaseUnusedWeights(); }
  };

  // What `batch`, of jobs like `first`, threw as a status; the fault, where that is the reason. With a fault nothing is
  // begun.
  absl::Status RunBatch(absl::string_view what, const RequestJob& first, absl::FunctionRef<void()> batch) const;
  // A decode's jobs that may run, with what each searches and where its status goes.
  struct DecodeBatch {
    std::vector<RequestJob*> jobs;
    std::vector<kernels::ConstraintView> constraints;
    std::vector<absl::Status*> statuses;
  };
  // Jobs get contexts, which are computed when the batch has ended.
  void EncodeIn(backend::Context& ctx, absl::Span<RequestJob* const> jobs);
  void KeepContexts(absl::Span<RequestJob* const> jobs);  // for later requests
  void AddToDecode(RequestJob& job, absl::Status& status, DecodeBatch& batch) const;
  void DecodeIn(backend::Context& ctx, const DecodeBatch& batch, scheduler::StepGate gate) const;
  // Encodes and decodes the requests as one batch, without the cache.
  absl::Status TryBatch(absl::Span<const RecommendRequest> requests, ScoreRule score_rule);
  absl::Status CheckEncode(const RequestJob& job) const;
  absl::StatusOr<kernels::ConstraintView> CheckDecode(const RequestJob& job) const;

  const WeightRelease release_;  // first, so that it ends last
  TuningCache tuning_;
  const Parts parts_;
  const ModelInfo info_;
  const FeatureBuilder features_;
  ContextCache cache_;
};

}  // namespace beamline::runtime
