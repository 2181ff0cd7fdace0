// SPDX-License-Identifier: Apache-2.0
//
// The folder `beamline train` writes and `evaluate` and `pack` read: config.json, vocabulary.safetensors,
// training.json (options, corpus, curve), and model.safetensors, written last. Beside them, while a run is not over,
// checkpoint.safetensors. And what training needs besides: the catalogue of a tokenizer's SIDs over a corpus.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backend/context.h"
#include "catalogue/snapshot.h"
#include "model/model.h"
#include "runtime/vocabulary.h"
#include "train/corpus.h"

namespace beamline::train {

struct ModelFolder {
  explicit ModelFolder(std::string folder) : path(std::move(folder)) {}
  std::string path;
  std::string config() const { return path + "/config.json"; }
  std::string weights() const { return path + "/model.safetensors"; }
  std::string vocabulary() const { return path + "/vocabulary.safetensors"; }
  std::string training() const { return path + "/training.json"; }
  std::string checkpoint() const { return path + "/checkpoint.safetensors"; }
  std::string replaced() const { return path + "/replaced"; }
};

// ALREADY_EXISTS where the folder holds a model, or, without a checkpoint whose run they are of, other files that a run
// would write, but for `own` (a path, or empty): unless they are to be replaced.
absl::Status CheckNoModel(const ModelFolder& files, bool replace, const std::string& own = "");
// What a run wrote beside the weights that it did not come to write, but for `own`.
void RemoveUnfinished(const ModelFolder& files, const std::string& own = "");
// Moves a model that is there to `replaced`, where it stays until another is whole, and removes a run's checkpoint. One
// that was broken off goes on where it was. `own` stays, too.
absl::Status SetModelAside(const ModelFolder& files, const std::string& own = "");
// FAILED_PRECONDITION where `source`, the folder that `option` names, is what a run to `files` would set aside or
// remove.
absl::Status CheckNotReplaced(const ModelFolder& files, const std::string& source, absl::string_view option);
// What was set aside, once another model is whole.
void RemoveReplaced(const ModelFolder& files);
// `status`, of a run that did not end well, and where the model is that was set aside for it.
absl::Status TellOfReplaced(const ModelFolder& files, absl::Status status);

// The corpus' items under the SIDs of `tokenizer` (a folder with sids.tsv and codebook.safetensors, as `beamline
// tokenize` writes it), with the data set's attributes; relevance inside a SID = popularity in the training part. SIDs
// of items the data set does not name are in it too, without attributes. Errors name file and line.
struct TrainingCatalogue {
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot;
  std::string warning;  // the SIDs come from another log, and may have seen what this one holds out; empty: they do not
};
absl::StatusOr<TrainingCatalogue> LoadTrainingCatalogue(const std::string& tokenizer, const Corpus& corpus);

// Of the corpus' items, by index, whether the catalogue has them.
std::vector<bool> ItemsWithSid(const Corpus& corpus, const Catalogue& catalogue);
// Targets whose item has no SID: they are neither trained on nor ever found.
int64_t TargetsWithoutSid(const Corpus& corpus, const Catalogue& catalogue);

struct LoadedModel {
  std::unique_ptr<model::Model> model;
  std::shared_ptr<const runtime::Vocabulary> vocabulary;
  std::optional<nlohmann::json> training;  // training.json; a model that `beamline train` did not make has none
};
absl::StatusOr<LoadedModel> LoadModelFolder(backend::Context& ctx, const std::string& folder);

}  // namespace beamline::train
