// SPDX-License-Identifier: Apache-2.0
#include "history/memory_history_store.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace beamline::history {
namespace {

constexpr size_t kSpareEvents = 16;

}  // namespace

absl::StatusOr<std::vector<Event>> MemoryHistoryStore::Get(absl::string_view user_id, int limit) {
  std::lock_guard lock(mu_);
  const auto found = users_.find(user_id);
  if (found == users_.end()) return std::vector<Event>();
  recency_.splice(recency_.begin(), recency_, found->second);
  const std::vector<Event>& events = found->second->events;
  const size_t wanted = std::min(events.size(), static_cast<size_t>(std::max(limit, 0)));
  return std::vector<Event>(events.end() - static_cast<std::ptrdiff_t>(wanted), events.end());
}

absl::Status MemoryHistoryStore::Append(absl::string_view user_id, absl::Span<const Event> events) {
  if (user_id.empty() || user_id.size() > options_.max_user_id_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("user_id: has ", user_id.size(), " bytes; give 1..", options_.max_user_id_bytes));
  }
  std::lock_guard lock(mu_);
  auto found = users_.find(user_id);
  if (found == users_.end()) {
    recency_.push_front({std::string(user_id), {}});
    found = users_.emplace(std::string(user_id), recency_.begin()).first;
  } else {
    recency_.splice(recency_.begin(), recency_, found->second);
  }
  std::vector<Event>& kept = recency_.front().events;
  kept.reserve(kept.size() + events.size());
  kept.insert(kept.end(), events.begin(), events.end());
  std::stable_sort(kept.begin(), kept.end(),
                   [](const Event& a, const Event& b) { return a.timestamp_ms < b.timestamp_ms; });
  if (kept.size() > options_.max_events) {
    kept.erase(kept.begin(), kept.end() - static_cast<std::ptrdiff_t>(options_.max_events));
  }
  // One append of many events is not to hold their room: some half of what is kept, at most.
  if (kept.capacity() > kept.size() + kept.size() / 2 + kSpareEvents) kept.shrink_to_fit();
  if (users_.size() > options_.max_users) {
    users_.erase(recency_.back().id);
    recency_.pop_back();
  }
  return absl::OkStatus();
}

size_t MemoryHistoryStore::users() const {
  std::lock_guard lock(mu_);
  return users_.size();
}

}  // namespace beamline::history
