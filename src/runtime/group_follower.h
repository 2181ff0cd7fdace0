// SPDX-License-Identifier: Apache-2.0
//
// Any rank but 0: loads its share of the models that rank 0 names, in the background, and runs on them what rank 0
// runs, when it does. It keeps its share of contexts by rank 0's numbers, and chooses nothing. One thread runs it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

#include "absl/status/status.h"
#include "backend/context.h"
#include "base/thread_pool.h"
#include "model/model.h"
#include "parallel/process_group.h"
#include "runtime/group_message.h"
#include "runtime/runner.h"

namespace beamline::runtime {

class GroupFollower {
 public:
  // `ctx` has the group's communicator; both outlive this, whose end waits for what is loading.
  GroupFollower(const RunnerOptions& options, const backend::Context& ctx, parallel::ProcessGroup* group);

  // Until rank 0 has ended the group: OK, or, where no model was ever loaded here, why; UNAVAILABLE: the group was
  // lost.
  absl::Status Run();

 private:
  struct Followed {
    backend::Context context;
    std::shared_ptr<const model::Model> model;
    std::map<uint64_t, model::ContextHandle> contexts;
  };
  void Execute(const GroupMessage& message);
  void StartLoading(const GroupMessage& message);
  // CANCELLED: rank 0 has no use for it any more.
  absl::Status Load(const GroupMessage& message);
  // Of a model that was loaded, or an exception.
  Followed& Find(uint64_t model);
  void Encode(const GroupMessage& message, Followed& followed);
  void BeginDecode(const GroupMessage& message, Followed& followed);
  void Step(const GroupMessage& message, const Followed& followed);

  const RunnerOptions options_;
  const backend::Context context_;
  parallel::ProcessGroup& group_;
  std::mutex mu_;
  std::map<uint64_t, Followed> models_;    // guarded by mu_; entries are used by Run's thread alone
  std::set<uint64_t> awaited_;             // guarded by mu_: being loaded, or about to be; rank 0 may give them up
  absl::Status start_;                     // guarded by mu_: of the last load, while none has succeeded
  bool started_ = false;                   // guarded by mu_
  std::optional<backend::Context> batch_;  // of the decode that runs
  model::DecodeState decode_;
  ThreadPool loading_{1};  // last: it uses all of the above
};

}  // namespace beamline::runtime
