// SPDX-License-Identifier: Apache-2.0
//
// The mechanism with its threads, under random submits, cancels, deadlines and drains: every job ends exactly once, and
// ThreadSanitizer watches.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <tuple>
#include <vector>

#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread_role.h"
#include "gtest/gtest.h"
#include "scheduler/fake_executor.h"
#include "scheduler/scheduler.h"
#include "testing/eventually.h"

namespace beamline::scheduler {
namespace {

using testing::Eventually;

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

// By the number of workers, and whether the executor chains.
class ThreadsTest : public ::testing::TestWithParam<std::tuple<int, bool>> {
 protected:
  ThreadsTest() {
    std::tie(executor_.concurrency, executor_.chain) = GetParam();
    executor_.encode_cost = [](int64_t, int64_t, int64_t) { return absl::Microseconds(100); };
    executor_.step_cost = [](int64_t, int64_t, int64_t) { return absl::Microseconds(100); };
    options_.workers = executor_.concurrency;
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

// Admission refuses who will not make it after the batch that runs, so a deadline that shall pass in the queue has to
// be far enough away at first: how far, only the time that this thread needs to say so tells. Returns the accepted
// job's.
std::unique_ptr<Tally> SubmitToExpire(const std::function<void(absl::Duration, Tally&)>& submit) {
  for (absl::Duration patience = absl::Milliseconds(20);; patience *= 2) {
    auto tally = std::make_unique<Tally>();
    submit(patience, *tally);
    if (tally->ended.load() == 0) return tally;
  }
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
  Tally long_one, cancelled;
  std::mt19937_64 random(1);
  Scheduler scheduler({.workers = 1}, &executor, &clock);
  const auto submit = [&](absl::Time deadline, Tally& tally) {
    auto job = RandomJob(random, clock, tally);
    job->deadline = deadline;
    job->encode_status = job->decode_status = absl::OkStatus();
    return scheduler.Submit(std::move(job));
  };
  submit(absl::InfiniteFuture(), long_one);
  EXPECT_TRUE(Eventually([&] { return started.load(); }));
  const auto swept =
      SubmitToExpire([&](absl::Duration patience, Tally& tally) { submit(clock.Now() + patience, tally); });
  scheduler.Cancel(submit(absl::InfiniteFuture(), cancelled));
  EXPECT_TRUE(Eventually([&] { return swept->ended.load() == 1 && cancelled.ended.load() == 1; }));
  EXPECT_EQ(swept->expired.load(), 1);
  EXPECT_EQ(cancelled.cancelled.load(), 1);
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
  const auto await = [](const std::atomic<bool>& flag) { EXPECT_TRUE(Eventually([&] { return flag.load(); })); };
  executor.encode_cost = [&](int64_t, int64_t, int64_t) {
    encoding.store(true);
    await(go_on);
    return absl::ZeroDuration();
  };
  executor.before_step = [&](int) { await(release); };
  Tally first, urgent;
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
  const auto await_end = [](const Tally& tally) { EXPECT_TRUE(Eventually([&] { return tally.ended.load() > 0; })); };
  submit(Priority::kDefault, clock.Now() + absl::Seconds(1), /*cached=*/false, 1, first);
  await(encoding);
  const auto swept = SubmitToExpire([&](absl::Duration patience, Tally& tally) {
    submit(Priority::kDefault, clock.Now() + patience, /*cached=*/true, 1, tally);
  });
  await_end(*swept);
  submit(Priority::kCritical, absl::InfiniteFuture(), /*cached=*/true, 2, urgent);  // is decoded first, for long
  go_on.store(true);
  await_end(first);
  EXPECT_EQ(swept->expired.load(), 1);
  EXPECT_EQ(first.expired.load(), 1);
  EXPECT_EQ(urgent.ended.load(), 0);
  release.store(true);
  EXPECT_TRUE(scheduler.Drain(absl::InfiniteFuture()));
  EXPECT_EQ(urgent.ok.load(), 1);
}

// Two workers, and a queue delay that no test lives to see the end of.
class CompanyTest : public ::testing::Test {
 protected:
  CompanyTest() {
    executor_.concurrency = 2;
    executor_.encode_cost = [](int64_t, int64_t, int64_t) { return absl::ZeroDuration(); };
    executor_.before_step = [this](int) {
      decoding_.store(true);
      EXPECT_TRUE(Eventually([this] { return release_.load(); }));
    };
    SchedulerOptions options{.workers = 2};
    options.limits.max_queue_delay = absl::Minutes(10);
    scheduler_ = std::make_unique<Scheduler>(options, &executor_, &clock_);
  }
  static std::unique_ptr<FakeJob> Make(Tally& tally) {
    auto job = std::make_unique<FakeJob>();
    job->done = [&tally](absl::Status status, Job&) { tally.Count(status); };
    return job;
  }
  static bool Ends(const Tally& tally) {
    return Eventually([&] { return tally.ended.load() > 0; });
  }

  RealClock clock_;
  FakeExecutor executor_{&clock_, nullptr};
  std::atomic<bool> decoding_{false}, release_{false};
  Tally first_, second_;
  std::unique_ptr<Scheduler> scheduler_;
};

TEST_F(CompanyTest, AFreeWorkerWaitsWhileTheOtherExecutesAndNotForItsCallbacks) {
  auto first = Make(first_);
  first->done = [this](absl::Status status, Job&) {
    EXPECT_TRUE(Ends(second_));
    first_.Count(status);
  };
  scheduler_->Submit(std::move(first));
  ASSERT_TRUE(Eventually([&] { return decoding_.load(); }));
  scheduler_->Submit(Make(second_));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(scheduler_->stats().executing, 1);
  EXPECT_EQ(scheduler_->stats().queued, 1);
  release_.store(true);
  EXPECT_TRUE(Ends(first_));
}

TEST_F(CompanyTest, ARefusalOfTheLastWakesWhoWaits) {
  release_.store(true);
  auto first = Make(first_), refused = Make(second_);
  first->company = refused->company = std::make_shared<Company>(2);
  refused->deadline = absl::InfinitePast();
  scheduler_->Submit(std::move(first));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(scheduler_->stats().queued, 1);
  scheduler_->Submit(std::move(refused));
  EXPECT_TRUE(Ends(second_) && Ends(first_));
  EXPECT_EQ(first_.ok.load(), 1);
}

TEST_F(CompanyTest, WhoWaitsIsToldThatTheLastDoesNotCome) {
  release_.store(true);
  auto first = Make(first_);
  const auto company = first->company = std::make_shared<Company>(2);
  scheduler_->Submit(std::move(first));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(scheduler_->stats().queued, 1);
  scheduler_->Leave(*company);
  EXPECT_TRUE(Ends(first_));
}

// Sixteen at once, one to a batch, with real threads: between two batches there is nothing to wait for. On a busy
// machine the worker is preempted in some of the gaps; what the scheduler adds would be in all of them.
TEST(GapTest, SinglesFollowEachOtherAtOnce) {
  RealClock clock;
  FakeExecutor executor(&clock, nullptr);
  executor.encode_cost = executor.step_cost = [](int64_t, int64_t, int64_t) { return absl::Milliseconds(1); };
  SchedulerOptions options{.workers = 1};
  options.limits.max_requests = 1;
  options.limits.max_queue_delay = absl::Seconds(1);  // a full batch waits for nobody
  Scheduler scheduler(options, &executor, &clock);
  std::vector<absl::Duration> before_encode, before_decode;
  absl::Time last_ended = absl::InfinitePast();
  std::atomic<int> ended{0};
  for (int i = 0; i < 16; ++i) {
    auto job = std::make_unique<FakeJob>();
    job->done = [&](absl::Status status, Job& done) {  // one worker: one at a time
      EXPECT_TRUE(status.ok()) << status;
      if (last_ended != absl::InfinitePast()) before_encode.push_back(done.encode_started - last_ended);
      before_decode.push_back(done.decode_started - done.encode_ended);
      last_ended = done.decode_ended;
      ended.fetch_add(1);
    };
    scheduler.Submit(std::move(job));
  }
  EXPECT_TRUE(scheduler.Drain(absl::InfiniteFuture()));
  EXPECT_EQ(ended.load(), 16);
  ASSERT_EQ(before_encode.size(), 15u);
  ASSERT_EQ(before_decode.size(), 16u);
  for (std::vector<absl::Duration>* gaps : {&before_encode, &before_decode}) {
    std::nth_element(gaps->begin(), gaps->begin() + 7, gaps->end());
    EXPECT_LE((*gaps)[7], absl::Milliseconds(10)) << "half of them took longer";
  }
}

INSTANTIATE_TEST_SUITE_P(Workers, ThreadsTest, ::testing::Combine(::testing::Values(1, 3), ::testing::Bool()));

}  // namespace
}  // namespace beamline::scheduler
