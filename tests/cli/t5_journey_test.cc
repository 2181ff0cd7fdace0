// SPDX-License-Identifier: Apache-2.0
//
// A foreign checkpoint goes on training and goes back, by the binary alone: import hf, train --from within a time
// budget and on from its checkpoint, evaluate, pack, export hf (the small model of tests/golden/t5_training).
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/binary.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "testing/paths.h"

namespace beamline::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

// The text of a call that must end with `exit_code`.
std::string Run(const std::string& arguments, int exit_code = 0) {
  const Outcome outcome = Beamline(arguments);
  EXPECT_EQ(outcome.exit_code, exit_code) << arguments << "\n" << outcome.text;
  return outcome.text;
}

TEST(T5Journey, ImportTrainEvaluatePackExport) {
  const std::string golden = absl::StrCat(BEAMLINE_SOURCE_DIR, "/tests/golden/t5_training");
  const fs::path folder = fs::path(::testing::TempDir()) / "t5_journey";
  fs::create_directories(folder);
  const std::string out = folder.string();
  const std::string index = absl::StrCat(" --sid-index ", golden,
                                         "/index.json --id-offset 1 --levels 6,5,4 --max-items 5 --score-end --out ");
  cli::Run(absl::StrCat("import hf ", golden, "/hf", index, out, "/first --model-out ", out, "/parts"));
  cli::Run(absl::StrCat("import sequences ", golden, "/log.txt --out ", out, "/data"));

  // As it is, it is evaluated by targets that it is told.
  const std::string evaluate_parts = absl::StrCat("evaluate --model ", out, "/parts --data ", out, "/data --tokenizer ",
                                                  out, "/parts --beam 10 --resamples 10 --threads 1 --backend auto");
  EXPECT_THAT(cli::Run(evaluate_parts + " --targets any"),
              AllOf(HasSubstr("model - item-knn"), HasSubstr("parts: has no training.json")));
  EXPECT_THAT(cli::Run(evaluate_parts + " --targets any --k-core 1000", 2), HasSubstr("choose other target labels"));
  EXPECT_THAT(cli::Run(evaluate_parts + " --targets none", 2), HasSubstr("--targets: unknown label 'none'"));

  const std::string train =
      absl::StrCat("train --data ", out, "/data --tokenizer ", out, "/parts --from ", out,
                   "/parts --preset t5-d128 --targets any --epochs 4 --batch 16 --learning-rate ",
                   "0.005 --validation-users 20 --validate-every 2 --threads 1 --out ", out, "/model");
  EXPECT_THAT(cli::Run(train + " --max-minutes 0.00001", 130), HasSubstr("the same command goes on"));
  EXPECT_TRUE(fs::exists(folder / "model/checkpoint.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "model/model.safetensors"));
  EXPECT_THAT(cli::Run(train), HasSubstr("resumed"));
  EXPECT_THAT(cli::Run(absl::StrCat("evaluate --model ", out, "/model --data ", out, "/data --tokenizer ", out,
                                    "/parts --beam 10 --resamples 10 --threads 1 --backend auto")),
              HasSubstr("model - item-knn"));
  cli::Run(absl::StrCat("pack --model ", out, "/model --tokenizer ", out, "/parts --out ", out, "/bundle"));

  const std::string export_hf = absl::StrCat("export hf --model ", out, "/bundle --out ", out, "/hf");
  EXPECT_THAT(cli::Run(export_hf), HasSubstr("with --levels 6,5,4 --max-items 5 --score-end\n"));
  EXPECT_THAT(cli::Run(absl::StrCat("import hf ", out, "/hf --sid-index ", golden, "/index.json --id-offset 1 ",
                                    "--levels 6,5,4 --max-items 5 --out ", out, "/again")),
              HasSubstr("the end token is scored"))
      << "the checkpoint says it";
  EXPECT_THAT(cli::Run(export_hf, 2), HasSubstr("hf/model.safetensors: exists; pass --overwrite"));
}

}  // namespace
}  // namespace beamline::cli
