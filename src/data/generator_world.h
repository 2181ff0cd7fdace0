// SPDX-License-Identifier: Apache-2.0
//
// The made-up videos behind generated logs (generator.h): topics, styles, videos with author, tag, duration, title and
// popularity, and which topic tends to follow which. Immutable after MakeWorld, hence thread-safe.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "data/item_table.h"
#include "data/random.h"

namespace beamline::data {

inline constexpr int64_t kDayMs = 86'400'000;
inline constexpr int kStylesPerTopic = 4;
inline constexpr int kSuccessors = 2;  // topics that tend to follow a topic

struct World {
  struct Video {
    uint32_t topic = 0;
    uint32_t style = 0;  // within the topic
    double appeal = 0;   // added to the logit of a long view
    double like_rate = 0;
  };
  // Videos with their popularity summed up, ready for Random::Pick.
  struct Shelf {
    std::vector<uint32_t> videos;
    std::vector<double> cumulative;
  };

  std::vector<ItemRow> items;  // by index; ids are index + 1
  std::vector<Video> videos;   // the same
  Shelf everything;
  std::vector<Shelf> shelves;            // [topic * kStylesPerTopic + style]
  std::vector<double> topic_cumulative;  // [topic]
  std::vector<uint32_t> successors;      // [topic * kSuccessors + i]
  int64_t first_ms = 0;                  // when the log starts

  int topics() const { return static_cast<int>(topic_cumulative.size()); }
};

World MakeWorld(int64_t num_items, uint64_t seed);

// A positive value whose logarithm is linear between given quantiles.
struct QuantilePoint {
  double fraction = 0;
  double value = 0;
};
double DrawByQuantiles(absl::Span<const QuantilePoint> points, Random* random);

}  // namespace beamline::data
