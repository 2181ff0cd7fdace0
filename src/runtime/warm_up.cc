// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>
#include <vector>

#include "beamline/status.h"
#include "runtime/model_runner.h"

namespace beamline::runtime {
namespace {

constexpr int kWarmUpWidth = 32;

// A history of the catalogue's own items, as long as the model's windows, liked and watched.
std::vector<Event> SyntheticHistory(const catalogue::CatalogueSnapshot& catalogue, int length) {
  std::vector<Event> history(length);
  for (int i = 0; i < length; ++i) {
    history[i].item = catalogue.item_id(static_cast<uint32_t>(i % catalogue.num_items()));
    history[i].timestamp_ms = 1'600'000'000'000 + i * int64_t{60'000};
    history[i].play_time_ms = 10'000;
    history[i].labels = kClick | kLongView;
  }
  return history;
}

}  // namespace

// Empty and full histories, alone and together: every shape class allocates and initialises once. Contexts of warm-up
// requests are not cached.
absl::Status ModelRunner::WarmUp() {
  const int window = std::max(info_.window_lengths[0], info_.window_lengths[1]);
  for (const std::vector<int>& lengths : {std::vector<int>{0}, std::vector<int>{window}, std::vector<int>{window, 1}}) {
    std::vector<RequestJob> jobs(lengths.size());
    std::vector<scheduler::Job*> batch;
    for (size_t i = 0; i < jobs.size(); ++i) {
      const std::vector<Event> history = SyntheticHistory(*parts_.catalogue, lengths[i]);
      jobs[i].input = BuildInput({.user_id = "warm-up", .history = history}, *parts_.catalogue);
      jobs[i].beam_widths.assign(info_.levels(), kWarmUpWidth);
      jobs[i].snapshot = parts_.catalogue;
      jobs[i].SetCosts();
      batch.push_back(&jobs[i]);
    }
    for (const absl::Status& status : Encode(batch)) BEAMLINE_RETURN_IF_ERROR(status);
    for (const absl::Status& status : Decode(batch, [](const scheduler::Job&) { return absl::OkStatus(); })) {
      BEAMLINE_RETURN_IF_ERROR(status);
    }
  }
  return absl::OkStatus();
}

}  // namespace beamline::runtime
