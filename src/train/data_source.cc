// SPDX-License-Identifier: Apache-2.0
#include "train/data_source.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "data/labels.h"

namespace beamline::train {
namespace {

absl::StatusOr<CorpusOptions> CorpusFromJson(const nlohmann::json& training, const std::string& source) {
  CorpusOptions options;
  try {
    const nlohmann::json& corpus = training.at("corpus");
    BEAMLINE_ASSIGN_OR_RETURN(options.target_labels, data::ParseLabels(corpus.at("target_labels").get<std::string>()));
    options.k_core = corpus.at("k_core").get<int>();
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": not written by `beamline train`: ", error.what()));
  }
  return options;
}

}  // namespace

absl::StatusOr<Corpus> LoadCorpus(const std::string& folder, const CorpusOptions& options, Progress* progress) {
  BEAMLINE_ASSIGN_OR_RETURN(const data::DatasetFiles files, data::FindDatasetFiles(folder));
  BEAMLINE_ASSIGN_OR_RETURN(data::Dataset dataset, data::Dataset::Load(files, {.keep_unused_items = true}, progress));
  absl::StatusOr<Corpus> corpus = Corpus::Create(std::make_shared<const data::Dataset>(std::move(dataset)), options);
  if (corpus.ok()) return corpus;
  return absl::Status(corpus.status().code(), absl::StrCat(files.events.string(), ": ", corpus.status().message()));
}

nlohmann::json CorpusToJson(const CorpusOptions& options) {
  return {{"target_labels", data::FormatLabels(options.target_labels)}, {"k_core", options.k_core}};
}

absl::StatusOr<ModelData> LoadModelData(const DataSource& source, const std::string& model_folder,
                                        const nlohmann::json& training, Progress* progress) {
  BEAMLINE_ASSIGN_OR_RETURN(const CorpusOptions options,
                            CorpusFromJson(training, ModelFolder(model_folder).training()));
  BEAMLINE_ASSIGN_OR_RETURN(Corpus corpus, LoadCorpus(source.data, options, progress));
  BEAMLINE_ASSIGN_OR_RETURN(TrainingCatalogue catalogue, LoadTrainingCatalogue(source.tokenizer, corpus));
  const auto fingerprint = training.find("codebook_fingerprint");
  if (fingerprint == training.end() || *fingerprint != catalogue.snapshot->codebook_fingerprint()) {
    return absl::FailedPreconditionError(
        absl::StrCat(model_folder, ": trained with another codebook than that of ", source.tokenizer, " (",
                     catalogue.snapshot->codebook_fingerprint(), "); name the tokenizer it was trained with"));
  }
  std::vector<std::string> warnings;
  if (!catalogue.warning.empty()) warnings.push_back(catalogue.warning);
  const auto log = training.find("log");
  if (log != training.end() && *log != corpus.dataset().EventsFingerprint()) {
    warnings.push_back(absl::StrCat(model_folder, ": trained on another log than ", source.data,
                                    "; if that one has events that this one holds out, the model has seen them"));
  }
  return ModelData{std::move(corpus), std::move(catalogue), std::move(warnings)};
}

}  // namespace beamline::train
