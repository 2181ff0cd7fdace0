// SPDX-License-Identifier: Apache-2.0
#include "train/model_folder.h"

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "beamline/status.h"
#include "catalogue/snapshot_builder.h"
#include "runtime/training_record.h"
#include "sid/codebook.h"
#include "sid/sid_index.h"

namespace beamline::train {

namespace {

using FileOf = std::string (ModelFolder::*)() const;
// The weights last: with them a folder has a model.
constexpr FileOf kModelFiles[] = {&ModelFolder::config, &ModelFolder::vocabulary, &ModelFolder::training,
                                  &ModelFolder::weights};

absl::Status Remove(const std::string& file) {
  std::error_code error;
  std::filesystem::remove(file, error);
  if (!error) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot remove ", file, ": ", error.message()));
}

}  // namespace

absl::Status CheckNoModel(const ModelFolder& files, bool replace, const std::string& own) {
  std::error_code ignored;
  if (replace) return absl::OkStatus();
  const auto there = [&](FileOf file) {
    return absl::AlreadyExistsError(
        absl::StrCat((files.*file)(), " is there already; pass --fresh to replace it, or name another --out"));
  };
  if (std::filesystem::exists(files.weights(), ignored)) return there(&ModelFolder::weights);
  if (std::filesystem::exists(files.checkpoint(), ignored)) return absl::OkStatus();  // the others are its run's
  for (const FileOf file : kModelFiles) {
    const std::string path = (files.*file)();
    if (!std::filesystem::exists(path, ignored) || std::filesystem::equivalent(path, own, ignored)) continue;
    return there(file);
  }
  return absl::OkStatus();
}

void RemoveUnfinished(const ModelFolder& files, const std::string& own) {
  std::error_code ignored;
  if (std::filesystem::exists(files.weights(), ignored)) return;
  for (const FileOf file : kModelFiles) {
    const std::string path = (files.*file)();
    if (!std::filesystem::equivalent(path, own, ignored)) std::filesystem::remove(path, ignored);
  }
}

absl::Status SetModelAside(const ModelFolder& files, const std::string& own) {
  std::error_code error;
  if (std::filesystem::exists(files.checkpoint(), error))
    RemoveUnfinished(files, own);  // that run's: the checkpoint last
  BEAMLINE_RETURN_IF_ERROR(Remove(files.checkpoint()));
  if (!std::filesystem::exists(files.weights(), error)) return absl::OkStatus();  // an earlier run may have done it
  const ModelFolder aside(files.replaced());
  if (std::filesystem::exists(aside.weights(), error)) RemoveReplaced(files);
  BEAMLINE_RETURN_IF_ERROR(MakeFolder(aside.path));
  for (const FileOf file : kModelFiles) {
    const std::string from = (files.*file)(), to = (aside.*file)();
    if (!std::filesystem::exists(from, error)) continue;
    if (std::filesystem::equivalent(from, own, error)) {
      std::filesystem::copy_file(from, to, std::filesystem::copy_options::overwrite_existing, error);
    } else {
      std::filesystem::rename(from, to, error);
    }
    if (error) return absl::UnavailableError(absl::StrCat("cannot move ", from, ": ", error.message()));
  }
  return absl::OkStatus();
}

void RemoveReplaced(const ModelFolder& files) {
  const ModelFolder aside(files.replaced());
  std::error_code ignored;
  for (const FileOf file : kModelFiles) std::filesystem::remove((aside.*file)(), ignored);
  std::filesystem::remove(aside.path, ignored);  // unless somebody keeps something there
}

absl::Status CheckNotReplaced(const ModelFolder& files, const std::string& source, absl::string_view option) {
  std::error_code ignored;
  if (!std::filesystem::equivalent(source, files.replaced(), ignored)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(option, ": ", source,
                                                    " is where --out keeps the model it replaces, and would be removed "
                                                    "with it; move it away, or name another --out"));
}

absl::Status TellOfReplaced(const ModelFolder& files, absl::Status status) {
  std::error_code ignored;
  if (status.ok() || std::filesystem::exists(files.weights(), ignored) ||
      !std::filesystem::exists(ModelFolder(files.replaced()).weights(), ignored)) {
    return status;
  }
  return absl::Status(status.code(), absl::StrCat(status.message(), "; the model that was there is in ",
                                                  files.replaced(), " until another one is whole"));
}

absl::StatusOr<TrainingCatalogue> LoadTrainingCatalogue(const std::string& tokenizer, const Corpus& corpus) {
  const std::string sids_path = tokenizer + "/sids.tsv";
  BEAMLINE_ASSIGN_OR_RETURN(const sid::Codebook codebook, sid::Codebook::Load(tokenizer + "/codebook.safetensors"));
  BEAMLINE_ASSIGN_OR_RETURN(const sid::SidTable table, sid::ReadSidTsv(sids_path));
  if (!table.codebook_fingerprint.empty() && table.codebook_fingerprint != codebook.fingerprint()) {
    return absl::FailedPreconditionError(absl::StrCat(sids_path, ": made with codebook ", table.codebook_fingerprint,
                                                      ", but codebook.safetensors beside it is ",
                                                      codebook.fingerprint(), "; run `beamline tokenize` again"));
  }
  const std::string targets = DescribeTargets(corpus.options());
  if (!table.targets.empty() && table.targets != targets) {
    return absl::FailedPreconditionError(absl::StrCat(
        sids_path, ": SIDs were made for targets ", table.targets, ", this run has targets ", targets,
        ": they have seen events that it holds out; run `beamline tokenize` with the same --targets, --k-core and "
        "--split-at"));
  }
  BEAMLINE_ASSIGN_OR_RETURN(auto builder,
                            catalogue::SnapshotBuilder::Create({.codebook_fingerprint = codebook.fingerprint(),
                                                                .level_sizes = codebook.level_sizes(),
                                                                .expected_items = table.items.size()}));
  const data::Dataset& dataset = corpus.dataset();
  const std::vector<uint32_t> popularity = corpus.TrainingPopularity();
  for (size_t i = 0; i < table.items.size(); ++i) {
    CatalogueItem item{.item = table.items[i], .sid = table.sids[i]};
    if (const auto index = dataset.FindItem(item.item); index.has_value()) {
      item.attributes = dataset.item_attributes(*index);
      item.attributes.relevance = static_cast<float>(popularity[*index]);
    }
    if (absl::Status status = builder.Add(item); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat(sids_path, ": item ", item.item, ": ", status.message()));
    }
  }
  TrainingCatalogue result;
  BEAMLINE_ASSIGN_OR_RETURN(result.snapshot, std::move(builder).Build());
  if (!table.log.empty() && table.log != dataset.EventsFingerprint()) {
    result.warning =
        absl::StrCat(sids_path,
                     ": its SIDs were made from another log. That is how a newer log is trained under the "
                     "SIDs of an older one; if the other log has events that this one holds out, they have "
                     "seen them, and offline numbers are too good");
  }
  return result;
}

