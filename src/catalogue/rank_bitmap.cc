// SPDX-License-Identifier: Apache-2.0
#include "catalogue/rank_bitmap.h"

namespace beamline::catalogue {

void RankBitmap::BuildRanks() {
  ranks_.resize(words_.size() / 8 + 1);
  uint32_t rank = 0;
  for (uint64_t word = 0; word < words_.size(); ++word) {
    if (word % 8 == 0) ranks_[word / 8] = rank;
    rank += static_cast<uint32_t>(std::popcount(words_[word]));
  }
  // Rank(size()) may fall into a directory entry behind the last word.
  if (words_.size() % 8 == 0) ranks_[words_.size() / 8] = rank;
  ones_ = rank;
}

}  // namespace beamline::catalogue
