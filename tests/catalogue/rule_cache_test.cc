// SPDX-License-Identifier: Apache-2.0
#include "catalogue/rule_cache.h"

#include <thread>

#include "catalogue/random_catalogue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::catalogue {
namespace {

std::vector<TagClause> Rule(const std::string& value) { return {{"region", {value}}}; }

TEST(CanonicalRule, ForgetsOrderAndRepetitionAlone) {
  using Values = std::vector<std::string>;
  const auto canonical = [](const std::vector<TagClause>& rule) { return CanonicalRule(rule); };
  EXPECT_EQ(canonical({{"region", Values{"b", "a"}}, {"age", Values{"c"}}}),
            canonical({{"age", Values{"c", "c"}}, {"region", Values{"a", "b"}}, {"age", Values{"c"}}}));
  EXPECT_NE(canonical({{"a", Values{"b"}}}), canonical({{"a", Values{}}, {"b", Values{}}}));
  EXPECT_NE(canonical({{"a", Values{"1:b"}}}), canonical({{"a", Values{"1", "b"}}}));
  EXPECT_NE(canonical({{"a", Values{}}}), canonical({}));
}

TEST(RuleCache, CompilesOnceAndEvictsTheLeastRecentlyUsed) {
  const RandomCatalogue random(1);
  RuleCache cache(random.snapshot, 2);
  EXPECT_EQ(*cache.Get({}), nullptr);
  const auto a = *cache.Get(Rule("a"));
  const auto b = *cache.Get(Rule("b"));
  EXPECT_EQ(*cache.Get(Rule("a")), a);
  EXPECT_EQ(cache.stats().bytes, a->bytes() + b->bytes());
  const auto c = *cache.Get(Rule("c"));  // drops b
  EXPECT_EQ(*cache.Get(Rule("a")), a);
  EXPECT_NE(*cache.Get(Rule("b")), b);  // drops c
  const RuleCacheStats stats = cache.stats();
  EXPECT_EQ(stats.rules, 2);
  EXPECT_EQ(stats.hits, 2);
  EXPECT_EQ(stats.misses, 4);
  EXPECT_EQ(stats.evictions, 2);
  EXPECT_EQ(stats.bytes, a->bytes() + b->bytes());
}

TEST(RuleCache, TellsItsRulesOldestFirst) {
  const RandomCatalogue random(1);
  RuleCache cache(random.snapshot, 2);
  for (const char* value : {"a", "b", "c", "b"}) ASSERT_TRUE(cache.Get(Rule(value)).ok());
  const auto rules = cache.rules();
  ASSERT_EQ(rules.size(), 2u);
  EXPECT_EQ(CanonicalRule(rules[0]), CanonicalRule(Rule("c")));
  EXPECT_EQ(CanonicalRule(rules[1]), CanonicalRule(Rule("b")));
}

TEST(RuleCache, ManyThreadsShareOneCompilation) {
  const RandomCatalogue random(2, 400);
  constexpr int kThreads = 8, kRules = 50;
  RuleCache cache(random.snapshot, kRules);
  std::vector<std::vector<std::shared_ptr<const CompiledRule>>> got(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int rule = 0; rule < kRules; ++rule) got[t].push_back(*cache.Get(Rule(std::string(rule, 'a'))));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(got, testing::Each(got[0])) << "one object of each rule";
  EXPECT_EQ(cache.stats().misses, static_cast<uint64_t>(kRules));
  EXPECT_EQ(cache.stats().evictions, 0u);
}

TEST(RuleCache, ManyThreadsGetTheirRulesThoughOthersDropThem) {
  const RandomCatalogue random(2, 400);
  RuleCache cache(random.snapshot, 3);
  std::vector<std::thread> threads;
  std::vector<int> wrong(8);
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        const std::vector<TagClause> rule = Rule(std::string(1, static_cast<char>('a' + (i * (t + 1)) % 5)));
        const auto shared = cache.Get(rule);
        const auto own = CompileRule(*random.snapshot, rule);
        wrong[t] += !shared.ok() || (*shared)->items.ones() != own->items.ones() || (*shared)->levels != own->levels;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, testing::Each(0));
  EXPECT_LE(cache.stats().rules, 3);
  EXPECT_EQ(cache.stats().hits + cache.stats().misses, 4000u);
}

}  // namespace
}  // namespace beamline::catalogue
