// SPDX-License-Identifier: Apache-2.0
#include "parity/list_comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace beamline::parity {
namespace {

constexpr size_t kShownFailures = 10;

enum class Agreement : uint8_t { kNone, kSame, kReordered, kOtherMembers };

struct Verdict {
  Agreement agreement = Agreement::kNone;
  double worst = 0;     // largest difference of a score
  std::string problem;  // where they do not agree
};

void Fail(Tally& tally, const std::string& where, const std::string& what) {
  ++tally.failed;
  if (tally.failures.size() < kShownFailures) tally.failures.push_back(absl::StrCat(where, ": ", what));
}

Verdict Judge(const ReferenceList& expected, absl::Span<const Scored> actual) {
  std::map<Sid, double> reference;
  for (const Scored& entry : expected.entries) reference[entry.sid] = entry.score;

  Verdict verdict;
  bool same_members = actual.size() == expected.entries.size();
  double lowest = std::numeric_limits<double>::infinity();  // reference score so far, in our order
  double inversion = 0;
  for (const Scored& entry : actual) {
    const auto found = reference.find(entry.sid);
    if (found == reference.end()) {
      same_members = false;
      continue;
    }
    const double difference = std::abs(entry.score - found->second);
    verdict.worst =
        std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(verdict.worst, difference);
    inversion = std::max(inversion, found->second - lowest);
    lowest = std::min(lowest, found->second);
    reference.erase(found);  // a SID twice is one too many
  }
  same_members = same_members && reference.empty();

  if (verdict.worst > kScoreTolerance) {
    verdict.problem = absl::StrFormat("a score differs by %.2e", verdict.worst);
  } else if (inversion > kTieTolerance) {
    verdict.problem = absl::StrFormat("order differs over a distance of %.2e", inversion);
  } else if (!same_members && expected.cut_gap > kTieTolerance) {
    verdict.problem =
        absl::StrFormat("%d SIDs, the reference has %d, of which %d are not among ours (closest cut %.2e)",
                        actual.size(), expected.entries.size(), reference.size(), expected.cut_gap);
  } else if (!same_members) {
    verdict.agreement = Agreement::kOtherMembers;
  } else {
    const bool same_order = std::equal(actual.begin(), actual.end(), expected.entries.begin(),
                                       [](const Scored& a, const Scored& b) { return a.sid == b.sid; });
    verdict.agreement = same_order ? Agreement::kSame : Agreement::kReordered;
  }
  return verdict;
}

ReferenceList InDouble(const ReferenceList& expected) {
  ReferenceList list = expected;
  for (size_t i = 0; i < list.entries.size(); ++i) list.entries[i].score = expected.in_double[i];
  std::stable_sort(list.entries.begin(), list.entries.end(),
                   [](const Scored& a, const Scored& b) { return a.score > b.score; });
  return list;
}

}  // namespace

std::string Tally::ToString() const {
  return absl::StrFormat(
      "%d lists, %d hypotheses: worst score difference %.1e; excused %d by order and %d by membership; %d by the "
      "reference in double; failed %d",
      lists, hypotheses, worst_score, reordered, other_members, by_double, failed);
}

void Compare(const ReferenceList& expected, absl::Span<const Scored> actual, const std::string& where, Tally& tally) {
  ++tally.lists;
  tally.hypotheses += static_cast<int64_t>(actual.size());
  Verdict verdict = Judge(expected, actual);
  if (verdict.agreement == Agreement::kNone && !expected.in_double.empty()) {
    Verdict in_double = Judge(InDouble(expected), actual);
    if (in_double.agreement != Agreement::kNone) {
      verdict = std::move(in_double);
      ++tally.by_double;
    }
  }
  tally.worst_score = std::max(tally.worst_score, verdict.worst);
  if (verdict.agreement == Agreement::kNone) Fail(tally, where, verdict.problem);
  tally.reordered += verdict.agreement == Agreement::kReordered ? 1 : 0;
  tally.other_members += verdict.agreement == Agreement::kOtherMembers ? 1 : 0;
}

}  // namespace beamline::parity
