// SPDX-License-Identifier: Apache-2.0
#include "train/data_source.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/json_object_reader.h"
#include "beamline/status.h"
#include "data/labels.h"

namespace beamline::train {
namespace {

absl::StatusOr<CorpusOptions> CorpusFromJson(const nlohmann::json& training, const std::string& source) {
  CorpusOptions options;
  std::vector<std::string> problems;
  std::string labels, split_at;
  JsonObjectReader reader(training, "", problems);
  if (const nlohmann::json* corpus = reader.Find("corpus", true)) {
    JsonObjectReader own(*corpus, "corpus", problems);
    own.String("target_labels", labels);
    own.Int("k_core", options.k_core);
    if (options.k_core < 0) own.Problem("k_core", absl::StrCat("must be 0 or more, is ", options.k_core));
    if (own.Find("split_at", false) != nullptr) {
      own.String("split_at", split_at);
      const absl::StatusOr<TimeSplit> split = ParseTimeSplit(split_at);
      if (split.ok()) options.time_split = *split;
      if (!split.ok()) own.Problem("split_at", std::string(split.status().message()));
    }
  }
  if (!problems.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": not written by `beamline train`: ", absl::StrJoin(problems, "; ")));
  }
  const absl::StatusOr<uint32_t> parsed = data::ParseLabels(labels);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": corpus.target_labels: ", parsed.status().message()));
  }
  options.target_labels = *parsed;
  return options;
}

CorpusOptions With(const GivenTargets& given, CorpusOptions options) {
  options.target_labels = given.labels.value_or(options.target_labels);
  options.k_core = given.k_core.value_or(options.k_core);
  if (given.time_split) options.time_split = given.time_split;
  return options;
}

// Other targets would hold out other events, and the model has trained on some of them.
absl::StatusOr<CorpusOptions> ChooseTargets(const std::optional<nlohmann::json>& training, const GivenTargets& given,
                                            const std::string& source) {
  if (!training.has_value()) return With(given, CorpusOptions());
  BEAMLINE_ASSIGN_OR_RETURN(const CorpusOptions recorded, CorpusFromJson(*training, source));
  const std::string wanted = DescribeTargets(With(given, recorded)), own = DescribeTargets(recorded);
  if (wanted == own) return recorded;
  return absl::InvalidArgumentError(absl::StrCat("targets: ", wanted, " is not what the model was trained with, which ",
                                                 source, " says is ", own,
                                                 "; leave --targets, --k-core and --split-at out"));
}

absl::Status CheckCodebook(const nlohmann::json& training, const std::string& model_folder, const DataSource& source,
                           const catalogue::CatalogueSnapshot& snapshot) {
  const auto fingerprint = training.find("codebook_fingerprint");
  if (fingerprint != training.end() && *fingerprint == snapshot.codebook_fingerprint()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(model_folder, ": trained with another codebook than that of ",
                                                    source.tokenizer, " (", snapshot.codebook_fingerprint(),
                                                    "); name the tokenizer it was trained with"));
}

// Why the model may have seen what this log holds out; empty: it has not.
std::string WarnOfLog(const std::optional<nlohmann::json>& training, const std::string& model_folder,
                      const DataSource& source, const Corpus& corpus) {
  if (!training.has_value()) {
    return absl::StrCat(model_folder,
                        ": has no training.json, so that nothing says what the model was trained on; "
                        "if it has seen events that are held out here, the numbers are too good");
  }
  const auto log = training->find("log");
  if (log == training->end() || *log == corpus.dataset().EventsFingerprint()) return "";
  return absl::StrCat(model_folder, ": trained on another log than ", source.data,
                      "; if that one has events that this one holds out, the model has seen them");
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
  nlohmann::json json = {{"target_labels", data::FormatLabels(options.target_labels)}, {"k_core", options.k_core}};
  if (options.time_split) json["split_at"] = DescribeTimeSplit(*options.time_split);
  return json;
}

absl::StatusOr<ModelData> LoadModelData(const DataSource& source, const TrainedModel& model, const GivenTargets& given,
                                        Progress* progress) {
  const std::optional<nlohmann::json>& training = model.training;
  BEAMLINE_ASSIGN_OR_RETURN(const CorpusOptions options,
                            ChooseTargets(training, given, ModelFolder(model.folder).training()));
  BEAMLINE_ASSIGN_OR_RETURN(Corpus corpus, LoadCorpus(source.data, options, progress));
  BEAMLINE_ASSIGN_OR_RETURN(TrainingCatalogue catalogue, LoadTrainingCatalogue(source.tokenizer, corpus));
  if (training.has_value()) {
    BEAMLINE_RETURN_IF_ERROR(CheckCodebook(*training, model.folder, source, *catalogue.snapshot));
  }
  std::vector<std::string> warnings;
  if (!catalogue.warning.empty()) warnings.push_back(catalogue.warning);
  if (std::string log = WarnOfLog(training, model.folder, source, corpus); !log.empty()) {
    warnings.push_back(std::move(log));
  }
  return ModelData{std::move(corpus), std::move(catalogue), std::move(warnings)};
}

}  // namespace beamline::train
