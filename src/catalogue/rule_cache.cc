// SPDX-License-Identifier: Apache-2.0
#include "catalogue/rule_cache.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace beamline::catalogue {

// `status` and `rule` are written inside `once` and constant after it; `bytes` belongs to the cache's lock.
struct RuleCache::Entry {
  std::once_flag once;
  absl::Status status;
  std::shared_ptr<const CompiledRule> rule;
  uint64_t bytes = 0;
};

RuleCache::RuleCache(std::shared_ptr<const CatalogueSnapshot> snapshot, int max_rules)
    : snapshot_(std::move(snapshot)), max_rules_(std::max(1, max_rules)) {}

absl::StatusOr<std::shared_ptr<const CompiledRule>> RuleCache::Get(absl::Span<const TagClause> rule) {
  if (rule.empty()) return std::shared_ptr<const CompiledRule>();
  const std::string key = CanonicalRule(rule);
  const std::shared_ptr<Entry> entry = FindOrInsert(key, rule);
  std::call_once(entry->once, [&] {
    absl::StatusOr<CompiledRule> compiled = CompileRule(*snapshot_, rule);
    entry->status = compiled.status();
    if (compiled.ok()) entry->rule = std::make_shared<const CompiledRule>(*std::move(compiled));
    Compiled(key, entry);
  });
  if (!entry->status.ok()) return entry->status;
  return entry->rule;
}

std::shared_ptr<RuleCache::Entry> RuleCache::FindOrInsert(const std::string& key, absl::Span<const TagClause> rule) {
  std::lock_guard lock(mu_);
  const auto found = slots_.find(key);
  if (found != slots_.end()) {
    ++stats_.hits;
    recency_.splice(recency_.begin(), recency_, found->second.recency);
    return found->second.entry;
  }
  ++stats_.misses;
  if (slots_.size() >= static_cast<size_t>(max_rules_)) {
    ++stats_.evictions;
    Drop(slots_.find(recency_.back().key));
  }
  recency_.push_front({key, std::make_shared<const std::vector<TagClause>>(rule.begin(), rule.end())});
  std::shared_ptr<Entry> entry = std::make_shared<Entry>();
  slots_.emplace(key, Slot{entry, recency_.begin()});
  return entry;
}

void RuleCache::Compiled(const std::string& key, const std::shared_ptr<Entry>& entry) {
  std::lock_guard lock(mu_);
  const auto found = slots_.find(key);
  if (found == slots_.end() || found->second.entry != entry) return;  // evicted in the meantime
  if (!entry->status.ok()) {
    Drop(found);
    return;
  }
  entry->bytes = entry->rule->bytes();
  stats_.bytes += entry->bytes;
}

void RuleCache::Drop(Slots::iterator slot) {
  stats_.bytes -= slot->second.entry->bytes;
  recency_.erase(slot->second.recency);
  slots_.erase(slot);
}

std::vector<std::vector<TagClause>> RuleCache::rules() const {
  std::vector<std::shared_ptr<const std::vector<TagClause>>> held;
  held.reserve(static_cast<size_t>(max_rules_));
  {
    std::lock_guard lock(mu_);
    for (auto recent = recency_.rbegin(); recent != recency_.rend(); ++recent) held.push_back(recent->rule);
  }
  std::vector<std::vector<TagClause>> rules;
  rules.reserve(held.size());
  for (const auto& rule : held) rules.push_back(*rule);
  return rules;
}

RuleCacheStats RuleCache::stats() const {
  std::lock_guard lock(mu_);
  RuleCacheStats stats = stats_;
  stats.rules = static_cast<int64_t>(slots_.size());
  return stats;
}

}  // namespace beamline::catalogue
