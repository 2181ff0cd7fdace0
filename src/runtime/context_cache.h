// SPDX-License-Identifier: Apache-2.0
//
// Encoder outputs kept between requests: least recently used first out, bounded in bytes. Keys are compared in full, so
// a hit is the context of the same user, history and model version, never of one that hashes alike. Thread-safe; what
// Find returns stays alive after it was evicted.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

#include "absl/container/flat_hash_map.h"
#include "runtime/request_job.h"
#include "runtime/runner.h"

namespace beamline::runtime {

class ContextCache {
 public:
  // 0 bytes: nothing is kept.
  explicit ContextCache(int64_t capacity_bytes) : capacity_bytes_(capacity_bytes) {}

  // Whether Find would find it now. Counts nothing, and is no use of it.
  bool Contains(const ContextKey& key) const;
  // Null when absent. Counts a hit or a miss.
  std::shared_ptr<const RequestContext> Find(const ContextKey& key);
  // Replaces an entry of the same key. A context larger than the whole cache is not kept.
  void Insert(const ContextKey& key, std::shared_ptr<const RequestContext> context);
  ContextCacheStats stats() const;

 private:
  struct Entry {
    ContextKey key;
    std::shared_ptr<const RequestContext> context;
    int64_t bytes = 0;
  };
  using Entries = std::list<Entry>;  // most recently used first
  void Erase(Entries::iterator entry, Entries& erased);

  const int64_t capacity_bytes_;
  mutable std::mutex mu_;
  Entries entries_;                                            // guarded by mu_
  absl::flat_hash_map<ContextKey, Entries::iterator> by_key_;  // guarded by mu_
  ContextCacheStats stats_;                                    // guarded by mu_
};

}  // namespace beamline::runtime
