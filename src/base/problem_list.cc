// SPDX-License-Identifier: Apache-2.0
#include "base/problem_list.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/utf8.h"

namespace beamline {

void ProblemList::Add(absl::string_view problem) {
  if (lines_.size() < kMaxProblems) {
    lines_.push_back(PrintableUtf8(problem, kMaxProblemBytes));
  } else {
    ++more_;
  }
}

std::string ProblemList::ToString() const {
  return absl::StrCat(absl::StrJoin(lines_, "\n"), more_ == 0 ? "" : absl::StrCat("\nand ", more_, " more"));
}

}  // namespace beamline
