// SPDX-License-Identifier: Apache-2.0
#include "runtime/group_follower.h"

#include <stdexcept>
#include <thread>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "backend/backend.h"
#include "backend/communicator.h"
#include "backend/ops.h"
#include "base/log.h"
#include "base/low_priority.h"
#include "base/run_catching.h"
#include "beamline/status.h"
#include "runtime/bundle_folder.h"
#include "runtime/group_leader.h"
#include "runtime/load_model.h"

namespace beamline::runtime {
namespace {

// Of a thread of its own, since threads that libraries keep for the calling one have that one's priority.
absl::Status RunAtLowPriority(absl::FunctionRef<absl::Status()> work) {
  absl::Status status;
  std::thread([&] {
    LowerPriority();
    status = work();
  }).join();
  return status;
}

}  // namespace

GroupFollower::GroupFollower(const RunnerOptions& options, const backend::Context& ctx, parallel::ProcessGroup* group)
    : options_(options), context_(ctx), group_(*group) {}

absl::Status GroupFollower::Run() {
  const backend::InferenceGuard guard;
  for (;;) {
    const absl::StatusOr<std::string> bytes = group_.Receive();
    if (absl::IsCancelled(bytes.status())) {
      absl::Notification loaded;  // a load that is still going on has the last word
      loading_.Schedule([&loaded] { loaded.Notify(); });
      loaded.WaitForNotification();
      const std::lock_guard<std::mutex> lock(mu_);
      return start_;
    }
    if (!bytes.ok()) return bytes.status();
    BEAMLINE_ASSIGN_OR_RETURN(const GroupMessage message, ParseGroupMessage(*bytes));
    const absl::Status status = RunCatching("following rank 0", [&] { Execute(message); });
    if (status.ok()) continue;
    group_.Fail(absl::InternalError(absl::StrCat("rank ", group_.rank(), ": ", status.message())));
    return group_.status();
  }
}

void GroupFollower::Execute(const GroupMessage& message) {
  if (message.command == GroupCommand::kLoad) return StartLoading(message);
  if (message.command == GroupCommand::kUnload) {
    std::map<uint64_t, Followed>::node_type forgotten;
    {
      const std::lock_guard<std::mutex> lock(mu_);
      forgotten = models_.extract(message.model);
      awaited_.erase(message.model);
    }
    forgotten = {};
    context_.backend->ReleaseUnusedWeights();
    return;
  }
  if (message.command == GroupCommand::kTuning) {
    const absl::Status status = context_.backend->AdoptTuning(message.tuning);
    if (!status.ok()) throw std::runtime_error(std::string(status.message()));
    return;
  }
  Followed& followed = Find(message.model);
  for (const uint64_t context : message.released) followed.contexts.erase(context);
  switch (message.command) {
    case GroupCommand::kEncode:
      return Encode(message, followed);
    case GroupCommand::kBeginDecode:
      return BeginDecode(message, followed);
    case GroupCommand::kStep:
      return Step(message, followed);
    default:
      decode_ = {};
      batch_.reset();
  }
}

GroupFollower::Followed& GroupFollower::Find(uint64_t model) {
  const std::lock_guard<std::mutex> lock(mu_);
  const auto found = models_.find(model);
  if (found == models_.end()) throw std::runtime_error(absl::StrCat("rank 0 uses model ", model, ", not loaded here"));
  return found->second;
}

void GroupFollower::StartLoading(const GroupMessage& message) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    awaited_.insert(message.model);
  }
  loading_.Schedule([this, message] {
    const auto load = [&] {
      return ReturnCatching(
          "loading", [&] { return Load(message); }, absl::StatusCode::kResourceExhausted);
    };
    bool serving = false;
    {
      const std::lock_guard<std::mutex> lock(mu_);
      serving = started_;
    }
    // As the repository of rank 0: the first model is waited for, another one must not delay what serves.
    const absl::Status status =
        !serving ? load()
                 : ReturnCatching(
                       "loading", [&] { return RunAtLowPriority(load); }, absl::StatusCode::kResourceExhausted);
    {
      const std::lock_guard<std::mutex> lock(mu_);
      const bool given_up = awaited_.erase(message.model) == 0 && !status.ok();
      // At the start this rank's own reason is worth telling.
      if (given_up && (started_ || absl::IsCancelled(status))) return;
    }
    if (!status.ok()) LogEvent(spdlog::level::err, "parallel: not loaded", {{"error", LogText(status)}});
    {
      const std::lock_guard<std::mutex> lock(mu_);
      started_ = started_ || status.ok();
      start_ = started_ ? absl::OkStatus() : status;
    }
    group_.Post(SerializeLoadAnswer({message.model, status}));
  });
}

