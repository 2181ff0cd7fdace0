// SPDX-License-Identifier: Apache-2.0
#include "runtime/pack.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "catalogue/snapshot_builder.h"
#include "data/item_table.h"
#include "runtime/bundle_writer.h"
#include "runtime/training_record.h"
#include "sid/codebook.h"
#include "sid/sid_index.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kInterruptEvery = 4096;

absl::StatusOr<sid::SidTable> ReadSids(const fs::path& path, const sid::Codebook& codebook) {
  BEAMLINE_ASSIGN_OR_RETURN(sid::SidTable table, sid::ReadSidTsv(path.string()));
  if (table.level_sizes != codebook.level_sizes()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": level sizes are ", sid::FormatLevelSizes(table.level_sizes), ", the codebook's ",
                     sid::FormatLevelSizes(codebook.level_sizes()), "; take both from one `beamline tokenize`"));
  }
  if (!table.codebook_fingerprint.empty() && table.codebook_fingerprint != codebook.fingerprint()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": made with codebook ", table.codebook_fingerprint,
                                                   ", the codebook beside it is ", codebook.fingerprint(),
                                                   "; take both from one `beamline tokenize`"));
  }
  return table;
}

float DefaultRelevance(const CatalogueSources& sources, ItemId item) {
  return sources.vocabulary == nullptr ? 0.0f : static_cast<float>(sources.vocabulary->Popularity(item));
}

// Whether the table rates items at all: then an item at 0 is one at 0, not one without a rating.
absl::StatusOr<bool> RatesItems(const fs::path& path, Progress* progress) {
  BEAMLINE_ASSIGN_OR_RETURN(data::ItemTableReader reader, data::ItemTableReader::Open(path, {}, progress));
  data::ItemRow row;
  while (true) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
    if (!more) return false;
    if (row.attributes.relevance != 0) return true;
  }
}

struct Joining {
  sid::SidTable sids;
  absl::flat_hash_map<ItemId, size_t> pending;  // items of `sids` that the snapshot does not have yet
  catalogue::SnapshotBuilder builder;
  CatalogueJoin join;
};

// Adds every row of the item table that has a SID, and takes it out of what is pending.
absl::Status AddItemTable(const CatalogueSources& sources, Joining& joining, Progress* progress) {
  const fs::path& path = sources.items;
  BEAMLINE_ASSIGN_OR_RETURN(data::ItemTableReader reader, data::ItemTableReader::Open(path, {}, progress));
  data::ItemRow row;
  while (true) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
    if (!more) break;
    const auto found = joining.pending.find(row.item);
    if (found == joining.pending.end()) {
      ++joining.join.without_sid;
      continue;
    }
    if (row.attributes.relevance == 0) row.attributes.relevance = DefaultRelevance(sources, row.item);
    const CatalogueItem item{row.item, joining.sids.sids[found->second], row.attributes};
    if (absl::Status status = joining.builder.Add(item); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat(path.string(), ": item ", row.item, ": ", status.message()));
    }
    joining.pending.erase(found);
  }
  joining.join.bad_rows = reader.bad_rows().bad();
  joining.join.bad_rows_summary = reader.bad_rows().Summary();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CatalogueJoin> JoinCatalogue(const CatalogueSources& given, Progress* progress) {
  CatalogueSources sources = given;
  const fs::path codebook_path = sources.tokenizer / kCodebookFile;
  const fs::path sids_path = sources.tokenizer / kSidsFile;
  BEAMLINE_ASSIGN_OR_RETURN(const sid::Codebook codebook, sid::Codebook::Load(codebook_path.string()));
  BEAMLINE_ASSIGN_OR_RETURN(sid::SidTable sids, ReadSids(sids_path, codebook));

  catalogue::SnapshotOptions options;
  options.codebook_fingerprint = codebook.fingerprint();
  options.level_sizes = codebook.level_sizes();
  options.version = sources.version;
  options.expected_items = sids.items.size();
  BEAMLINE_ASSIGN_OR_RETURN(catalogue::SnapshotBuilder builder, catalogue::SnapshotBuilder::Create(std::move(options)));

  Joining joining{.sids = std::move(sids), .builder = std::move(builder)};
  const std::vector<ItemId>& items = joining.sids.items;
  joining.pending.reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i) joining.pending.emplace(items[i], i);
  if (!sources.items.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool rated, RatesItems(sources.items, progress));
    if (rated) sources.vocabulary = nullptr;
    BEAMLINE_RETURN_IF_ERROR(AddItemTable(sources, joining, progress));
  }
  joining.join.without_attributes = static_cast<int64_t>(joining.pending.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (i % kInterruptEvery == 0) BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    if (!joining.pending.contains(items[i])) continue;
    CatalogueItem item{items[i], joining.sids.sids[i], {}};
    item.attributes.relevance = DefaultRelevance(sources, item.item);
    BEAMLINE_RETURN_IF_ERROR(joining.builder.Add(item));
  }
  BEAMLINE_ASSIGN_OR_RETURN(joining.join.snapshot, std::move(joining.builder).Build(progress));
  return std::move(joining.join);
}

namespace {

// `beamline train` notes which codebook it trained with. A model of other making has no such file.
absl::Status CheckTrainedWith(const PackOptions& options, const std::string& codebook_fingerprint) {
  BEAMLINE_ASSIGN_OR_RETURN(const auto training, ReadTrainingRecord(options.model));
  if (!training.has_value()) return absl::OkStatus();
  const auto found = training->find("codebook_fingerprint");
  if (found == training->end() || *found == codebook_fingerprint) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      (options.model / kTrainingFile).string(), ": the model was trained with codebook ", found->dump(), ", that of ",
      options.catalogue.tokenizer.string(), " is ", codebook_fingerprint, "; name the tokenizer it was trained with"));
}

}  // namespace

absl::StatusOr<CatalogueJoin> PackCatalogue(const PackOptions& options, Progress* progress) {
  if (options.model.empty()) return JoinCatalogue(options.catalogue, progress);
  BEAMLINE_ASSIGN_OR_RETURN(const Vocabulary vocabulary, Vocabulary::Load((options.model / kVocabularyFile).string()));
  CatalogueSources sources = options.catalogue;
  sources.vocabulary = &vocabulary;
  BEAMLINE_ASSIGN_OR_RETURN(CatalogueJoin join, JoinCatalogue(sources, progress));
  BEAMLINE_RETURN_IF_ERROR(CheckTrainedWith(options, join.snapshot->codebook_fingerprint()));
  return join;
}

absl::StatusOr<PackResult> Pack(const PackOptions& options, Progress* progress) {
  BEAMLINE_RETURN_IF_ERROR(CheckBundleTarget(options.out, options.overwrite));
  PackResult result;
  BEAMLINE_ASSIGN_OR_RETURN(result.catalogue, PackCatalogue(options, progress));
  BundleParts parts;
  parts.config = options.model / kConfigFile;
  parts.weights = options.model / kWeightsFile;
  parts.vocabulary = options.model / kVocabularyFile;
  parts.codebook = options.catalogue.tokenizer / kCodebookFile;
  parts.catalogue = result.catalogue.snapshot;
  parts.model_version = options.model_version;
  parts.gate = options.gate;
  parts.tuning = options.tuning;
  BEAMLINE_ASSIGN_OR_RETURN(result.manifest, WriteBundle(parts, options.out, {options.overwrite, progress}));
  return result;
}

}  // namespace beamline::runtime
