// SPDX-License-Identifier: Apache-2.0
#include "engine/cost_measurement.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "runtime/request_job.h"
#include "runtime/synthetic_history.h"
#include "scheduler/batch_policy.h"

namespace beamline::engine {
namespace {

std::vector<Event> LongestHistory(const runtime::Runner& runner) {
  const auto& windows = runner.info().window_lengths;
  return runtime::SyntheticHistory(*runner.catalogue(), std::max({1, windows[0], windows[1]}));
}

using Jobs = std::vector<std::unique_ptr<runtime::RequestJob>>;

// A batch of synthetic requests, and how large it is.
struct Batch {
  Jobs jobs;
  std::vector<scheduler::Job*> all;
  scheduler::BatchSize size;
};

Batch MakeBatch(runtime::Runner& runner, const CostMeasurement& measurement, int64_t requests, int beam_width) {
  const std::vector<Event> history = LongestHistory(runner);
  const std::shared_ptr<runtime::Runner> unowned(std::shared_ptr<void>(), &runner);
  Batch batch;
  while (static_cast<int64_t>(batch.jobs.size()) < requests) {
    auto job = std::make_unique<runtime::RequestJob>();
    job->model = unowned;
    job->snapshot = runner.catalogue();
    job->input = runner.BuildInput({.user_id = "", .user_attributes = {}, .history = history}, *job->snapshot);
    job->beam_widths.assign(runner.info().levels(), beam_width);
    job->score_rule = measurement.score_rule;
    job->trial = true;
    job->SetCosts();
    batch.size.Add(job->beam_rows, job->context_tokens);
    batch.all.push_back(job.get());
    batch.jobs.push_back(std::move(job));
  }
  return batch;
}

absl::Status FirstError(const std::vector<absl::Status>& statuses) {
  const auto bad = std::find_if(statuses.begin(), statuses.end(), [](const absl::Status& s) { return !s.ok(); });
  return bad == statuses.end() ? absl::OkStatus() : *bad;
}

absl::Status Decode(runtime::Runner& runner, const Batch& batch) {
  return FirstError(runner.Decode(batch.all, [](const scheduler::Job&) { return absl::OkStatus(); }));
}

struct Times {
  absl::Duration encode, decode;
};

absl::StatusOr<Times> RunOnce(runtime::Runner& runner, const Batch& batch, const Clock& clock) {
  const absl::Time begin = clock.Now();
  BEAMLINE_RETURN_IF_ERROR(FirstError(runner.Encode(batch.all)));
  const absl::Time encoded = clock.Now();
  BEAMLINE_RETURN_IF_ERROR(Decode(runner, batch));
  return Times{encoded - begin, clock.Now() - encoded};
}

// Encoded as the scheduler does it, by no more context tokens at once than it allows.
absl::Status TryLargest(runtime::Runner& runner, const Batch& batch) {
  const int64_t tokens = std::max<int64_t>(1, batch.size.context_tokens / batch.size.requests);
  const size_t at_once =
      static_cast<size_t>(std::max<int64_t>(1, scheduler::BatchLimits{}.max_context_tokens / tokens));
  for (size_t first = 0; first < batch.all.size(); first += at_once) {
    BEAMLINE_RETURN_IF_ERROR(FirstError(runner.Encode(absl::MakeConstSpan(batch.all).subspan(first, at_once))));
  }
  return Decode(runner, batch);
}

// A device has no more memory than it has: what the largest batch takes is not left for the first busy hour to find.
absl::Status CheckLargestBatch(runtime::Runner& runner, const CostMeasurement& measurement) {
  if (runner.computes_on_host() && !runner.GetDeviceMemory()) return absl::OkStatus();
  const int64_t requests = std::min(measurement.max_requests, measurement.max_rows);
  const int64_t widest = std::max(measurement.beam_width, measurement.max_beam_width);
  const Batch batch =
      MakeBatch(runner, measurement, requests, static_cast<int>(std::min(widest, measurement.max_rows / requests)));
  const absl::Status status = TryLargest(runner, batch);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("the largest batch that is allowed, ", requests, " requests with ",
                                                  batch.size.rows, " beam rows and ", batch.size.context_tokens,
                                                  " context tokens, failed: ", status.message(),
                                                  "; lower max_batch_requests or max_batch_rows"));
}

// Work costs no more than work that holds it: where a pause of the machine met all runs of a size, a larger one tells.
void BoundByLarger(std::vector<scheduler::BatchCost>& costs) {
  for (scheduler::BatchCost& cost : costs) {
    for (const scheduler::BatchCost& other : costs) {
      const bool larger = other.kind == cost.kind && other.size.requests >= cost.size.requests &&
                          other.size.rows >= cost.size.rows && other.size.context_tokens >= cost.size.context_tokens;
      if (larger) cost.duration = std::min(cost.duration, other.duration);
    }
  }
}

}  // namespace

