// SPDX-License-Identifier: Apache-2.0
#include "engine/engine_core.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "beamline/retry.h"
#include "beamline/status.h"
#include "engine/answer.h"
#include "engine/request_check.h"

namespace beamline::engine {
namespace {

absl::Status CheckBelongTogether(const runtime::ModelInfo& model, const Catalogue& catalogue) {
  if (model.level_sizes != catalogue.level_sizes()) {
    return absl::FailedPreconditionError(absl::StrCat("catalogue '", catalogue.version(), "' has levels of ",
                                                      absl::StrJoin(catalogue.level_sizes(), "x"), " codes, model '",
                                                      model.version, "' has ", absl::StrJoin(model.level_sizes, "x"),
                                                      "; build the catalogue with the model's codebook"));
  }
  if (model.codebook_fingerprint != catalogue.codebook_fingerprint()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "catalogue '", catalogue.version(), "' was made with codebook ", catalogue.codebook_fingerprint(), ", model '",
        model.version, "' with ", model.codebook_fingerprint, "; build the catalogue with the model's codebook"));
  }
  return absl::OkStatus();
}

scheduler::SchedulerOptions ScheduleOf(const EngineOptions& options, bool inline_execution) {
  scheduler::SchedulerOptions schedule;
  schedule.workers = inline_execution ? 0 : options.workers;
  schedule.queue_capacity = options.queue_capacity;
  schedule.limits.max_rows = options.max_batch_rows;
  schedule.limits.max_requests = options.max_batch_requests;
  schedule.limits.max_queue_delay = options.max_queue_delay;
  return schedule;
}

}  // namespace

// One accepted request until its callback. Shared by the job, the preparation and the canceller, which may outlive the
// engine: `scheduler` is set only while the scheduler holds the job.
struct EngineCore::Call {
  RecommendRequest request;  // until the job is made
  Callback done;
  AnswerLimits limits;
  absl::Time received;

  std::mutex mu;
  scheduler::Scheduler* scheduler = nullptr;  // guarded by mu, as all below
  scheduler::Scheduler::JobId job = 0;
  bool cancelled = false;
  bool ended = false;

  void Cancel() {
    std::lock_guard lock(mu);
    cancelled = true;
    // `mu` keeps the scheduler alive: the job's end, which the scheduler waits for, needs it.
    if (scheduler != nullptr) scheduler->Cancel(job);
  }
};

absl::StatusOr<std::unique_ptr<EngineCore>> EngineCore::Create(Parts parts) {
  BEAMLINE_RETURN_IF_ERROR(CheckOptions(parts.options));
  BEAMLINE_RETURN_IF_ERROR(CheckBelongTogether(parts.runner->info(), *parts.runner->catalogue()));
  if (parts.clock == nullptr) parts.clock = std::make_shared<RealClock>();
  return std::unique_ptr<EngineCore>(new EngineCore(std::move(parts)));
}

EngineCore::EngineCore(Parts parts)
    : options_(std::move(parts.options)), runner_(std::move(parts.runner)), clock_(std::move(parts.clock)) {
  auto version = std::make_shared<CatalogueVersion>();
  version->snapshot = runner_->catalogue();
  version->rules = std::make_shared<catalogue::RuleCache>(version->snapshot, options_.max_rules);
  current_.Swap(std::move(version));
  scheduler_ =
      std::make_unique<scheduler::Scheduler>(ScheduleOf(options_, parts.inline_execution), runner_.get(), clock_.get());
  preparation_ = std::make_unique<ThreadPool>(parts.preparation_threads);
}

EngineCore::~EngineCore() { Drain(absl::InfiniteFuture()); }

Engine::Canceller EngineCore::Submit(RecommendRequest request, Callback done) {
  auto call = std::make_shared<Call>();
  call->received = clock_->Now();
  if (request.deadline == absl::InfiniteFuture()) request.deadline = call->received + options_.default_deadline;
  call->limits = {request.top_k, request.items_per_sid};
  call->done = std::move(done);
  if (absl::Status status = Accept(request); !status.ok()) {
    End(call, std::move(status));
    return [] {};
  }
  call->request = std::move(request);
  preparation_->Schedule([this, call] { Prepare(call); });
  return [call] { call->Cancel(); };
}

// On OK the request is counted in `preparing_`.
absl::Status EngineCore::Accept(const RecommendRequest& request) {
  BEAMLINE_RETURN_IF_ERROR(CheckRequest(request, options_, runner_->info().levels()));
  if (request.deadline <= clock_->Now()) {
    return absl::DeadlineExceededError("the deadline had passed before the request arrived");
  }
  std::lock_guard lock(mu_);
  if (stopping_) return absl::UnavailableError("the engine is stopping; ask another replica");
  if (preparing_ >= options_.queue_capacity) {
    absl::Status status = absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", preparing_, " requests are being prepared, its capacity is ",
                     options_.queue_capacity, "; retry later or send less"));
    SetRetryAfter(status, options_.max_queue_delay);
    return status;
  }
  ++preparing_;
  return absl::OkStatus();
}

