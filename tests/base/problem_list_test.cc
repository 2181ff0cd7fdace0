// SPDX-License-Identifier: Apache-2.0
#include "base/problem_list.h"

#include <string>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace beamline {
namespace {

TEST(ProblemList, OneLineEach) {
  ProblemList problems;
  EXPECT_TRUE(problems.empty());
  problems.Add("a: is missing");
  problems.Add("b\n\x1b[2J: is unknown");
  EXPECT_FALSE(problems.empty());
  EXPECT_EQ(problems.ToString(), "a: is missing\nb??[2J: is unknown");
}

TEST(ProblemList, IsShortWhateverIsAdded) {
  ProblemList problems;
  problems.Add(std::string(1 << 20, 'x'));
  EXPECT_EQ(problems.ToString(), std::string(ProblemList::kMaxProblemBytes, 'x'));
  for (size_t i = 1; i < ProblemList::kMaxProblems; ++i) problems.Add(absl::StrCat("p", i));
  EXPECT_TRUE(problems.ToString().ends_with("\np19")) << "all that fit are shown";
  for (int i = 0; i < 7; ++i) problems.Add("one more");
  EXPECT_TRUE(problems.ToString().ends_with("\np19\nand 7 more")) << problems.ToString();
}

}  // namespace
}  // namespace beamline
