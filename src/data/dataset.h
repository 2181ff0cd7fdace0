// SPDX-License-Identifier: Apache-2.0
//
// A behaviour log in memory: every user's events in time order, with dense indices for users and items and their
// attributes. Training, the tokenizer's collaborative embedding and the baselines need the order of events, so the
// dataset holds them: 24 bytes per event (about 52 while loading), about 100 per user and 200 per item. What needs one
// pass only (statistics, import) reads the tables instead and does not grow with events.
//
// Users are numbered in the order of their first event in the file, items by ascending id, so the same tables always
// give the same indices. Events of equal time keep the file's order. Immutable after loading, hence thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/item_sequences.h"
#include "base/progress.h"
#include "beamline/catalogue.h"
#include "beamline/request.h"
#include "data/bad_rows.h"

namespace beamline::data {

// One event of a user. Times over 49 days are cut to it.
struct CompactEvent {
  int64_t timestamp_ms = 0;
  uint32_t item = 0;          // dense index
  uint32_t play_time_ms = 0;  // 0: unknown
  uint32_t duration_ms = 0;   // 0: unknown
  uint32_t labels = 0;        // bits of beamline::Label
};
static_assert(sizeof(CompactEvent) == 24);

// The tables of a data set. `items` and `users` may be empty: then there are no attributes.
struct DatasetFiles {
  std::filesystem::path events;
  std::filesystem::path items;
  std::filesystem::path users;
};

// The files of a folder as `beamline import` and `generate-data` write it: events.tsv, items.tsv, users.tsv, each
// plain or with .gz behind. NOT_FOUND when there are no events.
absl::StatusOr<DatasetFiles> FindDatasetFiles(const std::filesystem::path& folder);

struct DatasetOptions {
  uint32_t any_of_labels = 0;      // keep events that carry at least one of these labels; 0: every event
  bool drop_repeats = false;       // of a user's events with the same item keep the first
  int k_core = 0;                  // then drop users and items with fewer events than this, until none is left
  bool keep_unused_items = false;  // keep items of the item table that no event names (after the last used index)
  uint64_t max_events = 2'000'000'000;
  BadRowPolicy bad_rows;
};

class Dataset {
 public:
  // `progress` may be null; it also tells how many bad rows were skipped, with line numbers. Errors name file and line.
  static absl::StatusOr<Dataset> Load(const DatasetFiles& files, const DatasetOptions& options = {},
                                      Progress* progress = nullptr);

  int64_t num_users() const { return static_cast<int64_t>(user_ids_.size()); }
  int64_t num_items() const { return static_cast<int64_t>(item_ids_.size()); }
  int64_t num_events() const { return static_cast<int64_t>(events_.size()); }

  absl::Span<const CompactEvent> events(int64_t user) const {
    return absl::MakeConstSpan(events_).subspan(offsets_[user], offsets_[user + 1] - offsets_[user]);
  }
  const std::string& user_id(int64_t user) const { return user_ids_[user]; }
  ItemId item_id(int64_t item) const { return item_ids_[item]; }
  const std::vector<ItemId>& item_ids() const { return item_ids_; }  // ascending, up to the unused ones
  std::optional<uint32_t> FindUser(std::string_view user_id) const;
  std::optional<uint32_t> FindItem(ItemId item) const;

  // Defaults where the tables say nothing.
  const ItemAttributes& item_attributes(int64_t item) const { return item_attributes_[item]; }
  const std::vector<UserAttribute>& user_attributes(int64_t user) const { return user_attributes_[user]; }

  // Of all users, in the order in which they first appear.
  std::vector<std::string> AttributeNames() const;

  // 16 hexadecimal digits that equal logs share: of users and their events; of users and their attributes.
  std::string EventsFingerprint() const;
  std::string UsersFingerprint() const;

  // The users' items in time order; users and items by the indices above.
  ItemSequences Sequences() const;

  // A dataset of some events alone, users and items numbered anew: those with one of these labels; each user's first
  // with an item; the k-core, in which every user and every item has k events.
  Dataset WithLabels(uint32_t any_of_labels) const;
  Dataset WithoutRepeats() const;
  Dataset KCore(int k) const;

 private:
  friend class DatasetBuilder;
  std::vector<bool> CoreEvents(int k) const;
  Dataset Keep(const std::vector<bool>& keep_event) const;
  void IndexIds();

  std::vector<uint64_t> offsets_{0};  // [users + 1]
  std::vector<CompactEvent> events_;
  std::vector<std::string> user_ids_;
  std::vector<ItemId> item_ids_;
  std::vector<ItemAttributes> item_attributes_;              // [items]
  std::vector<std::vector<UserAttribute>> user_attributes_;  // [users]
  absl::flat_hash_map<std::string, uint32_t> user_index_;
  absl::flat_hash_map<ItemId, uint32_t> item_index_;
};

}  // namespace beamline::data
