// SPDX-License-Identifier: Apache-2.0
#include "loadgen/workload.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <future>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/interrupt.h"
#include "beamline/status.h"

namespace beamline::loadgen {
namespace {

constexpr std::chrono::milliseconds kLook{20};  // for an interrupt
constexpr int kDiscoveryRounds = 4;
constexpr int kDiscoveryItems = 64;  // asked for at once
constexpr int kFewItems = 10;        // where the target allows no more
constexpr int64_t kFirstEventMs = 1'700'000'000'000;

Event EventAt(ItemId item, int index) {
  return {.item = item,
          .timestamp_ms = kFirstEventMs + index * int64_t{60'000},
          .play_time_ms = 10'000,
          .duration_ms = 20'000,
          .labels = kClick | kLongView};
}

Priority ClassOf(int index, const ClassShares& classes) {
  const int percent = index * 37 % 100;  // 37 and 100 share no factor: each hundred requests has exactly the shares
  if (percent < classes.critical) return Priority::kCritical;
  return percent < classes.critical + classes.plain ? Priority::kDefault : Priority::kSheddable;
}

// One call; its first error, or its answers. An interrupt leaves it to whoever answers late.
absl::StatusOr<std::vector<Answer>> AskOnce(Target& target, std::vector<RecommendRequest> requests,
                                            absl::Duration timeout) {
  std::vector<int> all(requests.size());
  std::iota(all.begin(), all.end(), 0);
  BEAMLINE_RETURN_IF_ERROR(target.Prepare(std::move(requests), 1));
  const auto promise = std::make_shared<std::promise<std::vector<Answer>>>();
  std::future<std::vector<Answer>> future = promise->get_future();
  target.Send(all, target.Now() + timeout, /*want_items=*/true,
              [promise](std::vector<Answer> answers) { promise->set_value(std::move(answers)); });
  while (future.wait_for(kLook) != std::future_status::ready) BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  std::vector<Answer> answers = future.get();
  for (const Answer& answer : answers) BEAMLINE_RETURN_IF_ERROR(answer.status);
  return answers;
}

}  // namespace

std::vector<RecommendRequest> MakeWorkload(const WorkloadOptions& options, absl::Span<const ItemId> items,
                                           absl::Span<const std::vector<Event>> histories) {
  std::mt19937_64 random(options.seed);
  std::vector<RecommendRequest> requests(options.requests);
  for (int i = 0; i < options.requests; ++i) {
    RecommendRequest& request = requests[i];
    request.request_id = absl::StrCat("bench-", i);
    request.top_k = options.top_k;
    if (options.beam > 0) request.beam_widths = {options.beam};
    if (options.users > 0) request.user_id = absl::StrCat("bench-", i % options.users);
    request.priority = ClassOf(i, options.classes);
    if (!histories.empty()) {
      const std::vector<Event>& all = histories[(options.users > 0 ? i % options.users : i) % histories.size()];
      request.history.assign(all.end() - std::min<std::ptrdiff_t>(options.history, std::ssize(all)), all.end());
      continue;
    }
    // One history per user, as a cache would see it.
    if (options.users > 0) random.seed(options.seed + i % options.users);
    for (int event = 0; event < options.history; ++event) {
      const double uniform = static_cast<double>(random() >> 11) * 0x1p-53;
      const auto index = static_cast<size_t>(uniform * uniform * static_cast<double>(items.size()));
      request.history.push_back(EventAt(items[index], event));
    }
  }
  return requests;
}

std::string NewUser() {
  static const int64_t process = absl::ToUnixNanos(absl::Now());
  static std::atomic<int64_t> users{0};
  return absl::StrCat("bench-", process, "-", users.fetch_add(1, std::memory_order_relaxed));
}

absl::Status TryOnce(Target& target, std::vector<RecommendRequest> requests, absl::Duration timeout) {
  return AskOnce(target, std::move(requests), timeout).status();
}

absl::StatusOr<std::vector<ItemId>> DiscoverItems(Target& target, absl::Duration timeout) {
  std::vector<ItemId> found;
  std::set<ItemId> known;
  int top_k = kDiscoveryItems;
  for (int round = 0; round < kDiscoveryRounds; ++round) {
    RecommendRequest request;
    request.user_id = "bench";
    request.top_k = top_k;
    request.exclude_history = true;
    for (size_t i = 0; i < found.size(); ++i) request.history.push_back(EventAt(found[i], static_cast<int>(i)));
    const auto answers = AskOnce(target, {std::move(request)}, timeout);
    if (absl::IsInvalidArgument(answers.status()) && std::exchange(top_k, kFewItems) != kFewItems) continue;
    if (absl::IsInvalidArgument(answers.status()) && !found.empty()) break;  // it takes no history so long
    BEAMLINE_RETURN_IF_ERROR(answers.status());
    for (const ItemId item : answers->front().items) {
      if (known.insert(item).second) found.push_back(item);
    }
  }
  if (found.empty()) return absl::FailedPreconditionError("the target recommends nothing to a user without history");
  return found;
}

}  // namespace beamline::loadgen
