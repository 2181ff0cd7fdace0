// SPDX-License-Identifier: Apache-2.0
#include "loadgen/run.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/interrupt.h"
#include "gtest/gtest.h"
#include "loadgen/measurement.h"

namespace beamline::loadgen {
namespace {

constexpr absl::Duration kRunMs = absl::Milliseconds(1);

// Answers on a thread of its own, each call after `service`; `before` runs there first.
class FakeTarget final : public Target {
 public:
  ~FakeTarget() override {
    {
      std::lock_guard lock(mu_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  std::chrono::microseconds service{200};
  std::function<Answer(int call)> answer = [](int) { return Answer{}; };
  std::function<void(int call)> in_send = [](int) {};  // on the caller's thread
  std::atomic<int> open{0}, most_open{0};
  int sends = 0;
  absl::Duration clock_ahead;                          // of the system's, as after a step of that
  absl::Duration longest = -absl::InfiniteDuration();  // time that a call had by the target's clock

  absl::Status Prepare(std::vector<RecommendRequest>, int64_t) override { return absl::OkStatus(); }
  absl::Time Now() const override { return absl::Now() + clock_ahead; }
  void Send(absl::Span<const int> indices, absl::Time deadline, bool, Done done) override {
    longest = std::max(longest, deadline - Now());
    in_send(sends);
    most_open = std::max(most_open.load(), open.fetch_add(1) + 1);
    std::lock_guard lock(mu_);
    calls_.push_back({sends++, indices.size(), std::move(done)});
    changed_.notify_one();
  }
  std::optional<absl::Duration> CpuTime() const override { return absl::Seconds(cpu_asked_++); }

 private:
  struct Call {
    int number;
    size_t requests;
    Done done;
  };
  void Serve() {
    std::unique_lock lock(mu_);
    for (;;) {
      changed_.wait(lock, [&] { return stop_ || !calls_.empty(); });
      if (calls_.empty()) return;
      Call call = std::move(calls_.front());
      calls_.pop_front();
      lock.unlock();
      std::this_thread::sleep_for(service);
      const Answer one = answer(call.number);
      open.fetch_sub(1);
      call.done(std::vector<Answer>(call.requests, one));
      lock.lock();
    }
  }

  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<Call> calls_;
  bool stop_ = false;
  mutable int cpu_asked_ = 0;
  std::thread thread_{[this] { Serve(); }};
};

TEST(ScheduleTest, PoissonHasItsRateAndItsSpread) {
  const auto due = Schedule(1000, Arrivals::kPoisson, absl::Seconds(20), 3);
  EXPECT_NEAR(static_cast<double>(due.size()), 20'000, 4 * std::sqrt(20'000.0));
  EXPECT_TRUE(std::is_sorted(due.begin(), due.end()));
  EXPECT_LT(due.back(), absl::Seconds(20));
  double sum = 0, squares = 0;
  for (size_t i = 1; i < due.size(); ++i) {
    const double gap = absl::ToDoubleMilliseconds(due[i] - due[i - 1]);
    sum += gap;
    squares += gap * gap;
  }
  const double mean = sum / static_cast<double>(due.size() - 1);
  EXPECT_NEAR(squares / static_cast<double>(due.size() - 1) - mean * mean, mean * mean, 0.1 * mean * mean)
      << "the deviation of exponential gaps is their mean";
  EXPECT_EQ(due, Schedule(1000, Arrivals::kPoisson, absl::Seconds(20), 3));
  EXPECT_NE(due, Schedule(1000, Arrivals::kPoisson, absl::Seconds(20), 4));
}

TEST(ScheduleTest, ConstantIsEven) {
  const auto due = Schedule(8, Arrivals::kConstant, absl::Seconds(1), 1);
  ASSERT_EQ(due.size(), 8u);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(due[i], i * 125 * kRunMs);
}

// A9.1: the target stands still for 400 ms once. Everything that came due meanwhile is late, and the report says so,
// though each call by itself was answered at once when the target came back.
TEST(RunTest, AStallIsChargedForAllThatCameDueMeanwhile) {
  FakeTarget target;
  target.service = std::chrono::microseconds(0);
  target.answer = [](int call) {
    if (call == 40) std::this_thread::sleep_for(std::chrono::milliseconds(400));
    return Answer{};
  };
  const LoadOptions load{
      .rate = 200, .arrivals = Arrivals::kConstant, .warm_up = absl::ZeroDuration(), .duration = absl::Seconds(1)};
  const auto run = RunLoad(target, 4, load, nullptr);
  ASSERT_TRUE(run.ok()) << run.status();
  const Measurement measured = Measure({load, 0, 0}, *run);
  EXPECT_EQ(measured.answered, 200);
  EXPECT_GE(measured.latency.max, 399);
  EXPECT_GE(measured.latency.at(0.9).value, 250) << "80 of 200 calls came due in the stall";
  // A client that waits for its answer before it sends the next would have seen one slow call of 121.
  const auto slow = std::count_if(run->samples.begin(), run->samples.end(),
                                  [](const Sample& sample) { return sample.answered - sample.due > 50 * kRunMs; });
  EXPECT_GE(slow, 65);
}

// The same where the stall holds up the generator itself: what it sends late counts from when it was due, and the
// report says that it was late.
TEST(RunTest, AGeneratorThatIsHeldUpDoesNotHideIt) {
  FakeTarget target;
  target.service = std::chrono::microseconds(0);
  target.in_send = [](int call) {
    if (call == 20) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  };
  const LoadOptions load{
      .rate = 100, .arrivals = Arrivals::kConstant, .warm_up = absl::ZeroDuration(), .duration = 600 * kRunMs};
  const auto run = RunLoad(target, 1, load, nullptr);
  ASSERT_TRUE(run.ok()) << run.status();
  const Measurement measured = Measure({load, 0, 0}, *run);
  EXPECT_EQ(measured.requests, 60);
  EXPECT_GE(measured.lag.max, 280);
  EXPECT_GE(measured.latency.at(0.9).value, 150) << "30 of 60 calls came due meanwhile";
}

// An engine's clock does not follow the steps of the system's, which a long sweep may see.
TEST(RunTest, DeadlinesAreOfTheTargetsClock) {
  FakeTarget target;
  target.clock_ahead = -absl::Hours(1);
  const LoadOptions load{.warm_up = {}, .duration = 20 * kRunMs, .deadline = absl::Seconds(5)};
  ASSERT_TRUE(RunLoad(target, 1, load, nullptr).ok());
  EXPECT_LE(target.longest, load.deadline);
  EXPECT_GT(target.longest, load.deadline / 2);
}

TEST(RunTest, MoreRequestsThanAreKeptEndARun) {
  FakeTarget closed;
  const absl::StatusOr<RunResult> result =
      RunLoad(closed, 1, {.batch = 2, .warm_up = {}, .duration = absl::Seconds(20), .max_requests = 7}, nullptr);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(result.status().message().find("more than 7 requests"), std::string::npos) << result.status();
  EXPECT_EQ(closed.sends, 3);
  EXPECT_EQ(closed.open.load(), 0) << "what was sent was waited for";
  FakeTarget open;
  EXPECT_EQ(RunLoad(open, 1, {.rate = 100, .warm_up = {}, .duration = kRunMs * 100, .max_requests = 9}, nullptr)
                .status()
                .code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(open.sends, 0);
}

TEST(RunTest, AClosedLoopKeepsItsConcurrency) {
  FakeTarget target;
  const LoadOptions load{.concurrency = 3, .batch = 2, .warm_up = 500 * kRunMs, .duration = 1000 * kRunMs};
  const auto run = RunLoad(target, 5, load, nullptr);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(target.most_open.load(), 3);
  EXPECT_EQ(run->samples.size(), 2u * target.sends);
  for (size_t i = 0; i < run->samples.size(); ++i) EXPECT_EQ(run->samples[i].request, static_cast<int>(i % 5));
  EXPECT_EQ(run->begin, 500 * kRunMs);
  EXPECT_EQ(run->end, 1500 * kRunMs);
  const Measurement measured = Measure({load, 0, 0}, *run);
  const auto due_while_measured = std::count_if(run->samples.begin(), run->samples.end(), [&](const Sample& sample) {
    return sample.due >= run->begin && sample.due < run->end;
  });
  EXPECT_GT(due_while_measured, 0);
  EXPECT_LT(due_while_measured, std::ssize(run->samples));
  EXPECT_EQ(measured.requests, due_while_measured) << "the warm-up does not count";
  EXPECT_EQ(measured.answered, due_while_measured);
}

TEST(RunTest, AClosedLoopDoesNotSpinOnATargetThatIsGone) {
  FakeTarget target;
  target.service = std::chrono::microseconds(0);
  target.answer = [](int) { return Answer{.status = absl::UnavailableError("nobody")}; };
  const auto result = RunLoad(
      target, 1, {.concurrency = 2, .warm_up = absl::ZeroDuration(), .duration = absl::Milliseconds(200)}, nullptr);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GE(target.sends, 2);
  EXPECT_LE(target.sends, 2 * 20 + 2);
}

TEST(RunTest, OutcomesAreToldApart) {
  FakeTarget target;
  target.service = std::chrono::microseconds(0);
  target.answer = [](int call) {
    Answer answer;
    answer.timings = {.queue = kRunMs, .encode = 2 * kRunMs, .decode = 3 * kRunMs, .resolve = kRunMs};
    answer.timings.encode_requests = 4;
    answer.timings.decode_requests = 2;
    answer.beams = call % 2 ? 32 : 16;
    answer.narrowing = call % 2 ? 0 : 1;
    if (call % 10 == 1) answer.status = absl::ResourceExhaustedError("");
    if (call % 10 == 3) answer.status = absl::DeadlineExceededError("");
    if (call % 10 == 5) answer.status = absl::InternalError("broken");
    return answer;
  };
  const LoadOptions load{.rate = 500,
                         .arrivals = Arrivals::kConstant,
                         .warm_up = absl::ZeroDuration(),
                         .duration = 200 * kRunMs,
                         .deadline = absl::Hours(1)};
  const auto run = RunLoad(target, 1, load, nullptr);
  ASSERT_TRUE(run.ok()) << run.status();
  const Measurement measured = Measure({load, 0, 0}, *run);
  EXPECT_EQ(measured.requests, 100);
  EXPECT_EQ(measured.refused, 10);
  EXPECT_EQ(measured.expired, 10);
  EXPECT_EQ(measured.failed, 10);
  EXPECT_EQ(measured.failure, "INTERNAL: broken");
  EXPECT_EQ(measured.answered, 70);
  EXPECT_EQ(measured.late, 0);
  const auto in_time = std::count_if(run->samples.begin(), run->samples.end(), [&](const Sample& sample) {
    return sample.answer.status.ok() && sample.answered < run->end;
  });
  EXPECT_DOUBLE_EQ(measured.throughput, static_cast<double>(in_time) / 0.2) << "350, but for those that come too late";
  EXPECT_EQ(measured.refusal.count, 10);
  EXPECT_EQ(measured.decode.at(0.5).value, 3);
  EXPECT_EQ(measured.narrowing, (std::map<int, int64_t>{{0, 20}, {1, 50}}));
  EXPECT_EQ(measured.beams, (std::map<int, int64_t>{{16, 50}, {32, 20}}));
  ASSERT_TRUE(measured.cpu.has_value());
  EXPECT_DOUBLE_EQ(*measured.cpu, 1000.0 / 70) << "a second of the fake's CPU";
  EXPECT_DOUBLE_EQ(*measured.cpu_overhead, 1000.0 / 70 - (2.0 / 4 + 3.0 / 2)) << "less its share of the batches";
}

TEST(RunTest, AnAnswerAfterTheDeadlineIsNoGoodput) {
  FakeTarget target;
  target.service = std::chrono::milliseconds(5);
  const LoadOptions load{
      .concurrency = 1, .warm_up = absl::ZeroDuration(), .duration = 500 * kRunMs, .deadline = kRunMs};
  const auto run = RunLoad(target, 1, load, nullptr);
  ASSERT_TRUE(run.ok()) << run.status();
  const Measurement measured = Measure({load, 0, 0}, *run);
  EXPECT_GT(measured.answered, 0);
  EXPECT_EQ(measured.late, measured.answered);
  EXPECT_EQ(measured.goodput, 0);
}

TEST(RunTest, ThroughputIsOfTheAnswersThatCameWhileMeasured) {
  const LoadOptions load{.warm_up = 100 * kRunMs, .duration = 200 * kRunMs, .deadline = 150 * kRunMs};
  RunResult run{.begin = 100 * kRunMs, .end = 300 * kRunMs};
  const auto add = [&](int due, int answered) {
    run.samples.push_back({due * kRunMs, due * kRunMs, answered * kRunMs, std::ssize(run.samples)});
  };
  add(0, 50);     // all of it in the warm-up
  add(50, 120);   // due in the warm-up, answered behind it
  add(60, 220);   // the same, late
  add(150, 200);  // all of it while measured
  add(250, 300);  // due while measured, answered too late for that
  const Measurement measured = Measure({load, 0, 0}, run);
  EXPECT_EQ(measured.answered, 2) << "due while measured";
  EXPECT_DOUBLE_EQ(measured.throughput, 15) << "three in 200 ms";
  EXPECT_DOUBLE_EQ(measured.goodput, 10);
}

TEST(RunTest, ACallOfManyRequestsIsOneObservationOfLatency) {
  FakeTarget target;
  target.answer = [](int call) {
    Answer answer;
    if (call % 4 == 3) answer.status = absl::ResourceExhaustedError("");
    return answer;
  };
  const LoadOptions load{.rate = 200,
                         .arrivals = Arrivals::kConstant,
                         .batch = 50,
                         .warm_up = absl::ZeroDuration(),
                         .duration = 100 * kRunMs};
  const auto run = RunLoad(target, 1, load, nullptr);
  ASSERT_TRUE(run.ok()) << run.status();
  const Measurement measured = Measure({load, 0, 0}, *run);
  EXPECT_EQ(measured.requests, 1000);
  EXPECT_EQ(measured.answered, 750);
  EXPECT_EQ(measured.lag.count, 20);
  EXPECT_EQ(measured.latency.count, 15);
  EXPECT_EQ(measured.refusal.count, 5);
}

TEST(RunTest, WhereNobodySaysWhoSharedABatchThereIsNoShareOfIt) {
  FakeTarget target;
  target.service = std::chrono::microseconds(0);
  target.answer = [](int call) {
    Answer answer;
    answer.timings = {.decode = 3 * kRunMs};
    answer.timings.decode_requests = call % 10 ? 1 : 0;
    return answer;
  };
  const LoadOptions load{
      .rate = 500, .arrivals = Arrivals::kConstant, .warm_up = absl::ZeroDuration(), .duration = 40 * kRunMs};
  const auto run = RunLoad(target, 1, load, nullptr);
  ASSERT_TRUE(run.ok()) << run.status();
  const Measurement measured = Measure({load, 0, 0}, *run);
  EXPECT_EQ(measured.answered, 20);
  EXPECT_TRUE(measured.cpu.has_value());
  EXPECT_FALSE(measured.cpu_overhead.has_value());
}

TEST(RunTest, ClassesAreMeasuredApart) {
  FakeTarget target;
  target.answer = [](int call) {
    Answer answer;
    if (call % 2) answer.status = absl::ResourceExhaustedError("");
    return answer;
  };
  const LoadOptions load{
      .rate = 400, .arrivals = Arrivals::kConstant, .warm_up = absl::ZeroDuration(), .duration = 100 * kRunMs};
  const auto run = RunLoad(target, 2, load, nullptr);
  ASSERT_TRUE(run.ok()) << run.status();
  const std::vector<Priority> priorities = {Priority::kCritical, Priority::kSheddable};
  const Measurement critical = MeasureClass({load, 0, 0}, *run, priorities, Priority::kCritical);
  const Measurement sheddable = MeasureClass({load, 0, 0}, *run, priorities, Priority::kSheddable);
  EXPECT_EQ(critical.answered, 20);
  EXPECT_EQ(critical.refused, 0);
  EXPECT_EQ(sheddable.answered, 0);
  EXPECT_EQ(sheddable.refused, 20);
  EXPECT_TRUE(Measure({load, 0, 0}, *run).cpu.has_value());
  EXPECT_FALSE(critical.cpu.has_value()) << "the process has one clock for all classes";
}

TEST(RunTest, CtrlCEndsARunAndWaitsForWhatIsOpen) {
  FakeTarget target;
  target.answer = [](int call) {
    if (call == 3) SetInterrupted(true);
    return Answer{};
  };
  const auto run = RunLoad(target, 1, {.rate = 100, .duration = absl::Hours(1)}, nullptr);
  SetInterrupted(false);
  EXPECT_EQ(run.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(target.open.load(), 0);
}

}  // namespace
}  // namespace beamline::loadgen
