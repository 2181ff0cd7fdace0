// SPDX-License-Identifier: Apache-2.0
//
// Where a model's data comes from: a data folder and a tokenizer folder, and the same two once more for a model that
// was trained on them. Pure but for reading; errors name the file and what to do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "base/progress.h"
#include "train/corpus.h"
#include "train/model_folder.h"

namespace beamline::train {

struct DataSource {
  std::string data;       // folder of events.tsv(.gz), items.tsv(.gz), users.tsv(.gz)
  std::string tokenizer;  // folder of codebook.safetensors and sids.tsv
};

absl::StatusOr<Corpus> LoadCorpus(const std::string& folder, const CorpusOptions& options, Progress* progress);

// "corpus" of training.json.
nlohmann::json CorpusToJson(const CorpusOptions& options);

// Which events are targets of a model that has no training.json, such as `beamline import hf` keeps; with it the log
// splits as for `beamline train` with the same values. Where there is one, it says, and nothing else may be said here.
struct GivenTargets {
  std::optional<uint32_t> labels;  // nullopt: as CorpusOptions has it
  std::optional<int> k_core;
  std::optional<TimeSplit> time_split;
};

struct ModelData {
  Corpus corpus;
  TrainingCatalogue catalogue;
  std::vector<std::string> warnings;  // why numbers on it may be too good
};

struct TrainedModel {
  std::string folder;
  std::optional<nlohmann::json> training;  // its record; a model of other making has none
};

// The data of a model folder, whose record says which events are targets and which codebook it has. INVALID_ARGUMENT
// where `given` says otherwise, FAILED_PRECONDITION where the tokenizer is another one.
absl::StatusOr<ModelData> LoadModelData(const DataSource& source, const TrainedModel& model, const GivenTargets& given,
                                        Progress* progress);

}  // namespace beamline::train
