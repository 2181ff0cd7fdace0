// SPDX-License-Identifier: Apache-2.0
//
// A fixed-size bitmap that counts its set bits before any position in constant time. It maps items to leaves, nodes to
// parents, and gives a rule's eligible items in an interval. The directory is rank9 (S. Vigna, "Broadword
// implementation of rank/select queries", 2008): per 512 bits one absolute count and seven 9-bit counts relative to it,
// 25 % more memory, and a rank reads one directory entry and one word. Set bits first, then call BuildRanks once; after
// that it is immutable and thread-safe. At most 2^32 - 1 bits.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace beamline::catalogue {

class RankBitmap {
 public:
  RankBitmap() = default;
  explicit RankBitmap(uint32_t size) : words_((static_cast<uint64_t>(size) + 63) / 64), size_(size) {}

  void Set(uint32_t at) { words_[at >> 6] |= uint64_t{1} << (at & 63); }
  // REQUIRES: bits at and beyond size() are 0.
  void SetWord(uint32_t word, uint64_t bits) { words_[word] = bits; }
  void BuildRanks();

  uint32_t size() const { return size_; }
  uint32_t ones() const { return ones_; }
  bool Get(uint32_t at) const { return ((words_[at >> 6] >> (at & 63)) & 1) != 0; }
  const uint64_t* words() const { return words_.data(); }
  uint64_t bytes() const { return words_.size() * sizeof(uint64_t) + blocks_.size() * sizeof(Block); }

  // Set bits in [0, at). REQUIRES: BuildRanks was called; at <= size().
  uint32_t Rank(uint32_t at) const {
    const uint32_t word = at >> 6;
    const Block& block = blocks_[word >> 3];
    const uint32_t in_block = word & 7;
    uint32_t rank = block.before;
    if (in_block != 0) rank += static_cast<uint32_t>(block.within >> (9 * (in_block - 1))) & 511;
    if ((at & 63) != 0) rank += std::popcount(words_[word] & ((uint64_t{1} << (at & 63)) - 1));
    return rank;
  }
  uint32_t Count(uint32_t begin, uint32_t end) const { return Rank(end) - Rank(begin); }

 private:
  struct Block {
    uint64_t before = 0;  // set bits before the block's first word
    uint64_t within = 0;  // in the words before word i of the block, i = 1..7, 9 bits each from the lowest
  };

  std::vector<uint64_t> words_;
  std::vector<Block> blocks_;  // [words / 8 + 1]
  uint32_t size_ = 0;
  uint32_t ones_ = 0;
};

}  // namespace beamline::catalogue
