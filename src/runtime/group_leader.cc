// SPDX-License-Identifier: Apache-2.0
#include "runtime/group_leader.h"

#include <filesystem>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "backend/backend.h"
#include "backend/ops.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/may_pass.h"
#include "base/program.h"
#include "base/run_catching.h"
#include "beamline/kernels/packed_gemm.h"
#include "beamline/kernels/vector_ops.h"
#include "beamline/status.h"
#include "runtime/load_model.h"

namespace beamline::runtime {
namespace {

constexpr auto kLookPeriod = std::chrono::milliseconds(50);

}  // namespace

absl::Status CheckGroupDtype(const RunnerOptions& options, const ParallelOptions& parallel) {
  if (IsGroupDtype(options.dtype)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("engine.dtype: ", options.dtype, " needs parallel.size 1, and it is ", parallel.size,
                   ": each rank would scale its share of a row by itself; a group takes fp32, bf16 or fp16"));
}

parallel::Settings GroupSettings(const RunnerOptions& options, const backend::Context& ctx) {
  const bool cpu = ctx.device.is_cpu();
  return {
      // Two builds may compute, and say, what one does not: the protocol's number is raised by hand.
      {"program", ProgramBuild()},
      {"group protocol", absl::StrCat(kGroupProtocol)},
      {"engine.device", cpu ? "cpu" : "cuda"},
      {"engine.dtype", options.dtype},
      {"engine.backend", cpu && options.backend == "auto" ? "cpu" : options.backend},
      // What every rank computes for itself, above all the choice of experts, must come out the same.
      {"instruction set", cpu ? kernels::BestVectorOps().name : "any"},
      {"kernels", ctx.backend->TuningName()},  // with the card and its driver
      {"bf16 products", cpu && options.dtype == "bf16" ? kernels::BestGemm(kernels::Precision::kBf16).name : "any"}};
}

absl::StatusOr<std::shared_ptr<GroupLeader>> GroupLeader::Start(const RunnerOptions& options, backend::Context context,
                                                                const ParallelOptions& parallel) {
  std::shared_ptr<GroupLeader> leader(new GroupLeader);
  leader->configured_bundle_ = options.bundle;
  leader->context_ = std::move(context);
  GroupLeader* const self = leader.get();  // which outlives the group's thread
  BEAMLINE_ASSIGN_OR_RETURN(
      leader->group_,
      parallel::ProcessGroup::Join(parallel, GroupSettings(options, leader->context_),
                                   [self](int rank, const std::string& note) { self->OnNote(rank, note); }));
  BEAMLINE_ASSIGN_OR_RETURN(leader->communicator_,
                            backend::MakeCommunicator(leader->group_.get(), leader->context_.device));
  leader->context_.communicator = leader->communicator_.get();
  return leader;
}

absl::StatusOr<std::shared_ptr<GroupLeader>> StartGroup(const RunnerOptions& options, const ParallelOptions& parallel) {
  BEAMLINE_RETURN_IF_ERROR(CheckGroupDtype(options, parallel));
  BEAMLINE_ASSIGN_OR_RETURN(backend::Context ctx, backend::MakeContext(options.device, options.dtype, options.backend));
  return GroupLeader::Start(options, std::move(ctx), parallel);
}

void GroupLeader::OnNote(int rank, const std::string& note) {
  const absl::StatusOr<LoadAnswer> answer = ParseLoadAnswer(note);
  if (!answer.ok()) {
    LogEvent(spdlog::level::err, "parallel: an answer that is none",
             {{"rank", rank}, {"error", LogText(answer.status())}});
    return;
  }
  const std::lock_guard<std::mutex> lock(mu_);
  const auto asked = answers_.find(answer->model);
  if (asked == answers_.end()) return;  // given up meanwhile
  asked->second[rank] = answer->status;
  answered_.notify_all();
}

absl::StatusOr<std::shared_ptr<GroupModel>> GroupLeader::Load(const std::string& bundle, const std::string& digest) {
  GroupMessage message{.command = GroupCommand::kLoad, .digest = digest};
  if (bundle != configured_bundle_) message.bundle = std::filesystem::absolute(bundle).string();
  {
    const std::lock_guard<std::mutex> lock(mu_);
    message.model = ++last_model_;
    answers_[message.model];
  }
  auto model = std::make_shared<GroupModel>(shared_from_this(), message.model);
  const std::lock_guard<std::mutex> turn(turn_);
  BEAMLINE_RETURN_IF_ERROR(Tell(message));
  return model;
}

GroupModel::~GroupModel() {
  const std::lock_guard<std::mutex> turn(leader_->turn_);
  // A group that has ended has forgotten it.
  (void)leader_->Tell({.command = GroupCommand::kUnload, .model = id_});
  const std::lock_guard<std::mutex> lock(leader_->mu_);
  leader_->answers_.erase(id_);
}

absl::Status GroupModel::AwaitLoaded() {
  std::unique_lock<std::mutex> lock(leader_->mu_);
  const size_t others = static_cast<size_t>(leader_->group_->size()) - 1;
  while (leader_->answers_[id_].size() < others) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    BEAMLINE_RETURN_IF_ERROR(leader_->status());
    leader_->answered_.wait_for(lock, kLookPeriod);
  }
  for (const auto& [rank, status] : leader_->answers_[id_]) {
    // Its files may come yet, which this rank's folder does not show.
    if (!status.ok()) {
      return MayPass(absl::Status(status.code(), absl::StrCat("rank ", rank, ": ", status.message())));
    }
  }
  return absl::OkStatus();
}

