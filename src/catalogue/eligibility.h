// SPDX-License-Identifier: Apache-2.0
//
// A request's eligibility compiled for one snapshot: what the search may reach, exact at every level and in every
// combination of rule, deny list and allow list. An item is eligible iff it passes the rule, is not denied, and, where
// there is an allow list, is in it; a trie node is alive iff an eligible item lies under it. Design, section 7:
//
//   rule    bitmaps compiled once per snapshot (RuleCache)
//   deny    denied items that pass the rule, sorted and unique, grouped by node; a node is dead iff its group is as
//           large as the number of passing items in its interval. One short sorted list of dead nodes per level.
//   allow   filtered by rule and deny first, then a trie of its own that is searched instead of the snapshot's
//
// CompiledEligibility keeps the snapshot and everything it points to alive; it is immutable and thread-safe. Ids that
// the catalogue does not have are ignored in both lists.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "beamline/kernels/trie_view.h"
#include "beamline/request.h"
#include "catalogue/item_trie.h"
#include "catalogue/rule.h"
#include "catalogue/rule_cache.h"
#include "catalogue/snapshot.h"

namespace beamline::catalogue {

class CompiledEligibility {
 public:
  CompiledEligibility(const CompiledEligibility&) = delete;
  CompiledEligibility& operator=(const CompiledEligibility&) = delete;

  // For the search; valid while this object lives.
  const kernels::ConstraintView& view() const { return view_; }
  const CatalogueSnapshot& snapshot() const { return *snapshot_; }

  bool IsEligible(uint32_t position) const;

  // The first `max_items` eligible items of a SID by relevance, then id. `leaf` is a node of the last level of view()'s
  // trie, which is how the search names it.
  std::vector<ItemId> ResolveEligible(uint32_t leaf, int max_items) const;
  // Its SID.
  Sid SidOf(uint32_t leaf) const { return snapshot_->SidOfLeaf(SnapshotLeaf(leaf)); }

  uint64_t eligible_items() const { return eligible_items_; }
  uint64_t eligible_leaves() const { return eligible_leaves_; }  // SIDs with an eligible item
  uint64_t bytes() const;                                        // of this request's own arrays

 private:
  friend absl::StatusOr<std::shared_ptr<const CompiledEligibility>> CompileEligibility(RuleCache&, const Eligibility&,
                                                                                       absl::Span<const ItemId>);
  CompiledEligibility(std::shared_ptr<const CatalogueSnapshot> snapshot, std::shared_ptr<const CompiledRule> rule);
  bool PassesRule(uint32_t position) const { return rule_ == nullptr || rule_->items.Get(position); }
  // Known positions of `items` that pass the rule, ascending and unique.
  std::vector<uint32_t> PassingPositions(absl::Span<const ItemId> items) const;
  // Whether `denied`, the number of denied, rule-passing items under a node, is that of all its rule-passing items.
  bool AllDenied(int level, uint32_t node, uint32_t denied) const;
  void FindDeadNodes();
  void BuildAllowTrie();
  uint32_t CountPassing(ItemRange range) const;
  uint32_t SnapshotLeaf(uint32_t leaf) const;

  const std::shared_ptr<const CatalogueSnapshot> snapshot_;
  const std::shared_ptr<const CompiledRule> rule_;  // null: everything passes
  std::vector<uint32_t> denied_;                    // positions that pass the rule, ascending
  std::vector<uint32_t> dead_[kernels::kMaxTrieLevels];
  bool restricted_ = false;        // to the allow list
  std::vector<uint32_t> allowed_;  // positions that pass rule and deny, ascending
  ItemTrie allow_trie_;
  std::vector<uint32_t> snapshot_node_[kernels::kMaxTrieLevels];
  kernels::ConstraintView view_;
  uint64_t eligible_items_ = 0;
  uint64_t eligible_leaves_ = 0;
};

// Compiles `eligibility` for the cache's snapshot; `also_deny` joins its deny list (what the user has seen). Errors:
// those of the rule. The caller bounds the lists' lengths.
absl::StatusOr<std::shared_ptr<const CompiledEligibility>> CompileEligibility(RuleCache& rules,
                                                                              const Eligibility& eligibility,
                                                                              absl::Span<const ItemId> also_deny = {});

}  // namespace beamline::catalogue
