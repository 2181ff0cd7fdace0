// SPDX-License-Identifier: Apache-2.0
//
// Rank 0's side of a group that holds one model together: the other ranks do what it does, told in messages
// (group_message.h) that go before each call of the model here, in which all ranks then meet. One batch at a time: the
// ranks must agree on what comes next. Scheduling, selection, the catalogue and the cache's decisions are rank 0's
// alone; the others keep their share of each context until nobody here holds it.
//
// A batch that breaks off here once the others were told of it, or that breaks off anywhere else, leaves the ranks
// apart: it ends the group. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backend/communicator.h"
#include "backend/context.h"
#include "beamline/parallel.h"
#include "model/model.h"
#include "parallel/process_group.h"
#include "runtime/group_message.h"
#include "runtime/runner.h"

namespace beamline::runtime {

class GroupModel;

// INVALID_ARGUMENT: a type that ranks do not share.
absl::Status CheckGroupDtype(const RunnerOptions& options, const ParallelOptions& parallel);
// What all ranks of a group must have in common, beside the bundle.
parallel::Settings GroupSettings(const RunnerOptions& options, const backend::Context& ctx);

class GroupLeader : public std::enable_shared_from_this<GroupLeader> {
 public:
  // See StartGroup (runner.h). `context` is this rank's, without a communicator.
  static absl::StatusOr<std::shared_ptr<GroupLeader>> Start(const RunnerOptions& options, backend::Context context,
                                                            const ParallelOptions& parallel);

  const backend::Context& context() const { return context_; }  // of this rank
  absl::Status status() const { return group_->status(); }
  // Tells the others to load the bundle, and does not wait for them.
  absl::StatusOr<std::shared_ptr<GroupModel>> Load(const std::string& bundle, const std::string& digest);

 private:
  friend class GroupModel;
  friend class GroupTurn;
  GroupLeader() = default;
  void OnNote(int rank, const std::string& note);
  absl::Status Tell(const GroupMessage& message) { return group_->Broadcast(SerializeGroupMessage(message)); }

  std::string configured_bundle_;
  std::mutex turn_;     // of who sends messages and calls the model
  std::string tuning_;  // guarded by turn_: what the others have
  std::mutex mu_;
  std::condition_variable answered_;
  uint64_t last_model_ = 0;                                  // guarded by mu_
  std::map<uint64_t, std::map<int, absl::Status>> answers_;  // guarded by mu_: by model, by rank
  backend::Context context_;
  std::unique_ptr<parallel::ProcessGroup> group_;
  std::unique_ptr<backend::Communicator> communicator_;
};

// One model on all ranks; they forget it when this ends.
class GroupModel {
 public:
  GroupModel(std::shared_ptr<GroupLeader> leader, uint64_t id) : leader_(std::move(leader)), id_(id) {}
  ~GroupModel();

  // Until all other ranks have it, or this process is interrupted (CANCELLED). Else the error is the first rank's that
  // could not load it.
  absl::Status AwaitLoaded();
  absl::Status group_status() const { return leader_->status(); }
  // What this rank's backend has measured by now is what the others use from here on: what every rank computes for
  // itself, above all the choice of experts, must come out the same. Between two batches.
  absl::Status ShareTuning();
  // The context is no longer needed anywhere.
  void Release(uint64_t context);

 private:
  friend class GroupTurn;
  std::vector<uint64_t> Released();
  void ForgetReleased(size_t count);  // the first, which the others have heard of

  const std::shared_ptr<GroupLeader> leader_;
  const uint64_t id_;
  std::mutex mu_;
  uint64_t next_context_ = 1;       // guarded by the turn
  std::vector<uint64_t> released_;  // guarded by mu_
};

// A context's share on the other ranks, released when this ends.
class ContextLease {
 public:
  ContextLease() = default;
  ContextLease(std::shared_ptr<GroupModel> model, uint64_t id) : model_(std::move(model)), id_(id) {}
  ContextLease(ContextLease&& other) noexcept : model_(std::move(other.model_)), id_(other.id_) {}
  ContextLease& operator=(ContextLease&&) = delete;
  ~ContextLease() {
    if (model_ != nullptr) model_->Release(id_);
  }
  uint64_t id() const { return id_; }

 private:
  std::shared_ptr<GroupModel> model_;
  uint64_t id_ = 0;
};

// One batch on all ranks: nothing else runs on the group until it ends. Each call goes before this rank's own of the
// model. Errors are exceptions, as the model's are. With a null model there is no group, and nothing happens.
class GroupTurn {
 public:
  explicit GroupTurn(std::shared_ptr<GroupModel> model);
  GroupTurn(const GroupTurn&) = delete;
  GroupTurn& operator=(const GroupTurn&) = delete;

  // The batch, which the calls below are part of, and the end of the turn; once. Where it throws, the others may wait
  // in it by then: if they were told anything of it the group ends, with what was thrown as the reason. `what` names
  // it.
  void Run(absl::string_view what, absl::FunctionRef<void()> batch);

  // One lease per row of the input.
  std::vector<ContextLease> Encode(const model::EncoderInput& input);
  void BeginDecode(const std::vector<uint64_t>& contexts);
  void Step(backend::Context& ctx, const model::StepInput& step);

 private:
  void Tell(GroupMessage message);
  // In a catch block. Who has not even the memory to say it ends the process, which the others notice.
  void BreakOff(absl::string_view what) noexcept;

  const std::shared_ptr<GroupModel> model_;
  std::unique_lock<std::mutex> turn_;
  bool told_ = false;
  bool decoding_ = false;
};

}  // namespace beamline::runtime
