// SPDX-License-Identifier: Apache-2.0
//
// Clock, thread pool, slices of threads, snapshot pointer and counters.
#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <system_error>
#include <thread>
#include <vector>

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/low_priority.h"
#include "base/metrics.h"
#include "base/snapshot_ptr.h"
#include "base/thread_pool.h"
#include "base/thread_role.h"
#include "gtest/gtest.h"
#include "testing/idle_policy.h"

namespace beamline {
namespace {

TEST(ClockTest, FakeClockMovesOnlyWhenTold) {
  FakeClock clock(absl::FromUnixSeconds(100));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(100));
  clock.Advance(absl::Milliseconds(1500));
  EXPECT_EQ(clock.Now(), absl::FromUnixMillis(101'500));
  clock.Set(absl::FromUnixSeconds(7));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(7));
  const absl::Time between = absl::FromUnixSeconds(8) + absl::Nanoseconds(1) / 4;
  clock.Set(between);
  EXPECT_GE(clock.Now(), between) << "who sets the time it waits for must not wait for ever";
}

TEST(ClockTest, RealClockAdvancesAndIsNearTheWallTime) {
  RealClock clock;
  const absl::Time first = clock.Now();
  EXPECT_LT(absl::AbsDuration(first - absl::Now()), absl::Seconds(10));
  absl::Time last = first;
  for (int i = 0; i < 1000; ++i) {
    const absl::Time now = clock.Now();
    EXPECT_GE(now, last);
    last = now;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_GE(clock.Now() - first, absl::Milliseconds(2));
}

TEST(ThreadPoolTest, NoThreadsRunsInlineInOrder) {
  ThreadPool pool(0);
  std::vector<int> order;
  for (int i = 0; i < 5; ++i) pool.Schedule([&order, i] { order.push_back(i); });
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST(ThreadPoolTest, DestructorRunsWhatWasScheduled) {
  std::atomic<int> ran{0};
  {
    ThreadPool pool(3);
    for (int i = 0; i < 1000; ++i) pool.Schedule([&ran] { ran.fetch_add(1); });
  }
  EXPECT_EQ(ran.load(), 1000);
}

TEST(ThreadPoolTest, AThreadThatCannotBeHadIsAnErrorAndNotTheEnd) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer reserves more addresses than the limit that stands for a full machine";
#endif
  const auto in_child = [] {
    const size_t stack = size_t{256} << 20;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack);
    pthread_setattr_default_np(&attributes);
    const rlimit room = {rlim_t{1} << 30, rlim_t{1} << 30};  // of addresses, for three such stacks at most
    setrlimit(RLIMIT_AS, &room);
    try {
      const ThreadPool pool(16);
    } catch (const std::system_error&) {
      _exit(0);
    }
    _exit(1);
  };
  EXPECT_EXIT(in_child(), ::testing::ExitedWithCode(0), "");
}

TEST(ThreadPoolTest, ParallelForCoversEveryIndexOnceOnTheSameRanges) {
  for (int threads : {0, 1, 4}) {
    ThreadPool pool(threads);
    for (int64_t n : {0, 1, 2, 63, 64, 65, 1000}) {
      for (int64_t grain : {1, 7, 64, 5000}) {
        std::vector<int> hits(n, 0);  // plain ints: a race here is a race in ParallelFor
        std::mutex mu;
        std::set<int64_t> begins;
        ParallelFor(&pool, n, grain, [&](int64_t begin, int64_t end) {
          ASSERT_LE(end - begin, grain);
          for (int64_t i = begin; i < end; ++i) ++hits[i];
          std::lock_guard lock(mu);
          begins.insert(begin);
        });
        for (int64_t i = 0; i < n; ++i) ASSERT_EQ(hits[i], 1) << i << " of " << n << ", grain " << grain;
        int64_t expected = 0;
        for (int64_t begin : begins) {
          EXPECT_EQ(begin, expected);
          expected += grain;
        }
      }
    }
  }
}

TEST(ThreadPoolTest, NestedLoopsDoNotDeadlock) {
  ThreadPool pool(2);
  std::atomic<int> inner{0};
  ParallelFor(&pool, 8, 1,
              [&](int64_t, int64_t) { ParallelFor(&pool, 8, 1, [&](int64_t, int64_t) { inner.fetch_add(1); }); });
  EXPECT_EQ(inner.load(), 64);
  ParallelFor(nullptr, 3, 1, [&](int64_t, int64_t) { inner.fetch_add(1); });
  EXPECT_EQ(inner.load(), 67);
}

struct Pair {
  int a = 0, b = 0;
};

TEST(SnapshotPtrTest, ReadersSeeWholeVersionsAndKeepWhatTheyHold) {
  SnapshotPtr<Pair> current(std::make_shared<Pair>(Pair{0, 0}));
  const std::shared_ptr<const Pair> held = current.Get();
  std::atomic<bool> stop{false};
  std::atomic<int> torn{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      int last = 0;
      while (!stop.load()) {
        const auto pair = current.Get();
        if (pair->a != pair->b || pair->a < last) torn.fetch_add(1);
        last = pair->a;
      }
    });
  }
  for (int version = 1; version <= 2000; ++version) {
    EXPECT_EQ(current.Swap(std::make_shared<Pair>(Pair{version, version}))->a, version - 1);
  }
  stop.store(true);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(torn.load(), 0);
  EXPECT_EQ(held->a, 0);
}

