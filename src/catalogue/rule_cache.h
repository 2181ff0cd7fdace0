// SPDX-License-Identifier: Apache-2.0
//
// The compiled rules of one snapshot: each is compiled once however many requests ask for it at the same time, and the
// least recently used is dropped when the bound is reached (requests that hold it keep it). Thread-safe.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "beamline/request.h"
#include "catalogue/rule.h"
#include "catalogue/snapshot.h"

namespace beamline::catalogue {

struct RuleCacheStats {
  int64_t rules = 0;  // held now
  uint64_t bytes = 0;
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t evictions = 0;
};

class RuleCache {
 public:
  // Holds at most `max_rules` >= 1 compiled rules.
  RuleCache(std::shared_ptr<const CatalogueSnapshot> snapshot, int max_rules);

  const std::shared_ptr<const CatalogueSnapshot>& snapshot() const { return snapshot_; }

  // The compiled rule; compiles in the caller's thread, outside the lock, when it is new. Null for a rule without
  // clauses, which everything passes. Errors as CompileRule's; they are not remembered.
  absl::StatusOr<std::shared_ptr<const CompiledRule>> Get(absl::Span<const TagClause> rule);

  // The rules held now, least recently used first: asking another cache for them in this order makes it hold the same.
  // Copies outside the lock: who asks may stand still for long meanwhile, as the repository's thread does.
  std::vector<std::vector<TagClause>> rules() const;
  RuleCacheStats stats() const;

 private:
  struct Entry;
  struct Recent {
    std::string key;
    std::shared_ptr<const std::vector<TagClause>> rule;
  };
  using Recency = std::list<Recent>;  // most recent first
  struct Slot {
    std::shared_ptr<Entry> entry;
    Recency::iterator recency;
  };
  using Slots = absl::flat_hash_map<std::string, Slot>;

  std::shared_ptr<Entry> FindOrInsert(const std::string& key, absl::Span<const TagClause> rule);
  // Counts what was compiled, or forgets what could not be.
  void Compiled(const std::string& key, const std::shared_ptr<Entry>& entry);
  void Drop(Slots::iterator slot);  // with mu_ held

  const std::shared_ptr<const CatalogueSnapshot> snapshot_;
  const int max_rules_;
  mutable std::mutex mu_;  // not absl's: ThreadSanitizer cannot see into the system's library
  Recency recency_;        // guarded by mu_, as all below
  Slots slots_;
  RuleCacheStats stats_;
};

}  // namespace beamline::catalogue
