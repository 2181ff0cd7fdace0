// SPDX-License-Identifier: Apache-2.0
//
// What the engine answers over the fake runner (fake_runner.h), by definition.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/engine_core_test.h"
#include "engine/fake_runner.h"

namespace beamline::engine {

inline bool MatchesRule(const CatalogueItem& item, const std::vector<TagClause>& rule) {
  return std::all_of(rule.begin(), rule.end(), [&](const TagClause& clause) {
    return std::any_of(item.attributes.tags.begin(), item.attributes.tags.end(), [&](const auto& tag) {
      return tag.first == clause.key && std::count(clause.any_of.begin(), clause.any_of.end(), tag.second) > 0;
    });
  });
}

// The answer by definition: filter all items, group by SID, rank the SIDs, keep the beam, take items by relevance, of
// each author the first.
inline RecommendResult Oracle(const RecommendRequest& request, int width) {
  std::map<Sid, std::vector<CatalogueItem>> sids;
  for (ItemId id = 1; id <= kItems; ++id) {
    const CatalogueItem item = ItemOf(id);
    const Eligibility& rules = request.eligibility;
    if (!MatchesRule(item, rules.rule) || std::count(rules.deny.begin(), rules.deny.end(), id)) continue;
    if (rules.restrict_to_allow && !std::count(rules.allow.begin(), rules.allow.end(), id)) continue;
    const bool seen = std::any_of(request.history.begin(), request.history.end(),
                                  [&](const Event& event) { return event.item == id; });
    if (request.exclude_history && seen) continue;
    sids[item.sid].push_back(item);
  }
  std::vector<runtime::Hypothesis> ranked;
  for (const auto& [sid, items] : sids) ranked.push_back(FakeHypothesis(request.user_id, 0, sid));
  std::sort(ranked.begin(), ranked.end(), Before);
  ranked.resize(std::min<size_t>(ranked.size(), width));
  RecommendResult result;
  std::map<uint64_t, int> of_author;
  bool left_out = false;
  for (const runtime::Hypothesis& hypothesis : ranked) {
    std::vector<CatalogueItem>& items = sids[hypothesis.sid];
    std::sort(items.begin(), items.end(), [](const CatalogueItem& a, const CatalogueItem& b) {
      return a.attributes.relevance != b.attributes.relevance ? a.attributes.relevance > b.attributes.relevance
                                                              : a.item < b.item;
    });
    for (size_t i = 0; i < items.size() && static_cast<int>(i) < request.items_per_sid; ++i) {
      if (static_cast<int>(result.items.size()) == request.top_k) break;
      const uint64_t author = items[i].attributes.author;
      if (request.max_per_author > 0 && author != 0 && of_author[author] == request.max_per_author) {
        left_out = true;
        continue;
      }
      ++of_author[author];
      result.items.push_back({items[i].item, hypothesis.sid, hypothesis.log_probs, hypothesis.score});
    }
  }
  if (static_cast<int>(result.items.size()) < request.top_k) {
    result.short_reason = sids.empty()                  ? ShortReason::kNoEligibleItems
                          : ranked.size() < sids.size() ? ShortReason::kBeamExhausted
                          : left_out                    ? ShortReason::kAuthorsExhausted
                                                        : ShortReason::kEligibleItemsExhausted;
  }
  return result;
}

}  // namespace beamline::engine
