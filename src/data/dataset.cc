// SPDX-License-Identifier: Apache-2.0
#include "data/dataset.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/file.h"
#include "beamline/status.h"
#include "data/event_table.h"
#include "data/item_table.h"
#include "data/parse.h"
#include "data/user_table.h"

namespace beamline::data {
namespace {

uint32_t Cut(int64_t milliseconds) {
  return static_cast<uint32_t>(std::clamp<int64_t>(milliseconds, 0, kMaxDurationMs));
}

// The table's file, empty if there is none.
absl::StatusOr<std::filesystem::path> FindTable(const std::filesystem::path& folder, const std::string& name) {
  std::filesystem::path found;
  for (const char* extension : {".tsv", ".tsv.gz"}) {
    const std::filesystem::path path = folder / (name + extension);
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    if (!found.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(folder.string(), " holds ", name, ".tsv and ", name,
                                                     ".tsv.gz; remove the one that is not meant"));
    }
    found = path;
  }
  return found;
}

// Too many would have been an error: these are few, and told.
void SayBadRows(const BadRows& bad_rows, Progress* progress) {
  if (bad_rows.bad() > 0) NoteProgress(progress, bad_rows.Summary());
}

}  // namespace

absl::StatusOr<DatasetFiles> FindDatasetFiles(const std::filesystem::path& folder) {
  BEAMLINE_RETURN_IF_ERROR(CheckReadableFolder(folder));
  DatasetFiles files;
  BEAMLINE_ASSIGN_OR_RETURN(files.events, FindTable(folder, "events"));
  BEAMLINE_ASSIGN_OR_RETURN(files.items, FindTable(folder, "items"));
  BEAMLINE_ASSIGN_OR_RETURN(files.users, FindTable(folder, "users"));
  if (!files.events.empty()) return files;
  return absl::NotFoundError(absl::StrCat(folder.string(),
                                          ": no events.tsv or events.tsv.gz in this folder; make one with `beamline "
                                          "import` or `beamline generate-data log`"));
}

// Collects the rows of the tables and puts them in order.
class DatasetBuilder {
 public:
  explicit DatasetBuilder(const DatasetOptions& options) : options_(options) {}

  absl::Status ReadEvents(const std::filesystem::path& path, Progress* progress) {
    BEAMLINE_ASSIGN_OR_RETURN(EventTableReader reader, EventTableReader::Open(path, options_.bad_rows, progress));
    EventRow row;
    while (true) {
      BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
      if (!more) break;
      if (options_.any_of_labels != 0 && (row.event.labels & options_.any_of_labels) == 0) continue;
      if (events_.size() >= options_.max_events) {
        return absl::ResourceExhaustedError(
            absl::StrCat(path.string(), ": more than the limit of ", options_.max_events, " events"));
      }
      Add(row);
    }
    SayBadRows(reader.bad_rows(), progress);
    return absl::OkStatus();
  }

  absl::Status ReadItems(const std::filesystem::path& path, Progress* progress) {
    BEAMLINE_ASSIGN_OR_RETURN(ItemTableReader reader, ItemTableReader::Open(path, options_.bad_rows, progress));
    ItemRow row;
    while (true) {
      BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
      if (!more) break;
      const std::optional<uint32_t> item = dataset_.FindItem(row.item);
      if (item.has_value()) {
        ItemAttributes& known = dataset_.item_attributes_[*item];
        if (row.attributes.duration_ms == 0) row.attributes.duration_ms = known.duration_ms;
        known = std::move(row.attributes);
      } else if (options_.keep_unused_items) {
        unused_.emplace_back(row.item, std::move(row.attributes));
      }
    }
    SayBadRows(reader.bad_rows(), progress);
    return absl::OkStatus();
  }

  absl::Status ReadUsers(const std::filesystem::path& path, Progress* progress) {
    BEAMLINE_ASSIGN_OR_RETURN(UserTableReader reader, UserTableReader::Open(path, options_.bad_rows, progress));
    UserRow row;
    while (true) {
      BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
      if (!more) break;
      const std::optional<uint32_t> user = dataset_.FindUser(row.user_id);
      if (user.has_value()) dataset_.user_attributes_[*user] = std::move(row.attributes);
    }
    SayBadRows(reader.bad_rows(), progress);
    return absl::OkStatus();
  }

  // After the events: users' events together and in time order, items by ascending id.
  void Arrange() {
    ArrangeItems();
    std::vector<uint64_t>& offsets = dataset_.offsets_;
    offsets.assign(dataset_.user_ids_.size() + 1, 0);
    for (const uint32_t user : event_users_) ++offsets[user + 1];
    std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
    std::vector<uint64_t> next(offsets.begin(), offsets.end() - 1);
    dataset_.events_.resize(events_.size());
    for (size_t at = 0; at < events_.size(); ++at) dataset_.events_[next[event_users_[at]]++] = events_[at];
    events_ = {};
    event_users_ = {};
    for (size_t user = 0; user + 1 < offsets.size(); ++user) {
      std::stable_sort(dataset_.events_.begin() + offsets[user], dataset_.events_.begin() + offsets[user + 1],
                       [](const CompactEvent& a, const CompactEvent& b) { return a.timestamp_ms < b.timestamp_ms; });
    }
    dataset_.user_attributes_.resize(dataset_.user_ids_.size());
    dataset_.item_attributes_.resize(dataset_.item_ids_.size());
  }

