// SPDX-License-Identifier: Apache-2.0
//
// Item vectors from a data folder, for `beamline tokenize --events`: loads the tables, splits them as training does
// (corpus.h), and embeds the items from the behaviour of the training part and from attributes. Stateless; thread-safe.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "sid/collaborative_embedding.h"
#include "sid/item_vectors.h"
#include "train/corpus.h"

namespace beamline::train {

struct EventVectorsOptions {
  sid::CollaborativeEmbeddingOptions embedding;
  // As given to `beamline train`, so that both leave out the same events.
  CorpusOptions corpus;
  bool all_events = false;         // co-occurrence of all events before the validation event, not of targets alone
  bool target_items_only = false;  // SIDs for the items of targets alone, not for every item of the log
  bool unused_items = false;       // also items of the item table that no event names
};

struct EventVectors {
  sid::ItemVectors items;  // ascending by id
  std::string log;         // Dataset::EventsFingerprint
  int64_t users = 0;
  int64_t training_events = 0;            // that entered co-occurrence
  sid::CollaborativeEmbedding embedding;  // its vectors moved to `items`
};

// Nothing from a user's validation event on is looked at. Errors name the file and line or the option.
absl::StatusOr<EventVectors> EmbedEvents(const std::string& folder, const EventVectorsOptions& options,
                                         ThreadPool* pool, Progress* progress);

}  // namespace beamline::train
