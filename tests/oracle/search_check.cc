// SPDX-License-Identifier: Apache-2.0
#include "oracle/search_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "decode/naive_beam.h"
#include "gtest/gtest.h"

namespace beamline::oracle {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Prefix PrefixOf(const Sid& sid) { return {sid.codes().begin(), sid.codes().end()}; }

}  // namespace

LegalPrefixes LegalOf(const TinyCatalogue& catalogue, const Eligibility& eligibility) {
  LegalPrefixes legal;
  for (const CatalogueItem& item : catalogue.items) {
    if (!decode::testing::NaiveEligible(item, eligibility)) continue;
    Prefix prefix;
    for (const Code code : item.sid.codes()) {
      legal.children[prefix].insert(code);
      prefix.push_back(code);
      legal.all.insert(prefix);
    }
    legal.items[prefix].push_back(&item);
  }
  for (auto& [sid, items] : legal.items) {
    std::sort(items.begin(), items.end(), [](const CatalogueItem* a, const CatalogueItem* b) {
      const float x = a->attributes.relevance, y = b->attributes.relevance;
      return x != y ? x > y : a->item < b->item;
    });
  }
  return legal;
}

// Of every code that may follow, or of the end alone.
std::vector<double> SearchCheck::LogProbs(const Prefix& prefix) const {
  const model::ModelConfig& config = world_.config;
  const int level = static_cast<int>(prefix.size());
  const std::vector<double>& logits = reference_->logits.at(prefix);
  const auto first = logits.begin() + config.first_code(level);
  std::vector<double> own(first, first + (level < config.levels() ? config.level_sizes[level] : 1));
  std::vector<double> summed = logits;
  if (request_.score_rule == ScoreRule::kLegal) {
    summed.clear();
    if (level == config.levels()) summed = own;
    std::set<Code> children;
    for (const CatalogueItem& item : world_.catalogue.items) {
      if (level < config.levels() && BeginsWith(PrefixOf(item.sid), prefix)) children.insert(item.sid[level]);
    }
    for (const Code code : children) summed.push_back(own[code]);
  }
  const double most = *std::max_element(summed.begin(), summed.end());
  double sum = 0;
  for (const double x : summed) sum += std::exp(x - most);
  for (double& x : own) x = x - most - std::log(sum);
  return own;
}

std::map<Prefix, SearchCheck::Candidate> SearchCheck::Candidates(int level) const {
  std::map<Prefix, Candidate> candidates;
  for (const Beam& beam : beams_) {
    const bool end = level == world_.config.levels();
    const auto children = legal_.children.find(beam.prefix);
    if (!end && children == legal_.children.end()) continue;
    std::vector<double> log_probs;
    if (reference_ != nullptr) log_probs = LogProbs(beam.prefix);
    const auto add = [&](const Prefix& prefix, Code code) {
      Candidate& candidate = candidates[prefix];
      if (reference_ == nullptr) return;
      candidate.log_prob = log_probs[code];
      candidate.score = beam.score + candidate.log_prob;
      candidate.error = reference_->LogProbError(candidate.log_prob, reference_->logits.at(beam.prefix).size()) +
                        kRounding * std::abs(candidate.score);
    };
    if (end) {
      add(beam.prefix, 0);
      continue;
    }
    for (const Code code : children->second) {
      Prefix prefix = beam.prefix;
      prefix.push_back(code);
      add(prefix, code);
    }
  }
  return candidates;
}

void SearchCheck::CheckLevel(int level, const std::vector<TracedBeam>& traced) {
  const bool end = level == world_.config.levels();
  const std::map<Prefix, Candidate> candidates = Candidates(level);
  const size_t width = end ? beams_.size() : request_.widths[level];
  ASSERT_EQ(traced.size(), std::min(width, candidates.size())) << "level " << level;
  std::set<Prefix> kept;
  std::vector<Beam> beams;
  for (const TracedBeam& beam : traced) {
    ASSERT_LT(static_cast<size_t>(beam.parent), beams_.size());
    const Beam& parent = beams_[beam.parent];
    Beam child = {parent.prefix, beam.score};
    if (!end) child.prefix.push_back(beam.code);
    const auto candidate = candidates.find(child.prefix);
    ASSERT_NE(candidate, candidates.end()) << "illegal " << Sid(child.prefix).ToString();
    ASSERT_TRUE(kept.insert(child.prefix).second) << "twice " << Sid(child.prefix).ToString();
    ASSERT_EQ(beam.score, parent.score + beam.log_prob) << "level " << level;
    if (!beams.empty()) {
      ASSERT_GE(beams.back().score, beam.score) << "level " << level << " order";
      ASSERT_TRUE(beams.back().score != beam.score || beams.back().prefix < child.prefix) << "order of equals";
    }
    if (reference_ != nullptr) {
      const double error = std::abs(beam.log_prob - candidate->second.log_prob) / candidate->second.error;
      if (!(error <= counts_.largest_error)) counts_.largest_error = error;
      ASSERT_LE(error, 1) << "level " << level << " " << Sid(child.prefix).ToString() << ": log-probability "
                          << beam.log_prob << ", reference " << candidate->second.log_prob << " within "
                          << candidate->second.error;
    }
    beams.push_back(std::move(child));
  }
  for (const auto& [prefix, candidate] : candidates) {
    if (reference_ == nullptr || kept.contains(prefix)) continue;
    ASSERT_LE(candidate.score - candidate.error, double{beams.back().score})
        << "level " << level << " left out " << Sid(prefix).ToString() << ", which is better";
  }
  counts_.beams += static_cast<int64_t>(beams.size());
  beams_ = std::move(beams);
}

