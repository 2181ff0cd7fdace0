// SPDX-License-Identifier: Apache-2.0
//
// A foreign checkpoint goes on training and goes back, by the binary alone: import hf, train --from within a time
// budget and on from its checkpoint, evaluate, pack, export hf (the small model of tests/golden/t5_training).
#include <array>
#include <cstdio>
#include <filesystem>
#include <string>

#include <sys/wait.h>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

int Run(const std::string& arguments, std::string& text) {
  std::FILE* pipe = popen(absl::StrCat(BEAMLINE_BINARY, " ", arguments, " 2>&1").c_str(), "r");
  std::array<char, 4096> buffer;
  text.clear();
  while (const size_t read = std::fread(buffer.data(), 1, buffer.size(), pipe)) text.append(buffer.data(), read);
  const int status = pclose(pipe);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(T5Journey, ImportTrainEvaluatePackExport) {
  const std::string golden = absl::StrCat(BEAMLINE_SOURCE_DIR, "/tests/golden/t5_training");
  const fs::path folder = fs::path(::testing::TempDir()) / "t5_journey";
  fs::remove_all(folder);
  fs::create_directories(folder);
  const std::string out = folder.string();
  std::string text;
  ASSERT_EQ(
      Run(absl::StrCat("import hf ", golden, "/hf --sid-index ", golden, "/index.json --id-offset 1 --levels 6,5,4 ",
                       "--max-items 5 --score-end --out ", out, "/first --model-out ", out, "/parts"),
          text),
      0)
      << text;
  ASSERT_EQ(Run(absl::StrCat("import sequences ", golden, "/log.txt --out ", out, "/data"), text), 0) << text;

  const std::string train =
      absl::StrCat("train --data ", out, "/data --tokenizer ", out, "/parts --from ", out,
                   "/parts --preset t5-d128 --targets any --epochs 4 --batch 16 --learning-rate ",
                   "0.005 --validation-users 20 --validate-every 2 --threads 1 --out ", out, "/model");
  ASSERT_EQ(Run(train + " --max-minutes 0.00001", text), 130) << text;
  EXPECT_THAT(text, HasSubstr("the same command goes on"));
  EXPECT_TRUE(fs::exists(folder / "model/checkpoint.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "model/model.safetensors"));
  ASSERT_EQ(Run(train, text), 0) << text;
  EXPECT_THAT(text, HasSubstr("resumed"));
  ASSERT_EQ(Run(absl::StrCat("evaluate --model ", out, "/model --data ", out, "/data --tokenizer ", out,
                             "/parts --beam 10 --resamples 10 --threads 1 --backend auto"),
                text),
            0)
      << text;
  EXPECT_THAT(text, HasSubstr("model - item-knn"));
  ASSERT_EQ(Run(absl::StrCat("pack --model ", out, "/model --tokenizer ", out, "/parts --out ", out, "/bundle"), text),
            0)
      << text;

  ASSERT_EQ(Run(absl::StrCat("export hf --model ", out, "/bundle --out ", out, "/hf"), text), 0) << text;
  ASSERT_EQ(Run(absl::StrCat("import hf ", out, "/hf --sid-index ", golden, "/index.json --id-offset 1 --levels 6,5,4 ",
                             "--max-items 5 --score-end --out ", out, "/again"),
                text),
            0)
      << text;
  EXPECT_EQ(Run(absl::StrCat("export hf --model ", out, "/bundle --out ", out, "/hf"), text), 2);
  EXPECT_THAT(text, HasSubstr("is there already"));
}

}  // namespace
}  // namespace beamline
