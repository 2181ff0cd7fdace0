// SPDX-License-Identifier: Apache-2.0
#include "catalogue/rank_bitmap.h"

namespace beamline::catalogue {

void RankBitmap::BuildRanks() {
  blocks_.assign(words_.size() / 8 + 1, Block());
  uint32_t rank = 0;
  // One word further than there are, because Rank(size()) may fall behind the last.
  for (uint64_t word = 0; word <= words_.size(); ++word) {
    Block& block = blocks_[word / 8];
    if (word % 8 == 0) {
      block.before = rank;
    } else {
      block.within |= (rank - block.before) << (9 * (word % 8 - 1));
    }
    if (word < words_.size()) rank += static_cast<uint32_t>(std::popcount(words_[word]));
  }
  ones_ = rank;
}

}  // namespace beamline::catalogue
