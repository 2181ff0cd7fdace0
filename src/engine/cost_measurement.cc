// SPDX-License-Identifier: Apache-2.0
#include "engine/cost_measurement.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "base/interrupt.h"
#include "runtime/request_job.h"
#include "runtime/synthetic_history.h"

namespace beamline::engine {
namespace {

constexpr int kRuns = 2;

std::vector<Event> LongestHistory(const runtime::Runner& runner) {
  const std::vector<int>& windows = runner.info().window_lengths;
  return runtime::SyntheticHistory(*runner.catalogue(),
                                   windows.empty() ? 1 : *std::max_element(windows.begin(), windows.end()));
}

// Encode's and decode's time of one batch of `requests`; nullopt: it failed.
std::optional<std::pair<absl::Duration, absl::Duration>> RunOnce(
    runtime::Runner& runner, absl::Span<const std::unique_ptr<runtime::RequestJob>> jobs, const Clock& clock) {
  std::vector<scheduler::Job*> batch;
  for (const auto& job : jobs) batch.push_back(job.get());
  const auto all_ok = [](const std::vector<absl::Status>& statuses) {
    return std::all_of(statuses.begin(), statuses.end(), [](const absl::Status& status) { return status.ok(); });
  };
  const absl::Time begin = clock.Now();
  if (!all_ok(runner.Encode(batch))) return std::nullopt;
  const absl::Time encoded = clock.Now();
  if (!all_ok(runner.Decode(batch, [](const scheduler::Job&) { return absl::OkStatus(); }))) return std::nullopt;
  return std::pair(encoded - begin, clock.Now() - encoded);
}

}  // namespace

std::vector<scheduler::BatchCost> MeasureCosts(runtime::Runner& runner, const CostMeasurement& measurement,
                                               const Clock& clock) {
  std::vector<scheduler::BatchCost> costs;
  if (measurement.budget <= absl::ZeroDuration() || runner.catalogue()->num_items() == 0) return costs;
  const absl::Time end = clock.Now() + measurement.budget;
  const std::vector<Event> history = LongestHistory(runner);
  const std::shared_ptr<runtime::Runner> unowned(std::shared_ptr<void>(), &runner);
  const auto goes_on = [&] { return clock.Now() < end && CheckInterrupted().ok(); };
  // A batch of `requests` with this beam; false: no further one.
  const auto measure = [&](int64_t requests, int beam_width) {
    std::vector<std::unique_ptr<runtime::RequestJob>> jobs;
    scheduler::BatchSize size;
    while (static_cast<int64_t>(jobs.size()) < requests) {
      auto job = std::make_unique<runtime::RequestJob>();
      job->model = unowned;
      job->snapshot = runner.catalogue();
      job->input = runner.BuildInput({.user_id = "", .user_attributes = {}, .history = history}, *job->snapshot);
      job->beam_widths.assign(runner.info().levels(), beam_width);
      job->score_rule = measurement.score_rule;
      job->SetCosts();
      size.Add(job->beam_rows, job->context_tokens);
      jobs.push_back(std::move(job));
    }
    absl::Duration encode = absl::InfiniteDuration(), decode = absl::InfiniteDuration();
    for (int run = 0; run < kRuns && (run == 0 || goes_on()); ++run) {
      const auto took = RunOnce(runner, jobs, clock);
      if (!took) return false;
      encode = std::min(encode, took->first);
      decode = std::min(decode, took->second);
    }
    costs.push_back({scheduler::WorkKind::kEncode, size, encode});
    costs.push_back({scheduler::WorkKind::kDecode, size, decode});
    return goes_on();
  };
  const bool wide = measurement.max_beam_width > measurement.beam_width;
  if (!measure(1, measurement.beam_width) || (wide && !measure(1, measurement.max_beam_width))) return costs;
  const auto most = [&](int beam_width) {
    return std::min<int64_t>(measurement.max_requests, measurement.max_rows / beam_width);
  };
  for (int64_t requests = 2; requests <= most(measurement.beam_width); requests *= 2) {
    if (!measure(requests, measurement.beam_width)) return costs;
  }
  if (wide && most(measurement.max_beam_width) > 1) {
    measure(most(measurement.max_beam_width), measurement.max_beam_width);
  }
  return costs;
}

}  // namespace beamline::engine