absl::Status GroupFollower::Load(const GroupMessage& message) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (started_ && !awaited_.contains(message.model)) return absl::CancelledError("rank 0 gave the model up");
  }
  RunnerOptions options = options_;
  if (!message.bundle.empty()) options.bundle = message.bundle;
  options.catalogue.clear();  // rank 0's business
  BEAMLINE_RETURN_IF_ERROR(CheckRunnerOptions(options));
  BEAMLINE_ASSIGN_OR_RETURN(const std::string digest, IdentifyBundle(options.bundle));
  if (digest != message.digest) {
    return absl::FailedPreconditionError(absl::StrCat("engine.bundle: ", options.bundle, " has digest ", digest,
                                                      ", rank 0's has ", message.digest,
                                                      "; all ranks of a group need the same version of the model"));
  }
  options.digest = digest;
  backend::Context ctx = context_;
  ctx.workers = ctx.backend->NewWorkers();
  BEAMLINE_ASSIGN_OR_RETURN(LoadedModel loaded, LoadModel(options, ctx));
  LogEvent(spdlog::level::info, "parallel: loaded",
           {{"rank", group_.rank()},
            {"size", group_.size()},
            {"bundle", options.bundle},
            {"model_version", loaded.bundle.manifest.model_version}});
  const std::lock_guard<std::mutex> lock(mu_);
  if (!awaited_.contains(message.model)) return absl::CancelledError("rank 0 gave the model up");
  Followed& followed = models_[message.model];
  followed.context = std::move(ctx);
  followed.model = std::move(loaded.model);
  return absl::OkStatus();
}

void GroupFollower::Encode(const GroupMessage& message, Followed& followed) {
  backend::Context ctx = backend::BeginBatch(followed.context);
  model::EncodedContext encoded =
      followed.model->Encode(ctx, model::UploadEncoderInput(ctx, followed.model->config(), message.input));
  model::TakeFirstStep(ctx, *followed.model, encoded);
  const std::vector<model::ContextHandle> handles = model::SplitContext(ctx, encoded);
  backend::EndBatch(ctx);
  for (size_t row = 0; row < handles.size(); ++row) {
    followed.contexts[message.first_context + row] = handles[row];
  }
}

void GroupFollower::BeginDecode(const GroupMessage& message, Followed& followed) {
  batch_ = backend::BeginBatch(followed.context);
  std::vector<const model::ContextHandle*> handles;
  for (const uint64_t context : message.contexts) {
    const auto found = followed.contexts.find(context);
    if (found == followed.contexts.end()) throw std::runtime_error(absl::StrCat("context ", context, " is not here"));
    handles.push_back(&found->second);
  }
  decode_ = followed.model->BeginDecode(*batch_, model::PackContexts(*batch_, handles));
  // What the contexts have of the first step; without it rank 0 sends that step, too.
  if (decode_.context.first.logits.defined()) model::FirstLogits(*batch_, *followed.model, decode_);
}

void GroupFollower::Step(const GroupMessage& message, const Followed& followed) {
  if (!batch_) throw std::runtime_error("a decode step without a decode");
  model::StepInput step{.level = message.level};
  if (message.level > 0) {
    const int64_t shape[] = {decode_.context.batch(), message.rows};
    step.codes = backend::UploadInts(*batch_, message.codes, shape);
    step.parents = backend::UploadInts(*batch_, message.parents, shape);
  }
  followed.model->DecodeStep(*batch_, decode_, step);
}

absl::Status FollowGroup(const RunnerOptions& options, const ParallelOptions& parallel) {
  BEAMLINE_RETURN_IF_ERROR(CheckGroupDtype(options, parallel));
  BEAMLINE_ASSIGN_OR_RETURN(backend::Context ctx, backend::MakeContext(options.device, options.dtype, options.backend));
  BEAMLINE_ASSIGN_OR_RETURN(const std::unique_ptr<parallel::ProcessGroup> group,
                            parallel::ProcessGroup::Join(parallel, GroupSettings(options, ctx)));
  BEAMLINE_ASSIGN_OR_RETURN(const std::unique_ptr<backend::Communicator> communicator,
                            backend::MakeCommunicator(group.get(), ctx.device));
  ctx.communicator = communicator.get();
  LogEvent(spdlog::level::info, "parallel: following",
           {{"rank", group->rank()}, {"size", group->size()}, {"rank_0", parallel.address}, {"port", parallel.port}});
  return GroupFollower(options, ctx, group.get()).Run();
}

}  // namespace beamline::runtime