absl::Status GroupModel::ShareTuning() {
  const std::lock_guard<std::mutex> turn(leader_->turn_);
  std::string tuning = leader_->context_.backend->ExportTuning();
  if (tuning == leader_->tuning_) return absl::OkStatus();
  BEAMLINE_RETURN_IF_ERROR(leader_->Tell({.command = GroupCommand::kTuning, .tuning = tuning}));
  leader_->tuning_ = std::move(tuning);
  return absl::OkStatus();
}

void GroupModel::Release(uint64_t context) {
  const std::lock_guard<std::mutex> lock(mu_);
  released_.push_back(context);
}

std::vector<uint64_t> GroupModel::Released() {
  const std::lock_guard<std::mutex> lock(mu_);
  return released_;
}

void GroupModel::ForgetReleased(size_t count) {
  const std::lock_guard<std::mutex> lock(mu_);
  released_.erase(released_.begin(), released_.begin() + static_cast<ptrdiff_t>(count));
}

GroupTurn::GroupTurn(std::shared_ptr<GroupModel> model) : model_(std::move(model)) {
  if (model_ != nullptr) turn_ = std::unique_lock<std::mutex>(model_->leader_->turn_);
}

void GroupTurn::Run(absl::string_view what, absl::FunctionRef<void()> batch) {
  try {
    batch();
    if (decoding_) Tell({.command = GroupCommand::kEndDecode});
  } catch (...) {
    if (told_) BreakOff(what);
    throw;
  }
  if (turn_.owns_lock()) turn_.unlock();
}

void GroupTurn::BreakOff(absl::string_view what) noexcept {
  const absl::Status fault = model_->leader_->context_.backend->fault();
  model_->leader_->group_->Fail(fault.ok() ? StatusOfCaught(absl::StrCat("rank 0: ", what)) : fault);
}

void GroupTurn::Tell(GroupMessage message) {
  if (model_ == nullptr) return;
  message.model = model_->id_;
  message.released = model_->Released();
  const std::string bytes = SerializeGroupMessage(message);
  told_ = true;  // from the first byte on, though sending may break off half way
  const absl::Status status = model_->leader_->group_->Broadcast(bytes);
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
  model_->ForgetReleased(message.released.size());
}

std::vector<ContextLease> GroupTurn::Encode(const model::EncoderInput& input) {
  std::vector<ContextLease> leases;
  if (model_ == nullptr) {
    leases.resize(input.batch);
    return leases;
  }
  const uint64_t first = model_->next_context_;
  Tell({.command = GroupCommand::kEncode, .input = input, .first_context = first});
  model_->next_context_ += static_cast<uint64_t>(input.batch);
  for (int row = 0; row < input.batch; ++row) leases.emplace_back(model_, first + static_cast<uint64_t>(row));
  return leases;
}

void GroupTurn::BeginDecode(const std::vector<uint64_t>& contexts) {
  Tell({.command = GroupCommand::kBeginDecode, .contexts = contexts});
  decoding_ = true;
}

void GroupTurn::Step(backend::Context& ctx, const model::StepInput& step) {
  if (model_ == nullptr) return;
  GroupMessage message{.command = GroupCommand::kStep, .level = step.level};
  if (step.level > 0) {
    message.rows = static_cast<int32_t>(step.codes.size(1));
    message.codes = backend::DownloadInts(ctx, step.codes);
    message.parents = backend::DownloadInts(ctx, step.parents);
  }
  Tell(std::move(message));
}

}  // namespace beamline::runtime
