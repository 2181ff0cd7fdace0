// SPDX-License-Identifier: Apache-2.0
//
// The shape of a log in numbers: how many events users have, how often labels occur, how unequal items' popularity is.
// The counter streams: memory grows with users and items, not with events. Not thread-safe; the results are values.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "beamline/request.h"
#include "data/dataset.h"

namespace beamline::data {

struct LogStatistics {
  int64_t users = 0;
  int64_t items = 0;
  int64_t events = 0;
  std::array<double, kNumLabels> label_rate{};  // by bit number
  double events_per_user[4] = {};               // quantiles .1, .5, .9, .99
  double gini = 0;                              // of events per item, 0 = all equal
  double top_1_percent = 0;                     // share of the events of the most popular hundredth of items
  double top_10_percent = 0;

  // A few lines for people.
  std::string ToString() const;
};

class StatisticsCounter {
 public:
  void Add(std::string_view user_id, const Event& event);
  // `num_items` counts items without events too; 0: those seen.
  LogStatistics Finish(int64_t num_items = 0) const;

 private:
  absl::flat_hash_map<std::string, int64_t> user_events_;
  absl::flat_hash_map<ItemId, int64_t> item_events_;
  std::array<int64_t, kNumLabels> labels_{};
  int64_t events_ = 0;
};

LogStatistics ComputeStatistics(const Dataset& dataset);

// Gini coefficient of counts: 0 if all are equal, (n-1)/n if one has everything. 0 for none.
double Gini(std::vector<int64_t> counts);
// Share of the total that the largest `fraction` of the counts (at least one) holds.
double TopShare(std::vector<int64_t> counts, double fraction);
// The value at `fraction` of the sorted values, linear between neighbours.
double Quantile(std::vector<int64_t> values, double fraction);

}  // namespace beamline::data
