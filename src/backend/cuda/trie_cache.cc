// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/trie_cache.h"

#include <algorithm>
#include <utility>

namespace beamline::backend::cuda {
namespace {

constexpr size_t kKeptTries = 3;  // the serving snapshot, the next one, and one of requests that are still under way
constexpr int64_t kArrayAlignment = 256;

int64_t Padded(int64_t bytes) { return (bytes + kArrayAlignment - 1) / kArrayAlignment * kArrayAlignment; }

template <typename T>
const T* StageArray(CudaBatch& batch, const T* host, int64_t count) {
  if (host == nullptr || count == 0) return nullptr;
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  return static_cast<const T*>(batch.Upload(host, {bytes}, c10::ScalarType::Byte).const_data_ptr());
}

int64_t TrieBytes(const kernels::TrieView& trie) {
  int64_t bytes = 0;
  for (int level = 0; level < trie.levels; ++level) {
    const kernels::TrieLevelView& at = trie.level[level];
    bytes += Padded(int64_t{at.num_nodes} * 2) + (at.offsets == nullptr ? 0 : Padded((int64_t{at.num_nodes} + 1) * 4));
  }
  return std::max(bytes, kArrayAlignment);
}

// The trie at `to`, whose arrays are there when this returns.
kernels::TrieView CopyTrie(cudaStream_t stream, const kernels::TrieView& host, char* to) {
  const auto copy = [&](const void* from, int64_t bytes) {
    if (bytes > 0) {
      Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream),
            "a catalogue's trie");
    }
    const void* at = to;
    to += Padded(bytes);
    return at;
  };
  kernels::TrieView trie = host;
  for (int level = 0; level < host.levels; ++level) {
    kernels::TrieLevelView& at = trie.level[level];
    at.codes = static_cast<const uint16_t*>(copy(at.codes, int64_t{at.num_nodes} * 2));
    if (at.offsets != nullptr) {
      at.offsets = static_cast<const uint32_t*>(copy(at.offsets, (int64_t{at.num_nodes} + 1) * 4));
    }
  }
  Check(cudaStreamSynchronize(stream), "a catalogue's trie");  // for the batches of other streams
  return trie;
}

}  // namespace

std::shared_ptr<TrieCache::Kept> TrieCache::Find(uint64_t id) {
  std::shared_ptr<Kept> let_go;  // which waits for the device, when nobody waits for the lock
  const std::lock_guard<std::mutex> lock(mu_);
  const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const auto& kept) { return kept->id == id; });
  if (found != kept_.end()) {
    std::rotate(found, found + 1, kept_.end());
  } else {
    kept_.push_back(std::make_shared<Kept>(id));
    if (kept_.size() > kKeptTries) {
      let_go = std::move(kept_.front());
      kept_.erase(kept_.begin());
    }
  }
  return kept_.back();
}

kernels::TrieView TrieCache::UploadTrie(CudaBatch& batch, const kernels::TrieView& host) {
  if (host.id != 0) {
    const std::shared_ptr<Kept> kept = Find(host.id);
    const std::lock_guard<std::mutex> lock(kept->mu);
    if (kept->memory == nullptr) {
      auto memory = std::make_shared<const at::Tensor>(
          NewTensor(batch.worker().device, {TrieBytes(host)}, c10::ScalarType::Byte));
      kept->view = CopyTrie(batch.worker().stream, host, static_cast<char*>(memory->mutable_data_ptr()));
      kept->memory = std::move(memory);
    }
    batch.Hold(kept->memory);
    return kept->view;
  }
  kernels::TrieView trie = host;
  for (int level = 0; level < host.levels; ++level) {
    kernels::TrieLevelView& at = trie.level[level];
    at.codes = StageArray(batch, at.codes, at.num_nodes);
    at.offsets = StageArray(batch, at.offsets, int64_t{at.num_nodes} + 1);
  }
  return trie;
}

kernels::ConstraintView TrieCache::Upload(CudaBatch& batch, const kernels::ConstraintView& host, int last_level,
                                          Sent& sent) {
  kernels::ConstraintView view = host;
  view.trie = UploadTrie(batch, host.trie);
  const bool same = host.snapshot_trie.level[0].codes == host.trie.level[0].codes;
  view.snapshot_trie = same ? view.trie : UploadTrie(batch, host.snapshot_trie);
  for (int level = 0; level < host.trie.levels; ++level) {
    const int64_t nodes = level <= last_level ? host.trie.level[level].num_nodes : 0;
    kernels::EligibilityLevelView& eligibility = view.eligibility[level];
    if (nodes > 0 && eligibility.rule_bits != nullptr) {
      const void*& at = sent[eligibility.rule_bits];
      if (at == nullptr) at = StageArray(batch, eligibility.rule_bits, (nodes + 63) / 64);
      eligibility.rule_bits = static_cast<const uint64_t*>(at);
    } else {
      eligibility.rule_bits = nullptr;
    }
    eligibility.dead_nodes =
        StageArray(batch, eligibility.dead_nodes, level <= last_level ? int64_t{eligibility.num_dead} : 0);
    view.snapshot_node[level] = StageArray(batch, host.snapshot_node[level], nodes);
  }
  return view;
}

int64_t TrieCache::size() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return static_cast<int64_t>(kept_.size());
}

}  // namespace beamline::backend::cuda
