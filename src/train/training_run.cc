// SPDX-License-Identifier: Apache-2.0
#include "train/training_run.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/folder_lock.h"
#include "beamline/status.h"
#include "model/weight_schema.h"
#include "runtime/bundle.h"
#include "runtime/bundle_folder.h"
#include "runtime/t5_vocabulary.h"
#include "runtime/training_record.h"
#include "train/data_source.h"
#include "train/model_folder.h"

namespace beamline::train {
namespace {

using nlohmann::json;

// A file of the model that --from names. Where that is --out itself, an earlier run may have set it aside: all of it if
// its weights are there, or the first of its files if that was cut off.
std::string FileOfFrom(const TrainingRun& run, std::string (ModelFolder::*file)() const) {
  const ModelFolder from(run.from), aside(ModelFolder(run.out).replaced());
  const auto exists = [](const std::string& path) {
    std::error_code ignored;
    return std::filesystem::exists(path, ignored);
  };
  std::error_code ignored;
  if (!std::filesystem::equivalent(run.from, run.out, ignored)) return (from.*file)();
  const bool all = !exists(from.weights()) && exists(aside.weights());
  return all || (!exists((from.*file)()) && exists((aside.*file)())) ? (aside.*file)() : (from.*file)();
}

absl::StatusOr<model::ModelConfig> MakeConfig(const TrainingRun& run, const data::Dataset& dataset,
                                              const Catalogue& catalogue, const runtime::Vocabulary& vocabulary) {
  const std::string file = run.from.empty() ? run.config : FileOfFrom(run, &ModelFolder::config);
  if (file.empty()) {
    // One author for all says nothing.
    const int64_t authors = static_cast<int64_t>(vocabulary.authors().size());
    return model::PresetConfig({.name = run.preset,
                                .level_sizes = catalogue.level_sizes(),
                                .items = static_cast<int64_t>(vocabulary.items().size()),
                                .authors = authors > 1 ? authors : 0,
                                .attributes = dataset.AttributeNames()});
  }
  if (!run.from.empty()) {  // undamaged
    BEAMLINE_RETURN_IF_ERROR(runtime::ReadTrainingRecord(std::filesystem::path(file).parent_path()).status());
  }
  BEAMLINE_ASSIGN_OR_RETURN(model::ModelConfig config, model::LoadConfig(file));
  if (config.level_sizes != catalogue.level_sizes()) {
    return absl::FailedPreconditionError(absl::StrCat(file, ": level_sizes are ",
                                                      absl::StrJoin(config.level_sizes, ","), ", the tokenizer's ",
                                                      absl::StrJoin(catalogue.level_sizes(), ",")));
  }
  if (config.ranker.enabled()) {
    return absl::FailedPreconditionError(
        absl::StrCat(file,
                     ": has a ranker, which would not fit the weights that this run makes; begin with the model or "
                     "configuration without one, and run `beamline train-ranker` on the result"));
  }
  return config;
}

// Of a t5 model the tokens of its rows, of the others the log's items and authors.
absl::StatusOr<std::shared_ptr<const runtime::Vocabulary>> MakeVocabulary(const TrainingRun& run,
                                                                          const model::ModelConfig& config,
                                                                          const Corpus& corpus,
                                                                          const runtime::Vocabulary& of_log) {
  runtime::Vocabulary vocabulary = of_log;
  if (!run.from.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(vocabulary, runtime::Vocabulary::Load(FileOfFrom(run, &ModelFolder::vocabulary)));
  } else if (config.is_t5()) {
    vocabulary = runtime::Vocabulary::OfTokens(runtime::NewTokens(config));
  }
  corpus.CountPopularity(vocabulary);  // of this run's log, whatever the ids' log was
  return std::make_shared<const runtime::Vocabulary>(std::move(vocabulary));
}

// Everything a run needs, alive for its whole length.
struct Prepared {
  std::optional<Corpus> corpus;
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot;
  std::unique_ptr<runtime::FeatureBuilder> features;
  std::unique_ptr<Trainer> trainer;
  std::vector<std::string> warnings;
};

json TrainingJson(const TrainingRun& run, const Prepared& prepared) {
  json curve = json::array();
  for (const EpochRecord& record : prepared.trainer->curve()) curve.push_back(ToJson(record));
  return {{"preset", run.config.empty() && run.from.empty() ? run.preset : ""},
          {"parameters", model::CountParameters(prepared.features->config()).total},
          {"corpus", CorpusToJson(run.corpus)},
          {"log", prepared.corpus->dataset().EventsFingerprint()},
          {"codebook_fingerprint", prepared.snapshot->codebook_fingerprint()},
          {"options", ToJson(run.options)},
          {"stopped_early", prepared.trainer->stopped_early()},
          {"curve", curve}};
}

RunSummary Summarise(const Prepared& prepared, int resumed_epoch) {
  const Corpus& corpus = *prepared.corpus;
  RunSummary summary;
  summary.users = corpus.num_users();
  summary.events = corpus.dataset().num_events();
  summary.targets = static_cast<int64_t>(corpus.target_items().items.size());
  for (int64_t user = 0; user < corpus.num_users(); ++user) summary.training_targets += corpus.training_targets(user);
  summary.targets_without_sid = TargetsWithoutSid(corpus, *prepared.snapshot);
  summary.items = static_cast<int64_t>(prepared.snapshot->num_items());
  summary.sids = static_cast<int64_t>(prepared.snapshot->num_sids());
  summary.parameters = model::CountParameters(prepared.features->config()).total;
  summary.steps_per_epoch = prepared.trainer->steps_per_epoch();
  summary.warnings = prepared.warnings;
  summary.resumed_epoch = resumed_epoch;
  return summary;
}

// What is somebody else's checkpoint has its advice already: --fresh would remove it.
absl::Status WithAdvice(const absl::Status& restored) {
  if (restored.ok() || absl::EndsWith(restored.message(), "--out")) return restored;
  return absl::Status(restored.code(), absl::StrCat(restored.message(), "; --fresh begins anew"));
}

absl::Status TrainInto(const ModelFolder& files, const TrainingRun& run, const RunObserver& observer,
                       Progress* progress) {
  const absl::Time started = absl::Now();
  BEAMLINE_RETURN_IF_ERROR(Validate(run.options));
  std::optional<FolderLock> lock;
  if (std::error_code ignored; std::filesystem::exists(files.path, ignored)) {
    BEAMLINE_ASSIGN_OR_RETURN(lock, FolderLock::Take(files.path));
  }
  BEAMLINE_RETURN_IF_ERROR(CheckNoModel(files, run.fresh, run.config));
  if (!run.from.empty()) BEAMLINE_RETURN_IF_ERROR(CheckNotReplaced(files, run.from, "--from"));
  const std::string config_folder = std::filesystem::path(run.config).parent_path();
  if (!config_folder.empty()) BEAMLINE_RETURN_IF_ERROR(CheckNotReplaced(files, config_folder, "--config"));
  backend::SetThreads(run.device.threads);
  BEAMLINE_ASSIGN_OR_RETURN(backend::Context ctx, backend::MakeContext(run.device.device, "fp32"));

  Prepared prepared;
  BEAMLINE_ASSIGN_OR_RETURN(prepared.corpus, LoadCorpus(run.source.data, run.corpus, progress));
  BEAMLINE_ASSIGN_OR_RETURN(TrainingCatalogue catalogue, LoadTrainingCatalogue(run.source.tokenizer, *prepared.corpus));
  prepared.snapshot = std::move(catalogue.snapshot);
  if (!catalogue.warning.empty()) prepared.warnings.push_back(std::move(catalogue.warning));
  const runtime::Vocabulary of_log = prepared.corpus->FitVocabulary();
  BEAMLINE_ASSIGN_OR_RETURN(const model::ModelConfig config,
                            MakeConfig(run, prepared.corpus->dataset(), *prepared.snapshot, of_log));
  BEAMLINE_ASSIGN_OR_RETURN(const auto vocabulary, MakeVocabulary(run, config, *prepared.corpus, of_log));
  BEAMLINE_RETURN_IF_ERROR(
      runtime::CheckTables(config, *vocabulary, run.config.empty() ? "the model's config" : run.config));
  prepared.features = std::make_unique<runtime::FeatureBuilder>(config, vocabulary);
  TrainInputs inputs{.corpus = &*prepared.corpus, .features = prepared.features.get(), .snapshot = prepared.snapshot};
  const std::string weights = run.from.empty() ? "" : FileOfFrom(run, &ModelFolder::weights);
  if (!weights.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(const runtime::BundleFileEntry entry, runtime::DescribeFile(weights));
    inputs.initial_sha256 = entry.sha256;
  }
  model::Weights initial;
  // A checkpoint has weights of its own.
  const bool resumes = !run.fresh && std::filesystem::exists(files.checkpoint());
  if (!run.from.empty() && !resumes) {
    BEAMLINE_ASSIGN_OR_RETURN(initial, model::LoadWeights(ctx, config, weights));
    inputs.initial = &initial;
  }
  BEAMLINE_ASSIGN_OR_RETURN(prepared.trainer, Trainer::Create(ctx, inputs, run.options));
  if (run.max_minutes > 0) prepared.trainer->StopAt(started + absl::Minutes(run.max_minutes));

  BEAMLINE_RETURN_IF_ERROR(MakeFolder(files.path));
  if (!lock.has_value()) {
    BEAMLINE_ASSIGN_OR_RETURN(lock, FolderLock::Take(files.path));
    BEAMLINE_RETURN_IF_ERROR(CheckNoModel(files, run.fresh, run.config));  // another run may have made the folder since
  }
  // Not before everything that can be wrong with the run was checked.
  if (run.fresh) BEAMLINE_RETURN_IF_ERROR(SetModelAside(files, run.config));
  int resumed_epoch = -1;
  if (std::filesystem::exists(files.checkpoint())) {
    BEAMLINE_RETURN_IF_ERROR(WithAdvice(prepared.trainer->Restore(files.checkpoint())));
    resumed_epoch = static_cast<int>(prepared.trainer->curve().size());
  } else {
    // Before its other files: the folder is a run's from now on, and a full disk is told at once.
    BEAMLINE_RETURN_IF_ERROR(prepared.trainer->Save(files.checkpoint()));
  }
  BEAMLINE_RETURN_IF_ERROR(model::SaveConfig(config, files.config()));
  BEAMLINE_RETURN_IF_ERROR(vocabulary->Save(files.vocabulary()));
  if (observer.on_start) observer.on_start(Summarise(prepared, resumed_epoch));
  absl::Status written;
  const absl::Status trained = prepared.trainer->Run(files.checkpoint(), progress, [&](const EpochRecord& record) {
    written.Update(runtime::WriteTrainingRecord(files.path, TrainingJson(run, prepared)));
    if (observer.on_epoch) observer.on_epoch(record);
  });
  if (absl::IsCancelled(trained)) {
    return absl::CancelledError(absl::StrCat(trained.message(), "; the same command",
                                             run.fresh ? " without --fresh" : "", " goes on from ",
                                             files.checkpoint()));
  }
  BEAMLINE_RETURN_IF_ERROR(trained);
  BEAMLINE_RETURN_IF_ERROR(written);
  BEAMLINE_RETURN_IF_ERROR(runtime::WriteTrainingRecord(files.path, TrainingJson(run, prepared)));
  BEAMLINE_RETURN_IF_ERROR(model::SaveWeights(ctx, config, prepared.trainer->result(), files.weights()));
  std::error_code ignored;
  std::filesystem::remove(files.checkpoint(), ignored);
  RemoveReplaced(files);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunTraining(const TrainingRun& run, const RunObserver& observer, Progress* progress) {
  const ModelFolder files(run.out);
  return TellOfReplaced(files, TrainInto(files, run, observer, progress));
}

namespace {

// What an evaluation needs beside the model's weights.
struct EvaluationSetting {
  explicit EvaluationSetting(ModelData loaded) : data(std::move(loaded)) {}
  ModelData data;
  std::unique_ptr<runtime::FeatureBuilder> features;
  std::optional<ItemRanker> ranker;
};

absl::StatusOr<std::unique_ptr<EvaluationSetting>> PrepareEvaluation(const EvaluationRun& run,
                                                                     const LoadedModel& loaded, Progress* progress) {
  BEAMLINE_ASSIGN_OR_RETURN(ModelData data,
                            LoadModelData(run.source, {run.model, loaded.training}, run.targets, progress));
  auto setting = std::make_unique<EvaluationSetting>(std::move(data));
  setting->features = std::make_unique<runtime::FeatureBuilder>(loaded.model->config(), loaded.vocabulary);
  BEAMLINE_ASSIGN_OR_RETURN(
      setting->ranker, ItemRanker::Create(setting->data.corpus, *setting->features, setting->data.catalogue.snapshot));
  return setting;
}

// The model that a report is of: nobody may replace it while it is loaded.
struct MeasuredFiles {
  runtime::BundleFileEntry weights, config;
};

absl::StatusOr<MeasuredFiles> DescribeModel(const ModelFolder& files) {
  MeasuredFiles described;
  BEAMLINE_ASSIGN_OR_RETURN(described.weights, runtime::DescribeFile(files.weights()));
  BEAMLINE_ASSIGN_OR_RETURN(described.config, runtime::DescribeFile(files.config()));
  return described;
}

absl::Status CheckStillThere(const ModelFolder& files, const MeasuredFiles& before) {
  BEAMLINE_ASSIGN_OR_RETURN(const MeasuredFiles after, DescribeModel(files));
  if (after.weights == before.weights && after.config == before.config) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat(after.weights == before.weights ? files.config() : files.weights(),
                                         ": was replaced while the model was measured; run it again"));
}

}  // namespace

absl::StatusOr<EvaluationReport> RunEvaluation(const EvaluationRun& run, Progress* progress) {
  backend::SetThreads(run.device.threads);
  BEAMLINE_ASSIGN_OR_RETURN(backend::Context ctx, backend::MakeContext(run.device.device, "fp32", run.device.backend));
  const ModelFolder files(run.model);
  const absl::StatusOr<MeasuredFiles> measured = DescribeModel(files);
  BEAMLINE_ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModelFolder(ctx, run.model));  // says what is no model
  BEAMLINE_RETURN_IF_ERROR(measured.status());
  BEAMLINE_RETURN_IF_ERROR(CheckStillThere(files, *measured));  // from here on it is in memory
  if (run.options.by_value && loaded.model->ranker() == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(run.model, ": the model has no ranker to order by; train one with `beamline train-ranker`"));
  }
  BEAMLINE_ASSIGN_OR_RETURN(const auto setting, PrepareEvaluation(run, loaded, progress));
  EvaluationOptions evaluation = run.options;
  evaluation.threads = run.device.threads;
  evaluation.progress = progress;
  BEAMLINE_ASSIGN_OR_RETURN(EvaluationReport report, Evaluate(ctx, *loaded.model, *setting->ranker, evaluation));
  report.weights_sha256 = measured->weights.sha256;
  report.config_sha256 = measured->config.sha256;
  report.warnings.insert(report.warnings.end(), setting->data.warnings.begin(), setting->data.warnings.end());
  return report;
}

