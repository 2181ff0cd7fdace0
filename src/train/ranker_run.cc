// SPDX-License-Identifier: Apache-2.0
#include "train/ranker_run.h"

#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/folder_lock.h"
#include "beamline/status.h"
#include "data/labels.h"
#include "model/weight_schema.h"
#include "runtime/training_record.h"

namespace beamline::train {
namespace {

using nlohmann::json;

absl::Status CheckNothingToReplace(const RankerRun& run) {
  const ModelFolder out(run.out);
  std::error_code ignored;
  if (!run.fresh && std::filesystem::exists(out.checkpoint(), ignored)) {
    return absl::AlreadyExistsError(
        absl::StrCat(out.checkpoint(),
                     ": is a run of `beamline train` that is not over; pass --fresh to replace it, or name another "
                     "--out"));
  }
  return CheckNoModel(out, run.fresh);
}

absl::Status CheckFolders(const RankerRun& run) {
  const ModelFolder out(run.out);
  std::error_code ignored;
  if (std::filesystem::equivalent(run.model, run.out, ignored)) {
    return absl::InvalidArgumentError(
        absl::StrCat(run.out, ": is the model's own folder; write the model with its ranker to another one"));
  }
  BEAMLINE_RETURN_IF_ERROR(CheckNothingToReplace(run));
  BEAMLINE_RETURN_IF_ERROR(CheckNotReplaced(out, run.model, "--model"));
  // Tried now: training takes long, and its end would be late to learn of it.
  const bool is_new = !std::filesystem::exists(run.out, ignored);
  BEAMLINE_RETURN_IF_ERROR(MakeFolder(run.out));
  if (is_new) std::filesystem::remove(run.out, ignored);
  return absl::OkStatus();
}

// The model's configuration with the run's ranker.
absl::StatusOr<model::ModelConfig> RankedConfig(const RankerRun& run, const model::ModelConfig& trained) {
  if (trained.is_t5()) {
    return absl::FailedPreconditionError(
        absl::StrCat(run.model, ": a model of family t5 has no ranker; train one of family onerec_v1"));
  }
  if (trained.ranker.enabled() && !run.retrain) {
    return absl::FailedPreconditionError(
        absl::StrCat(run.model, ": the model has a ranker already; pass --retrain to replace it"));
  }
  model::ModelConfig config = trained;
  config.ranker = run.ranker;
  BEAMLINE_RETURN_IF_ERROR(model::ValidateConfig(config));
  return config;
}

int64_t RankerParameters(const model::ModelConfig& config) {
  model::ModelConfig trunk = config;
  trunk.ranker = {};
  return model::CountParameters(config).total - model::CountParameters(trunk).total;
}

json ToJson(const RankerEpoch& epoch) {
  return {{"epoch", epoch.epoch},
          {"loss", epoch.loss},
          {"events", epoch.events},
          {"learning_rate", epoch.learning_rate},
          {"seconds", epoch.seconds}};
}

json RankerJson(const RankerRun& run, const Corpus& corpus, absl::Span<const RankerEpoch> curve,
                const RankerReport& report) {
  json epochs = json::array();
  for (const RankerEpoch& epoch : curve) epochs.push_back(ToJson(epoch));
  return {{"log", corpus.dataset().EventsFingerprint()},
          {"options", ToJson(run.options)},
          {"curve", std::move(epochs)},
          {"held_out", RankerReportToJson(report)}};
}

}  // namespace

absl::StatusOr<RankerReport> RunRankerTraining(const RankerRun& run, const RankerObserver& observer,
                                               Progress* progress) {
  BEAMLINE_RETURN_IF_ERROR(Validate(run.options));
  BEAMLINE_RETURN_IF_ERROR(CheckFolders(run));
  backend::SetThreads(run.device.threads);
  BEAMLINE_ASSIGN_OR_RETURN(backend::Context ctx, backend::MakeContext(run.device.device, "fp32"));
  BEAMLINE_ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModelFolder(ctx, run.model));
  BEAMLINE_ASSIGN_OR_RETURN(const model::ModelConfig config, RankedConfig(run, loaded.model->config()));
  if (!loaded.training.has_value()) {
    return absl::NotFoundError(
        absl::StrCat(ModelFolder(run.model).training(),
                     ": no such file; a ranker learns from the training part of the model's own run, which is written "
                     "there: go on training with `beamline train --from ",
                     run.model, "`, and name its --out here"));
  }
  BEAMLINE_ASSIGN_OR_RETURN(const ModelData data,
                            LoadModelData(run.source, {run.model, loaded.training}, {}, progress));

  const Corpus every_event = data.corpus.EveryEvent();
  const BehaviourCounts counts = CountBehaviours(every_event, *data.catalogue.snapshot);
  BEAMLINE_RETURN_IF_ERROR(CheckHeads(config.ranker, counts));
  const model::Weights weights = WithNewRanker(ctx, loaded.model->weights(), {config, counts, run.options.seed});
  BEAMLINE_ASSIGN_OR_RETURN(const std::unique_ptr<model::Model> model, model::MakeModel(config, weights));
  const runtime::FeatureBuilder features(config, loaded.vocabulary);
  const RankerInputs inputs{&every_event, &features, data.catalogue.snapshot.get(), model.get()};
  BEAMLINE_RETURN_IF_ERROR(CheckHeldOut(inputs, run.options));
  const ModelFolder files(run.out);
  std::error_code ignored;
  const bool is_new = std::filesystem::symlink_status(run.out, ignored).type() == std::filesystem::file_type::not_found;
  BEAMLINE_RETURN_IF_ERROR(MakeFolder(files.path));
  BEAMLINE_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(files.path));
  const absl::Cleanup no_empty_folder = [&] {  // of this run's making, while it is locked
    if (is_new) std::filesystem::remove(run.out, ignored);
  };
  BEAMLINE_RETURN_IF_ERROR(CheckNothingToReplace(run));  // another run may have begun or ended since
  if (observer.on_start) observer.on_start({counts, RankerParameters(config), data.warnings});
  BEAMLINE_ASSIGN_OR_RETURN(const std::vector<RankerEpoch> curve,
                            TrainRanker(ctx, inputs, run.options, {progress, observer.on_epoch}));
  BEAMLINE_ASSIGN_OR_RETURN(RankerReport report, EvaluateRanker(ctx, {inputs, counts}, run.options, progress));

  json record = *loaded.training;
  record["parameters"] = model::CountParameters(config).total;
  record["ranker"] = RankerJson(run, every_event, curve, report);
  const auto write = [&]() -> absl::Status {
    BEAMLINE_RETURN_IF_ERROR(MakeFolder(files.path));  // as it was; training took long
    if (run.fresh) BEAMLINE_RETURN_IF_ERROR(SetModelAside(files));
    BEAMLINE_RETURN_IF_ERROR(model::SaveConfig(config, files.config()));
    BEAMLINE_RETURN_IF_ERROR(loaded.vocabulary->Save(files.vocabulary()));
    BEAMLINE_RETURN_IF_ERROR(runtime::WriteTrainingRecord(files.path, std::move(record)));
    return model::SaveWeights(ctx, config, weights, files.weights());
  };
  if (const absl::Status written = write(); !written.ok()) {
    RemoveUnfinished(files);
    return TellOfReplaced(files, written);
  }
  RemoveReplaced(files);
  return report;
}

}  // namespace beamline::train
