// SPDX-License-Identifier: Apache-2.0
//
// Item vectors from behaviour alone: the truncated SVD of the positive pointwise mutual information of user
// co-occurrence (Levy and Goldberg 2014, with users for contexts), found by seeded randomised subspace iteration
// (Halko, Martinsson and Tropp 2011) over the sparse matrix. Attributes (author, tags) join as further columns of the
// same matrix, idf-weighted, so that items without events get vectors from their attributes in the same space; items
// with neither get the mean vector. Memory: 12 bytes per kept co-occurrence, twice. The result depends on input and
// options only, bit for bit, not on the number of threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/float_matrix.h"
#include "base/item_sequences.h"
#include "base/progress.h"
#include "base/thread_pool.h"

namespace beamline::sid {

// keys[i]: what item i shares with others, e.g. {"author:17", "tag:39"}. Empty, or one list per item.
struct ItemAttributeKeys {
  std::vector<std::vector<std::string>> keys;
};

struct CollaborativeEmbeddingOptions {
  int dim = 64;                   // 1..512
  int window = 10;                // items at most this far apart in a user's sequence co-occur; 0 = anywhere in it
  int max_user_events = 512;      // the newest events of longer users
  double context_smoothing = 1;   // exponent on context counts in the PMI; below 1 takes weight from rare items
  double shift = 0;               // subtracted from every PMI (log of the negative samples of word2vec)
  int max_neighbours = 2048;      // co-occurrences kept per item, largest PPMI first
  double singular_exponent = .5;  // vectors = U * Sigma^exponent
  double attributes_weight = .3;  // energy of the attribute columns over that of the co-occurrences; 0 = off
  int iterations = 6;             // of subspace iteration
  bool normalize = true;          // rows to unit length: lengths tell how often, directions what
  uint64_t seed = 1;
};

struct CollaborativeEmbedding {
  FloatMatrix vectors;                 // [num_items, dim]; columns past the matrix's rank are 0
  std::vector<float> singular_values;  // [dim], falling
  int64_t cooccurrences = 0;           // entries kept
  int64_t attribute_columns = 0;
  int64_t items_without_events = 0;    // none that co-occurs with another: the attributes decide
  int64_t items_without_anything = 0;  // they got the mean vector
};

struct EmbeddingRun {
  ThreadPool* pool = nullptr;
  Progress* progress = nullptr;
};

// Errors: options out of range, attributes for another number of items, an item index >= num_items, no item at all,
// nothing to learn from (no two items of one user, no shared attribute), CANCELLED when interrupted.
absl::StatusOr<CollaborativeEmbedding> EmbedItems(const ItemSequences& sequences, const ItemAttributeKeys& attributes,
                                                  const CollaborativeEmbeddingOptions& options,
                                                  const EmbeddingRun& run = {});

}  // namespace beamline::sid
