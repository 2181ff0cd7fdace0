// SPDX-License-Identifier: Apache-2.0
//
// Eligibility against brute force, over random catalogues with several items per SID and all combinations of rule, deny
// list and allow list: a node is alive iff an eligible item lies under it, at every level.
#include "catalogue/eligibility.h"

#include <map>
#include <set>

#include "beamline/kernels/constraint.h"
#include "catalogue/random_catalogue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::catalogue {
namespace {

bool SatisfiesRule(const CatalogueItem& item, const std::vector<TagClause>& rule) {
  return std::all_of(rule.begin(), rule.end(), [&](const TagClause& clause) {
    return std::any_of(clause.any_of.begin(), clause.any_of.end(), [&](const std::string& value) {
      const std::pair<std::string, std::string> tag(clause.key, value);
      return std::count(item.attributes.tags.begin(), item.attributes.tags.end(), tag) > 0;
    });
  });
}

bool Contains(const std::vector<ItemId>& ids, ItemId id) { return std::count(ids.begin(), ids.end(), id) > 0; }

struct Case {
  explicit Case(uint32_t seed) : catalogue(seed, seed % 5 == 0 ? 400 : 40) {
    std::mt19937& random = catalogue.random;
    if (seed % 2 == 1) {
      const char* keys[] = {"region", "age", "kind", "unknown"};
      for (uint32_t n = 1 + random() % 2; n > 0; --n) {
        TagClause clause{keys[random() % (seed % 16 == 1 ? 4 : 3)], {}};
        for (uint32_t v = random() % 4; v > 0; --v) clause.any_of.push_back(std::string(1, 'a' + random() % 4));
        eligibility.rule.push_back(clause);
      }
    }
    const uint32_t denied_of_four = random() % 5;
    for (const CatalogueItem& item : catalogue.items) {
      if (seed / 2 % 2 == 1 && random() % 4 < denied_of_four) eligibility.deny.push_back(item.item);
      if (random() % 8 == 0) seen.push_back(item.item);
      if (random() % 3 != 0) eligibility.allow.push_back(item.item);
    }
    if (seed / 8 % 2 == 1) seen.clear();
    if (!eligibility.deny.empty()) eligibility.deny.push_back(eligibility.deny[0]);  // repeated
    eligibility.deny.push_back(123'456'789);                                         // unknown
    eligibility.allow.push_back(123'456'789);
    std::shuffle(eligibility.deny.begin(), eligibility.deny.end(), random);
    std::shuffle(eligibility.allow.begin(), eligibility.allow.end(), random);
    eligibility.restrict_to_allow = seed / 4 % 2 == 1;
    if (seed % 64 == 4) eligibility.allow.clear();
    for (const CatalogueItem& item : catalogue.InOrder()) {
      const bool yes = SatisfiesRule(item, eligibility.rule) && !Contains(eligibility.deny, item.item) &&
                       !Contains(seen, item.item) &&
                       (!eligibility.restrict_to_allow || Contains(eligibility.allow, item.item));
      if (!yes) continue;
      eligible_ids.insert(item.item);
      eligible[item.sid].push_back(item.item);
      for (int level = 0; level < item.sid.levels(); ++level) {
        alive[level].insert(Sid(item.sid.codes().first(level + 1)));
      }
    }
  }

