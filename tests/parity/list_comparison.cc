// SPDX-License-Identifier: Apache-2.0
#include "parity/list_comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace beamline::parity {
namespace {

constexpr size_t kShownFailures = 10;

void Fail(Tally& tally, const std::string& where, const std::string& what) {
  ++tally.failed;
  if (tally.failures.size() < kShownFailures) tally.failures.push_back(absl::StrCat(where, ": ", what));
}

}  // namespace

std::string Tally::ToString() const {
  return absl::StrFormat(
      "%d lists, %d hypotheses: worst score difference %.1e; excused %d by order and %d by membership; failed %d",
      lists, hypotheses, worst_score, reordered, other_members, failed);
}

void Compare(const ReferenceList& expected, absl::Span<const Scored> actual, const std::string& where, Tally& tally) {
  ++tally.lists;
  tally.hypotheses += static_cast<int64_t>(actual.size());
  std::map<Sid, double> reference;
  for (const Scored& entry : expected.entries) reference[entry.sid] = entry.score;

  bool same_members = actual.size() == expected.entries.size();
  double lowest = std::numeric_limits<double>::infinity();  // reference score so far, in our order
  double inversion = 0, worst = 0;
  for (const Scored& entry : actual) {
    const auto found = reference.find(entry.sid);
    if (found == reference.end()) {
      same_members = false;
      continue;
    }
    const double difference = std::abs(entry.score - found->second);
    worst = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(worst, difference);
    inversion = std::max(inversion, found->second - lowest);
    lowest = std::min(lowest, found->second);
    reference.erase(found);  // a SID twice is one too many
  }
  same_members = same_members && reference.empty();
  tally.worst_score = std::max(tally.worst_score, worst);

  if (worst > kScoreTolerance) return Fail(tally, where, absl::StrFormat("a score differs by %.2e", worst));
  if (inversion > kTieTolerance) {
    return Fail(tally, where, absl::StrFormat("order differs over a distance of %.2e", inversion));
  }
  if (!same_members) {
    if (expected.cut_gap > kTieTolerance) {
      return Fail(tally, where,
                  absl::StrFormat("%d SIDs, the reference has %d, of which %d are not among ours (closest cut %.2e)",
                                  actual.size(), expected.entries.size(), reference.size(), expected.cut_gap));
    }
    ++tally.other_members;
    return;
  }
  for (size_t i = 0; i < actual.size(); ++i) {
    if (actual[i].sid == expected.entries[i].sid) continue;
    ++tally.reordered;
    return;
  }
}

}  // namespace beamline::parity
