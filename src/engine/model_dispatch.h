// SPDX-License-Identifier: Apache-2.0
//
// The scheduler's executor: hands each batch to the model its jobs are pinned to. The scheduler never mixes groups in a
// batch, and a group is one model. Stateless; thread-safe where the models are.
#pragma once

#include <vector>

#include "runtime/request_job.h"
#include "runtime/runner.h"
#include "scheduler/executor.h"

namespace beamline::engine {

class ModelDispatch final : public scheduler::BatchExecutor {
 public:
  // For this model and those that will serve in its place: they have the same options.
  explicit ModelDispatch(const runtime::Runner& like)
      : max_concurrency_(like.max_concurrency()), computes_on_host_(like.computes_on_host()), chains_(like.chains()) {}

  int max_concurrency() const override { return max_concurrency_; }
  bool computes_on_host() const override { return computes_on_host_; }
  bool TryAttachContext(scheduler::Job& job) override { return ModelOf(job).TryAttachContext(job); }
  std::vector<absl::Status> Encode(absl::Span<scheduler::Job* const> jobs) override {
    return ModelOf(*jobs[0]).Encode(jobs);
  }
  std::vector<absl::Status> Decode(absl::Span<scheduler::Job* const> jobs, scheduler::StepGate gate) override {
    return ModelOf(*jobs[0]).Decode(jobs, gate);
  }
  bool chains() const override { return chains_; }
  Chained EncodeAndDecode(absl::Span<scheduler::Job* const> jobs, scheduler::StepGate gate) override {
    return ModelOf(*jobs[0]).EncodeAndDecode(jobs, gate);
  }

 private:
  static runtime::Runner& ModelOf(scheduler::Job& job) { return *static_cast<runtime::RequestJob&>(job).model; }

  const int max_concurrency_;
  const bool computes_on_host_, chains_;
};

}  // namespace beamline::engine
