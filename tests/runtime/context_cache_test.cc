// SPDX-License-Identifier: Apache-2.0
#include "runtime/context_cache.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace beamline::runtime {
namespace {

class SizedContext : public RequestContext {
 public:
  explicit SizedContext(int64_t bytes) : bytes_(bytes) {}
  int64_t bytes() const override { return bytes_; }

 private:
  int64_t bytes_;
};

std::shared_ptr<const RequestContext> Context(int64_t bytes) { return std::make_shared<SizedContext>(bytes); }

TEST(ContextCache, FindsByTheWholeKey) {
  ContextCache cache(1 << 20);
  const auto context = Context(100);
  cache.Insert({"user", "digest", "v1"}, context);
  EXPECT_EQ(cache.Find({"user", "digest", "v1"}), context);
  EXPECT_EQ(cache.Find({"user", "digest", "v2"}), nullptr);
  EXPECT_EQ(cache.Find({"user", "other", "v1"}), nullptr);
  EXPECT_EQ(cache.Find({"userd", "igest", "v1"}), nullptr);
  EXPECT_EQ(cache.stats().hits, 1);
  EXPECT_EQ(cache.stats().misses, 3);
}

TEST(ContextCache, DropsTheLeastRecentlyUsedWhenFull) {
  ContextCache cache(3500);  // three entries of 400 and their overhead
  for (const char* user : {"a", "b", "c"}) cache.Insert({user, "d", "v"}, Context(400));
  EXPECT_EQ(cache.stats().entries, 3);
  EXPECT_NE(cache.Find({"a", "d", "v"}), nullptr);  // now "b" is the oldest
  cache.Insert({"d", "d", "v"}, Context(400));
  EXPECT_EQ(cache.Find({"b", "d", "v"}), nullptr);
  EXPECT_NE(cache.Find({"a", "d", "v"}), nullptr);
  EXPECT_NE(cache.Find({"c", "d", "v"}), nullptr);
  EXPECT_NE(cache.Find({"d", "d", "v"}), nullptr);
  EXPECT_EQ(cache.stats().evictions, 1);
  EXPECT_LE(cache.stats().bytes, 3500);
}

TEST(ContextCache, AnEvictedContextLivesForAsLongAsSomebodyHoldsIt) {
  ContextCache cache(1000);
  cache.Insert({"a", "d", "v"}, Context(400));
  const auto held = cache.Find({"a", "d", "v"});
  cache.Insert({"b", "d", "v"}, Context(400));
  EXPECT_EQ(cache.Find({"a", "d", "v"}), nullptr);
  EXPECT_EQ(held->bytes(), 400);
}

TEST(ContextCache, ReplacesAndAccounts) {
  ContextCache cache(10'000);
  cache.Insert({"a", "d", "v"}, Context(400));
  const int64_t before = cache.stats().bytes;
  cache.Insert({"a", "d", "v"}, Context(500));
  EXPECT_EQ(cache.stats().bytes, before + 100);
  EXPECT_EQ(cache.stats().entries, 1);
  EXPECT_EQ(cache.Find({"a", "d", "v"})->bytes(), 500);
}

TEST(ContextCache, KeepsNothingLargerThanItself) {
  ContextCache off(0);
  off.Insert({"a", "d", "v"}, Context(1));
  EXPECT_EQ(off.Find({"a", "d", "v"}), nullptr);
  ContextCache small(2000);
  small.Insert({"a", "d", "v"}, Context(400));
  small.Insert({"b", "d", "v"}, Context(5000));
  EXPECT_NE(small.Find({"a", "d", "v"}), nullptr) << "a context that cannot fit evicts nobody";
  EXPECT_EQ(small.Find({"b", "d", "v"}), nullptr);
}

TEST(ContextCache, ManyThreads) {
  ContextCache cache(20'000);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      for (int i = 0; i < 2000; ++i) {
        const ContextKey key{absl::StrCat("user", (i * 7 + t) % 40), "d", "v"};
        if (const auto found = cache.Find(key)) {
          EXPECT_EQ(found->bytes(), 300);
        } else {
          cache.Insert(key, Context(300));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const ContextCacheStats stats = cache.stats();
  EXPECT_EQ(stats.hits + stats.misses, 8000);
  EXPECT_LE(stats.bytes, 20'000);
  EXPECT_GT(stats.evictions, 0);
}

}  // namespace
}  // namespace beamline::runtime
