// SPDX-License-Identifier: Apache-2.0
#include "train/event_vectors.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "data/dataset.h"

namespace beamline::train {
namespace {

// The training part's items, by dataset index.
ItemSequences TrainingItems(const Corpus& corpus, bool all_events) {
  ItemSequences sequences;
  sequences.num_items = corpus.target_items().num_items;
  std::vector<uint32_t> items;
  for (int64_t user = 0; user < corpus.num_users(); ++user) {
    if (all_events) {
      items.clear();
      for (const auto& event : corpus.dataset().events(user).subspan(0, corpus.training_end(user))) {
        items.push_back(event.item);
      }
      sequences.Append(items);
    } else {
      sequences.Append(corpus.target_items().user(user).subspan(0, corpus.training_targets(user)));
    }
  }
  return sequences;
}

// The dataset indices of the items that get SIDs, ascending by id.
std::vector<uint32_t> ChosenItems(const Corpus& corpus, bool target_items_only) {
  const int64_t num_items = corpus.dataset().num_items();
  std::vector<bool> chosen(num_items, !target_items_only);
  for (const uint32_t item : corpus.target_items().items) chosen[item] = true;
  std::vector<uint32_t> items;
  for (int64_t item = 0; item < num_items; ++item) {
    if (chosen[item]) items.push_back(static_cast<uint32_t>(item));
  }
  return items;
}

// Only these items, numbered in their order.
ItemSequences Renumber(const ItemSequences& sequences, const std::vector<uint32_t>& items) {
  constexpr uint32_t kLeftOut = ~uint32_t{0};
  std::vector<uint32_t> number(sequences.num_items, kLeftOut);
  for (size_t i = 0; i < items.size(); ++i) number[items[i]] = static_cast<uint32_t>(i);
  ItemSequences result;
  result.num_items = static_cast<uint32_t>(items.size());
  std::vector<uint32_t> kept;
  for (int64_t user = 0; user < sequences.users(); ++user) {
    kept.clear();
    for (const uint32_t item : sequences.user(user)) {
      if (number[item] != kLeftOut) kept.push_back(number[item]);
    }
    result.Append(kept);
  }
  return result;
}

sid::ItemAttributeKeys AttributeKeys(const data::Dataset& dataset, const std::vector<uint32_t>& items) {
  sid::ItemAttributeKeys attributes;
  for (const uint32_t index : items) {
    const ItemAttributes& item = dataset.item_attributes(index);
    std::vector<std::string>& keys = attributes.keys.emplace_back();
    if (item.author != 0) keys.push_back(absl::StrCat("author:", item.author));
    for (const auto& [key, value] : item.tags) keys.push_back(absl::StrCat("tag:", key, "=", value));
  }
  return attributes;
}

}  // namespace

absl::StatusOr<EventVectors> EmbedEvents(const std::string& folder, const EventVectorsOptions& options,
                                         ThreadPool* pool, Progress* progress) {
  BEAMLINE_ASSIGN_OR_RETURN(const data::DatasetFiles files, data::FindDatasetFiles(folder));
  data::DatasetOptions load;
  load.keep_unused_items = options.unused_items;
  BEAMLINE_ASSIGN_OR_RETURN(data::Dataset loaded, data::Dataset::Load(files, load, progress));
  const auto dataset = std::make_shared<const data::Dataset>(std::move(loaded));
  BEAMLINE_ASSIGN_OR_RETURN(const Corpus corpus, Corpus::Create(dataset, options.corpus));
  const std::vector<uint32_t> items = ChosenItems(corpus, options.target_items_only);
  const ItemSequences training = Renumber(TrainingItems(corpus, options.all_events), items);
  EventVectors result;
  result.log = dataset->EventsFingerprint();
  result.users = training.users();
  result.training_events = static_cast<int64_t>(training.items.size());
  BEAMLINE_ASSIGN_OR_RETURN(
      result.embedding, sid::EmbedItems(training, AttributeKeys(*dataset, items), options.embedding, {pool, progress}));
  for (const uint32_t item : items) result.items.items.push_back(dataset->item_id(item));
  result.items.vectors = std::move(result.embedding.vectors);
  return result;
}

}  // namespace beamline::train
