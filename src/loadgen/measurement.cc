// SPDX-License-Identifier: Apache-2.0
#include "loadgen/measurement.h"

#include <functional>
#include <optional>
#include <utility>
#include <vector>

namespace beamline::loadgen {
namespace {

double Ms(absl::Duration duration) { return absl::ToDoubleMilliseconds(duration); }

// What a stage took for one request: those of a batch share its time. nullopt: an older server does not say how many.
std::optional<double> ShareMs(absl::Duration stage, int requests) {
  if (stage == absl::ZeroDuration()) return 0;
  if (requests == 0) return std::nullopt;
  return Ms(stage) / requests;
}

// The values of a summary while they are collected.
struct Values {
  std::vector<double> latency, refusal, lag, queue, encode, decode, resolve, overhead;
  std::optional<double> model = 0;  // the sum of the answers' shares of encode and decode
  // The requests of a call have one latency between them: it is one observation, or quantiles seem surer than they are.
  const Sample *last_answered = nullptr, *last_refused = nullptr, *last = nullptr;
};

// Whether `sample` is the first of its call; notes it. The samples of a call follow each other.
bool FirstOfCall(const Sample& sample, const Sample** previous) {
  const Sample* const before = std::exchange(*previous, &sample);
  return before == nullptr || before->call != sample.call;
}

void AddAnswered(const Sample& sample, Measurement* measured, Values* values) {
  ++measured->answered;
  const absl::Duration latency = sample.answered - sample.due;
  if (latency > measured->cell.load.deadline) ++measured->late;
  const StageTimings& timings = sample.answer.timings;
  if (FirstOfCall(sample, &values->last_answered)) values->latency.push_back(Ms(latency));
  values->queue.push_back(Ms(timings.queue));
  if (!sample.answer.context_cached) values->encode.push_back(Ms(timings.encode));
  values->decode.push_back(Ms(timings.decode));
  values->resolve.push_back(Ms(timings.resolve));
  values->overhead.push_back(Ms(latency - timings.encode - timings.decode));
  const auto encode = ShareMs(timings.encode, timings.encode_requests);
  const auto decode = ShareMs(timings.decode, timings.decode_requests);
  values->model = values->model && encode && decode ? std::optional(*values->model + *encode + *decode) : std::nullopt;
  measured->cached += sample.answer.context_cached ? 1 : 0;
  ++measured->beams[sample.answer.beams];
  ++measured->narrowing[sample.answer.narrowing];
}

void Add(const Sample& sample, Measurement* measured, Values* values) {
  ++measured->requests;
  if (FirstOfCall(sample, &values->last)) values->lag.push_back(Ms(sample.sent - sample.due));
  switch (sample.answer.status.code()) {
    case absl::StatusCode::kOk:
      return AddAnswered(sample, measured, values);
    case absl::StatusCode::kResourceExhausted:
      ++measured->refused;
      measured->unhinted += sample.answer.retry_after == absl::ZeroDuration() ? 1 : 0;
      if (FirstOfCall(sample, &values->last_refused)) values->refusal.push_back(Ms(sample.answered - sample.sent));
      return;
    case absl::StatusCode::kDeadlineExceeded:
      ++measured->expired;
      return;
    default:
      if (measured->failed++ == 0) {
        measured->failure = sample.answer.status.ToString(absl::StatusToStringMode::kWithNoExtraData);
      }
  }
}

Measurement MeasureWhere(const Cell& cell, const RunResult& run, const std::function<bool(const Sample&)>& wanted) {
  Measurement measured;
  measured.cell = cell;
  Values values;
  int64_t answers = 0, in_time = 0;  // that came between begin and end, whenever their calls were due
  for (const Sample& sample : run.samples) {
    if (!wanted(sample)) continue;
    if (sample.due >= run.begin && sample.due < run.end) Add(sample, &measured, &values);
    if (!sample.answer.status.ok() || sample.answered < run.begin || sample.answered >= run.end) continue;
    ++answers;
    if (sample.answered - sample.due <= cell.load.deadline) ++in_time;
  }
  measured.latency = Summarize(std::move(values.latency));
  measured.refusal = Summarize(std::move(values.refusal));
  measured.lag = Summarize(std::move(values.lag));
  measured.queue = Summarize(std::move(values.queue));
  measured.encode = Summarize(std::move(values.encode));
  measured.decode = Summarize(std::move(values.decode));
  measured.resolve = Summarize(std::move(values.resolve));
  measured.overhead = Summarize(std::move(values.overhead));
  const double seconds = absl::ToDoubleSeconds(run.end - run.begin);
  measured.throughput = static_cast<double>(answers) / seconds;
  measured.goodput = static_cast<double>(in_time) / seconds;
  if (run.cpu_time && measured.answered > 0) {
    measured.cpu = Ms(*run.cpu_time) / static_cast<double>(measured.answered);
    if (values.model) measured.cpu_overhead = *measured.cpu - *values.model / static_cast<double>(measured.answered);
  }
  return measured;
}

}  // namespace

Measurement Measure(const Cell& cell, const RunResult& run) {
  return MeasureWhere(cell, run, [](const Sample&) { return true; });
}

Measurement MeasureClass(const Cell& cell, const RunResult& run, const std::vector<Priority>& priorities,
                         Priority wanted) {
  Measurement measured =
      MeasureWhere(cell, run, [&](const Sample& sample) { return priorities[sample.request] == wanted; });
  measured.cpu.reset();  // nobody counts it by class
  measured.cpu_overhead.reset();
  return measured;
}

}  // namespace beamline::loadgen
