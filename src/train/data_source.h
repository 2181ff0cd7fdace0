// SPDX-License-Identifier: Apache-2.0
//
// Where a model's data comes from: a data folder and a tokenizer folder, and the same two once more for a model that
// was trained on them. Pure but for reading; errors name the file and what to do.
#pragma once

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

struct ModelData {
  Corpus corpus;
  TrainingCatalogue catalogue;
  std::vector<std::string> warnings;  // why numbers on it may be too good
};

// The data of a model folder, whose record says which events are targets and which codebook it has. FAILED_PRECONDITION
// where the tokenizer is another one.
absl::StatusOr<ModelData> LoadModelData(const DataSource& source, const std::string& model_folder,
                                        const nlohmann::json& training, Progress* progress);

}  // namespace beamline::train