  RandomCatalogue catalogue;
  Eligibility eligibility;
  std::vector<ItemId> seen;
  std::set<ItemId> eligible_ids;
  std::map<Sid, std::vector<ItemId>> eligible;  // by relevance, then id
  std::set<Sid> alive[kMaxLevels];
};

// Walks the request's trie through the kernels' own functions and collects the alive prefixes of every level.
struct Walk {
  Walk(const kernels::ConstraintView& view, const CatalogueSnapshot& snapshot) : view(view), snapshot(snapshot) {
    Visit(0, 0, Sid());
  }
  void Visit(int level, uint32_t parent, const Sid& prefix) {
    if (level == view.trie.levels) return;
    const kernels::NodeRange children = kernels::Children(view.trie, level, parent);
    const kernels::DeadSlice dead = kernels::DeadAmong(view.eligibility[level], children);
    for (uint32_t node = children.begin; node < children.end; ++node) {
      if (!kernels::IsAlive(view.eligibility[level], dead, node)) continue;
      Sid child = prefix;
      child.push_back(view.trie.level[level].codes[node]);
      alive[level].insert(child);
      const uint32_t mapped = kernels::SnapshotNode(view, level, node);
      EXPECT_EQ(snapshot.contents().trie.Find(child), mapped);
      Visit(level + 1, node, child);
      if (level + 1 == view.trie.levels) leaf[child] = node;
    }
  }
  const kernels::ConstraintView& view;
  const CatalogueSnapshot& snapshot;
  std::set<Sid> alive[kMaxLevels];
  std::map<Sid, uint32_t> leaf;
};

TEST(Eligibility, EqualsBruteForceInEveryCombination) {
  int dead_ends = 0;
  for (uint32_t seed = 0; seed < 1500; ++seed) {
    SCOPED_TRACE(seed);
    const Case test(seed);
    RuleCache rules(test.catalogue.snapshot, 4);
    const auto compiled = CompileEligibility(rules, test.eligibility, test.seen);
    ASSERT_TRUE(compiled.ok()) << compiled.status();
    const CatalogueSnapshot& snapshot = *test.catalogue.snapshot;
    const Walk walk((*compiled)->view(), snapshot);
    for (int level = 0; level < snapshot.levels(); ++level) ASSERT_EQ(walk.alive[level], test.alive[level]) << level;
    EXPECT_EQ((*compiled)->eligible_items(), test.eligible_ids.size());
    EXPECT_EQ((*compiled)->eligible_leaves(), test.eligible.size());
    for (const CatalogueItem& item : test.catalogue.items) {
      EXPECT_EQ((*compiled)->IsEligible(*snapshot.FindPosition(item.item)), test.eligible_ids.contains(item.item));
    }
    for (const auto& [sid, ids] : test.eligible) {
      const uint32_t leaf = walk.leaf.at(sid);
      EXPECT_EQ((*compiled)->SidOf(leaf), sid);
      EXPECT_EQ((*compiled)->ResolveEligible(leaf, 1000), ids);
      EXPECT_EQ((*compiled)->ResolveEligible(leaf, 1), std::vector<ItemId>{ids[0]});
      EXPECT_TRUE((*compiled)->ResolveEligible(leaf, 0).empty());
    }
    for (int level = 0; level < snapshot.levels(); ++level) {
      dead_ends += static_cast<int>((*compiled)->view().eligibility[level].num_dead);
      const kernels::EligibilityLevelView& view = (*compiled)->view().eligibility[level];
      EXPECT_TRUE(std::is_sorted(view.dead_nodes, view.dead_nodes + view.num_dead));
    }
  }
  EXPECT_GT(dead_ends, 1000);  // the cases do exercise dead nodes
}

TEST(Eligibility, UnrestrictedReachesEverythingAndOwnsNothing) {
  const RandomCatalogue random(5);
  RuleCache rules(random.snapshot, 4);
  const auto compiled = CompileEligibility(rules, {});
  ASSERT_TRUE(compiled.ok());
  EXPECT_EQ((*compiled)->bytes(), 0);
  EXPECT_EQ((*compiled)->eligible_items(), random.items.size());
  EXPECT_EQ((*compiled)->eligible_leaves(), random.snapshot->num_sids());
  EXPECT_EQ(rules.stats().misses, 0);
}

TEST(Eligibility, EverythingDeniedLeavesNothing) {
  const RandomCatalogue random(6);
  RuleCache rules(random.snapshot, 4);
  Eligibility eligibility;
  for (const CatalogueItem& item : random.items) eligibility.deny.push_back(item.item);
  const auto compiled = CompileEligibility(rules, eligibility);
  EXPECT_EQ((*compiled)->eligible_items(), 0);
  EXPECT_EQ((*compiled)->eligible_leaves(), 0);
  EXPECT_EQ((*compiled)->view().eligibility[0].num_dead, random.snapshot->num_nodes(0));
}

TEST(Eligibility, OutlivesTheCacheAndKeepsTheSnapshot) {
  std::shared_ptr<const CompiledEligibility> compiled;
  std::weak_ptr<const CatalogueSnapshot> snapshot;
  {
    RandomCatalogue random(7);
    snapshot = random.snapshot;
    RuleCache rules(random.snapshot, 1);
    compiled = *CompileEligibility(rules, {.rule = {{"region", {"a"}}}});
    // A second rule drops the first one from the cache.
    ASSERT_TRUE(CompileEligibility(rules, {.rule = {{"region", {"b"}}}}).ok());
  }
  ASSERT_FALSE(snapshot.expired());
  const Walk walk(compiled->view(), compiled->snapshot());
  EXPECT_EQ(walk.leaf.size(), compiled->eligible_leaves());
  compiled.reset();
  EXPECT_TRUE(snapshot.expired());
}

// The three shortcuts the design warns of would each get one of these wrong.
TEST(Eligibility, ShortcutsThatWouldBeWrong) {
  absl::StatusOr<SnapshotBuilder> builder =
      SnapshotBuilder::Create({.codebook_fingerprint = "book", .level_sizes = {2, 2}});
  const auto add = [&](ItemId id, Sid sid, std::vector<std::pair<std::string, std::string>> tags) {
    CatalogueItem item;
    item.item = id;
    item.sid = sid;
    item.attributes.tags = std::move(tags);
    ASSERT_TRUE(builder->Add(item).ok());
  };
  add(1, {0, 0}, {{"region", "DE"}});
  add(2, {0, 0}, {{"age", "18"}});
  add(3, {0, 1}, {{"region", "DE"}, {"age", "18"}});
  add(4, {0, 1}, {});
  add(5, {1, 0}, {});
  RuleCache rules(*std::move(*builder).Build(), 4);
  const std::vector<TagClause> rule = {{"region", {"DE"}}, {"age", {"18"}}};
  // SID <0,0> has both tags, but no item has both.
  const auto by_rule = *CompileEligibility(rules, {.rule = rule});
  EXPECT_EQ(by_rule->eligible_leaves(), 1);
  EXPECT_FALSE(by_rule->IsEligible(*by_rule->snapshot().FindPosition(1)));
  // Denying item 3 kills <0,1> and with it <0>, though item 4 is under it and not denied: it fails the rule.
  const auto denied = *CompileEligibility(rules, {.rule = rule, .deny = {3}});
  EXPECT_EQ(denied->eligible_items(), 0);
  EXPECT_EQ(denied->view().eligibility[0].num_dead, 1);
  // Denying item 4, which fails the rule, must not count against item 3.
  EXPECT_EQ((*CompileEligibility(rules, {.rule = rule, .deny = {4}}))->eligible_leaves(), 1);
  // Allowing item 4 of <0,1> must not let item 3 through.
  const auto allowed = *CompileEligibility(rules, {.allow = {4}, .restrict_to_allow = true});
  EXPECT_THAT(allowed->ResolveEligible(0, 10), testing::ElementsAre(4));
}

TEST(Eligibility, RuleLimitsAreNamed) {
  const RandomCatalogue random(8);
  RuleCache rules(random.snapshot, 4);
  Eligibility eligibility;
  eligibility.rule.assign(65, {"region", {"a"}});
  EXPECT_THAT(std::string(CompileEligibility(rules, eligibility).status().message()),
              testing::HasSubstr("rule: has 65 clauses, at most 64"));
  eligibility.rule.assign(1, {"region", std::vector<std::string>(4097, "a")});
  EXPECT_THAT(std::string(CompileEligibility(rules, eligibility).status().message()),
              testing::HasSubstr("rule[0].any_of: has 4097 values, at most 4096"));
  EXPECT_EQ(rules.stats().rules, 0);
  // All 64 bits of the clause mask in use.
  eligibility.rule.assign(64, {"region", {"a", "b", "c"}});
  const auto many = CompileEligibility(rules, eligibility);
  ASSERT_TRUE(many.ok());
  eligibility.rule.resize(1);
  EXPECT_EQ((*many)->eligible_items(), (*CompileEligibility(rules, eligibility))->eligible_items());
}

}  // namespace
}  // namespace beamline::catalogue
