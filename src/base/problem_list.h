// SPDX-License-Identifier: Apache-2.0
//
// What is wrong with something that a stranger wrote, for one message: one look at it should be enough, and no input
// should make it longer than a screen. Not thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace beamline {

class ProblemList {
 public:
  static constexpr size_t kMaxProblems = 20, kMaxProblemBytes = 1000;

  // Made printable and cut; the kMaxProblems + 1st and later ones are only counted.
  void Add(absl::string_view problem);

  bool empty() const { return lines_.empty(); }
  // One line each, and "and 7 more" where some were only counted.
  std::string ToString() const;

 private:
  std::vector<std::string> lines_;
  size_t more_ = 0;
};

}  // namespace beamline
