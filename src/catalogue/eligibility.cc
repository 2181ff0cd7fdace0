// SPDX-License-Identifier: Apache-2.0
#include "catalogue/eligibility.h"

#include <algorithm>
#include <utility>

#include "beamline/status.h"

namespace beamline::catalogue {
namespace {

// A node and how many denied, rule-passing items lie under it.
struct Group {
  uint32_t node = 0;
  uint32_t denied = 0;
};

}  // namespace

CompiledEligibility::CompiledEligibility(std::shared_ptr<const CatalogueSnapshot> snapshot,
                                         std::shared_ptr<const CompiledRule> rule)
    : snapshot_(std::move(snapshot)), rule_(std::move(rule)) {
  view_.trie = view_.snapshot_trie = snapshot_->trie();
  if (rule_ == nullptr) return;
  for (int level = 0; level < snapshot_->levels(); ++level) {
    view_.eligibility[level].rule_bits = rule_->levels[level].data();
  }
}

std::vector<uint32_t> CompiledEligibility::PassingPositions(absl::Span<const ItemId> items) const {
  std::vector<uint32_t> positions = snapshot_->FindPositions(items);
  const auto unwanted = [this](uint32_t position) { return position == kNoPosition || !PassesRule(position); };
  positions.erase(std::remove_if(positions.begin(), positions.end(), unwanted), positions.end());
  std::sort(positions.begin(), positions.end());
  positions.erase(std::unique(positions.begin(), positions.end()), positions.end());
  return positions;
}

uint32_t CompiledEligibility::CountPassing(ItemRange range) const {
  return rule_ == nullptr ? range.size() : rule_->items.Count(range.begin, range.end);
}

bool CompiledEligibility::AllDenied(int level, uint32_t node, uint32_t denied) const {
  // Every child has an item, so without a rule a node of many children is decided without looking up its interval.
  if (rule_ == nullptr && level + 1 < snapshot_->levels()) {
    const uint32_t* offsets = snapshot_->trie().level[level].offsets;
    if (offsets[node + 1] - offsets[node] > denied) return false;
  }
  return denied == CountPassing(snapshot_->NodeItems(level, node));
}

// Leaves first. Upwards only dead children need carrying: a node whose passing items are all denied has none but dead
// ones among its passing children, so their groups add up to its own.
void CompiledEligibility::FindDeadNodes() {
  std::vector<Group> groups;
  for (uint32_t position : denied_) {
    const uint32_t leaf = snapshot_->LeafOf(position);
    if (groups.empty() || groups.back().node != leaf) groups.push_back({leaf, 0});
    ++groups.back().denied;
  }
  for (int level = snapshot_->levels() - 1;; --level) {
    const auto alive = [this, level](const Group& group) { return !AllDenied(level, group.node, group.denied); };
    groups.erase(std::remove_if(groups.begin(), groups.end(), alive), groups.end());
    std::vector<uint32_t>& dead = dead_[level];
    dead.reserve(groups.size());
    for (const Group& group : groups) dead.push_back(group.node);
    view_.eligibility[level].dead_nodes = dead.data();
    view_.eligibility[level].num_dead = static_cast<uint32_t>(dead.size());
    if (level == 0) break;
    size_t parents = 0;
    for (const Group& group : groups) {
      const uint32_t parent = snapshot_->ParentOf(level, group.node);
      if (parents > 0 && groups[parents - 1].node == parent) {
        groups[parents - 1].denied += group.denied;
      } else {
        groups[parents++] = {parent, group.denied};
      }
    }
    groups.resize(parents);
  }
}

// From the leaves of the allowed items upwards: a level's nodes are the distinct parents of the next one's.
void CompiledEligibility::BuildAllowTrie() {
  const int levels = snapshot_->levels();
  allow_trie_.levels.resize(levels);
  std::vector<uint32_t>& leaves = snapshot_node_[levels - 1];
  for (uint32_t position : allowed_) {
    const uint32_t leaf = snapshot_->LeafOf(position);
    if (leaves.empty() || leaves.back() != leaf) leaves.push_back(leaf);
  }
  for (int level = levels - 1; level > 0; --level) {
    std::vector<uint32_t>& parents = snapshot_node_[level - 1];
    std::vector<uint32_t>& offsets = allow_trie_.levels[level - 1].offsets;
    const std::vector<uint32_t>& children = snapshot_node_[level];
    for (uint32_t child = 0; child < children.size(); ++child) {
      const uint32_t parent = snapshot_->ParentOf(level, children[child]);
      if (!parents.empty() && parents.back() == parent) continue;
      parents.push_back(parent);
      offsets.push_back(child);
    }
    offsets.push_back(static_cast<uint32_t>(children.size()));
  }
  for (int level = 0; level < levels; ++level) {
    const uint16_t* codes = snapshot_->trie().level[level].codes;
    for (uint32_t node : snapshot_node_[level]) allow_trie_.levels[level].codes.push_back(codes[node]);
    view_.eligibility[level] = {};  // rule and deny are in the trie already
    view_.snapshot_node[level] = snapshot_node_[level].data();
  }
  view_.trie = allow_trie_.view();
}

bool CompiledEligibility::IsEligible(uint32_t position) const {
  if (restricted_) return std::binary_search(allowed_.begin(), allowed_.end(), position);
  return PassesRule(position) && !std::binary_search(denied_.begin(), denied_.end(), position);
}

uint32_t CompiledEligibility::SnapshotLeaf(uint32_t leaf) const {
  return restricted_ ? snapshot_node_[snapshot_->levels() - 1][leaf] : leaf;
}

std::vector<ItemId> CompiledEligibility::ResolveEligible(uint32_t leaf, int max_items) const {
  std::vector<ItemId> items;
  const ItemRange range = snapshot_->LeafItems(SnapshotLeaf(leaf));
  for (uint32_t position = range.begin; position < range.end && static_cast<int>(items.size()) < max_items;
       ++position) {
    if (IsEligible(position)) items.push_back(snapshot_->item_id(position));
  }
  return items;
}

uint64_t CompiledEligibility::bytes() const {
  uint64_t total = (denied_.size() + allowed_.size()) * sizeof(uint32_t) + allow_trie_.bytes();
  for (const std::vector<uint32_t>& nodes : dead_) total += nodes.size() * sizeof(uint32_t);
  for (const std::vector<uint32_t>& nodes : snapshot_node_) total += nodes.size() * sizeof(uint32_t);
  return total;
}

absl::StatusOr<std::shared_ptr<const CompiledEligibility>> CompileEligibility(RuleCache& rules,
                                                                              const Eligibility& eligibility,
                                                                              absl::Span<const ItemId> also_deny) {
  BEAMLINE_ASSIGN_OR_RETURN(std::shared_ptr<const CompiledRule> rule, rules.Get(eligibility.rule));
  std::shared_ptr<CompiledEligibility> compiled(new CompiledEligibility(rules.snapshot(), std::move(rule)));
  std::vector<ItemId> deny(eligibility.deny);
  deny.insert(deny.end(), also_deny.begin(), also_deny.end());
  compiled->denied_ = compiled->PassingPositions(deny);
  if (eligibility.restrict_to_allow) {
    compiled->restricted_ = true;
    const std::vector<uint32_t> allowed = compiled->PassingPositions(eligibility.allow);
    std::set_difference(allowed.begin(), allowed.end(), compiled->denied_.begin(), compiled->denied_.end(),
                        std::back_inserter(compiled->allowed_));
    compiled->BuildAllowTrie();
    compiled->eligible_items_ = compiled->allowed_.size();
    compiled->eligible_leaves_ = compiled->allow_trie_.num_leaves();
    return compiled;
  }
  compiled->FindDeadNodes();
  const CatalogueSnapshot& snapshot = *compiled->snapshot_;
  const CompiledRule* passing = compiled->rule_.get();
  compiled->eligible_items_ =
      (passing == nullptr ? snapshot.num_items() : passing->items.ones()) - compiled->denied_.size();
  compiled->eligible_leaves_ = (passing == nullptr ? snapshot.num_sids() : passing->passing_leaves) -
                               compiled->dead_[snapshot.levels() - 1].size();
  return compiled;
}

}  // namespace beamline::catalogue