  // After the items.
  Dataset Finish() {
    std::sort(unused_.begin(), unused_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [item, attributes] : unused_) {
      dataset_.item_index_.emplace(item, static_cast<uint32_t>(dataset_.item_ids_.size()));
      dataset_.item_ids_.push_back(item);
      dataset_.item_attributes_.push_back(std::move(attributes));
    }
    return std::move(dataset_);
  }

 private:
  void Add(const EventRow& row) {
    const auto [user, new_user] = dataset_.user_index_.try_emplace(
        absl::string_view(row.user_id.data(), row.user_id.size()), static_cast<uint32_t>(dataset_.user_ids_.size()));
    if (new_user) dataset_.user_ids_.emplace_back(row.user_id);
    const auto [item, new_item] =
        dataset_.item_index_.try_emplace(row.event.item, static_cast<uint32_t>(dataset_.item_ids_.size()));
    if (new_item) dataset_.item_ids_.push_back(row.event.item);
    event_users_.push_back(user->second);
    events_.push_back({row.event.timestamp_ms, item->second, Cut(row.event.play_time_ms), Cut(row.event.duration_ms),
                       row.event.labels});
  }

  void ArrangeItems() {
    std::sort(dataset_.item_ids_.begin(), dataset_.item_ids_.end());
    std::vector<uint32_t> sorted_index(dataset_.item_ids_.size());  // by order of appearance
    for (uint32_t item = 0; item < dataset_.item_ids_.size(); ++item) {
      uint32_t& index = dataset_.item_index_[dataset_.item_ids_[item]];
      sorted_index[index] = item;
      index = item;
    }
    for (CompactEvent& event : events_) event.item = sorted_index[event.item];
  }

  const DatasetOptions& options_;
  Dataset dataset_;
  std::vector<CompactEvent> events_;  // in file order
  std::vector<uint32_t> event_users_;
  std::vector<std::pair<ItemId, ItemAttributes>> unused_;
};

absl::StatusOr<Dataset> Dataset::Load(const DatasetFiles& files, const DatasetOptions& options, Progress* progress) {
  DatasetBuilder builder(options);
  BEAMLINE_RETURN_IF_ERROR(builder.ReadEvents(files.events, progress));
  builder.Arrange();
  if (!files.items.empty()) BEAMLINE_RETURN_IF_ERROR(builder.ReadItems(files.items, progress));
  if (!files.users.empty()) BEAMLINE_RETURN_IF_ERROR(builder.ReadUsers(files.users, progress));
  Dataset dataset = builder.Finish();
  if (options.drop_repeats) dataset = dataset.WithoutRepeats();
  return options.k_core > 1 ? dataset.KCore(options.k_core) : std::move(dataset);
}

std::optional<uint32_t> Dataset::FindUser(std::string_view user_id) const {
  const auto found = user_index_.find(absl::string_view(user_id.data(), user_id.size()));
  return found == user_index_.end() ? std::nullopt : std::make_optional(found->second);
}

std::optional<uint32_t> Dataset::FindItem(ItemId item) const {
  const auto found = item_index_.find(item);
  return found == item_index_.end() ? std::nullopt : std::make_optional(found->second);
}

std::vector<std::string> Dataset::AttributeNames() const {
  std::vector<std::string> names;
  for (const std::vector<UserAttribute>& attributes : user_attributes_) {
    for (const UserAttribute& attribute : attributes) {
      if (std::find(names.begin(), names.end(), attribute.name) == names.end()) names.push_back(attribute.name);
    }
  }
  return names;
}

namespace {

constexpr size_t kFingerprintDigits = 16;

// Lengths before texts: no two logs give the same bytes.
void Digest(std::string_view text, Sha256& digest) {
  const uint64_t size = text.size();
  digest.Update({reinterpret_cast<const char*>(&size), sizeof(size)}).Update(text);
}

void Digest(uint64_t number, Sha256& digest) {
  digest.Update({reinterpret_cast<const char*>(&number), sizeof(number)});
}

}  // namespace

std::string Dataset::EventsFingerprint() const {
  Sha256 digest;
  for (int64_t user = 0; user < num_users(); ++user) {
    Digest(user_ids_[user], digest);
    Digest(events(user).size(), digest);
    for (const CompactEvent& event : events(user)) {
      const std::array<uint64_t, 4> fields = {item_ids_[event.item], static_cast<uint64_t>(event.timestamp_ms),
                                              uint64_t{event.play_time_ms} << 32 | event.duration_ms, event.labels};
      digest.Update({reinterpret_cast<const char*>(fields.data()), sizeof(fields)});
    }
  }
  return digest.HexDigest().substr(0, kFingerprintDigits);
}

