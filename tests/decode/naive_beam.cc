// SPDX-License-Identifier: Apache-2.0
#include "decode/naive_beam.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

namespace beamline::decode::testing {
namespace {

using Prefix = std::vector<Code>;

bool Contains(const std::vector<ItemId>& items, ItemId item) {
  return std::find(items.begin(), items.end(), item) != items.end();
}

// Children of `prefix` under the items for which `pass` holds.
template <typename Pass>
std::set<Code> Children(absl::Span<const CatalogueItem> items, const Prefix& prefix, const Pass& pass) {
  std::set<Code> children;
  for (const CatalogueItem& item : items) {
    const absl::Span<const Code> codes = item.sid.codes();
    if (codes.size() <= prefix.size() || !std::equal(prefix.begin(), prefix.end(), codes.begin())) continue;
    if (pass(item)) children.insert(codes[prefix.size()]);
  }
  return children;
}

// log-probability of every code after `prefix` under the score rule; nullopt: non-finite logits.
std::optional<std::vector<double>> LogProbs(const NaiveRequest& request, const Prefix& prefix, const LogitsOf& logits) {
  const std::vector<float> x = logits(prefix);
  for (float value : x) {
    if (std::isnan(value) || value == std::numeric_limits<float>::infinity()) return std::nullopt;
  }
  std::set<Code> summed;
  if (request.score_rule == ScoreRule::kLegal) {
    summed = Children(request.items, prefix, [](const CatalogueItem&) { return true; });
  } else {
    for (Code code = 0; code < x.size(); ++code) summed.insert(code);
  }
  double max = -std::numeric_limits<double>::infinity();
  for (Code code : summed) max = std::max<double>(max, x[code]);
  if (std::isinf(max)) return std::nullopt;
  double sum = 0;
  for (Code code : summed) sum += std::exp(x[code] - max);
  std::vector<double> log_probs;
  for (float value : x) log_probs.push_back(value - max - std::log(sum));
  return log_probs;
}

bool Better(const NaiveHypothesis& a, const NaiveHypothesis& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.sid < b.sid;
}

// Sorts `candidates`, keeps the best `width` as the answer's list and notes whether the choice or the order hangs on a
// rounding.
void KeepBest(std::vector<NaiveHypothesis> candidates, int width, double near, NaiveAnswer& answer) {
  std::sort(candidates.begin(), candidates.end(), Better);
  const size_t looked_at = std::min<size_t>(candidates.size(), width + 1);
  for (size_t i = 1; i < looked_at; ++i) {
    const double gap = candidates[i - 1].score - candidates[i].score;
    (gap > 0 ? answer.near_tie : answer.tie) |= gap < near;
  }
  if (static_cast<size_t>(width) < candidates.size()) candidates.resize(width);
  answer.list = std::move(candidates);
}

}  // namespace

bool NaiveEligible(const CatalogueItem& item, const Eligibility& eligibility) {
  if (Contains(eligibility.deny, item.item)) return false;
  if (eligibility.restrict_to_allow && !Contains(eligibility.allow, item.item)) return false;
  for (const TagClause& clause : eligibility.rule) {
    bool satisfied = false;
    for (const auto& [key, value] : item.attributes.tags) {
      satisfied |=
          key == clause.key && std::find(clause.any_of.begin(), clause.any_of.end(), value) != clause.any_of.end();
    }
    if (!satisfied) return false;
  }
  return true;
}

NaiveAnswer NaiveBeam(const NaiveRequest& request, const LogitsOf& logits) {
  NaiveAnswer answer;
  answer.list.push_back({});
  const auto eligible = [&](const CatalogueItem& item) { return NaiveEligible(item, request.eligibility); };
  for (int width : request.widths) {
    std::vector<NaiveHypothesis> candidates;
    for (const NaiveHypothesis& parent : answer.list) {
      const Prefix prefix(parent.sid.codes().begin(), parent.sid.codes().end());
      const std::optional<std::vector<double>> log_probs = LogProbs(request, prefix, logits);
      if (!log_probs) {
        answer.non_finite = true;
        answer.list.clear();
        return answer;
      }
      for (Code code : Children(request.items, prefix, eligible)) {
        if (std::isinf((*log_probs)[code])) continue;
        NaiveHypothesis child = parent;
        child.sid.push_back(code);
        child.log_probs.push_back((*log_probs)[code]);
        child.score += (*log_probs)[code];
        candidates.push_back(std::move(child));
      }
    }
    KeepBest(std::move(candidates), width, request.near_tie, answer);
  }
  return answer;
}

NaiveAnswer NaiveExhaustive(const NaiveRequest& request, const LogitsOf& logits, int top) {
  NaiveAnswer answer;
  std::set<Sid> sids;
  for (const CatalogueItem& item : request.items) {
    if (NaiveEligible(item, request.eligibility)) sids.insert(item.sid);
  }
  for (const Sid& sid : sids) {
    NaiveHypothesis hypothesis;
    hypothesis.sid = sid;
    Prefix prefix;
    for (Code code : sid.codes()) {
      const std::optional<std::vector<double>> log_probs = LogProbs(request, prefix, logits);
      if (!log_probs) {
        answer.non_finite = true;
        answer.list.clear();
        return answer;
      }
      hypothesis.log_probs.push_back((*log_probs)[code]);
      hypothesis.score += (*log_probs)[code];
      prefix.push_back(code);
    }
    if (!std::isinf(hypothesis.score)) answer.list.push_back(std::move(hypothesis));
  }
  KeepBest(std::move(answer.list), top, request.near_tie, answer);
  return answer;
}

}  // namespace beamline::decode::testing
