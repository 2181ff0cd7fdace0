// SPDX-License-Identifier: Apache-2.0
#include "data/statistics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "data/labels.h"

namespace beamline::data {
namespace {

LogStatistics Summarise(std::vector<int64_t> user_events, std::vector<int64_t> item_events,
                        const std::array<int64_t, kNumLabels>& labels) {
  LogStatistics statistics;
  statistics.users = static_cast<int64_t>(user_events.size());
  statistics.items = static_cast<int64_t>(item_events.size());
  statistics.events = std::accumulate(user_events.begin(), user_events.end(), int64_t{0});
  const double fractions[] = {.1, .5, .9, .99};
  for (int i = 0; i < 4; ++i) statistics.events_per_user[i] = Quantile(user_events, fractions[i]);
  for (int bit = 0; bit < kNumLabels; ++bit) {
    statistics.label_rate[bit] =
        static_cast<double>(labels[bit]) / static_cast<double>(std::max<int64_t>(statistics.events, 1));
  }
  statistics.gini = Gini(item_events);
  statistics.top_1_percent = TopShare(item_events, .01);
  statistics.top_10_percent = TopShare(std::move(item_events), .1);
  return statistics;
}

}  // namespace

double Gini(std::vector<int64_t> counts) {
  std::sort(counts.begin(), counts.end());
  double total = 0;
  double weighted = 0;
  for (size_t at = 0; at < counts.size(); ++at) {
    total += static_cast<double>(counts[at]);
    weighted += static_cast<double>(at + 1) * static_cast<double>(counts[at]);
  }
  if (total == 0) return 0;
  const double n = static_cast<double>(counts.size());
  return 2 * weighted / (n * total) - (n + 1) / n;
}

double TopShare(std::vector<int64_t> counts, double fraction) {
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  if (total == 0) return 0;
  const auto top = static_cast<size_t>(std::llround(fraction * static_cast<double>(counts.size())));
  const auto end = counts.begin() + std::clamp<size_t>(top, 1, counts.size());
  std::partial_sort(counts.begin(), end, counts.end(), std::greater<>());
  return static_cast<double>(std::accumulate(counts.begin(), end, int64_t{0})) / static_cast<double>(total);
}

double Quantile(std::vector<int64_t> values, double fraction) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double position = fraction * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, values.size() - 1);
  return static_cast<double>(values[below]) +
         (position - static_cast<double>(below)) * static_cast<double>(values[above] - values[below]);
}

void StatisticsCounter::Add(std::string_view user_id, const Event& event) {
  ++user_events_[absl::string_view(user_id.data(), user_id.size())];
  ++item_events_[event.item];
  for (int bit = 0; bit < kNumLabels; ++bit) labels_[bit] += event.labels >> bit & 1u;
  ++events_;
}

LogStatistics StatisticsCounter::Finish(int64_t num_items) const {
  std::vector<int64_t> users;
  for (const auto& [user, count] : user_events_) users.push_back(count);
  std::vector<int64_t> items;
  for (const auto& [item, count] : item_events_) items.push_back(count);
  items.resize(std::max<size_t>(items.size(), static_cast<size_t>(std::max<int64_t>(num_items, 0))), 0);
  return Summarise(std::move(users), std::move(items), labels_);
}

LogStatistics ComputeStatistics(const Dataset& dataset) {
  std::vector<int64_t> users;
  std::vector<int64_t> items(dataset.num_items(), 0);
  std::array<int64_t, kNumLabels> labels{};
  for (int64_t user = 0; user < dataset.num_users(); ++user) {
    users.push_back(static_cast<int64_t>(dataset.events(user).size()));
    for (const CompactEvent& event : dataset.events(user)) {
      ++items[event.item];
      for (int bit = 0; bit < kNumLabels; ++bit) labels[bit] += event.labels >> bit & 1u;
    }
  }
  return Summarise(std::move(users), std::move(items), labels);
}

std::string LogStatistics::ToString() const {
  std::string text = absl::StrFormat("%d users, %d items, %d events\n", users, items, events);
  absl::StrAppendFormat(&text, "events per user (10, 50, 90, 99 %%): %.0f / %.0f / %.0f / %.0f\n", events_per_user[0],
                        events_per_user[1], events_per_user[2], events_per_user[3]);
  text += "label rates:";
  for (int bit = 0; bit < kNumLabels; ++bit) {
    if (label_rate[bit] > 0) absl::StrAppendFormat(&text, " %s %.4f", FormatLabels(1u << bit), label_rate[bit]);
  }
  absl::StrAppendFormat(&text, "\npopularity: Gini %.2f, top 1 %% of items %.0f %% of events, top 10 %% %.0f %%\n",
                        gini, top_1_percent * 100, top_10_percent * 100);
  return text;
}

}  // namespace beamline::data
