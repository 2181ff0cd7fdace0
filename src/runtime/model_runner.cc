// SPDX-License-Identifier: Apache-2.0
#include "runtime/model_runner.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
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
  explicit ModelContext(model::ContextHandle context) : handle(std::move(context)) {}
  int64_t bytes() const override { return handle.bytes(); }
  model::ContextHandle handle;
};

RequestJob& AsRequest(scheduler::Job& job) { return static_cast<RequestJob&>(job); }

ModelInfo Describe(const ModelRunner::Parts& parts) {
  const model::ModelConfig& config = parts.model->config();
  ModelInfo info;
  info.family = config.family;
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

std::vector<absl::Status> ModelRunner::Encode(absl::Span<scheduler::Job* const> jobs) {
  std::vector<absl::Status> statuses(jobs.size());
  std::vector<RequestJob*> good;
  std::vector<size_t> good_index;
  for (size_t i = 0; i < jobs.size(); ++i) {
    RequestJob& request = AsRequest(*jobs[i]);
    statuses[i] = CheckEncodedRequest(parts_.model->config(), request.input);
    if (!statuses[i].ok()) continue;
    good.push_back(&request);
    good_index.push_back(i);
  }
  if (good.empty()) return statuses;
  const absl::Status status = RunCatching("encode", [&] { EncodeBatch(good); });
  for (size_t i : good_index) statuses[i] = status;
  return statuses;
}

void ModelRunner::EncodeBatch(absl::Span<RequestJob* const> jobs) {
  const backend::InferenceGuard guard;
  backend::Context ctx = backend::BeginBatch(parts_.context);
  std::vector<const EncodedRequest*> requests;
  for (const RequestJob* job : jobs) requests.push_back(&job->input);
  const model::ModelConfig& config = parts_.model->config();
  const model::EncoderBatch batch = model::UploadEncoderInput(ctx, config, BuildEncoderBatch(config, requests));
  std::vector<model::ContextHandle> handles = model::SplitContext(ctx, model::EncodePass(ctx, *parts_.model, batch));
  for (size_t i = 0; i < jobs.size(); ++i) {
    jobs[i]->context = std::make_shared<const ModelContext>(std::move(handles[i]));
    jobs[i]->context_cached = false;
    if (!jobs[i]->context_key.history_digest.empty()) cache_.Insert(jobs[i]->context_key, jobs[i]->context);
  }
}

absl::StatusOr<kernels::ConstraintView> ModelRunner::CheckDecode(const RequestJob& job) const {
  if (job.context == nullptr) return absl::InternalError("decode: the request has no context");
  if (job.snapshot == nullptr) return absl::InternalError("decode: the request is pinned to no catalogue");
  if (job.snapshot->codebook_fingerprint() != info_.codebook_fingerprint) {
    return absl::FailedPreconditionError(absl::StrCat("catalogue: version '", job.snapshot->version(),
                                                      "' was made with codebook ", job.snapshot->codebook_fingerprint(),
                                                      ", the model with ", info_.codebook_fingerprint));
  }
  return decode::MakeConstraint(*job.snapshot, job.eligibility.get());
}

std::vector<absl::Status> ModelRunner::Decode(absl::Span<scheduler::Job* const> jobs, scheduler::StepGate gate) {
  std::vector<absl::Status> statuses(jobs.size());
  std::vector<RequestJob*> good;
  std::vector<absl::Status*> good_statuses;
  std::vector<kernels::ConstraintView> constraints;
  for (size_t i = 0; i < jobs.size(); ++i) {
    RequestJob& request = AsRequest(*jobs[i]);
    request.hypotheses.clear();
    absl::StatusOr<kernels::ConstraintView> constraint = CheckDecode(request);
    if (!constraint.ok()) {
      statuses[i] = constraint.status();
      continue;
    }
    good.push_back(&request);
    good_statuses.push_back(&statuses[i]);
    constraints.push_back(*constraint);
  }
  if (good.empty()) return statuses;
  const absl::Status status =
      RunCatching("decode", [&] { DecodeBatch(good, constraints, gate, absl::MakeSpan(good_statuses)); });
  if (!status.ok()) {
    for (absl::Status* failed : good_statuses) *failed = status;
  }
  return statuses;
}

void ModelRunner::DecodeBatch(absl::Span<RequestJob* const> jobs, absl::Span<const kernels::ConstraintView> constraints,
                              scheduler::StepGate gate, absl::Span<absl::Status*> statuses) {
  const backend::InferenceGuard guard;
  backend::Context ctx = backend::BeginBatch(parts_.context);
  std::vector<const model::ContextHandle*> handles;
  std::vector<decode::SearchRequest> requests;
  for (size_t i = 0; i < jobs.size(); ++i) {
    handles.push_back(&static_cast<const ModelContext&>(*jobs[i]->context).handle);
    requests.push_back({&constraints[i], jobs[i]->beam_widths, jobs[i]->score_rule});
  }
  std::vector<decode::SearchResult> results =
      decode::BeamSearch(*parts_.model).Run(ctx, model::PackContexts(ctx, handles), requests, [&](int request) {
        return gate(*jobs[request]);
      });
  for (size_t i = 0; i < jobs.size(); ++i) {
    *statuses[i] = std::move(results[i].status);
    jobs[i]->hypotheses = std::move(results[i].hypotheses);
  }
}

}  // namespace beamline::runtime
