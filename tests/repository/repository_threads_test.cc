// SPDX-License-Identifier: Apache-2.0
//
// The repository with its thread, for ThreadSanitizer: requests hold handles while versions are loaded, refused, rolled
// back and freed beneath them.
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <sched.h>

#include "gtest/gtest.h"
#include "repository/fake_loader.h"
#include "repository/model_repository.h"
#include "testing/eventually.h"

namespace beamline::repository {
namespace {

using testing::Eventually;  // the repository's thread works in the time that others leave

struct Readers {
  explicit Readers(ModelRepository* repository) {
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([this, repository] {
        while (!stop) {
          const ModelHandle handle = repository->current();
          const std::string version = handle->version();
          std::this_thread::sleep_for(std::chrono::microseconds(50));
          if (handle->version() != version || !static_cast<const FakeModel&>(*handle).usable) ++wrong;
          ++reads;
        }
      });
    }
  }
  ~Readers() { Join(); }
  void Join() {
    stop = true;
    for (std::thread& thread : threads) {
      if (thread.joinable()) thread.join();
    }
  }
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, reads{0};
  std::vector<std::thread> threads;
};

TEST(RepositoryThreadsTest, ReloadsAndRollbacksRaceWithRequests) {
  // Three readers hold at most one each besides the served, the standby and the one being loaded.
  constexpr int kMostAtOnce = 6;
  const auto folder = TestFolder();
  FakeCounts counts;
  std::atomic<int> ended{0}, ok{0};
  {
    auto started = ModelRepository::Start({.bundle = WriteBundle(folder / "first", "first"), .max_waiting = 1000},
                                          std::make_unique<FakeLoader>(&counts), std::make_shared<RealClock>());
    ASSERT_TRUE(started.ok()) << started.status();
    const std::unique_ptr<ModelRepository> repository = *std::move(started);
    Readers readers(repository.get());
    std::vector<std::string> bundles;
    for (const char* text : {"a", "b", "broken", "c", "cold", "d"}) bundles.push_back(WriteBundle(folder / text, text));
    std::vector<std::thread> operators;
    for (int t = 0; t < 3; ++t) {
      operators.emplace_back([&, t] {
        for (int i = 0; i < 100; ++i) {
          const auto done = [&](const absl::StatusOr<VersionStatus>& result) {
            ++ended;
            if (result.ok()) ++ok;
          };
          if ((i + t) % 4 == 3) {
            repository->Rollback(done);
          } else {
            repository->Reload(bundles[(i * 7 + t) % bundles.size()], done);
          }
          EXPECT_LE(repository->stats().loaded, kMostAtOnce);
          EXPECT_FALSE(repository->versions().empty());
        }
      });
    }
    for (std::thread& thread : operators) thread.join();
    EXPECT_TRUE(Eventually([&] { return ended == 300; })) << ended;
    EXPECT_GT(ok, 50);
    readers.Join();
    EXPECT_EQ(readers.wrong, 0);
    EXPECT_GT(readers.reads, 0);
    EXPECT_TRUE(Eventually([&] { return counts.alive <= 2; })) << counts.alive;
    EXPECT_LE(counts.most_alive, kMostAtOnce);
  }
  EXPECT_EQ(counts.alive, 0);
}

TEST(RepositoryThreadsTest, WatchesWhileRequestsRun) {
  const auto folder = TestFolder();
  FakeCounts counts;
  WriteBundle(folder / "1", "v1");
  auto repository = ModelRepository::Start({.folder = folder.string(), .poll_period = absl::Milliseconds(2)},
                                           std::make_unique<FakeLoader>(&counts), std::make_shared<RealClock>());
  ASSERT_TRUE(repository.ok()) << repository.status();
  Readers readers(repository->get());
  for (int version = 2; version <= 20; ++version) {
    const std::string text = absl::StrCat("v", version, version % 5 == 0 ? " broken" : "");
    WriteBundle(folder / std::to_string(version), text);
    const std::string expected = version % 5 == 0 ? absl::StrCat("v", version - 1) : text;
    ASSERT_TRUE(Eventually([&] { return (*repository)->current()->version() == expected; })) << expected;
  }
  readers.Join();
  EXPECT_EQ(readers.wrong, 0);
}

// On a core that it shares with them, a load would otherwise be waited for until its slice of time is over.
TEST(RepositoryThreadsTest, LoadsInTheTimeThatRequestsLeave) {
  const auto folder = TestFolder();
  FakeCounts counts;
  auto loader = std::make_unique<FakeLoader>(&counts);
  std::atomic<int> policy{-1}, of_helper{-1};
  loader->during_load = [&] {
    policy = sched_getscheduler(0);
    std::thread([&] { of_helper = sched_getscheduler(0); }).join();  // as libraries start them
  };
  const int own = sched_getscheduler(0);
  const auto repository = ModelRepository::Start({.bundle = WriteBundle(folder / "first", "first")}, std::move(loader),
                                                 std::make_shared<RealClock>());
  ASSERT_TRUE(repository.ok()) << repository.status();
  EXPECT_EQ(policy, own) << "nobody is served while the first version is loaded";
  std::atomic<bool> ended{false};
  (*repository)->Reload(WriteBundle(folder / "second", "second"), [&](const auto&) { ended = true; });
  ASSERT_TRUE(Eventually([&] { return ended.load(); }));
  EXPECT_EQ(policy, SCHED_IDLE);
  EXPECT_EQ(of_helper, SCHED_IDLE);
  EXPECT_EQ(sched_getscheduler(0), own);
}

TEST(RepositoryThreadsTest, StopsWhileLoading) {
  const auto folder = TestFolder();
  for (int round = 0; round < 20; ++round) {
    FakeCounts counts;
    auto loader = std::make_unique<FakeLoader>(&counts);
    loader->during_load = [&] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
    std::atomic<int> ended{0};
    {
      auto repository = ModelRepository::Start({.bundle = WriteBundle(folder / "a", "a")}, std::move(loader),
                                               std::make_shared<RealClock>());
      ASSERT_TRUE(repository.ok()) << repository.status();
      for (int i = 0; i < 5; ++i) {
        (*repository)->Reload(WriteBundle(folder / std::to_string(i), std::to_string(i)), [&](const auto&) {
          ++ended;
        });
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(round % 4));
    }
    EXPECT_EQ(ended, 5);
    EXPECT_EQ(counts.alive, 0);
  }
}

}  // namespace
}  // namespace beamline::repository
