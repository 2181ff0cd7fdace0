// SPDX-License-Identifier: Apache-2.0
//
// A fixed-size bitmap that counts its set bits before any position in constant time, by a directory of one 32-bit count
// per 512 bits (6 % more memory). It maps items to leaves, nodes to parents, and gives a rule's eligible items in an
// interval. Set bits first, then call BuildRanks once; after that it is immutable and thread-safe. At most 2^32 - 1
// bits.
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
  uint64_t bytes() const { return words_.size() * sizeof(uint64_t) + ranks_.size() * sizeof(uint32_t); }

  // Set bits in [0, at). REQUIRES: BuildRanks was called; at <= size().
  uint32_t Rank(uint32_t at) const {
    const uint32_t word = at >> 6;
    uint32_t rank = ranks_[word >> 3];
    for (uint32_t w = word & ~7u; w < word; ++w) rank += std::popcount(words_[w]);
    if ((at & 63) != 0) rank += std::popcount(words_[word] & ((uint64_t{1} << (at & 63)) - 1));
    return rank;
  }
  uint32_t Count(uint32_t begin, uint32_t end) const { return Rank(end) - Rank(begin); }

 private:
  std::vector<uint64_t> words_;
  std::vector<uint32_t> ranks_;  // [words / 8 + 1] set bits before word 8 * i
  uint32_t size_ = 0;
  uint32_t ones_ = 0;
};

}  // namespace beamline::catalogue
