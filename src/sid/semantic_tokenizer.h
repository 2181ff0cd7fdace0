// SPDX-License-Identifier: Apache-2.0
//
// Gives new items their SIDs: item vector -> nearest codes of a trained codebook. In collision-free mode the tokenizer
// knows the SIDs already given out, and a new item whose SID is full takes the nearest free last code under its prefix.
// Encode without occupancy is thread-safe; EncodeNew changes the occupancy, so its caller serialises it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/float_matrix.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "sid/codebook.h"
#include "sid/item_vectors.h"
#include "sid/sid_index.h"

namespace beamline::sid {

struct EncodeRun {
  ThreadPool* pool = nullptr;
  Progress* progress = nullptr;
};

class SemanticTokenizer {
 public:
  // Errors: a foreign codebook, which has nothing to encode with.
  static absl::StatusOr<SemanticTokenizer> Create(Codebook codebook);

  const Codebook& codebook() const { return codebook_; }

  // Nearest codes, whatever others have.
  absl::StatusOr<std::vector<Sid>> Encode(const FloatMatrix& vectors, ThreadPool* pool = nullptr,
                                          Progress* progress = nullptr) const {
    return codebook_.Encode(vectors, pool, progress);
  }

  // Notes SIDs in use, one entry per item. Errors: Codebook::CheckSid.
  absl::Status Occupy(absl::Span<const Sid> sids);
  // As Encode, in row order, but at most max_items_per_sid items share a SID, counting those occupied, while the prefix
  // has a free last code; an item of a full prefix keeps its nearest. Occupies what it returns.
  absl::StatusOr<std::vector<Sid>> EncodeNew(const FloatMatrix& vectors, int max_items_per_sid,
                                             const EncodeRun& run = {});
  // SIDs of `items`, in their order: those that `known` has keep theirs, the others are encoded as new beside them.
  // Occupies all of both.
  absl::StatusOr<std::vector<Sid>> EncodeBeside(const SidTable& known, const ItemVectors& items, int max_items_per_sid,
                                                const EncodeRun& run = {});

 private:
  explicit SemanticTokenizer(Codebook codebook) : codebook_(std::move(codebook)) {}

  Codebook codebook_;
  absl::flat_hash_map<Sid, int64_t> occupancy_;
};

}  // namespace beamline::sid
