// SPDX-License-Identifier: Apache-2.0
//
// How good a tokenization is: reconstruction error, use and entropy of the codes of each level, collisions; beside a
// random assignment of the same sizes to the same vectors, which says what the numbers mean. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/float_matrix.h"
#include "sid/codebook.h"

namespace beamline::sid {

struct LevelReport {
  uint32_t size = 0;
  uint32_t used = 0;    // codes with at least one item
  double entropy = 0;   // of the code distribution, in nats; at most log(size)
  int64_t largest = 0;  // items of the most frequent code
  double error = 0;     // relative reconstruction error after this level; NaN without vectors
};

struct AssignmentReport {
  double error = 0;  // sum |x - decoded|^2 / sum |x - mean|^2; NaN without vectors
  std::vector<LevelReport> levels;
  int64_t items = 0;
  int64_t distinct_sids = 0;
  int64_t largest_sid = 0;      // items of the fullest SID
  int64_t colliding_items = 0;  // items that share their SID
};

struct TokenizerReport {
  AssignmentReport tokenizer;
  AssignmentReport random;  // uniform random codes; its errors take the mean vector of each code's items as centroid
};

// vectors may be null (a foreign codebook): then errors are NaN.
absl::StatusOr<TokenizerReport> ReportTokenizer(const Codebook& codebook, absl::Span<const Sid> sids,
                                                const FloatMatrix* vectors, uint64_t seed = 1);

std::string ReportText(const TokenizerReport& report);
std::string ReportJson(const TokenizerReport& report);  // NaN becomes null

}  // namespace beamline::sid
