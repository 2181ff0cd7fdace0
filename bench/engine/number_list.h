// SPDX-License-Identifier: Apache-2.0
//
// "1,8,32" of a command line. Ends the program with status 2 where it is no such list or a number is below `least`.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace beamline::bench {

inline std::vector<int> NumberList(const std::string& text, int least = 1) {
  std::vector<int> values;
  for (const auto part : absl::StrSplit(text, ',')) {
    int value = 0;
    if (!absl::SimpleAtoi(part, &value) || value < least) {
      std::fprintf(stderr, "not a list of numbers of at least %d: %s\n", least, text.c_str());
      std::exit(2);
    }
    values.push_back(value);
  }
  return values;
}

}  // namespace beamline::bench