std::string Dataset::UsersFingerprint() const {
  Sha256 digest;
  for (int64_t user = 0; user < num_users(); ++user) {
    Digest(user_ids_[user], digest);
    Digest(user_attributes_[user].size(), digest);
    for (const UserAttribute& attribute : user_attributes_[user]) {
      Digest(attribute.name, digest);
      Digest(attribute.value, digest);
    }
  }
  return digest.HexDigest().substr(0, kFingerprintDigits);
}

ItemSequences Dataset::Sequences() const {
  ItemSequences sequences;
  sequences.offsets = offsets_;
  sequences.num_items = static_cast<uint32_t>(item_ids_.size());
  sequences.items.reserve(events_.size());
  for (const CompactEvent& event : events_) sequences.items.push_back(event.item);
  return sequences;
}

Dataset Dataset::WithLabels(uint32_t any_of_labels) const {
  std::vector<bool> keep(events_.size());
  for (size_t at = 0; at < events_.size(); ++at) keep[at] = (events_[at].labels & any_of_labels) != 0;
  return Keep(keep);
}

Dataset Dataset::WithoutRepeats() const {
  std::vector<bool> keep(events_.size());
  std::vector<uint32_t> last_user(item_ids_.size(), 0);  // user + 1
  for (uint32_t user = 0; user < user_ids_.size(); ++user) {
    for (uint64_t at = offsets_[user]; at < offsets_[user + 1]; ++at) {
      keep[at] = std::exchange(last_user[events_[at].item], user + 1) != user + 1;
    }
  }
  return Keep(keep);
}

// Events are edges between users and items: who falls below k takes his edges with him, and each edge goes once.
std::vector<bool> Dataset::CoreEvents(int k) const {
  const size_t users = user_ids_.size(), items = item_ids_.size();
  std::vector<uint32_t> user_of(events_.size());
  std::vector<uint64_t> item_begin(items + 1, 0), by_item(events_.size());
  for (const CompactEvent& event : events_) ++item_begin[event.item + 1];
  std::partial_sum(item_begin.begin(), item_begin.end(), item_begin.begin());
  std::vector<uint64_t> next(item_begin.begin(), item_begin.end() - 1);
  std::vector<uint64_t> degree;  // of users, then of items
  for (size_t user = 0; user < users; ++user) {
    degree.push_back(offsets_[user + 1] - offsets_[user]);
    for (uint64_t at = offsets_[user]; at < offsets_[user + 1]; ++at) {
      user_of[at] = static_cast<uint32_t>(user);
      by_item[next[events_[at].item]++] = at;
    }
  }
  for (size_t item = 0; item < items; ++item) degree.push_back(item_begin[item + 1] - item_begin[item]);

  const uint64_t least = static_cast<uint64_t>(std::max(k, 0));
  std::vector<bool> keep(events_.size(), true);
  std::vector<size_t> below;
  for (size_t node = 0; node < degree.size(); ++node) {
    if (degree[node] < least) below.push_back(node);
  }
  const auto drop = [&](uint64_t at, size_t other) {
    if (!keep[at]) return;
    keep[at] = false;
    if (degree[other]-- == least) below.push_back(other);
  };
  while (!below.empty()) {
    const size_t node = below.back();
    below.pop_back();
    if (node < users) {
      for (uint64_t at = offsets_[node]; at < offsets_[node + 1]; ++at) drop(at, users + events_[at].item);
    } else {
      for (uint64_t i = item_begin[node - users]; i < item_begin[node - users + 1]; ++i)
        drop(by_item[i], user_of[by_item[i]]);
    }
  }
  return keep;
}

Dataset Dataset::KCore(int k) const { return Keep(CoreEvents(k)); }

Dataset Dataset::Keep(const std::vector<bool>& keep_event) const {
  constexpr uint32_t kDropped = 0xFFFFFFFF;
  Dataset kept;
  std::vector<uint32_t> new_item(item_ids_.size(), kDropped);
  for (size_t at = 0; at < events_.size(); ++at) {
    if (keep_event[at]) new_item[events_[at].item] = 0;
  }
  for (size_t item = 0; item < item_ids_.size(); ++item) {
    if (new_item[item] == kDropped) continue;
    new_item[item] = static_cast<uint32_t>(kept.item_ids_.size());
    kept.item_ids_.push_back(item_ids_[item]);
    kept.item_attributes_.push_back(item_attributes_[item]);
  }
  for (size_t user = 0; user < user_ids_.size(); ++user) {
    for (uint64_t at = offsets_[user]; at < offsets_[user + 1]; ++at) {
      if (!keep_event[at]) continue;
      kept.events_.push_back(events_[at]);
      kept.events_.back().item = new_item[events_[at].item];
    }
    if (kept.events_.size() == kept.offsets_.back()) continue;
    kept.offsets_.push_back(kept.events_.size());
    kept.user_ids_.push_back(user_ids_[user]);
    kept.user_attributes_.push_back(user_attributes_[user]);
  }
  kept.IndexIds();
  return kept;
}

void Dataset::IndexIds() {
  for (uint32_t user = 0; user < user_ids_.size(); ++user) user_index_.emplace(user_ids_[user], user);
  for (uint32_t item = 0; item < item_ids_.size(); ++item) item_index_.emplace(item_ids_[item], item);
}

}  // namespace beamline::data
