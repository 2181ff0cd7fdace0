// SPDX-License-Identifier: Apache-2.0
//
// The mechanism with its threads, under random submits, cancels, deadlines and drains: every job ends exactly once, and
// ThreadSanitizer watches.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread_role.h"
#include "gtest/gtest.h"
#include "scheduler/fake_executor.h"
#include "scheduler/scheduler.h"

namespace beamline::scheduler {
namespace {

struct Tally {
  std::atomic<int64_t> ended{0}, ok{0}, cancelled{0}, expired{0}, rejected{0}, unavailable{0}, other{0}, twice{0};

  void Count(const absl::Status& status) {
    switch (status.code()) {
      case absl::StatusCode::kOk:
        ok.fetch_add(1);
        break;
      case absl::StatusCode::kCancelled:
        cancelled.fetch_add(1);
        break;
      case absl::StatusCode::kDeadlineExceeded:
        expired.fetch_add(1);
        break;
      case absl::StatusCode::kResourceExhausted:
        rejected.fetch_add(1);
        break;
      case absl::StatusCode::kUnavailable:
        unavailable.fetch_add(1);
        break;
      default:
        other.fetch_add(1);
    }
    ended.fetch_add(1);  // last: whoever sees the end sees its kind
  }
};

std::unique_ptr<FakeJob> RandomJob(std::mt19937_64& random, const Clock& clock, Tally& tally) {
  auto job = std::make_unique<FakeJob>();
  job->priority = static_cast<Priority>(random() % 3);
  job->beam_rows = 1 + random() % 600;
  job->context_tokens = random() % 300;
  job->cached = random() % 4 == 0;
  if (random() % 2) job->deadline = clock.Now() + absl::Microseconds(static_cast<int64_t>(random() % 20'000) - 500);
  if (random() % 20 == 0) job->encode_status = absl::InternalError("encode");
  if (random() % 20 == 0) job->decode_status = absl::InternalError("decode");
  auto once = std::make_shared<std::atomic<int>>(0);
  job->done = [&tally, once](absl::Status status, Job&) {
    if (once->fetch_add(1) != 0) tally.twice.fetch_add(1);
    tally.Count(status);
  };
  return job;
}

class ThreadsTest : public ::testing::TestWithParam<int> {
 protected:
  ThreadsTest() {
    executor_.concurrency = GetParam();
    executor_.encode_cost = [](int64_t, int64_t, int64_t) { return absl::Microseconds(100); };
    executor_.step_cost = [](int64_t, int64_t, int64_t) { return absl::Microseconds(100); };
    options_.workers = GetParam();
    options_.queue_capacity = 64;
    options_.limits.max_queue_delay = absl::Microseconds(200);
  }
  RealClock clock_;
  FakeExecutor executor_{&clock_, nullptr};
  SchedulerOptions options_;
};

TEST_P(ThreadsTest, EveryJobEndsExactlyOnce) {
  constexpr int kSubmitters = 4, kJobs = 400;
  Tally tally;
  {
    Scheduler scheduler(options_, &executor_, &clock_);
    std::vector<std::thread> submitters;
    for (int t = 0; t < kSubmitters; ++t) {
      submitters.emplace_back([&, t] {
        std::mt19937_64 random(100 + t);
        std::vector<Scheduler::JobId> ids;
        for (int i = 0; i < kJobs; ++i) {
          ids.push_back(scheduler.Submit(RandomJob(random, clock_, tally)));
          if (random() % 3 == 0) scheduler.Cancel(ids[random() % ids.size()]);
          if (random() % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 1500));
          EXPECT_GE(scheduler.stats().in_flight, 0);
        }
      });
    }
    for (std::thread& submitter : submitters) submitter.join();
    EXPECT_TRUE(scheduler.Drain(absl::InfiniteFuture()));
    const SchedulerStats stats = scheduler.stats();
    EXPECT_EQ(stats.in_flight, 0);
    EXPECT_EQ(stats.queued, 0);
    EXPECT_EQ(stats.executing, 0);
    EXPECT_EQ(static_cast<int64_t>(stats.completed), tally.ok.load());
    EXPECT_EQ(static_cast<int64_t>(stats.cancelled), tally.cancelled.load());
  }
  EXPECT_EQ(tally.ended.load(), kSubmitters * kJobs);
  EXPECT_EQ(tally.twice.load(), 0);
  EXPECT_EQ(tally.unavailable.load(), 0);
  EXPECT_GT(tally.ok.load(), 0);
}

TEST_P(ThreadsTest, DrainCutsOffAndStillEndsEveryJob) {
  for (int round = 0; round < 10; ++round) {
    Tally tally;
    std::atomic<int64_t> submitted{0};
    std::atomic<bool> stop{false};
    Scheduler scheduler(options_, &executor_, &clock_);
    std::thread submitter([&] {
      std::mt19937_64 random(round);
      while (!stop.load()) {
        scheduler.Submit(RandomJob(random, clock_, tally));
        submitted.fetch_add(1);
        std::this_thread::sleep_for(std::chrono::microseconds(20));
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    scheduler.Drain(clock_.Now() + absl::Microseconds(300));
    EXPECT_EQ(scheduler.stats().in_flight, 0);
    stop.store(true);
    submitter.join();
    EXPECT_EQ(tally.ended.load(), submitted.load());
    EXPECT_EQ(tally.twice.load(), 0);
  }
}

int OwnNice() { return getpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid))); }

// At which a worker decodes for an executor that computes here, or on a GPU.
int NiceOfWorker(bool on_host) {
  RealClock clock;
  FakeExecutor executor(&clock, nullptr);
  executor.on_host = on_host;
  std::atomic<int> nice{-100};
  executor.before_step = [&nice](int) { nice.store(OwnNice()); };
  Tally tally;
  Scheduler scheduler({.workers = 1}, &executor, &clock);
  auto job = std::make_unique<FakeJob>();
  job->beam_rows = 1;
  job->done = [&tally](absl::Status status, Job&) { tally.Count(status); };
  scheduler.Submit(std::move(job));
  scheduler.Drain(absl::InfiniteFuture());
  EXPECT_EQ(tally.ok.load(), 1);
  return nice.load();
}

// In a process of its own: who has said that a process answers cannot take it back.
TEST(WorkerRole, WhoFeedsAGpuKeepsItsWeight) {
  const int usual = OwnNice();
  if (usual >= 7) GTEST_SKIP() << "the tests run at nice " << usual;
  const pid_t child = fork();
  if (child == 0) {
    TakeRole(ThreadRole::kAnswers);
    EXPECT_EQ(NiceOfWorker(false), usual);
    EXPECT_EQ(NiceOfWorker(true), 7);
    std::fflush(nullptr);
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int ended = 0;
  ASSERT_EQ(waitpid(child, &ended, 0), child);
  EXPECT_EQ(ended, 0);
}

// The sweeper ends a waiting job while the only worker is busy with a long batch.
TEST(SweeperTest, DeadlinesAndCancelsDoNotWaitForAWorker) {
  RealClock clock;
  FakeExecutor executor(&clock, nullptr);
  std::atomic<bool> release{false};
  std::atomic<bool> started{false};
  executor.before_step = [&](int) {
    started.store(true);
    while (!release.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  Tally long_one, short_ones;
  std::mt19937_64 random(1);
  Scheduler scheduler({.workers = 1}, &executor, &clock);
  const auto submit = [&](absl::Time deadline, Tally& tally) {
    auto job = RandomJob(random, clock, tally);
    job->deadline = deadline;
    job->encode_status = job->decode_status = absl::OkStatus();
    return scheduler.Submit(std::move(job));
  };
  submit(absl::InfiniteFuture(), long_one);
  while (!started.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  // Far enough for admission, which has just measured an encode on a machine that may be busy.
  submit(clock.Now() + absl::Milliseconds(500), short_ones);
  scheduler.Cancel(submit(absl::InfiniteFuture(), short_ones));
  for (int i = 0; i < 5000 && short_ones.ended.load() < 2; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(short_ones.expired.load(), 1);
  EXPECT_EQ(short_ones.cancelled.load(), 1);
  EXPECT_EQ(long_one.ended.load(), 0);
  release.store(true);
  EXPECT_TRUE(scheduler.Drain(absl::InfiniteFuture()));
  EXPECT_EQ(long_one.ok.load(), 1);
}

// As above, for a job that was being encoded when the sweeper last looked.
TEST(SweeperTest, AJobThatComesBackFromEncodeDoesNotWaitForAWorker) {
  RealClock clock;
  FakeExecutor executor(&clock, nullptr);
  std::atomic<bool> encoding{false}, go_on{false}, release{false};
  const auto await = [](const std::atomic<bool>& flag) {
    for (int i = 0; i < 5000 && !flag.load(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  executor.encode_cost = [&](int64_t, int64_t, int64_t) {
    encoding.store(true);
    await(go_on);
    return absl::ZeroDuration();
  };
  executor.before_step = [&](int) { await(release); };
  Tally first, swept, urgent;
  SchedulerOptions options{.workers = 1};
  options.limits.max_queue_delay = absl::ZeroDuration();
  Scheduler scheduler(options, &executor, &clock);
  const auto submit = [&](Priority priority, absl::Time deadline, bool cached, uint64_t group, Tally& tally) {
    auto job = std::make_unique<FakeJob>();
    job->priority = priority;
    job->deadline = deadline;
    job->cached = cached;
    job->batch_group = group;
    job->done = [&tally](absl::Status status, Job&) { tally.Count(status); };
    scheduler.Submit(std::move(job));
  };
  const auto await_end = [](const Tally& tally) {
    for (int i = 0; i < 5000 && tally.ended.load() == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  submit(Priority::kDefault, clock.Now() + absl::Seconds(1), /*cached=*/false, 1, first);
  await(encoding);
  submit(Priority::kDefault, clock.Now() + absl::Milliseconds(20), /*cached=*/true, 1, swept);
  await_end(swept);
  submit(Priority::kCritical, absl::InfiniteFuture(), /*cached=*/true, 2, urgent);  // is decoded first, for long
  go_on.store(true);
  await_end(first);
  EXPECT_EQ(swept.expired.load(), 1);
  EXPECT_EQ(first.expired.load(), 1);
  EXPECT_EQ(urgent.ended.load(), 0);
  release.store(true);
  EXPECT_TRUE(scheduler.Drain(absl::InfiniteFuture()));
  EXPECT_EQ(urgent.ok.load(), 1);
}

// Sixteen at once, one to a batch, with real threads: what the scheduler adds to the executor's own time is little,
// even on a busy machine. The executor tells how long its batches took, so that their preemption does not count.
TEST(GapTest, SinglesFollowEachOtherAtOnce) {
  RealClock clock;
  FakeExecutor executor(&clock, nullptr);
  executor.encode_cost = executor.step_cost = [](int64_t, int64_t, int64_t) { return absl::Milliseconds(1); };
  SchedulerOptions options{.workers = 1};
  options.limits.max_requests = 1;
  options.limits.max_queue_delay = absl::Seconds(1);  // a full batch waits for nobody
  Scheduler scheduler(options, &executor, &clock);
  absl::Duration executing;
  std::atomic<int> ended{0};
  const absl::Time begin = clock.Now();
  for (int i = 0; i < 16; ++i) {
    auto job = std::make_unique<FakeJob>();
    job->done = [&](absl::Status status, Job& done) {  // one worker: one at a time
      EXPECT_TRUE(status.ok()) << status;
      executing += (done.encode_ended - done.encode_started) + (done.decode_ended - done.decode_started);
      ended.fetch_add(1);
    };
    scheduler.Submit(std::move(job));
  }
  EXPECT_TRUE(scheduler.Drain(absl::InfiniteFuture()));
  const absl::Duration took = clock.Now() - begin;
  EXPECT_EQ(ended.load(), 16);
  EXPECT_GE(executing, absl::Milliseconds(16 * 4));
  EXPECT_LE(took - executing, absl::Milliseconds(500)) << "32 batches, between them nothing to wait for";
}

INSTANTIATE_TEST_SUITE_P(Workers, ThreadsTest, ::testing::Values(1, 3));

}  // namespace
}  // namespace beamline::scheduler