TEST(MetricsTest, CountsFromManyThreads) {
  Counter counter;
  Gauge gauge;
  ThreadPool pool(4);
  ParallelFor(&pool, 10'000, 10, [&](int64_t begin, int64_t end) {
    counter.Add(end - begin);
    gauge.Add(2);
    gauge.Add(-1);
  });
  EXPECT_EQ(counter.value(), 10'000u);
  EXPECT_EQ(gauge.value(), 1000);
}

// What the kernel says of a thread: its weight as "nice", and its own slice, 0 where it knows none (Linux before 6.12).
struct Turn {
  int32_t nice = 0;
  uint64_t slice = 0;
};
Turn OwnTurn() {
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } attributes{};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0) return {};
  return {attributes.nice, attributes.runtime};
}

// What threads get; in a process of its own, since who has said that a process answers cannot take it back.
void ExpectRoles(const Turn& usual) {
  Turn alone, answers, inherited, computes;
  std::thread([&] {
    TakeRole(ThreadRole::kComputes);
    alone = OwnTurn();
  }).join();
  EXPECT_EQ(alone.nice, usual.nice) << "nobody answers yet";
  std::thread([&] {
    TakeRole(ThreadRole::kAnswers);
    answers = OwnTurn();
    std::thread([&] {
      inherited = OwnTurn();
      TakeRole(ThreadRole::kComputes);
      computes = OwnTurn();
    }).join();
  }).join();
  EXPECT_EQ(answers.nice, usual.nice);
  EXPECT_EQ(computes.nice, 7);
  if (usual.slice == 0) return;
  EXPECT_EQ(answers.slice, 200'000u);
  EXPECT_EQ(inherited.slice, answers.slice);
  EXPECT_EQ(computes.slice, 3'000'000u);
}

TEST(LowPriority, IsOfTheThreadAndOfThoseItStarts) {
  if (!testing::MayBeIdle()) GTEST_SKIP() << "SCHED_IDLE is refused here";
  const int own = sched_getscheduler(0);
  int policy = -1, of_helper = -1;
  Turn turn;
  std::thread([&] {
    LowerPriority();
    policy = sched_getscheduler(0);
    turn = OwnTurn();
    std::thread([&] { of_helper = sched_getscheduler(0); }).join();
  }).join();
  EXPECT_EQ(policy, SCHED_IDLE);
  EXPECT_EQ(of_helper, SCHED_IDLE);
  EXPECT_EQ(turn.nice, 19);
  EXPECT_EQ(sched_getscheduler(0), own);
}

TEST(ThreadRole, WhoComputesGivesWayToWhoAnswers) {
  const Turn usual = OwnTurn();
  if (usual.nice > 0) GTEST_SKIP() << "the tests run at nice " << usual.nice;
  if (sched_getscheduler(0) != SCHED_OTHER) GTEST_SKIP() << "the tests run in a class of their own";
  const pid_t child = fork();
  if (child == 0) {
    ExpectRoles(usual);
    std::fflush(nullptr);
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int ended = 0;
  ASSERT_EQ(waitpid(child, &ended, 0), child);
  EXPECT_EQ(ended, 0);
  if (usual.slice == 0) GTEST_SKIP() << "weights are right; this kernel has no slices of a thread's own (6.12 has)";
}

}  // namespace
}  // namespace beamline
