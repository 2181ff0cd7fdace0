// SPDX-License-Identifier: Apache-2.0
//
// The two sparse blocks behind collaborative_embedding.h: positive pointwise mutual information of item co-occurrence
// in users, and idf-weighted attributes. Counts are of users, not of events: a pair counts once per user. Rows are
// computed one by one from the sequences, so memory grows with the entries kept, not with the pairs seen.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/item_sequences.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "sid/collaborative_embedding.h"
#include "sid/sparse_matrix.h"

namespace beamline::sid {

// [num_items, num_items]; entry (i, j) = max(0, log(C_ij * sum_k c_k^a / (c_i * c_j^a)) - shift), C_ij = users with
// both items (within the window), c_i = sum_j C_ij, a = context_smoothing; the max_neighbours largest per row (ties:
// lower item). Error: CANCELLED when interrupted.
absl::StatusOr<SparseMatrix> BuildPpmi(const ItemSequences& sequences, const CollaborativeEmbeddingOptions& options,
                                       ThreadPool* pool, Progress* progress);

// [num_items, keys shared by at least two and not by all items]; rows of unit length, weighted by log(items / holders).
SparseMatrix BuildAttributeBlock(const ItemAttributeKeys& attributes, int64_t num_items);

}  // namespace beamline::sid
