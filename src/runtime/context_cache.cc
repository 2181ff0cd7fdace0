// SPDX-License-Identifier: Apache-2.0
#include "runtime/context_cache.h"

#include <iterator>
#include <utility>

namespace beamline::runtime {
namespace {

// Two copies of the key, the list node and the map slot.
int64_t EntryBytes(const ContextKey& key, const RequestContext& context) {
  constexpr int64_t kOverhead = 512;
  return context.bytes() + kOverhead +
         2 * static_cast<int64_t>(key.user_id.size() + key.history_digest.size() + key.model_version.size());
}

}  // namespace

bool ContextCache::Contains(const ContextKey& key) const {
  const std::lock_guard<std::mutex> lock(mu_);
  return by_key_.contains(key);
}

std::shared_ptr<const RequestContext> ContextCache::Find(const ContextKey& key) {
  const std::lock_guard<std::mutex> lock(mu_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) {
    ++stats_.misses;
    return nullptr;
  }
  ++stats_.hits;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->context;
}

void ContextCache::Insert(const ContextKey& key, std::shared_ptr<const RequestContext> context) {
  const int64_t bytes = EntryBytes(key, *context);
  Entries erased;  // let go of when nobody waits for the lock: on a device that takes a while
  const std::lock_guard<std::mutex> lock(mu_);
  if (const auto found = by_key_.find(key); found != by_key_.end()) Erase(found->second, erased);
  if (bytes > capacity_bytes_) return;
  while (stats_.bytes + bytes > capacity_bytes_) {
    Erase(std::prev(entries_.end()), erased);
    ++stats_.evictions;
  }
  entries_.push_front({key, std::move(context), bytes});
  by_key_[key] = entries_.begin();
  stats_.bytes += bytes;
  stats_.entries = static_cast<int64_t>(entries_.size());
}

void ContextCache::Erase(Entries::iterator entry, Entries& erased) {
  stats_.bytes -= entry->bytes;
  by_key_.erase(entry->key);
  erased.splice(erased.end(), entries_, entry);
  stats_.entries = static_cast<int64_t>(entries_.size());
}

ContextCacheStats ContextCache::stats() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return stats_;
}

}  // namespace beamline::runtime
