// SPDX-License-Identifier: Apache-2.0
#include "sid/random_source.h"

#include "base/digest.h"

namespace beamline::sid {

RandomSource::RandomSource(uint64_t seed, uint64_t stream) : engine_(StableMix64(stream, seed)) {}

uint64_t RandomSource::Below(uint64_t limit) {
  // Values under 2^64 mod limit are refused, so that every remainder is equally likely.
  const uint64_t refused = -limit % limit;
  uint64_t value = engine_();
  while (value < refused) value = engine_();
  return value % limit;
}

double RandomSource::Unit() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

std::vector<int64_t> RandomSource::Sample(int64_t n, int64_t count) {
  // Selection sampling (Knuth, algorithm S): ascending by construction.
  std::vector<int64_t> chosen;
  chosen.reserve(count);
  for (int64_t i = 0; i < n && count > 0; ++i) {
    if (static_cast<int64_t>(Below(static_cast<uint64_t>(n - i))) >= count) continue;
    chosen.push_back(i);
    --count;
  }
  return chosen;
}

}  // namespace beamline::sid
