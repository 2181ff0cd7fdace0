// SPDX-License-Identifier: Apache-2.0
#include "runtime/model_runner.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/memory.h"
#include "base/run_catching.h"
#include "beamline/status.h"
#include "decode/beam_search.h"
#include "decode/trie_constraint.h"
#include "model/weight_schema.h"
#include "model/weights.h"
#include "runtime/batch_builder.h"

namespace beamline::runtime {
namespace {

struct ModelContext final : RequestContext {
  ModelContext(model::ContextHandle context, ContextLease on_others)
      : handle(std::move(context)), lease(std::move(on_others)) {}
  int64_t bytes() const override { return handle.bytes(); }
  model::ContextHandle handle;
  ContextLease lease;  // of the same on the other ranks
};

// The model of a decode, which the other ranks run step by step with this one.
class GroupedModel final : public model::Model {
 public:
  GroupedModel(const model::Model& own, GroupTurn& turn, std::vector<uint64_t> contexts)
      : own_(own), turn_(turn), contexts_(std::move(contexts)) {}
  const model::ModelConfig& config() const override { return own_.config(); }
  const model::Weights& weights() const override { return own_.weights(); }
  model::EncodedContext Encode(backend::Context& ctx, const model::EncoderBatch& batch) const override {
    return own_.Encode(ctx, batch);
  }
  model::DecodeState BeginDecode(backend::Context& ctx, model::EncodedContext context) const override {
    turn_.BeginDecode(contexts_);
    return own_.BeginDecode(ctx, std::move(context));
  }
  at::Tensor DecodeStep(backend::Context& ctx, model::DecodeState& state, const model::StepInput& step) const override {
    turn_.Step(ctx, step);
    return own_.DecodeStep(ctx, state, step);
  }
  std::vector<at::Tensor> TeacherForced(backend::Context& ctx, const model::EncodedContext& context,
                                        const model::TeacherBatch& targets) const override {
    return own_.TeacherForced(ctx, context, targets);
  }
  at::Tensor TeacherForcedOutput(backend::Context& ctx, const model::EncodedContext& context,
                                 const model::TeacherBatch& targets) const override {
    return own_.TeacherForcedOutput(ctx, context, targets);
  }
  const model::Ranker* ranker() const override { return own_.ranker(); }

