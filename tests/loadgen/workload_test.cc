// SPDX-License-Identifier: Apache-2.0
#include "loadgen/workload.h"

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace beamline::loadgen {
namespace {

TEST(WorkloadTest, RequestsAreDistinctAndReproducible) {
  std::vector<ItemId> items(100);
  for (ItemId i = 0; i < 100; ++i) items[i] = 1000 + i;
  const WorkloadOptions options{.requests = 50, .history = 20, .beam = 16, .top_k = 5};
  const auto requests = MakeWorkload(options, items, {});
  const auto again = MakeWorkload(options, items, {});
  ASSERT_EQ(requests.size(), 50u);
  std::set<std::vector<ItemId>> histories;
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_EQ(requests[i].history.size(), 20u);
    std::vector<ItemId> history;
    int64_t latest = 0;
    for (size_t e = 0; e < 20; ++e) {
      const Event& event = requests[i].history[e];
      EXPECT_TRUE(event.item >= 1000 && event.item < 1100);
      EXPECT_GT(event.timestamp_ms, std::exchange(latest, event.timestamp_ms)) << "in order, or the target refuses it";
      EXPECT_EQ(event.item, again[i].history[e].item);
      history.push_back(event.item);
    }
    histories.insert(history);
    EXPECT_EQ(requests[i].beam_widths, std::vector<int>{16});
    EXPECT_TRUE(requests[i].user_id.empty()) << "nothing to cache under";
  }
  EXPECT_GT(histories.size(), 45u);
}

TEST(WorkloadTest, UsersHaveOneHistoryEachAndNobodyElseHasAnId) {
  const std::vector<ItemId> items = {1, 2, 3, 4, 5, 6, 7, 8};
  const auto requests = MakeWorkload({.requests = 40, .history = 10, .users = 4}, items, {});
  std::map<std::string, std::set<std::vector<ItemId>>> histories;
  for (const RecommendRequest& request : requests) {
    std::vector<ItemId> history;
    for (const Event& event : request.history) history.push_back(event.item);
    histories[request.user_id].insert(history);
  }
  EXPECT_EQ(histories.size(), 4u);
  for (const auto& [user, distinct] : histories) EXPECT_EQ(distinct.size(), 1u) << user;
  for (const RecommendRequest& request : MakeWorkload({.requests = 3, .history = 0}, {}, {})) {
    EXPECT_TRUE(request.user_id.empty()) << "it gets another each time it is sent";
  }
}

TEST(WorkloadTest, RealHistoriesAreCutToTheirNewestEvents) {
  const std::vector<std::vector<Event>> log = {{{.item = 1}, {.item = 2}, {.item = 3}}, {{.item = 9}}};
  const auto requests = MakeWorkload({.requests = 3, .history = 2}, {}, log);
  ASSERT_EQ(requests[0].history.size(), 2u);
  EXPECT_EQ(requests[0].history[0].item, 2u);
  EXPECT_EQ(requests[1].history.size(), 1u);
  EXPECT_EQ(requests[2].history[1].item, 3u);
  for (const RecommendRequest& request : MakeWorkload({.requests = 9, .history = 2, .users = 3}, {}, log)) {
    EXPECT_EQ(request.history.size(), request.user_id == "bench-1" ? 1u : 2u) << request.user_id << ": one each";
  }
}

TEST(WorkloadTest, ClassesHaveTheirShares) {
  const auto requests =
      MakeWorkload({.requests = 300, .history = 0, .classes = {.critical = 20, .plain = 50, .sheddable = 30}}, {}, {});
  std::map<Priority, int> counts;
  for (const RecommendRequest& request : requests) ++counts[request.priority];
  EXPECT_EQ(counts[Priority::kCritical], 60);
  EXPECT_EQ(counts[Priority::kDefault], 150);
  EXPECT_EQ(counts[Priority::kSheddable], 90);
}

// Knows items 1 .. 200 and recommends the first that were not seen.
class TinyTarget final : public Target {
 public:
  int most = 1000;
  absl::Time Now() const override { return absl::Now() - absl::Hours(1); }
  absl::Status Prepare(std::vector<RecommendRequest> pool, int64_t) override {
    request_ = pool[0];
    return absl::OkStatus();
  }
  void Send(absl::Span<const int>, absl::Time deadline, bool want_items, Done done) override {
    EXPECT_LE(deadline, Now() + absl::Seconds(1)) << "by another clock";
    Answer answer;
    if (request_.top_k > most) answer.status = absl::InvalidArgumentError("top_k");
    for (ItemId item = request_.history.size() + 1; want_items && item <= 200; ++item) {
      if (static_cast<int>(answer.items.size()) < request_.top_k) answer.items.push_back(item);
    }
    done({answer});
  }

 private:
  RecommendRequest request_;
};

TEST(WorkloadTest, ItemsAreDiscoveredFromAnswers) {
  TinyTarget target;
  const auto items = DiscoverItems(target, absl::Seconds(1));
  ASSERT_TRUE(items.ok()) << items.status();
  EXPECT_EQ(items->size(), 200u);
  target.most = 10;
  const auto few = DiscoverItems(target, absl::Seconds(1));
  ASSERT_TRUE(few.ok()) << few.status();
  EXPECT_EQ(few->size(), 30u);
  target.most = 5;
  EXPECT_EQ(DiscoverItems(target, absl::Seconds(1)).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace beamline::loadgen
