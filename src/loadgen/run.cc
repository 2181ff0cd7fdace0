// SPDX-License-Identifier: Apache-2.0
#include "loadgen/run.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include <sys/prctl.h>

#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "beamline/status.h"

namespace beamline::loadgen {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(50);  // between looks for Ctrl-C
constexpr absl::Duration kPause = absl::Milliseconds(10);

std::string LabelOf(const LoadOptions& options) {
  if (options.rate) return absl::StrFormat("open loop %.6g/s", *options.rate);
  return absl::StrFormat("closed loop of %d", options.concurrency);
}

class LoadRun {
 public:
  LoadRun(Target& target, int pool, const LoadOptions& options)
      : target_(target), pool_(pool), options_(options), length_(options.warm_up + options.duration) {}

  absl::StatusOr<RunResult> Open(Progress* progress) {
    const double calls = *options_.rate * absl::ToDoubleSeconds(length_);
    if (calls * options_.batch > static_cast<double>(options_.max_requests)) return TooMany();
    const std::vector<absl::Duration> schedule = Schedule(*options_.rate, options_.arrivals, length_, options_.seed);
    StartProgress(progress, LabelOf(options_), std::ssize(schedule), "calls");
    // The default slack of 50 us would be a good part of what is measured.
    prctl(PR_SET_TIMERSLACK, 1000UL);
    result_.samples.resize(schedule.size() * options_.batch);
    begin_ = clock_.Now();
    for (size_t call = 0; call < schedule.size(); ++call) {
      if (!SleepUntil(schedule[call])) break;
      Send(call, schedule[call]);
      UpdateProgress(progress, static_cast<int64_t>(call) + 1);
    }
    return Finish(progress);
  }

  absl::StatusOr<RunResult> Closed(Progress* progress) {
    StartProgress(progress, LabelOf(options_), absl::ToInt64Milliseconds(length_), Progress::kTimeUnit);
    begin_ = clock_.Now();
    bool full = false;
    for (size_t call = 0; Now() < length_; ++call) {
      full = static_cast<int64_t>(call + 1) * options_.batch > options_.max_requests;
      if (full) break;
      {
        std::unique_lock lock(mu_);
        while (in_flight_ >= options_.concurrency && !Interrupted()) changed_.wait_for(lock, kPoll);
        result_.samples.resize((call + 1) * options_.batch);
      }
      if (PauseWhereNobodyIs(); Interrupted()) break;
      const absl::Duration now = Now();
      Send(call, now);
      UpdateProgress(progress, absl::ToInt64Milliseconds(now));
    }
    absl::StatusOr<RunResult> result = Finish(progress);
    return full && result.ok() ? TooMany() : result;
  }

 private:
  absl::Duration Now() const { return clock_.Now() - begin_; }

  absl::Status TooMany() const {
    return absl::ResourceExhaustedError(absl::StrFormat("%s: more than %d requests in %s; measure for a shorter time",
                                                        LabelOf(options_), options_.max_requests,
                                                        absl::FormatDuration(length_)));
  }

  // False: interrupted.
  bool SleepUntil(absl::Duration when) const {
    while (!Interrupted()) {
      const absl::Duration left = when - Now();
      if (left <= absl::ZeroDuration()) return true;
      std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(absl::ToChronoNanoseconds(left), kPoll));
    }
    return false;
  }

  // A target that is gone refuses at once: a closed loop would be busy with that alone, and its samples fill the
  // memory.
  void PauseWhereNobodyIs() {
    bool pause = false;
    {
      std::lock_guard lock(mu_);
      std::swap(pause, unavailable_);
    }
    if (pause) SleepUntil(Now() + kPause);
  }

  void Send(size_t call, absl::Duration due) {
    if (due >= options_.warm_up && !measuring_) {
      measuring_ = true;
      cpu_begin_ = target_.CpuTime();
    }
    indices_.resize(options_.batch);
    const size_t first = call * options_.batch;
    {
      std::lock_guard lock(mu_);
      ++in_flight_;
      for (int i = 0; i < options_.batch; ++i) {
        indices_[i] = static_cast<int>((first + i) % pool_);
        Sample& sample = result_.samples[first + i];
        sample.due = due;
        sample.call = static_cast<int64_t>(call);
        sample.request = indices_[i];
        sample.sent = Now();
      }
      sent_ = first + options_.batch;
    }
    target_.Send(indices_, target_.Now() + (due + options_.deadline - Now()), /*want_items=*/false,
                 [this, first](std::vector<Answer> answers) {
                   const absl::Duration now = Now();
                   std::lock_guard lock(mu_);
                   unavailable_ = absl::IsUnavailable(answers[0].status);
                   for (size_t i = 0; i < answers.size(); ++i) {
                     result_.samples[first + i].answered = now;
                     result_.samples[first + i].answer = std::move(answers[i]);
                   }
                   --in_flight_;
                   changed_.notify_one();  // under the lock: the run may end right behind it
                 });
  }

  absl::StatusOr<RunResult> Finish(Progress* progress) {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [this] { return in_flight_ == 0; });
    FinishProgress(progress);
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    result_.samples.resize(sent_);
    result_.begin = options_.warm_up;
    result_.end = length_;
    if (measuring_ && cpu_begin_) {
      if (const std::optional<absl::Duration> now = target_.CpuTime()) result_.cpu_time = *now - *cpu_begin_;
    }
    return std::move(result_);
  }

  Target& target_;
  const size_t pool_;
  const LoadOptions options_;
  const absl::Duration length_;
  const RealClock clock_;
  absl::Time begin_;
  std::vector<int> indices_;
  bool measuring_ = false;
  std::optional<absl::Duration> cpu_begin_;

  std::mutex mu_;
  std::condition_variable changed_;
  int in_flight_ = 0;  // guarded by mu_, as what follows
  size_t sent_ = 0;
  bool unavailable_ = false;  // said the last call
  RunResult result_;
};

}  // namespace

std::vector<absl::Duration> Schedule(double rate, Arrivals arrivals, absl::Duration length, uint64_t seed) {
  std::vector<absl::Duration> due;
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> gap(rate);
  double at = arrivals == Arrivals::kPoisson ? gap(random) : 0;
  for (const double end = absl::ToDoubleSeconds(length); at < end;) {
    due.push_back(absl::Seconds(at));
    at = arrivals == Arrivals::kPoisson ? at + gap(random) : static_cast<double>(due.size()) / rate;
  }
  return due;
}

absl::StatusOr<RunResult> RunLoad(Target& target, int pool, const LoadOptions& options, Progress* progress) {
  LoadRun run(target, pool, options);
  return options.rate ? run.Open(progress) : run.Closed(progress);
}

}  // namespace beamline::loadgen