 private:
  const model::Model& own_;
  GroupTurn& turn_;
  const std::vector<uint64_t> contexts_;
};

RequestJob& AsRequest(scheduler::Job& job) { return static_cast<RequestJob&>(job); }

// Of a batch that failed: nobody knows what they hold.
void DropContexts(absl::Span<RequestJob* const> jobs) {
  for (RequestJob* job : jobs) job->context = nullptr;
}

ModelInfo Describe(const ModelRunner::Parts& parts) {
  const model::ModelConfig& config = parts.model->config();
  ModelInfo info;
  info.family = config.family;
  info.ranker = parts.model->ranker() != nullptr;
  info.version = parts.model_version;
  info.level_sizes = config.level_sizes;
  info.codebook_fingerprint = parts.codebook_fingerprint;
  info.window_lengths = {config.is_t5() ? config.t5.input.max_items : config.short_term.length, config.positive.length};
  info.parameters = static_cast<uint64_t>(model::CountParameters(config).total);
  return info;
}

}  // namespace

ModelRunner::ModelRunner(Parts parts)
    : release_{parts.context.backend},
      tuning_(std::move(parts.tuning)),
      parts_(std::move(parts)),
      info_(Describe(parts_)),
      features_(parts_.model->config(), parts_.vocabulary),
      cache_(parts_.context_cache_bytes) {}

bool ModelRunner::TryAttachContext(scheduler::Job& job) {
  RequestJob& request = AsRequest(job);
  if (request.context_key.history_digest.empty()) return false;
  request.context = cache_.Find(request.context_key);
  request.context_cached = request.context != nullptr;
  return request.context_cached;
}

absl::Status ModelRunner::fault() const {
  absl::Status device = parts_.context.backend->fault();
  return device.ok() && parts_.group != nullptr ? parts_.group->group_status() : device;
}

absl::Status ModelRunner::RunBatch(absl::string_view what, const RequestJob& first,
                                   absl::FunctionRef<void()> batch) const {
  BEAMLINE_RETURN_IF_ERROR(fault());
  absl::Status status =
      RunCatching(what, batch, first.trial ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInternal);
  if (!status.ok()) BEAMLINE_RETURN_IF_ERROR(fault());
  return BesideEstimate(std::move(status), parts_.memory_estimate, "batches");
}

absl::Status ModelRunner::CheckEncode(const RequestJob& job) const {
  return ReturnCatching("encode", [&] { return CheckEncodedRequest(parts_.model->config(), job.input); });
}

std::vector<absl::Status> ModelRunner::Encode(absl::Span<scheduler::Job* const> jobs) {
  std::vector<absl::Status> statuses(jobs.size());
  std::vector<RequestJob*> good;
  std::vector<size_t> good_index;
  for (size_t i = 0; i < jobs.size(); ++i) {
    RequestJob& request = AsRequest(*jobs[i]);
    statuses[i] = CheckEncode(request);
    if (!statuses[i].ok()) continue;
    good.push_back(&request);
    good_index.push_back(i);
  }
  if (good.empty()) return statuses;
  const absl::Status status = RunBatch("encode", *good[0], [&] {
    const backend::InferenceGuard guard;
    backend::Context ctx = backend::BeginBatch(parts_.context);
    EncodeIn(ctx, good);
    backend::EndBatch(ctx);
    KeepContexts(good);
  });
  if (!status.ok()) DropContexts(good);
  for (size_t i : good_index) statuses[i] = status;
  return statuses;
}

void ModelRunner::EncodeIn(backend::Context& ctx, absl::Span<RequestJob* const> jobs) {
  std::vector<const EncodedRequest*> requests;
  for (const RequestJob* job : jobs) requests.push_back(&job->input);
  const model::ModelConfig& config = parts_.model->config();
  const model::EncoderInput input = BuildEncoderBatch(
      config, requests, [&](int64_t size, int64_t fewest) { return backend::RoomFor(ctx, size, fewest); });
  std::vector<ContextLease> leases;
  std::vector<model::ContextHandle> handles;
  GroupTurn turn(parts_.group);
  turn.Run("encode", [&] {
    leases = turn.Encode(input);
    model::EncodedContext encoded =
        model::EncodePass(ctx, *parts_.model, model::UploadEncoderInput(ctx, config, input));
    model::TakeFirstStep(ctx, *parts_.model, encoded);
    handles = model::SplitContext(ctx, encoded, static_cast<int64_t>(jobs.size()));
    if (parts_.group != nullptr) backend::EndBatch(ctx);  // a turn is over when its work is
  });
  for (size_t i = 0; i < jobs.size(); ++i) {
    jobs[i]->context = std::make_shared<const ModelContext>(std::move(handles[i]), std::move(leases[i]));
    jobs[i]->context_cached = false;
  }
}

void ModelRunner::KeepContexts(absl::Span<RequestJob* const> jobs) {
  for (const RequestJob* job : jobs) {
    if (!job->context_key.history_digest.empty()) cache_.Insert(job->context_key, job->context);
  }
}

absl::StatusOr<kernels::ConstraintView> ModelRunner::CheckDecode(const RequestJob& job) const {
  if (job.snapshot == nullptr) return absl::InternalError("decode: the request is pinned to no catalogue");
  if (job.snapshot->codebook_fingerprint() != info_.codebook_fingerprint) {
    return absl::FailedPreconditionError(absl::StrCat("catalogue: version '", job.snapshot->version(),
                                                      "' was made with codebook ", job.snapshot->codebook_fingerprint(),
                                                      ", the model with ", info_.codebook_fingerprint));
  }
  return decode::MakeConstraint(*job.snapshot, job.eligibility.get());
}

// Unless it cannot be searched for, as its status then says.
void ModelRunner::AddToDecode(RequestJob& job, absl::Status& status, DecodeBatch& batch) const {
  job.hypotheses.clear();
  absl::StatusOr<kernels::ConstraintView> constraint = CheckDecode(job);
  status = constraint.status();
  if (!constraint.ok()) return;
  batch.jobs.push_back(&job);
  batch.constraints.push_back(*constraint);
  batch.statuses.push_back(&status);
}

std::vector<absl::Status> ModelRunner::Decode(absl::Span<scheduler::Job* const> jobs, scheduler::StepGate gate) {
  std::vector<absl::Status> statuses(jobs.size());
  DecodeBatch batch;
  for (size_t i = 0; i < jobs.size(); ++i) {
    RequestJob& request = AsRequest(*jobs[i]);
    if (request.context == nullptr) statuses[i] = absl::InternalError("decode: the request has no context");
    if (statuses[i].ok()) AddToDecode(request, statuses[i], batch);
  }
  if (batch.jobs.empty()) return statuses;
  const absl::Status status = RunBatch("decode", *batch.jobs[0], [&] {
    const backend::InferenceGuard guard;
    backend::Context ctx = backend::BeginBatch(parts_.context);
    DecodeIn(ctx, batch, gate);
  });
  if (!status.ok()) {
    for (absl::Status* failed : batch.statuses) *failed = status;
  }
  return statuses;
}

ModelRunner::Chained ModelRunner::EncodeAndDecode(absl::Span<scheduler::Job* const> jobs, scheduler::StepGate gate) {
  Chained chained{.statuses = std::vector<absl::Status>(jobs.size()), .decode = absl::ZeroDuration()};
  std::vector<RequestJob*> to_encode;
  DecodeBatch batch;
  for (size_t i = 0; i < jobs.size(); ++i) {
    RequestJob& request = AsRequest(*jobs[i]);
    absl::Status& status = chained.statuses[i];
    if (request.context == nullptr) status = CheckEncode(request);
    if (status.ok()) AddToDecode(request, status, batch);
    if (status.ok() && request.context == nullptr) to_encode.push_back(&request);
  }
  if (batch.jobs.empty()) return chained;
  const absl::Status status = RunBatch("encode and decode", *batch.jobs[0], [&] {
    const backend::InferenceGuard guard;
    backend::Context ctx = backend::BeginBatch(parts_.context);
    if (!to_encode.empty()) EncodeIn(ctx, to_encode);
    backend::MarkBatch(ctx);
    DecodeIn(ctx, batch, gate);
    chained.decode = absl::Seconds(backend::SecondsSinceMark(ctx));
    backend::EndBatch(ctx);
    KeepContexts(to_encode);
  });
  if (!status.ok()) {
    DropContexts(to_encode);
    for (absl::Status* failed : batch.statuses) *failed = status;
  }
  return chained;
}

void ModelRunner::DecodeIn(backend::Context& ctx, const DecodeBatch& batch, scheduler::StepGate gate) const {
  const std::vector<RequestJob*>& jobs = batch.jobs;
  std::vector<const model::ContextHandle*> handles;
  std::vector<uint64_t> on_others;
  std::vector<decode::SearchRequest> requests;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const auto& context = static_cast<const ModelContext&>(*jobs[i]->context);
    handles.push_back(&context.handle);
    on_others.push_back(context.lease.id());
    requests.push_back({&batch.constraints[i], jobs[i]->beam_widths, jobs[i]->score_rule, jobs[i]->trace});
  }
  std::vector<decode::SearchResult> results;
  GroupTurn turn(parts_.group);
  turn.Run("decode", [&] {
    // The model itself where it can be: passes captured of one are of no other object (Model::serial).
    const GroupedModel grouped(*parts_.model, turn, std::move(on_others));
    const model::Model& model = parts_.group != nullptr ? grouped : *parts_.model;
    results = decode::BeamSearch(model).Run(
        ctx, model::PackContexts(ctx, handles, backend::RoomFor(ctx, static_cast<int64_t>(handles.size()))), requests,
        [&](int request) { return gate(*jobs[request]); });
  });
  for (size_t i = 0; i < jobs.size(); ++i) {
    *batch.statuses[i] = std::move(results[i].status);
    jobs[i]->hypotheses = std::move(results[i].hypotheses);
    jobs[i]->at_once = results[i].at_once;
    jobs[i]->ranked = info_.ranker;
    jobs[i]->traced = std::move(results[i].traced);
  }
}

}  // namespace beamline::runtime