void SearchCheck::CheckItems(const decode::Hypothesis& hypothesis) const {
  std::vector<ItemId> items;
  for (const CatalogueItem* item : legal_.items.at(PrefixOf(hypothesis.sid))) items.push_back(item->item);
  EXPECT_EQ(request_.compiled->ResolveEligible(hypothesis.leaf, 1000), items) << hypothesis.sid.ToString();
  EXPECT_EQ(request_.compiled->SidOf(hypothesis.leaf), hypothesis.sid);
}

void SearchCheck::CheckHypotheses(const decode::SearchResult& result) const {
  const model::RankerConfig& ranker = world_.config.ranker;
  ASSERT_EQ(result.hypotheses.size(), beams_.size());
  for (size_t i = 0; i < beams_.size(); ++i) {
    const decode::Hypothesis& hypothesis = result.hypotheses[i];
    ASSERT_EQ(PrefixOf(hypothesis.sid), beams_[i].prefix) << "rank " << i;
    ASSERT_EQ(hypothesis.score, beams_[i].score) << "rank " << i;
    ASSERT_EQ(static_cast<int>(hypothesis.log_probs.size()), world_.config.steps());
    float sum = 0;
    for (const float log_prob : hypothesis.log_probs) sum += log_prob;
    ASSERT_EQ(hypothesis.score, sum) << "rank " << i << ": the left-to-right sum, bit for bit";
    CheckItems(hypothesis);
    if (!ranker.enabled() || reference_ == nullptr) continue;
    const double own = ranker.score_weight * hypothesis.score;
    const double value = own + reference_->behaviours.at(beams_[i].prefix);
    ASSERT_NEAR(hypothesis.value, value, reference_->ValueError(value, ranker.score_weight, hypothesis.score))
        << "value of rank " << i;
  }
}

// The end token is one more level with one child. A level's logits come first, then what else they compete with.
void SearchCheck::CheckNaiveList(const decode::SearchResult& result, bool equal_rows_tie) const {
  const model::ModelConfig& config = world_.config;
  std::vector<CatalogueItem> items = world_.catalogue.items;
  decode::testing::NaiveRequest naive = {
      .items = {}, .eligibility = request_.eligibility, .score_rule = request_.score_rule, .widths = request_.widths};
  if (config.steps() > config.levels()) {
    if (config.levels() == kMaxLevels) return;  // no SID has a level more
    for (CatalogueItem& item : items) item.sid.push_back(0);
    naive.widths.push_back(naive.widths.back());
  }
  naive.items = items;
  double largest = 0, most_columns = 1;
  const auto logits_of = [&](absl::Span<const Code> prefix) {
    const std::vector<double>& all = reference_->logits.at({prefix.begin(), prefix.end()});
    std::vector<float> own(all.begin(), all.end());
    std::rotate(own.begin(), own.begin() + config.first_code(static_cast<int>(prefix.size())), own.end());
    for (const float x : own) largest = std::max(largest, x < -1e25f ? 0.0 : std::abs(double{x}));
    most_columns = std::max(most_columns, static_cast<double>(own.size()));
    return own;
  };
  decode::testing::NaiveBeam(naive, logits_of);  // for the largest
  naive.near_tie = 2 * config.steps() * reference_->LogProbError(2 * largest + std::log(most_columns), most_columns);
  const decode::testing::NaiveAnswer answer = decode::testing::NaiveBeam(naive, logits_of);
  ASSERT_FALSE(answer.non_finite);
  ++counts_.lists;
  counts_.near_ties += answer.near_tie ? 1 : 0;
  if (answer.near_tie || (answer.tie && !equal_rows_tie)) return;
  counts_.ties += answer.tie ? 1 : 0;
  ASSERT_EQ(answer.list.size(), result.hypotheses.size());
  for (size_t i = 0; i < answer.list.size(); ++i) {
    const absl::Span<const Code> codes = answer.list[i].sid.codes().first(config.levels());
    ASSERT_EQ(Sid(codes), result.hypotheses[i].sid) << "rank " << i << " of the naive beam's list";
  }
}

void SearchCheck::Check(const decode::SearchResult& result, const Reference* reference, bool equal_rows_tie) {
  const model::ModelConfig& config = world_.config;
  if (reference != nullptr && !reference->decided) {
    ++counts_.undecided;
    reference = nullptr;
  }
  reference_ = reference;
  beams_ = {{}};
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_LE(static_cast<int>(result.traced.size()), config.steps());
  for (size_t level = 0; level < result.traced.size(); ++level) {
    ASSERT_NO_FATAL_FAILURE(CheckLevel(static_cast<int>(level), result.traced[level]));
  }
  if (static_cast<int>(result.traced.size()) < config.steps()) {
    ASSERT_TRUE(legal_.items.empty()) << "only " << result.traced.size() << " levels were run";
    beams_.clear();
  }
  ASSERT_EQ(request_.compiled->eligible_leaves(), legal_.items.size());
  ASSERT_NO_FATAL_FAILURE(CheckHypotheses(result));
  std::vector<int> prefixes(config.levels() + 1);
  for (const Prefix& prefix : legal_.all) ++prefixes[prefix.size()];
  bool all_fit = true;
  for (int level = 0; level < config.levels(); ++level) all_fit &= prefixes[level + 1] <= request_.widths[level];
  if (all_fit) {
    ++counts_.all_there;
    ASSERT_EQ(result.hypotheses.size(), legal_.items.size()) << "the widths take every SID";
  }
  if (reference_ != nullptr) CheckNaiveList(result, equal_rows_tie);
}

}  // namespace beamline::oracle
