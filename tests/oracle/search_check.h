// SPDX-License-Identifier: Apache-2.0
//
// Whether the answer of a search is one that exact arithmetic allows. Level by level the search's own beams are
// followed: each is a child of an earlier one with an eligible item below it, its log-probability is the reference's,
// and none was left out that is better by more than roundings. Where no two candidates are near each other the list is
// also that of the naive beam (decode/naive_beam.h), rank by rank; and where the widths take everything, every eligible
// SID is there.
#pragma once

#include <map>
#include <set>

#include "decode/beam_search.h"
#include "oracle/reference.h"
#include "oracle/world.h"

namespace beamline::oracle {

// The prefixes of the eligible items, whole SIDs among them, and the codes that follow each.
struct LegalPrefixes {
  std::set<Prefix> all = {{}};
  std::map<Prefix, std::set<Code>> children;
  std::map<Prefix, std::vector<const CatalogueItem*>> items;  // of whole SIDs, by relevance, then id
};
LegalPrefixes LegalOf(const TinyCatalogue& catalogue, const Eligibility& eligibility);

struct CheckCounts {
  int64_t beams = 0;
  int lists = 0, near_ties = 0, ties = 0, all_there = 0, undecided = 0;
  double largest_error = 0;  // of a log-probability, relative to what the reference allows
};

class SearchCheck {
 public:
  SearchCheck(const World& world, const WorldRequest& request, const LegalPrefixes& legal, CheckCounts& counts)
      : world_(world), request_(request), legal_(legal), counts_(counts) {}

  // Without a reference only what holds in every dtype: legality, order, sums and items. `equal_rows_tie`: rows of a
  // head that are the same give the same logit to the last bit.
  void Check(const decode::SearchResult& result, const Reference* reference, bool equal_rows_tie);

 private:
  struct Candidate {
    double log_prob = 0, score = 0, error = 0;
  };
  struct Beam {
    Prefix prefix;
    float score = 0;
  };
  std::vector<double> LogProbs(const Prefix& prefix) const;
  std::map<Prefix, Candidate> Candidates(int level) const;
  void CheckLevel(int level, const std::vector<TracedBeam>& traced);
  void CheckHypotheses(const decode::SearchResult& result) const;
  void CheckItems(const decode::Hypothesis& hypothesis) const;
  void CheckNaiveList(const decode::SearchResult& result, bool equal_rows_tie) const;

  const World& world_;
  const WorldRequest& request_;
  const LegalPrefixes& legal_;
  CheckCounts& counts_;
  const Reference* reference_ = nullptr;
  std::vector<Beam> beams_;
};

}  // namespace beamline::oracle
