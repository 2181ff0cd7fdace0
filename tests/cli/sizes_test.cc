// SPDX-License-Identifier: Apache-2.0
//
// Sizes that a backend does not compute with, as whoever looks at a bundle on another machine reads of them.
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "cli/binary.h"
#include "cli/verbs_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/tiny_bundle.h"

namespace beamline::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class SizesTest : public VerbsTest {
 protected:
  void SetUp() override {
    for (const auto& [name, width] : {std::pair{"odd", 4}, std::pair{"even", 8}}) {
      const auto written = runtime::testing::WriteTinyBundle(File(name), {.feature_width = width});
      ASSERT_TRUE(written.ok()) << written.status();
    }
  }
  std::string Check(const std::string& bundle, const std::string& engine) const {
    const std::string config = Write("server.textproto", absl::StrCat("engine { ", engine, " }\n"));
    return absl::StrCat("serve --check-config --config ", config, " --bundle ", File(bundle));
  }
};

constexpr char kOdd[] = ".width: must be a multiple of 8, is 4";

TEST_F(SizesTest, InspectSaysWhichBackendDoesNotComputeThem) {
  EXPECT_THAT(Good(absl::StrCat("inspect ", File("odd"))).text,
              AllOf(HasSubstr("\nsizes       config.json: backend cuda does not compute with such sizes:\n"),
                    HasSubstr(kOdd), HasSubstr("choose other sizes, backend aten, or device cpu")));
  EXPECT_THAT(Good(absl::StrCat("inspect ", File("even"))).text, Not(HasSubstr("\nsizes ")));
}

// backend auto of a binary without the cuda backend is aten, which has no limits.
TEST_F(SizesTest, CheckConfigRefusesThemForAGpuAndWarnsWhereTheCpuMayDo) {
  Bad(Check("odd", "device: 'cuda' backend: 'cuda'"), kOdd);
  EXPECT_THAT(Good(Check("odd", "device: 'auto' backend: 'cuda'")).text,
              AllOf(HasSubstr("--bundle: warning: with a GPU: "), HasSubstr(kOdd)));
  EXPECT_THAT(Good(Check("odd", "device: 'cpu'")).text, Not(HasSubstr("multiple of 8")));
  EXPECT_THAT(Good(Check("even", "device: 'cuda' backend: 'cuda'")).text, Not(HasSubstr("multiple of 8")));
  EXPECT_THAT(Good(Check("even", "device: 'auto' backend: 'cuda'")).text, Not(HasSubstr("warning")));
}

}  // namespace
}  // namespace beamline::cli
