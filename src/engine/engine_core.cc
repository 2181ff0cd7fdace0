// SPDX-License-Identifier: Apache-2.0
#include "engine/engine_core.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/run_catching.h"
#include "beamline/retry.h"
#include "beamline/stage_timings.h"
#include "beamline/status.h"
#include "engine/answer.h"
#include "engine/narrowing.h"
#include "engine/request_check.h"

namespace beamline::engine {
namespace {

// One broken batch may be one request's fault; so many in a row are the device's or the model's.
constexpr uint64_t kBrokenBatches = 3;
// How far beyond its expected end a batch may run before its device must be taken for stuck.
constexpr absl::Duration kOverdue = absl::Seconds(10);
// How long batches may run one after the other without one answer, be it that all callers gave up.
constexpr absl::Duration kUnanswered = absl::Minutes(1);

scheduler::SchedulerOptions ScheduleOf(const EngineOptions& options, bool inline_execution) {
  scheduler::SchedulerOptions schedule;
  schedule.workers = inline_execution ? 0 : std::max(1, options.workers);
  schedule.queue_capacity = options.queue_capacity;
  schedule.admission = options.admission;
  schedule.limits.max_rows = options.max_batch_rows;
  schedule.limits.max_requests = options.max_batch_requests;
  schedule.limits.max_queue_delay = options.max_queue_delay;
  return schedule;
}

ModelVersion ModelVersionOf(const repository::VersionStatus& version) {
  return {.id = version.id,
          .bundle = version.path,
          .model_version = version.model_version,
          .catalogue_version = version.catalogue_version,
          .state = std::string(repository::NameOf(version.state)),
          .error = std::string(version.error.message()),
          .since = version.changed,
          .load_time = version.load_time,
          .warm_up_time = version.warm_up_time};
}

// Empty: the engine takes requests and its last batches succeeded.
std::string WhyNotReady(bool stopping, const absl::Status& fault, const scheduler::SchedulerStats& stats,
                        absl::Time now) {
  if (stopping) return "stopping";
  if (!fault.ok()) return std::string(fault.message());
  if (stats.broken_batches >= kBrokenBatches) return absl::StrCat("the last ", stats.broken_batches, " batches failed");
  // Until the last batch, not until now: where nobody asks, nobody can be answered.
  if (const absl::Duration without = stats.unanswered_until - stats.unanswered_since; without > kUnanswered) {
    return absl::StrCat("no batch has given an answer for ", absl::ToInt64Seconds(without), " s");
  }
  if (now < stats.next_end + kOverdue) return "";
  return absl::StrCat("a batch hangs: it should have ended ", absl::ToInt64Seconds(now - stats.next_end), " s ago");
}

// A message with the user's id struck out: wherever it stands, or, for an id so short that words hold it by chance,
// where it stands alone.
std::string WithoutUser(absl::string_view message, absl::string_view user) {
  constexpr size_t kShortId = 4;
  const auto in_word = [&](size_t at) {
    return at < message.size() && absl::ascii_isalnum(static_cast<unsigned char>(message[at]));
  };
  std::string text;
  size_t from = 0;
  for (size_t at; (at = message.find(user, from)) != absl::string_view::npos; from = at + user.size()) {
    const bool part_of_word = (at > 0 && in_word(at - 1)) || in_word(at + user.size());
    absl::StrAppend(&text, message.substr(from, at - from),
                    user.size() < kShortId && part_of_word ? user : absl::string_view("<user>"));
  }
  return absl::StrCat(text, message.substr(from));
}

repository::ModelRepository::Done Publicly(Engine::ReloadCallback done) {
  return [done = std::move(done)](absl::StatusOr<repository::VersionStatus> result) mutable {
    if (done == nullptr) return;
    if (result.ok()) {
      done(ModelVersionOf(*result));
    } else {
      done(result.status());
    }
  };
}

}  // namespace

absl::StatusOr<std::unique_ptr<EngineCore>> EngineCore::Create(Parts parts) {
  BEAMLINE_RETURN_IF_ERROR(CheckOptions(parts.options));
  if (parts.clock == nullptr) parts.clock = {std::shared_ptr<void>(), &ProcessClock()};
  std::unique_ptr<EngineCore> engine(new EngineCore(parts));
  const auto start = [&]() -> absl::Status {
    BEAMLINE_RETURN_IF_ERROR(engine->StartRepository(std::move(parts.source), parts.inline_execution));
    engine->warmed_up_ = engine->clock_->Now();
    engine->StartScheduler(parts.inline_execution);
    engine->StartPreparation(parts.preparation_threads);
    return absl::OkStatus();
  };
  BEAMLINE_RETURN_IF_ERROR(ReturnCatching("the engine's start", start, absl::StatusCode::kResourceExhausted));
  return engine;
}

EngineCore::EngineCore(const Parts& parts) : options_(parts.options), clock_(parts.clock) {}

absl::Status EngineCore::StartRepository(RunnerSource source, bool inline_execution) {
  repository::RepositoryOptions options;
  options.bundle = options_.bundle;
  options.folder = options_.model_folder;
  options.beside = options_.catalogue;
  options.poll_period = options_.model_poll_period;
  options.keep_previous = options_.keep_previous_model;
  options.inline_execution = inline_execution;
  auto loader = std::make_unique<ModelLoader>(std::move(source), &options_, &recorder_, clock_.get());
  BEAMLINE_ASSIGN_OR_RETURN(repository_,
                            repository::ModelRepository::Start(std::move(options), std::move(loader), clock_));
  return absl::OkStatus();
}

void EngineCore::StartScheduler(bool inline_execution) {
  dispatch_ = std::make_unique<ModelDispatch>(*Serving()->runner);
  scheduler_ =
      std::make_unique<scheduler::Scheduler>(ScheduleOf(options_, inline_execution), dispatch_.get(), clock_.get());
  UseCostsOf(*Serving());
}

void EngineCore::UseCostsOf(const ServingModel& serving) {
  if (costs_group_.load(std::memory_order_relaxed) == serving.group) return;
  std::lock_guard lock(costs_mu_);  // so that the scheduler has the costs of the group that is noted
  scheduler_->SetBaseline(serving.costs, serving.group);
  costs_group_.store(serving.group, std::memory_order_relaxed);
}

void EngineCore::StartPreparation(int threads) {
  Preparation::Options preparation;
  preparation.threads = threads;
  if (options_.history_store == nullptr) preparation.store_threads = 0;
  preparation.capacity = options_.queue_capacity;
  preparation.retry_after = options_.max_queue_delay;
  preparation_ = std::make_unique<Preparation>(
      preparation,
      Preparation::Hooks{
          .prepare = [this](const CallPtr& call) { Prepare(call); },
          .end = [this](const CallPtr& call, absl::Status status) { return End(call, std::move(status)); }},
      clock_.get());
}

ServingHandle EngineCore::Serving() const {
  return std::static_pointer_cast<const ServingModel>(repository_->current());
}

EngineCore::~EngineCore() {
  if (preparation_ != nullptr) Drain(absl::InfiniteFuture());
  // Callbacks of reloads may ask the engine anything: they run while all of it is there.
  if (repository_ != nullptr) repository_->Stop();
}

Engine::Canceller EngineCore::Submit(RecommendRequest request, Callback done) {
  auto call = std::make_shared<Call>();
  call->clock = clock_;
  call->received = clock_->Now();
  if (request.deadline == absl::InfiniteFuture()) request.deadline = call->received + options_.default_deadline;
  call->deadline = request.deadline;
  call->limits = {request.top_k, request.items_per_sid, request.max_per_author};
  call->company = std::move(request.company);
  call->done = std::move(done);
  call->serving = Serving();
  const Preparation::Place place = PlaceOf(request);
  if (absl::Status status = Accept(call, request, place); !status.ok()) {
    const bool refused = !absl::IsDeadlineExceeded(status);
    End(call, std::move(status), refused);
    return [] {};
  }
  call->request = std::move(request);
  preparation_->Run(call, place);
  return [call] { call->Cancel(); };
}

bool EngineCore::Caches(const RecommendRequest& request) const {
  return options_.context_cache_bytes > 0 && !request.user_id.empty();
}

bool EngineCore::NeedsStore(const RecommendRequest& request) const {
  return request.history.empty() && !request.user_id.empty() && options_.history_store != nullptr;
}

Preparation::Place EngineCore::PlaceOf(const RecommendRequest& request) const {
  constexpr size_t kShortHistory = 256;
  if (NeedsStore(request)) return Preparation::Place::kStoreThread;
  if (!request.eligibility.unrestricted() || request.history.size() > kShortHistory) return Preparation::Place::kThread;
  return Preparation::Place::kHere;  // tens of microseconds: less than waking a thread takes
}

absl::Status EngineCore::Accept(const CallPtr& call, const RecommendRequest& request, Preparation::Place place) {
  BEAMLINE_RETURN_IF_ERROR(call->serving->runner->fault());
  BEAMLINE_RETURN_IF_ERROR(CheckRequest(request, options_, call->serving->runner->info().levels()));
  if (request.deadline <= clock_->Now()) {
    return absl::DeadlineExceededError("the deadline had passed before the request arrived");
  }
  UseCostsOf(*call->serving);
  BEAMLINE_RETURN_IF_ERROR(RefuseHopeless(request, call->serving->runner->info().levels()));
  return preparation_->Enter(call, place);
}

absl::Status EngineCore::RefuseHopeless(const RecommendRequest& request, int levels) const {
  // Before preparation the input is unknown, its context may be cached, and the queue is what matters.
  const std::vector<int> narrowest = NarrowedWidths(BeamWidths(request, options_, levels), options_.narrowing,
                                                    static_cast<int>(options_.narrowing.size()), request.top_k);
  absl::Status status = scheduler_
                            ->Ask({.priority = request.priority,
                                   .deadline = request.deadline,
                                   .rows = *std::max_element(narrowest.begin(), narrowest.end()),
                                   .expects_context = Caches(request)})
                            .status;
  return absl::IsResourceExhausted(status) ? status : absl::OkStatus();
}

void EngineCore::Prepare(const CallPtr& call) {
  RecommendRequest request = std::exchange(call->request, {});  // cancellers may hold the call for long
  const ServingHandle serving = std::move(call->serving);
  // Asked before each step that may take its time, and after the last.
  const auto wanted = [&] {
    const absl::Status status = call->StillWanted(clock_->Now());
    if (!status.ok()) End(call, status);
    return status.ok();
  };
  if (!wanted()) return;
  if (absl::Status status = AddHistory(request); !status.ok()) {
    End(call, std::move(status));
    return;
  }
  if (!wanted()) return;
  absl::StatusOr<std::unique_ptr<runtime::RequestJob>> job = ReturnCatching("preparation", [&] {
    const bool of_nobody = request.user_id.empty() && request.history.empty();  // a self-test; a warm-up has its like
    if (!of_nobody && recorder_.Wants(clock_->Now())) call->sample = std::make_unique<RecommendRequest>(request);
    return MakeJob(request, serving);
  });
  if (!job.ok()) {
    End(call, job.status(), /*refused=*/absl::IsInvalidArgument(job.status()));
    return;
  }
  if ((*job)->trace) call->traced_history = std::move(request.history);
  if (!wanted()) return;
  if (EligibleSids(**job) == 0) {
    End(call, Answer(*call, **job));  // known without a model
  } else {
    Enqueue(call, *std::move(job));
  }
}

absl::StatusOr<std::unique_ptr<runtime::RequestJob>> EngineCore::MakeJob(RecommendRequest& request,
                                                                         const ServingHandle& serving) {
  auto job = std::make_unique<runtime::RequestJob>();
  job->model = {serving, serving->runner.get()};  // holds the handle
  job->batch_group = serving->group;
  job->snapshot = serving->snapshot;

  std::vector<ItemId> seen;
  if (request.exclude_history) {
    for (const Event& event : request.history) seen.push_back(event.item);
  }
  if (!request.eligibility.unrestricted() || !seen.empty()) {
    auto eligibility = catalogue::CompileEligibility(*serving->rules, request.eligibility, seen);
    if (!eligibility.ok()) {
      return absl::Status(eligibility.status().code(), absl::StrCat("eligibility.", eligibility.status().message()));
    }
    job->eligibility = *std::move(eligibility);
  }

  job->input = job->model->BuildInput(
      {.user_id = request.user_id, .user_attributes = request.user_attributes, .history = request.history},
      *serving->snapshot);
  const runtime::ModelInfo& model = job->model->info();
  if (Caches(request)) {
    job->context_key = {request.user_id, runtime::Digest(job->input), model.version};
    job->expects_context = job->model->HoldsContext(job->context_key);
  }
  job->score_rule = options_.score_rule;
  job->trace = request.trace;
  job->priority = request.priority;
  job->deadline = request.deadline;
  SetWidths(request, *job);
  job->SetCosts();
  return job;
}

void EngineCore::SetWidths(const RecommendRequest& request, runtime::RequestJob& job) const {
  const auto ask = [&](const std::vector<int>& widths) {
    const scheduler::Scheduler::Forecast forecast =
        scheduler_->Ask({.priority = job.priority,
                         .deadline = job.deadline,
                         .rows = *std::max_element(widths.begin(), widths.end()),
                         .context_tokens = job.input.context_tokens(),
                         .expects_context = job.expects_context});
    return WidthForecast{forecast.status.ok(), forecast.wait};
  };
  Narrowing chosen =
      ChooseWidths(BeamWidths(request, options_, job.model->info().levels()), options_.narrowing, request.top_k, ask);
  job.beam_widths = std::move(chosen.widths);
  job.narrowing = chosen.step;
}

absl::Status EngineCore::AddHistory(RecommendRequest& request) const {
  if (!NeedsStore(request)) return absl::OkStatus();
  // Stores and rankers are an embedder's code, and may throw.
  absl::StatusOr<std::vector<Event>> stored = ReturnCatching(
      "history store", [&] { return options_.history_store->Get(request.user_id, options_.max_history); });
  if (!stored.ok()) {  // on its way to logs
    return absl::Status(stored.status().code(), WithoutUser(stored.status().message(), request.user_id));
  }
  request.history = *std::move(stored);
  if (absl::Status status = CheckHistory(request.history, options_.max_history, "history"); !status.ok()) {
    return absl::InternalError(absl::StrCat("the history store holds what no request may bring: ", status.message()));
  }
  return absl::OkStatus();
}

void EngineCore::Enqueue(const CallPtr& call, std::unique_ptr<runtime::RequestJob> job) {
  job->done = [this, call](absl::Status status, scheduler::Job& done) {
    if (status.ok()) {
      absl::StatusOr<RecommendResult> answer = Answer(*call, static_cast<const runtime::RequestJob&>(done));
      status = answer.status();
      if (status.ok()) {
        End(call, std::move(answer));
        return;
      }
    }
    if (!done.refused) {
      StageTimings timings = TimingsOf(done, clock_->Now());
      timings.prepare = done.submitted - call->received;
      SetStageTimings(status, timings);
    }
    End(call, std::move(status), done.refused);
  };
  {
    std::lock_guard lock(call->mu);
    job->company = std::move(call->company);
  }
  const scheduler::Scheduler::JobId id = scheduler_->Submit(std::move(job));
  std::lock_guard lock(call->mu);
  if (call->cancelled || call->ended) scheduler_->Cancel(id);  // nobody waits for it, if it has not ended by itself
  if (call->ended) return;
  call->scheduler = scheduler_.get();
  call->job = id;
}

absl::StatusOr<RecommendResult> EngineCore::Answer(const Call& call, const runtime::RequestJob& job) const {
  const bool searched = job.decode_ended != absl::InfinitePast();
  const absl::Time start = searched ? job.decode_ended : clock_->Now();  // others of the batch may have come first
  BEAMLINE_ASSIGN_OR_RETURN(RecommendResult result, ReturnCatching("ranker", [&] {
                              return AssembleAnswer(job, call.limits, options_.ranker.get());
                            }));
  result.model_version = job.model->info().version;
  if (searched) result.timings = TimingsOf(job, start);
  result.timings.prepare = (searched ? job.submitted : start) - call.received;
  if (job.trace) result.trace = std::make_shared<const SearchTrace>(SearchTrace{call.traced_history, job.traced});
  const absl::Time end = clock_->Now();
  result.timings.resolve = end - start;
  result.timings.total = end - call.received;
  if (end >= job.deadline) return absl::DeadlineExceededError("the deadline passed while the answer was put together");
  return result;
}

bool EngineCore::End(const CallPtr& call, absl::StatusOr<RecommendResult> result, bool refused) {
  std::shared_ptr<Company> company;
  {
    std::lock_guard lock(call->mu);
    if (std::exchange(call->ended, true)) return false;
    call->scheduler = nullptr;
    company = std::move(call->company);
  }
  if (company != nullptr) scheduler_->Leave(*company);
  (result.ok() ? completed_ : refused ? rejected_ : failed_).Add();
  if (result.ok() && result->narrowing > 0) narrowed_.Add();
  if (result.ok() && call->sample != nullptr) recorder_.Add(*std::move(call->sample), clock_->Now());
  Callback done = std::move(call->done);
  if (done != nullptr) done(std::move(result));
  return true;
}

std::shared_ptr<const Catalogue> EngineCore::catalogue() const { return Serving()->snapshot; }

void EngineCore::Reload(std::string bundle, ReloadCallback done) {
  repository_->Reload(std::move(bundle), Publicly(std::move(done)));
}

void EngineCore::Rollback(ReloadCallback done) { repository_->Rollback(Publicly(std::move(done))); }

EngineStatus EngineCore::GetStatus() const {
  const ServingHandle serving = Serving();
  const runtime::ModelInfo& model = serving->runner->info();
  const int64_t preparing = preparation_->size();  // first, so that who moves on is missed by neither
  const scheduler::SchedulerStats stats = scheduler_->stats();
  EngineStatus status;
  status.fault = serving->runner->fault();
  status.device = options_.device;
  status.dtype = options_.dtype;
  status.backend = options_.backend;
  status.workers = options_.workers;
  status.model_version = model.version;
  status.catalogue_version = serving->snapshot->version();
  status.catalogue_since = serving->catalogue_since;
  status.family = model.family;
  status.ranker = model.ranker;
  status.levels = model.levels();
  status.level_sizes = model.level_sizes;
  status.short_term_events = model.window_lengths[0];
  status.positive_events = model.window_lengths[1];
  status.parameters = model.parameters;
  status.codebook_fingerprint = serving->snapshot->codebook_fingerprint();
  status.num_items = serving->snapshot->num_items();
  status.num_sids = serving->snapshot->num_sids();
  status.completed = completed_.value();
  status.failed = failed_.value();
  status.rejected = rejected_.value();
  status.narrowed = narrowed_.value();
  status.context_hits = stats.context_hits;
  status.context_misses = stats.context_misses;
  status.encode_batches = stats.encode_batches;
  status.encode_batched = stats.encode_requests;
  status.decode_batches = stats.decode_batches;
  status.decode_batched = stats.decode_requests;
  status.decode_rows = stats.decode_rows;
  status.broken_batches = stats.broken_batches;
  status.executing_rows = stats.executing_rows;
  status.expired = stats.expired;
  status.expired_waiting = stats.expired_waiting;
  status.context_cache_bytes = serving->runner->context_cache_stats().bytes;
  status.last_success = std::max(warmed_up_, stats.last_decoded);
  for (const repository::VersionStatus& version : repository_->versions()) {
    status.versions.push_back(ModelVersionOf(version));
  }
  const repository::RepositoryStats repository = repository_->stats();
  status.models_served = repository.served;
  status.models_refused = repository.refused;
  status.rollbacks = repository.rollbacks;
  status.model_folder_unreadable = repository.folder_unreadable;
  status.last_swap = repository.last_swap;
  status.not_ready = WhyNotReady(preparation_->draining(), status.fault, stats, clock_->Now());
  status.ready = status.not_ready.empty();
  status.queued = preparing + stats.queued;
  status.in_flight = preparing + stats.in_flight;
  return status;
}

std::optional<DeviceMemory> EngineCore::GetDeviceMemory() const { return Serving()->runner->GetDeviceMemory(); }
std::optional<DevicePasses> EngineCore::GetDevicePasses() const { return Serving()->runner->GetDevicePasses(); }

bool EngineCore::Drain(absl::Time deadline) {
  const bool prepared = preparation_->Drain(deadline);
  return scheduler_->Drain(deadline) && prepared;
}

}  // namespace beamline::engine