absl::StatusOr<std::vector<scheduler::BatchCost>> MeasureCosts(runtime::Runner& runner,
                                                               const CostMeasurement& measurement, const Clock& clock) {
  std::vector<scheduler::BatchCost> costs;
  if (runner.catalogue()->num_items() == 0) return costs;
  BEAMLINE_RETURN_IF_ERROR(CheckLargestBatch(runner, measurement));
  if (measurement.budget <= absl::ZeroDuration()) return costs;
  const absl::Time end = clock.Now() + measurement.budget;
  const int runs = runner.runs_until_warm() + 1;
  const auto goes_on = [&] { return clock.Now() < end && CheckInterrupted().ok(); };
  // A batch of `requests` with this beam.
  const auto measure = [&](int64_t requests, int beam_width) -> absl::Status {
    const Batch batch = MakeBatch(runner, measurement, requests, beam_width);
    Times least{absl::InfiniteDuration(), absl::InfiniteDuration()};
    // The very first run may last beyond the budget because all is cold: as a cost it would refuse for long.
    const auto again = [&] { return costs.empty() ? CheckInterrupted().ok() : goes_on(); };
    int ran = 0;
    for (; ran < runs && (ran == 0 || again()); ++ran) {
      const absl::StatusOr<Times> took = RunOnce(runner, batch, clock);
      if (!took.ok()) {
        return absl::Status(took.status().code(), absl::StrCat("a batch of ", requests, " requests with ", beam_width,
                                                               " beams each: ", took.status().message()));
      }
      least = {std::min(least.encode, took->encode), std::min(least.decode, took->decode)};
    }
    // The budget ended before: the making of a graph, many times a batch's cost, would refuse its like.
    if (ran < runs && runner.runs_until_warm() > 1) return absl::OkStatus();
    costs.push_back({scheduler::WorkKind::kEncode, batch.size, least.encode});
    costs.push_back({scheduler::WorkKind::kDecode, batch.size, least.decode});
    return absl::OkStatus();
  };
  const auto most = [&](int beam_width) {
    return std::min<int64_t>(measurement.max_requests, measurement.max_rows / beam_width);
  };
  struct Size {
    int64_t requests;
    int beam_width;
  };
  const bool wide = measurement.max_beam_width > measurement.beam_width;
  std::vector<Size> sizes = {{1, measurement.beam_width}};
  if (wide) sizes.push_back({1, measurement.max_beam_width});
  for (int64_t requests = 2; requests <= most(measurement.beam_width); requests *= 2) {
    sizes.push_back({requests, measurement.beam_width});
  }
  if (wide && most(measurement.max_beam_width) > 1) {
    sizes.push_back({most(measurement.max_beam_width), measurement.max_beam_width});
  }
  for (const Size& size : sizes) {
    if (!costs.empty() && !goes_on()) break;
    BEAMLINE_RETURN_IF_ERROR(measure(size.requests, size.beam_width));
  }
  BoundByLarger(costs);
  return costs;
}

}  // namespace beamline::engine
