// SPDX-License-Identifier: Apache-2.0
//
// Item and author ids of the training data -> dense indices of the model's embedding tables. Index 0 is "unknown": ids
// not in the vocabulary, and padding; known ids are numbered from 1 in ascending order of id. Of a t5 model: the
// tokenizer's id of each row of the embedding instead. Immutable, thread-safe, 8 bytes per id. Saved beside the weights
// as vocabulary.safetensors: tensors "items" and "authors", U64, strictly ascending, of a t5 model "tokens", I64; and,
// where known, "item_popularity", U32: targets of each item in the training part, by which the items of one SID are
// ordered when the item table rates none. They are counts of "items", or, where the model is older than the log or has
// tokens, of "counted_items", U64, strictly ascending.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "beamline/types.h"

namespace beamline::runtime {

class Vocabulary {
 public:
  Vocabulary() = default;
  // Ids in any order; repeats are dropped.
  Vocabulary(std::vector<ItemId> items, std::vector<uint64_t> authors);

  // Of a t5 model: the tokenizer's id of each row, -1 for a row that is no token's. Files with other ids than those in
  // [0, rows), or one of them twice, are refused.
  static Vocabulary OfTokens(std::vector<int64_t> tokens);

  // Refuses files that hold anything but such tensors, naming the file and the tensor.
  static absl::StatusOr<Vocabulary> Load(const std::string& path);
  // From bytes already read and verified; `name` is for messages.
  static absl::StatusOr<Vocabulary> Parse(absl::string_view bytes, const std::string& name);
  absl::Status Save(const std::string& path) const;

  // REQUIRES: `items` strictly ascending, and as many counts.
  void SetPopularity(std::vector<ItemId> items, std::vector<uint32_t> counts);
  // 0 for ids that were not counted.
  uint32_t Popularity(ItemId item) const;

  // SHA-256 of the ids alone, which say what a row of an embedding means.
  std::string Fingerprint() const;

  uint32_t ItemIndex(ItemId item) const { return IndexOf(items_, item); }
  uint32_t AuthorIndex(uint64_t author) const { return IndexOf(authors_, author); }
  // Rows an embedding table needs: known ids and the unknown one.
  uint32_t num_items() const { return static_cast<uint32_t>(items_.size()) + 1; }
  uint32_t num_authors() const { return static_cast<uint32_t>(authors_.size()) + 1; }
  absl::Span<const ItemId> items() const { return items_; }
  absl::Span<const uint64_t> authors() const { return authors_; }
  absl::Span<const int64_t> tokens() const { return tokens_; }

 private:
  static uint32_t IndexOf(const std::vector<uint64_t>& sorted, uint64_t id);
  std::vector<ItemId> items_;
  std::vector<uint64_t> authors_;
  std::vector<ItemId> counted_;       // empty: those of items_
  std::vector<uint32_t> popularity_;  // [counted], or empty
  std::vector<int64_t> tokens_;
};

}  // namespace beamline::runtime
