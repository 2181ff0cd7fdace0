// SPDX-License-Identifier: Apache-2.0
//
// `beamline tokenize`: the SIDs of others, of new items, and those that collide.
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/binary.h"
#include "cli/verbs_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class TokenizeTest : public VerbsTest {};

TEST_F(TokenizeTest, ForeignIndexesBecomeTokenizers) {
  const std::string letter = Write("x.index.json", R"({"0": ["<a_1>", "<b_2>"], "1": ["<a_0>", "<b_2>"]})");
  Good(absl::StrCat("tokenize --from-index ", letter, " --id-offset 1 --levels 4,4 --write-index ", File("w.json"),
                    " --out ", File("letter")));
  EXPECT_THAT(Slurp(File("letter/sids.tsv")), HasSubstr("item_id\tsid\n1\t1,2\n2\t0,2\n"));
  EXPECT_THAT(Slurp(File("w.json")), HasSubstr(R"({"0": ["<a_1>", "<b_2>"], "1": ["<a_0>", "<b_2>"]})"));
  const std::string map = Write("sid2pid.json", R"({"67125256": [{"pid": 17, "count": 9}, {"pid": 4}]})");
  Good(absl::StrCat("tokenize --from-index ", map, " --dialect openonerec --out ", File("openonerec")));
  EXPECT_THAT(Slurp(File("openonerec/sids.tsv")), HasSubstr("item_id\tsid\n17\t1,2,8\n4\t1,2,8\n"));
  // Such a tokenizer makes a catalogue like any other.
  Good(absl::StrCat("pack --catalogue-only --tokenizer ", File("openonerec"), " --out ", File("items.bin")));
  EXPECT_THAT(Good(absl::StrCat("inspect ", File("items.bin"), " --sid 1,2")).text, HasSubstr("17"));
  Bad(absl::StrCat("pack --catalogue-only --tokenizer ", File("openonerec"), " --out ", File("more.bin"), " --model ",
                   File("none")),
      "none/vocabulary.safetensors");
}

// What stands in the way of the promise is named: the room of the last level, or a limit that the user set.
TEST_F(TokenizeTest, CollisionsThatAreLeftAreExplained) {
  Good(absl::StrCat("generate-data vectors --items 100 --dim 4 --out ", File("v.safetensors")));
  const std::string tokenize = absl::StrCat("tokenize --threads 1 --collision-free --vectors ", File("v.safetensors"));
  EXPECT_THAT(Good(absl::StrCat(tokenize, " --levels 4,60 --out ", File("free"))).text, Not(HasSubstr("is not kept")));
  EXPECT_THAT(Good(absl::StrCat(tokenize, " --levels 4,60 --max-move-error 0 --out ", File("unmoved"))).text,
              HasSubstr("--max-items-per-sid: 1 is not kept: moves over --max-move-error were left undone"));
  EXPECT_THAT(Good(absl::StrCat(tokenize, " --levels 4,4 --out ", File("full"))).text,
              HasSubstr("--max-items-per-sid: 1 is not kept: some prefix has more items than"));
}

// Neither another level size nor --balanced can be asked of a codebook that is there.
TEST_F(TokenizeTest, CollisionsOfKnownItemsAreNotBlamedOnRoom) {
  Good(absl::StrCat("generate-data vectors --items 100 --dim 4 --out ", File("v.safetensors")));
  Good(absl::StrCat("generate-data vectors --items 101 --dim 4 --out ", File("w.safetensors")));
  Good(absl::StrCat("tokenize --threads 1 --levels 4,60 --vectors ", File("v.safetensors"), " --out ", File("t")));
  EXPECT_THAT(Good(absl::StrCat("tokenize --threads 1 --collision-free --encode ", File("t"), " --vectors ",
                                File("w.safetensors"), " --out ", File("more")))
                  .text,
              ::testing::AllOf(HasSubstr("--max-items-per-sid: 1 is not kept: known items keep their SIDs"),
                               HasSubstr("encode 100% 1/1 items"), Not(HasSubstr("--balanced"))));
}

TEST_F(TokenizeTest, NewItemsJoinTheTokenizerOfTheOldOnes) {
  const auto vectors = [&](const std::string& name, int items) {
    Good(absl::StrCat("generate-data vectors --dim 4 --items ", items, " --out ", File(name)));
    return absl::StrCat(" --vectors ", File(name), " --threads 1 --collision-free");
  };
  const std::string old_vectors = vectors("old.safetensors", 9), all_vectors = vectors("all.safetensors", 12);
  Good(absl::StrCat("tokenize --levels 3,8 --out ", File("old"), old_vectors));
  const std::string encode = absl::StrCat("tokenize --encode ", File("old"), all_vectors);
  EXPECT_THAT(Good(absl::StrCat(encode, " --out ", File("new"))).text,
              HasSubstr("encoded   3 new items, 9 have kept their SIDs"));
  EXPECT_EQ(Slurp(File("new/codebook.safetensors")), Slurp(File("old/codebook.safetensors")));
  const auto rows = [&](const std::string& name) {
    const std::string text = Slurp(File(name));
    return text.substr(text.find('\n'));  // the first line has a digest
  };
  EXPECT_THAT(rows("new/sids.tsv"), ::testing::StartsWith(rows("old/sids.tsv")));
  EXPECT_THAT(Good(absl::StrCat("pack --catalogue-only --tokenizer ", File("new"), " --out ", File("items"))).text,
              HasSubstr("items       12 in 12 SIDs"));
  Good(absl::StrCat(encode, " --overwrite --out ", File("old")));
  EXPECT_EQ(Slurp(File("old/sids.tsv")), Slurp(File("new/sids.tsv")));
}

}  // namespace
}  // namespace beamline::cli