std::vector<bool> ItemsWithSid(const Corpus& corpus, const Catalogue& catalogue) {
  std::vector<bool> known(corpus.dataset().num_items());
  for (int64_t item = 0; item < corpus.dataset().num_items(); ++item) {
    known[item] = catalogue.Encode(corpus.dataset().item_id(item)).has_value();
  }
  return known;
}

int64_t TargetsWithoutSid(const Corpus& corpus, const Catalogue& catalogue) {
  const std::vector<bool> known = ItemsWithSid(corpus, catalogue);
  int64_t count = 0;
  for (uint32_t item : corpus.target_items().items) count += !known[item];
  return count;
}

absl::StatusOr<LoadedModel> LoadModelFolder(backend::Context& ctx, const std::string& folder) {
  const ModelFolder files(folder);
  std::error_code ignored;
  if (!std::filesystem::exists(files.weights(), ignored) && std::filesystem::exists(files.checkpoint(), ignored)) {
    return absl::FailedPreconditionError(absl::StrCat(
        folder, ": its training is not over: run the same `beamline train` again, without --fresh; it goes on from ",
        files.checkpoint()));
  }
  BEAMLINE_ASSIGN_OR_RETURN(const model::ModelConfig config, model::LoadConfig(files.config()));
  BEAMLINE_ASSIGN_OR_RETURN(runtime::Vocabulary vocabulary, runtime::Vocabulary::Load(files.vocabulary()));
  LoadedModel loaded;
  BEAMLINE_ASSIGN_OR_RETURN(loaded.training, runtime::ReadTrainingRecord(folder));
  BEAMLINE_ASSIGN_OR_RETURN(model::Weights weights, model::LoadWeights(ctx, config, files.weights()));
  BEAMLINE_ASSIGN_OR_RETURN(loaded.model, model::MakeModel(config, std::move(weights)));
  loaded.vocabulary = std::make_shared<const runtime::Vocabulary>(std::move(vocabulary));
  return loaded;
}

}  // namespace beamline::train
