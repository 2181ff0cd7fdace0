// SPDX-License-Identifier: Apache-2.0
#include "engine/model_loader.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/run_catching.h"
#include "beamline/status.h"
#include "engine/cost_measurement.h"
#include "engine/request_check.h"

namespace beamline::engine {
namespace {

// A watched folder's version that met too little memory is tried again: see repository/version_policy.h.
constexpr absl::StatusCode kOutOfMemory = absl::StatusCode::kResourceExhausted;

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

// Of a warm-up: who reads that memory ran out should know what else holds some.
absl::Status BesideServing(const absl::Status& status, const repository::Model* serving) {
  if (serving == nullptr || status.code() != kOutOfMemory) return status;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), " (the version that serves holds its own beside this one)"));
}

}  // namespace

ModelLoader::ModelLoader(RunnerSource source, const EngineOptions* options, const RequestRecorder* recorder,
                         const Clock* clock)
    : source_(std::move(source)), options_(*options), recorder_(*recorder), clock_(*clock) {}

absl::StatusOr<std::string> ModelLoader::Identify(const std::string& bundle) {
  return ReturnCatching(absl::StrCat(bundle, ": reading its manifest"), [&] { return source_.identify(bundle); });
}

absl::Status ModelLoader::Verify(const std::string& bundle) {
  return ReturnCatching(absl::StrCat(bundle, ": verifying"), [&] { return source_.verify(bundle); });
}

absl::StatusOr<std::unique_ptr<repository::Model>> ModelLoader::Load(const std::string& bundle,
                                                                     const std::string& digest) {
  return ReturnCatching(
      absl::StrCat(bundle, ": loading"), [&] { return LoadNow(bundle, digest); }, kOutOfMemory);
}

absl::StatusOr<std::unique_ptr<repository::Model>> ModelLoader::LoadNow(const std::string& bundle,
                                                                        const std::string& digest) {
  BEAMLINE_ASSIGN_OR_RETURN(std::unique_ptr<runtime::Runner> runner, source_.load(bundle, digest));
  const std::string estimate = runner->memory_estimate();
  auto model = ReturnCatching(
      absl::StrCat(bundle, ": loading"),
      [&]() -> absl::StatusOr<std::unique_ptr<repository::Model>> {
        BEAMLINE_RETURN_IF_ERROR(CheckBelongTogether(runner->info(), *runner->catalogue()));
        return std::make_unique<ServingModel>(std::move(runner), options_.max_rules, ++last_group_);
      },
      kOutOfMemory);
  if (!model.ok()) return BesideEstimate(model.status(), estimate);
  return model;
}

absl::Status ModelLoader::WarmUp(repository::Model& model, const repository::Model* serving) {
  auto& next = static_cast<ServingModel&>(model);
  absl::Status status = ReturnCatching(
      "warm-up", [&] { return WarmUpNow(next, serving); }, kOutOfMemory);
  return BesideServing(BesideEstimate(std::move(status), next.runner->memory_estimate(), "batches"), serving);
}

absl::Status ModelLoader::WarmUpNow(ServingModel& next, const repository::Model* serving) const {
  const std::vector<RecommendRequest> recorded = Recorded(next.runner->info().levels());
  const CostMeasurement measurement{
      .beam_width = options_.default_beam_width,
      .max_beam_width = options_.max_beam_width,
      .max_requests = options_.max_batch_requests,
      .max_rows = options_.max_batch_rows,
      .score_rule = options_.score_rule,
      // Beside a version that serves, little: its requests need the machine.
      .budget = serving == nullptr ? options_.cost_measurement : options_.cost_measurement / 5};
  // A worker at a time: what one has captured and allocated does not help another's first requests.
  std::vector<std::shared_ptr<void>> warm;
  do {
    BEAMLINE_RETURN_IF_ERROR(next.runner->WarmUp(recorded, options_.score_rule));
    BEAMLINE_ASSIGN_OR_RETURN(next.costs, MeasureCosts(*next.runner, measurement, clock_));
    warm.push_back(next.runner->HoldWorker());
  } while (warm.back() != nullptr && static_cast<int>(warm.size()) < next.runner->max_concurrency());
  warm.clear();
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  next.catalogue_since = clock_.Now();
  if (serving != nullptr) {
    const auto& before = *static_cast<const ServingModel*>(serving);
    if (before.snapshot->version() == next.snapshot->version()) next.catalogue_since = before.catalogue_since;
    for (const std::vector<TagClause>& rule : before.rules->rules()) {
      BEAMLINE_RETURN_IF_ERROR(next.rules->Get(rule).status());
    }
  }
  LogEvent(spdlog::level::info, "model warmed up",
           {{"model_version", next.runner->info().version}, {"recorded_requests", recorded.size()}});
  return absl::OkStatus();
}

std::vector<RecommendRequest> ModelLoader::Recorded(int levels) const {
  std::vector<RecommendRequest> asked = recorder_.requests(), recorded;
  std::reverse(asked.begin(), asked.end());  // of what is more than a batch the oldest are left out
  int64_t rows = 0;
  for (RecommendRequest& request : asked) {
    if (static_cast<int>(recorded.size()) == options_.max_batch_requests) break;
    // Widths per level of another model mean nothing to this one.
    if (request.beam_widths.size() > 1 && static_cast<int>(request.beam_widths.size()) != levels) continue;
    request.beam_widths = BeamWidths(request, options_, levels);
    const int width = *std::max_element(request.beam_widths.begin(), request.beam_widths.end());
    if (rows + width > options_.max_batch_rows) continue;
    rows += width;
    recorded.push_back(std::move(request));
  }
  std::reverse(recorded.begin(), recorded.end());
  return recorded;
}

}  // namespace beamline::engine
