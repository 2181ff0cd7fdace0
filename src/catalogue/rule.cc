// SPDX-License-Identifier: Apache-2.0
#include "catalogue/rule.h"

#include <algorithm>
#include <bit>
#include <set>

#include "absl/strings/str_cat.h"
#include "beamline/limits.h"
#include "beamline/status.h"

namespace beamline::catalogue {
namespace {

absl::Status CheckRule(absl::Span<const TagClause> rule) {
  if (rule.size() > kMaxRuleClauses) {
    return absl::InvalidArgumentError(
        absl::StrCat("rule: has ", rule.size(), " clauses, at most ", kMaxRuleClauses, " are allowed"));
  }
  for (size_t clause = 0; clause < rule.size(); ++clause) {
    if (rule[clause].any_of.size() > kMaxClauseValues) {
      return absl::InvalidArgumentError(absl::StrCat("rule[", clause, "].any_of: has ", rule[clause].any_of.size(),
                                                     " values, at most ", kMaxClauseValues, " are allowed"));
    }
  }
  return absl::OkStatus();
}

// Per tag id the clauses it satisfies, one bit each.
std::vector<uint64_t> ClausesOfTags(const TagDictionary& tags, absl::Span<const TagClause> rule) {
  std::vector<uint64_t> clauses(tags.size());
  for (size_t clause = 0; clause < rule.size(); ++clause) {
    for (const std::string& value : rule[clause].any_of) {
      if (const std::optional<uint32_t> tag = tags.Find(rule[clause].key, value))
        clauses[*tag] |= uint64_t{1} << clause;
    }
  }
  return clauses;
}

RankBitmap PassingItems(const CatalogueSnapshot& snapshot, absl::Span<const TagClause> rule) {
  const std::vector<uint64_t> clauses = ClausesOfTags(snapshot.tags(), rule);
  const uint64_t all = rule.size() == 64 ? ~uint64_t{0} : (uint64_t{1} << rule.size()) - 1;
  const uint32_t items = static_cast<uint32_t>(snapshot.num_items());
  RankBitmap passing(items);
  uint64_t bits = 0;
  for (uint32_t position = 0; position < items; ++position) {
    uint64_t satisfied = 0;
    for (uint32_t tag : snapshot.tag_ids(position)) satisfied |= clauses[tag];
    bits |= static_cast<uint64_t>(satisfied == all) << (position & 63);
    if ((position & 63) == 63 || position + 1 == items) {
      passing.SetWord(position >> 6, bits);
      bits = 0;
    }
  }
  passing.BuildRanks();
  return passing;
}

// Whether a bit in [begin, end) is set. REQUIRES: begin < end.
bool AnySet(const uint64_t* words, uint32_t begin, uint32_t end) {
  const uint32_t first = begin >> 6;
  const uint32_t last = (end - 1) >> 6;
  const uint64_t head = ~uint64_t{0} << (begin & 63);
  const uint64_t tail = ~uint64_t{0} >> (63 - ((end - 1) & 63));
  if (first == last) return (words[first] & head & tail) != 0;
  if ((words[first] & head) != 0 || (words[last] & tail) != 0) return true;
  for (uint32_t word = first + 1; word < last; ++word) {
    if (words[word] != 0) return true;
  }
  return false;
}

// A node's bit: some bit in its interval of the level below is set.
std::vector<uint64_t> Derive(const uint64_t* below, absl::Span<const uint32_t> offsets) {
  const uint32_t nodes = static_cast<uint32_t>(offsets.size() - 1);
  std::vector<uint64_t> bits((static_cast<uint64_t>(nodes) + 63) / 64);
  for (uint32_t node = 0; node < nodes; ++node) {
    bits[node >> 6] |= static_cast<uint64_t>(AnySet(below, offsets[node], offsets[node + 1])) << (node & 63);
  }
  return bits;
}

void AppendText(std::string* out, absl::string_view text) { absl::StrAppend(out, text.size(), ":", text); }

}  // namespace

uint64_t CompiledRule::bytes() const {
  uint64_t total = items.bytes();
  for (const std::vector<uint64_t>& level : levels) total += level.size() * sizeof(uint64_t);
  return total;
}

absl::StatusOr<CompiledRule> CompileRule(const CatalogueSnapshot& snapshot, absl::Span<const TagClause> rule) {
  BEAMLINE_RETURN_IF_ERROR(CheckRule(rule));
  CompiledRule compiled;
  compiled.items = PassingItems(snapshot, rule);
  const SnapshotContents& contents = snapshot.contents();
  compiled.levels.resize(snapshot.levels());
  const uint64_t* below = compiled.items.words();
  for (int level = snapshot.levels() - 1; level >= 0; --level) {
    const bool last = level == snapshot.levels() - 1;
    compiled.levels[level] = Derive(below, last ? contents.leaf_items : contents.trie.levels[level].offsets);
    below = compiled.levels[level].data();
  }
  for (uint64_t word : compiled.levels.back()) compiled.passing_leaves += std::popcount(word);
  return compiled;
}

std::string CanonicalRule(absl::Span<const TagClause> rule) {
  std::set<std::string> clauses;
  for (const TagClause& clause : rule) {
    std::string text;
    AppendText(&text, clause.key);
    for (const std::string& value : std::set<std::string>(clause.any_of.begin(), clause.any_of.end())) {
      AppendText(&text, value);
    }
    clauses.insert(std::move(text));
  }
  std::string canonical;
  for (const std::string& clause : clauses) AppendText(&canonical, clause);
  return canonical;
}

}  // namespace beamline::catalogue
