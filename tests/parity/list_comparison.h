// SPDX-License-Identifier: Apache-2.0
//
// When two beam searches agree. Scores of the same SID lie within kScoreTolerance. Order may differ only between SIDs
// whose reference scores lie within kTieTolerance, and membership only where the reference itself cut its beam between
// two candidates that close; lists that need either are counted as excused, and a run may excuse kMaxExcused of them.
// Where one token of a wide vocabulary takes nearly all of the probability, the reference's own log-softmax in fp32 is
// off by 2e-5 a step: a list may instead agree, within the same tolerances, with the reference's scores and order in
// double precision. Such lists are counted, too.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "beamline/types.h"

namespace beamline::parity {

inline constexpr double kScoreTolerance = 5e-5;
inline constexpr double kTieTolerance = 1e-4;
inline constexpr double kMaxExcused = 0.02;

struct Scored {
  Sid sid;
  double score = 0;
};

struct ReferenceList {
  std::vector<Scored> entries;    // best first
  std::vector<double> in_double;  // the entries' scores by the reference in double precision; empty: not known
  double cut_gap = 1e9;           // the least distance of last kept and first dropped candidate over all steps
};

struct Tally {
  int64_t lists = 0, hypotheses = 0;
  int64_t reordered = 0;              // excused: other order among near ties
  int64_t other_members = 0;          // excused: the reference cut its beam between near ties
  int64_t by_double = 0;              // agree with the reference in double precision, not with it in fp32
  double worst_score = 0;             // largest difference of a score, from what the list agrees with
  std::vector<std::string> failures;  // the first ten
  int64_t failed = 0;

  std::string ToString() const;
};

// Adds one list to the tally; `where` opens the message of a failure.
void Compare(const ReferenceList& expected, absl::Span<const Scored> actual, const std::string& where, Tally& tally);

}  // namespace beamline::parity