absl::StatusOr<runtime::PrecisionGateReport> RunPrecisionGate(const EvaluationRun& run,
                                                              const PrecisionGateOptions& gate, Progress* progress) {
  const std::string& dtype = gate.dtype;
  if (dtype == "fp32" || dtype == "bf16") {
    return absl::InvalidArgumentError(absl::StrCat("dtype: ", dtype, " is what the gate compares with"));
  }
  BEAMLINE_RETURN_IF_ERROR(CheckGateBootstrap(run.options.bootstrap));
  backend::SetThreads(run.device.threads);
  // What cannot run says so before anything is ranked.
  BEAMLINE_RETURN_IF_ERROR(backend::MakeContext(run.device.device, dtype, run.device.backend).status());
  const ModelFolder files(run.model);
  BEAMLINE_ASSIGN_OR_RETURN(const MeasuredFiles measured, DescribeModel(files));
  const int beam = std::max(run.options.beam, runtime::kGateList);
  std::unique_ptr<EvaluationSetting> setting;
  const auto rank = [&](const std::string& in) -> absl::StatusOr<CaseRankings> {
    BEAMLINE_ASSIGN_OR_RETURN(backend::Context ctx, backend::MakeContext(run.device.device, in, run.device.backend));
    BEAMLINE_ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModelFolder(ctx, run.model));
    if (setting == nullptr) {
      BEAMLINE_ASSIGN_OR_RETURN(setting, PrepareEvaluation(run, loaded, progress));
    }
    std::vector<CorpusCase> cases;
    for (const data::HeldOut part : {data::HeldOut::kTest, data::HeldOut::kValidation}) {
      if (!gate.both_splits && part != run.options.held_out) continue;
      const absl::Span<const CorpusCase> all = setting->data.corpus.Cases(part);
      for (const size_t i : ChooseCases(all, run.options)) cases.push_back(all[i]);
    }
    // Lists are compared in the order in which they are served.
    const RankOptions options{.beam = beam,
                              .by_value = loaded.model->ranker() != nullptr,
                              .threads = run.device.threads,
                              .list = runtime::kGateList,
                              .progress = progress};
    return setting->ranker->Rank(ctx, *loaded.model, cases, options);
  };
  PrecisionRankings rankings;
  BEAMLINE_ASSIGN_OR_RETURN(rankings.fp32, rank("fp32"));
  BEAMLINE_ASSIGN_OR_RETURN(rankings.bf16, rank("bf16"));
  BEAMLINE_ASSIGN_OR_RETURN(rankings.narrow, rank(dtype));
  BEAMLINE_RETURN_IF_ERROR(CheckStillThere(files, measured));
  BEAMLINE_ASSIGN_OR_RETURN(runtime::PrecisionGateReport report,
                            ComparePrecisions(dtype, rankings, run.options.bootstrap));
  report.weights_sha256 = measured.weights.sha256;
  report.config_sha256 = measured.config.sha256;
  report.device = run.device.device;
  report.backend = run.device.backend;
  report.split = gate.both_splits ? "both" : run.options.held_out == data::HeldOut::kTest ? "test" : "validation";
  report.beam = beam;
  report.max_users = run.options.max_users;
  report.seed = run.options.bootstrap.seed;
  return report;
}

}  // namespace beamline::train
