// SPDX-License-Identifier: Apache-2.0
//
// The beam search contract written as plainly as possible: prefixes in a map, eligibility by looking at every item,
// probabilities in double precision. The oracle of the decode tests; shares no code with the product.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "beamline/catalogue.h"
#include "beamline/request.h"

namespace beamline::decode::testing {

inline constexpr double kTolerance = 1e-5;  // of scores against this oracle; promise 4 of the design
inline constexpr double kNearTie = 2e-5;

// Logits of the level after `prefix`, one per code of that level. Deterministic.
using LogitsOf = std::function<std::vector<float>(absl::Span<const Code> prefix)>;

struct NaiveHypothesis {
  Sid sid;
  std::vector<double> log_probs;
  double score = 0;
};

struct NaiveRequest {
  absl::Span<const CatalogueItem> items;  // the whole catalogue, any order
  Eligibility eligibility;
  ScoreRule score_rule = ScoreRule::kFull;
  std::vector<int> widths;  // [levels]
  double near_tie = kNearTie;
};

struct NaiveAnswer {
  bool non_finite = false;  // the request must fail
  // Two candidates at some cut, or two neighbours in the answer, whose scores differ by less than the request's
  // `near_tie` but are not equal: fp32 may order them the other way.
  bool near_tie = false;
  bool tie = false;  // two such whose scores are equal: SIDs order them
  std::vector<NaiveHypothesis> list;
};

bool NaiveEligible(const CatalogueItem& item, const Eligibility& eligibility);

// The stepwise beam of the contract.
NaiveAnswer NaiveBeam(const NaiveRequest& request, const LogitsOf& logits);

// Every eligible SID scored by teacher forcing; the best `top` by score, then SID.
NaiveAnswer NaiveExhaustive(const NaiveRequest& request, const LogitsOf& logits, int top);

}  // namespace beamline::decode::testing
