// SPDX-License-Identifier: Apache-2.0
//
// What the ids in EncoderBatch mean. Whoever builds inputs (runtime for requests, train for windows) uses these
// functions, so that a model is served what it was trained on. In every table id 0 stands for "unknown"; padding
// elements hold 0 everywhere and are hidden by their order. All functions are pure and total.
//
//   feature   column id
//   sid       per level: code + 1; 0 none (an event whose item the catalogue lacks takes no place)
//   item      vocabulary index from 1 (the bundle's list of items); 0 unknown
//   author    vocabulary index from 1 (the bundle's list of authors); 0 unknown
//   tag       HashBucket of the value of the item's tag "tag"; of several the smallest as text, in which order a
//             snapshot has them; 0 no tag
//   age       LogBucket of the seconds before the newest event (equal histories, equal inputs); 0 unknown time
//   gap       LogBucket of the seconds since the previous event of the pathway; 0 for the first or an unknown time
//   hour      1 + UTC hour of day; 0 unknown time
//   play      LogBucket of seconds watched; 0 unknown
//   duration  LogBucket of the item's seconds; 0 unknown
//   labels    the eight label bits themselves, 0..255: each set bit adds its row
//   user id, static attributes: HashBucket of the text; 0 absent
//
// A causal encoder cannot use `age` (it depends on what comes after the event); `gap` is its stand-in.
//
// positions: static token 0; element i (0 = oldest kept) of the short-term pathway 1 + i; of the positive pathway
// 1 + short_term.length + i, whether or not the other tokens are present. order: see backend/ops.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "base/digest.h"

namespace beamline::model {

// 1..buckets-1 for any text.
inline int32_t HashBucket(std::string_view text, int64_t buckets) {
  return buckets < 2 ? 0 : static_cast<int32_t>(1 + StableHash64(text, 0) % static_cast<uint64_t>(buckets - 1));
}

// 1..buckets-1, spaced evenly in log(1 + seconds) up to ten years; 0 for a negative (unknown) value.
inline int32_t LogBucket(double seconds, int64_t buckets) {
  if (!(seconds >= 0) || buckets < 2) return 0;
  constexpr double kTenYears = 315360000.0;
  const double fraction = std::log1p(std::min(seconds, kTenYears)) / std::log1p(kTenYears);
  return static_cast<int32_t>(1 + std::min<int64_t>(buckets - 2, static_cast<int64_t>(fraction * (buckets - 1))));
}

// Unix milliseconds to 1 + UTC hour; 0 for a time that is not positive.
inline int32_t HourIndex(int64_t timestamp_ms) {
  return timestamp_ms <= 0 ? 0 : static_cast<int32_t>(1 + timestamp_ms / 3600000 % 24);
}

}  // namespace beamline::model