void EngineCore::Prepare(const CallPtr& call) {
  absl::StatusOr<std::unique_ptr<runtime::RequestJob>> job = absl::CancelledError("cancelled by the caller");
  bool cancelled = false;
  {
    std::lock_guard lock(call->mu);
    cancelled = call->cancelled;
  }
  if (!cancelled) {
    // A request that waited here past its deadline is not worth an eligibility.
    job = clock_->Now() < call->request.deadline
              ? MakeJob(call->request)
              : absl::DeadlineExceededError("the deadline passed before the request was queued");
  }
  call->request = {};  // cancellers may hold the call for long
  if (!job.ok()) {
    End(call, job.status());
  } else if (EligibleSids(**job) == 0) {
    End(call, Answer(*call, **job));  // known without a model
  } else {
    Enqueue(call, *std::move(job));
  }
  std::lock_guard lock(mu_);
  --preparing_;
  prepared_.notify_all();
}

absl::StatusOr<std::unique_ptr<runtime::RequestJob>> EngineCore::MakeJob(RecommendRequest& request) const {
  BEAMLINE_RETURN_IF_ERROR(AddHistory(request));
  const std::shared_ptr<const CatalogueVersion> version = current_.Get();
  auto job = std::make_unique<runtime::RequestJob>();
  job->snapshot = version->snapshot;

  std::vector<ItemId> seen;
  if (request.exclude_history) {
    for (const Event& event : request.history) seen.push_back(event.item);
  }
  if (!request.eligibility.unrestricted() || !seen.empty()) {
    auto eligibility = catalogue::CompileEligibility(*version->rules, request.eligibility, seen);
    if (!eligibility.ok()) {
      return absl::Status(eligibility.status().code(), absl::StrCat("eligibility.", eligibility.status().message()));
    }
    job->eligibility = *std::move(eligibility);
  }

  job->input = runner_->BuildInput(
      {.user_id = request.user_id, .user_attributes = request.user_attributes, .history = request.history},
      *version->snapshot);
  const runtime::ModelInfo& model = runner_->info();
  if (options_.context_cache_bytes > 0 && !request.user_id.empty()) {
    job->context_key = {request.user_id, runtime::Digest(job->input), model.version};
  }
  job->beam_widths = BeamWidths(request, options_, model.levels());
  job->score_rule = options_.score_rule;
  job->priority = request.priority;
  job->deadline = request.deadline;
  job->SetCosts();
  return job;
}

absl::Status EngineCore::AddHistory(RecommendRequest& request) const {
  if (!request.history.empty() || request.user_id.empty() || options_.history_store == nullptr) {
    return absl::OkStatus();
  }
  BEAMLINE_ASSIGN_OR_RETURN(request.history, options_.history_store->Get(request.user_id, options_.max_history));
  if (absl::Status status = CheckHistory(request.history, options_.max_history, "history"); !status.ok()) {
    return absl::InternalError(absl::StrCat("the history store holds what no request may bring: ", status.message()));
  }
  return absl::OkStatus();
}

void EngineCore::Enqueue(const CallPtr& call, std::unique_ptr<runtime::RequestJob> job) {
  job->done = [this, call](absl::Status status, scheduler::Job& done) {
    if (status.ok()) {
      End(call, Answer(*call, static_cast<const runtime::RequestJob&>(done)));
    } else {
      End(call, std::move(status));
    }
  };
  const scheduler::Scheduler::JobId id = scheduler_->Submit(std::move(job));
  std::lock_guard lock(call->mu);
  if (call->ended) return;
  call->scheduler = scheduler_.get();
  call->job = id;
  if (call->cancelled) scheduler_->Cancel(id);
}

RecommendResult EngineCore::Answer(const Call& call, const runtime::RequestJob& job) const {
  const absl::Time start = clock_->Now();
  RecommendResult result = AssembleAnswer(job, call.limits);
  result.model_version = runner_->info().version;
  if (job.decode_ended != absl::InfinitePast()) result.timings = TimingsOf(job);
  const absl::Time end = clock_->Now();
  result.timings.resolve = end - start;
  result.timings.total = end - call.received;
  return result;
}

void EngineCore::End(const CallPtr& call, absl::StatusOr<RecommendResult> result) {
  {
    std::lock_guard lock(call->mu);
    call->ended = true;
    call->scheduler = nullptr;
  }
  Count(result.status());
  Callback done = std::move(call->done);
  done(std::move(result));
}

void EngineCore::Count(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      completed_.Add();
      break;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
      rejected_.Add();
      break;
    default:
      failed_.Add();
  }
}

std::shared_ptr<const Catalogue> EngineCore::catalogue() const { return current_.Get()->snapshot; }

EngineStatus EngineCore::GetStatus() const {
  const runtime::ModelInfo& model = runner_->info();
  const std::shared_ptr<const CatalogueVersion> version = current_.Get();
  const scheduler::SchedulerStats stats = scheduler_->stats();
  EngineStatus status;
  status.model_version = model.version;
  status.catalogue_version = version->snapshot->version();
  status.family = model.family;
  status.levels = model.levels();
  status.level_sizes = model.level_sizes;
  status.parameters = model.parameters;
  status.num_items = version->snapshot->num_items();
  status.completed = completed_.value();
  status.failed = failed_.value();
  status.rejected = rejected_.value();
  status.context_hits = stats.context_hits;
  status.context_misses = stats.context_misses;
  std::lock_guard lock(mu_);
  status.ready = !stopping_;
  status.queued = preparing_ + stats.queued;
  status.in_flight = preparing_ + stats.in_flight;
  return status;
}

bool EngineCore::Drain(absl::Time deadline) {
  {
    std::unique_lock lock(mu_);
    stopping_ = true;
    prepared_.wait(lock, [this] { return preparing_ == 0; });
  }
  return scheduler_->Drain(deadline);
}

}  // namespace beamline::engine
