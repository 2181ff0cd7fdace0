// SPDX-License-Identifier: Apache-2.0
//
// Constraints on the device. The tries of snapshots, which carry an id, are copied once and kept while they are in use,
// the latest ones longer; what belongs to one request (its allow-list trie, its dead nodes, rules) goes up with its
// batch. While one goes up only those wait that want the same: a load's thread, which gives way to all others, brings a
// new one. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "backend/cuda/cuda_batch.h"
#include "beamline/kernels/trie_view.h"

namespace beamline::backend::cuda {

class TrieCache {
 public:
  // What a search has sent already, by where it is on the host: requests share compiled rules.
  using Sent = absl::flat_hash_map<const void*, const void*>;
  // The view with all its arrays on the device, for levels up to `last_level`. The batch holds what is kept here.
  kernels::ConstraintView Upload(CudaBatch& batch, const kernels::ConstraintView& host, int last_level, Sent& sent);

  int64_t size() const;

 private:
  struct Kept {
    explicit Kept(uint64_t id) : id(id) {}
    const uint64_t id;
    std::mutex mu;                             // held while it goes up
    std::shared_ptr<const at::Tensor> memory;  // guarded by mu; null: not there yet
    kernels::TrieView view;                    // likewise
  };
  kernels::TrieView UploadTrie(CudaBatch& batch, const kernels::TrieView& host);
  std::shared_ptr<Kept> Find(uint64_t id);

  mutable std::mutex mu_;
  std::vector<std::shared_ptr<Kept>> kept_;  // guarded by mu_; used last comes last
};

}  // namespace beamline::backend::cuda
