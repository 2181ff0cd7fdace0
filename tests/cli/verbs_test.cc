// SPDX-License-Identifier: Apache-2.0
//
// The verbs that make things, as their users run them, on a tiny log: the whole journey, what is refused and how, and
// what Ctrl-C leaves behind.
#include "cli/verbs_test.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/program.h"
#include "cli/binary.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "testing/paths.h"

namespace beamline::cli {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST_F(VerbsTest, TheWholeJourney) {
  MakeLog();
  EXPECT_THAT(Files("data"), ElementsAre("events.tsv.gz", "items.tsv.gz", "users.tsv.gz"));
  Tokenize();
  EXPECT_THAT(Files("tokenizer"),
              ElementsAre("codebook.safetensors", "report.json", "sids.tsv", "vectors.safetensors"));

  // Items the tokenizer knows keep their SIDs, those too that are not the nearest codes.
  for (const char* mode : {" --collision-free", ""}) {
    Good(absl::StrCat("tokenize --encode ", File("tokenizer"), " --vectors ", File("tokenizer/vectors.safetensors"),
                      mode, " --threads 1 --overwrite --out ", File("again")));
    EXPECT_EQ(Slurp(File("again/sids.tsv")), Slurp(File("tokenizer/sids.tsv"))) << mode;
  }
  // SIDs of another codebook say nothing about what this one may see.
  fs::create_directory(File("mixed"));
  fs::copy(File("tokenizer/codebook.safetensors"), File("mixed/codebook.safetensors"));
  const std::string edited =
      std::regex_replace(Slurp(File("tokenizer/sids.tsv")), std::regex("\tsha256=[0-9a-f]*"), "");
  std::ofstream(File("mixed/sids.tsv")) << std::regex_replace(edited, std::regex("codebook=[0-9a-f]{4}"),
                                                              "codebook=0000");
  const Outcome mixed = Beamline(absl::StrCat("tokenize --encode ", File("mixed"), " --vectors ",
                                              File("tokenizer/vectors.safetensors"), " --out ", File("other.tsv")));
  EXPECT_EQ(mixed.exit_code, 2);
  EXPECT_THAT(mixed.text, HasSubstr("mixed/sids.tsv: belongs to codebook 0000"));

  EXPECT_THAT(Good(TrainArguments("model")).text,
              AllOf(HasSubstr("epoch   1 "), HasSubstr("validation R@"), HasSubstr("wrote "), HasSubstr("parameters")));
  EXPECT_THAT(Files("model"),
              ElementsAre("config.json", "model.safetensors", "training.json", "vocabulary.safetensors"));

  const std::string source = absl::StrCat(" --data ", File("data"), " --tokenizer ", File("tokenizer"));
  const Outcome table = Good(absl::StrCat("evaluate --model ", File("model"), source,
                                          " --beam 16 --resamples 20 --threads 1 --out ", File("evaluation.json")));
  EXPECT_THAT(table.text,
              AllOf(HasSubstr("popularity"), HasSubstr("markov"), HasSubstr("item-knn"), HasSubstr("R@10")));
  EXPECT_THAT(table.text, HasSubstr(Good(absl::StrCat("evaluate --show ", File("evaluation.json"))).text));

  // A log this small decides nothing: the report is written, says so, and is packed into no bundle.
  const Outcome gate = Beamline(absl::StrCat("evaluate --model ", File("model"), source, " --beam 32 --gate int8 ",
                                             "--backend cpu --threads 1 --out ", File("gate.json")));
  EXPECT_EQ(gate.exit_code, 2);
  EXPECT_THAT(gate.text, AllOf(HasSubstr("int8 beside bf16 and fp32"), HasSubstr("requests are too few to tell")));
  EXPECT_THAT(gate.text, HasSubstr(Good(absl::StrCat("evaluate --show ", File("gate.json"))).text));
  Bad(absl::StrCat("pack --model ", File("model"), " --tokenizer ", File("tokenizer"), " --gate ", File("gate.json"),
                   " --out ", File("bundle")),
      "gate.json: the gate of int8 was not passed");
  const Outcome missing = Beamline(absl::StrCat("pack --model ", File("model"), " --tokenizer ", File("tokenizer"),
                                                " --gate ", File("none.json"), " --out ", File("bundle")));
  EXPECT_EQ(missing.exit_code, 2);
  EXPECT_THAT(missing.text, ::testing::EndsWith("none.json: no such regular file\n"));

  const std::string ranker =
      absl::StrCat("train-ranker --model ", File("model"), source, " --threads 1 --epochs 1 --out ", File("ranked"));
  EXPECT_THAT(Good(absl::StrCat(ranker, " --heads long_view=1,click=.2")).text,
              AllOf(HasSubstr("head        click: "), HasSubstr("epoch   1 "), HasSubstr("AUC"), HasSubstr("wrote ")));
  EXPECT_THAT(Files("ranked"),
              ElementsAre("config.json", "model.safetensors", "training.json", "vocabulary.safetensors"));
  EXPECT_THAT(Good(absl::StrCat("evaluate --model ", File("ranked"), source,
                                " --by-value --beam 16 --resamples 20 --threads 1"))
                  .text,
              HasSubstr("model - beam order"));
  // A report as a large log may give: it is packed, and shown beside the ranker.
  Beamline(absl::StrCat("evaluate --model ", File("ranked"), source,
                        " --beam 32 --gate int8 --backend cpu --threads 1 --overwrite --out ", File("gate.json")));
  nlohmann::json passed = nlohmann::json::parse(Slurp(File("gate.json")));
  for (const char* share : {"top_1", "overlap", "bf16_overlap"}) passed[share] = 1;
  passed["requests"] = 20000;
  passed["recall_10"] = passed["bf16_recall_10"];
  passed["recall_10_difference"] = {{"low", 0}, {"mean", 0}, {"high", 0}};
  std::ofstream(File("gate.json")) << passed.dump();
  Good(absl::StrCat("pack --model ", File("ranked"), " --tokenizer ", File("tokenizer"), " --gate ", File("gate.json"),
                    " --out ", File("ranked_bundle")));
  EXPECT_THAT(Good(absl::StrCat("inspect ", File("ranked_bundle"))).text,
              AllOf(HasSubstr("ranker      value = 1 x score +1 x long_view +0.2 x click, hidden layer of "),
                    HasSubstr("gate        int8, passed\n")));
  Bad(absl::StrCat("evaluate --model ", File("model"), source, " --by-value"), "has no ranker");
  Bad(absl::StrCat(ranker, " --heads long_view"), "--heads: 'long_view' is no label with a weight");
  Bad(absl::StrCat(ranker, " --heads long_view=1"), "pass --fresh");
  Bad(absl::StrCat(ranker, " --heads long_view=1 --width 12 --fresh"), "ranker.width");

  Good(absl::StrCat("pack --model ", File("model"), " --tokenizer ", File("tokenizer"), " --items ",
                    File("data/items.tsv.gz"), " --out ", File("bundle")));
  EXPECT_THAT(Good(absl::StrCat("inspect ", File("bundle"))).text,
              AllOf(HasSubstr("onerec_v1"), HasSubstr(absl::StrCat("\nwritten by  ", ProgramBuild(), "\n"))));
  EXPECT_THAT(Good(absl::StrCat("inspect ", File("data"))).text,
              AllOf(HasSubstr("data        "),
                    testing::ContainsRegex("[1-9][0-9]* users, [1-9][0-9]* items, [1-9][0-9]* events"),
                    HasSubstr("label rates: "), HasSubstr("attributes of users: ")));
  Bad(absl::StrCat("inspect ", File("data"), " --item 1"), "is no catalogue; name a bundle");
  Bad(absl::StrCat("inspect ", File("model")), "not a bundle");

  for (const char* name : {"demo", "server"}) {
    EXPECT_THAT(Good(absl::StrCat("serve --check-config --config ", BEAMLINE_SOURCE_DIR, "/configs/", name,
                                  ".textproto --bundle ", File("bundle")))
                    .text,
                HasSubstr("no problems found"));
  }
  Background server(absl::StrCat("serve --config ", BEAMLINE_SOURCE_DIR, "/configs/demo.textproto --port 0 --any-port ",
                                 "--bundle ", File("bundle")),
                    File("server.log"));
  ASSERT_TRUE(server.Await([&] { return server.text().find("server started: ") != std::string::npos; }))
      << server.text();
  const std::string log = server.text();
  const size_t at = log.find("address=") + 8;
  const std::string target = log.substr(at, log.find(' ', at) - at);
  const Outcome answer =
      Good(absl::StrCat("recommend --target ", target, " --user u3 --data ", File("data"), " --top-k 5 --beam 16"));
  EXPECT_THAT(answer.text, AllOf(HasSubstr("user u3, history: "), HasSubstr("recommended: 5 videos")));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0) << server.text();

  // What does not belong together is refused, each with the name of what is wrong.
  Good(absl::StrCat("tokenize --events ", File("data"), " --levels 4,4,4 --threads 1 --out ", File("other")));
  const std::string other = absl::StrCat(" --data ", File("data"), " --tokenizer ", File("other"));
  Bad(TrainArguments("model"), "pass --fresh");
  Bad(absl::StrCat("evaluate --model ", File("model"), other), "trained with another codebook");
  Bad(absl::StrCat("evaluate --model ", File("nothing"), source), File("nothing"));
  Bad(absl::StrCat("pack --model ", File("model"), " --tokenizer ", File("other"), " --out ", File("b2")), "codebook");
  const std::string pack =
      absl::StrCat("pack --model ", File("model"), " --tokenizer ", File("tokenizer"), " --out ", File("bundle"));
  Bad(pack, "exists");
  Write("bundle/notes.txt", "mine");
  Bad(pack + " --overwrite", "bundle/notes.txt: is no part of a bundle");
  EXPECT_EQ(Slurp(File("bundle/notes.txt")), "mine");
  fs::remove(File("bundle/notes.txt"));
  Good(pack + " --overwrite");
  EXPECT_FALSE(fs::exists(File("b2")));
  // One bit of any file that goes into a bundle: nothing is packed.
  for (const char* const file : {"model/config.json", "model/model.safetensors", "model/vocabulary.safetensors",
                                 "model/training.json", "tokenizer/sids.tsv", "tokenizer/codebook.safetensors"}) {
    const std::string good = Slurp(File(file));
    std::string flipped = good;
    flipped[flipped.find_last_of("0123456789")] ^= 1;  // of text a digit, of tensors any byte that looks like one
    Write(file, flipped);
    Bad(pack + " --overwrite", absl::StrCat(file, ": "));
    Write(file, good);
  }
  std::string damaged = Slurp(File("bundle/model.safetensors"));
  damaged[damaged.size() - 7] ^= 1;
  Write("bundle/model.safetensors", damaged);
  Bad(absl::StrCat("inspect ", File("bundle")), "model.safetensors");
  Files("");
}

TEST_F(VerbsTest, EqualSeedsMakeEqualFiles) {
  MakeLog();
  Good(absl::StrCat("generate-data log --users 60 --seed 3 --out ", File("data2")));
  EXPECT_EQ(Slurp(File("data/events.tsv.gz")), Slurp(File("data2/events.tsv.gz")));
  Good(absl::StrCat("generate-data log --users 60 --seed 4 --out ", File("data3")));
  EXPECT_NE(Slurp(File("data/events.tsv.gz")), Slurp(File("data3/events.tsv.gz")));
}

TEST_F(VerbsTest, AnOptionBeatsThePresetWhereverItStands) {
  MakeLog();
  Good(absl::StrCat("tokenize --dim 4 --levels 8,8 --events ", File("data"), " --preset demo --out ",
                    File("tokenizer")));
  EXPECT_THAT(Slurp(File("tokenizer/sids.tsv")), HasSubstr("levels=8,8\t"));
  EXPECT_THAT(Good(absl::StrCat("inspect ", File("tokenizer/vectors.safetensors"))).text, HasSubstr("F32[196,4]"));
  Good(absl::StrCat("train --epochs 1 --data ", File("data"), " --tokenizer ", File("tokenizer"), " ", kQuick,
                    " --out ", File("model")));
  EXPECT_THAT(Slurp(File("model/training.json")), Not(HasSubstr("\"epoch\": 2")));
}

// Before the training, not when it is packed.
TEST_F(VerbsTest, AConfigWhoseTablesAreTooSmallIsRefusedAtOnce) {
  MakeLog();
  Tokenize();
  Good(TrainArguments("model"));
  const std::string config = Slurp(File("model/config.json"));
  const std::string small =
      std::regex_replace(config, std::regex(R"("kind": "tag",\s*"buckets": 512)"), R"("kind": "author", "buckets": 3)");
  ASSERT_NE(small, config) << config;
  Bad(absl::StrCat("train --data ", File("data"), " --tokenizer ", File("tokenizer"), " --config ",
                   Write("small.json", small), " --out ", File("small")),
      "small.json: feature author has 3 buckets, the vocabulary needs ");
}

// What one log holds out another may show: SIDs and models say which log they come from.
TEST_F(VerbsTest, SidsAndModelsOfAnotherLogAreTold) {
  MakeLog();
  Tokenize();
  EXPECT_THAT(Good(TrainArguments("model")).text, Not(HasSubstr("warning")));
  const auto evaluate = [&](const std::string& data) {
    return Good(absl::StrCat("evaluate --model ", File("model"), " --data ", data, " --tokenizer ", File("tokenizer"),
                             " --beam 16 --resamples 20 --threads 1"))
        .text;
  };
  EXPECT_THAT(evaluate(File("data")), Not(HasSubstr("warning")));
  Good(absl::StrCat("generate-data log --users 120 --seed 9 --out ", File("other")));
  fs::copy(File("data/items.tsv.gz"), File("other/items.tsv.gz"), fs::copy_options::overwrite_existing);
  const std::string text = evaluate(File("other"));
  EXPECT_THAT(text, HasSubstr("tokenizer/sids.tsv: its SIDs were made from another log"));
  EXPECT_THAT(text, HasSubstr("model: trained on another log than "));
}

// What no system can rank counts as missed by all of them, and is told.
TEST_F(VerbsTest, TargetsWithoutASemanticIdAreTold) {
  MakeLog();
  Tokenize();
  Good(TrainArguments("model"));
  std::istringstream sids(std::regex_replace(Slurp(File("tokenizer/sids.tsv")), std::regex("\tsha256=[0-9a-f]*"), ""));
  std::string kept;
  int lines = 0;
  for (std::string line; std::getline(sids, line); ++lines) {
    if (lines < 2 || lines % 5 == 0) kept += line + "\n";  // the header, and every fifth item
  }
  Write("some/sids.tsv", kept);
  fs::copy(File("tokenizer/codebook.safetensors"), File("some/codebook.safetensors"));
  const std::string arguments =
      absl::StrCat("evaluate --model ", File("model"), " --data ", File("data"),
                   " --beam 16 --resamples 20 --threads 1 --overwrite --out ", File("e.json"));
  EXPECT_THAT(Good(absl::StrCat(arguments, " --tokenizer ", File("some"))).text,
              HasSubstr("have no semantic ID: neither the model nor a baseline can rank their items"));
  const nlohmann::json some = nlohmann::json::parse(Slurp(File("e.json")));
  EXPECT_GT(some.at("targets_without_sid"), 0);
  EXPECT_THAT(std::string(some.at("warnings").at(0)), HasSubstr("have no semantic ID"));
  EXPECT_EQ(some.at("weights_sha256").get<std::string>().size(), 64u);
  EXPECT_THAT(Good(absl::StrCat(arguments, " --tokenizer ", File("tokenizer"))).text, Not(HasSubstr("no semantic ID")));
  EXPECT_EQ(nlohmann::json::parse(Slurp(File("e.json"))).at("targets_without_sid"), 0);
}

// A model whose training.json is removed, because its config.json was changed on purpose, is evaluated as it was.
TEST_F(VerbsTest, AModelWithoutATrainingRecordIsToldItsTargets) {
  MakeLog();
  Tokenize();
  Good(TrainArguments("model"));
  const std::string arguments =
      absl::StrCat("evaluate --model ", File("model"), " --data ", File("data"), " --tokenizer ", File("tokenizer"),
                   " --beam 16 --resamples 20 --threads 1");
  const std::string recorded = Good(arguments + " --targets long_view").text;
  Bad(arguments + " --targets any", "targets: any, k-core 0 is not what the model was trained with");
  Bad(arguments + " --k-core 2",
      "model/training.json says is long_view, k-core 0; leave --targets, --k-core and --split-at out");
  Bad(arguments + " --split-at 2022-05-04,2022-05-06",
      "split at 2022-05-04T00:00:00Z,2022-05-06T00:00:00Z is not what");
  Write("model/config.json", Slurp(File("model/config.json")) + "\n");
  Bad(arguments, "remove training.json if the change was meant, and give `beamline evaluate` the --targets and");
  fs::remove(File("model/training.json"));
  const std::string without = Good(arguments).text;
  EXPECT_THAT(without, HasSubstr("has no training.json"));
  const auto numbers = [](const std::string& text) {
    const size_t begin = text.find("\nseen items removed");
    return text.substr(begin, text.find("\nwarning") - begin);
  };
  EXPECT_EQ(numbers(without), numbers(recorded));
  Bad(arguments + " --targets any", "SIDs were made for targets long_view, k-core 0");
  Bad(absl::StrCat("train-ranker --model ", File("model"), " --data ", File("data"), " --tokenizer ", File("tokenizer"),
                   " --heads long_view=1 --out ", File("ranked")),
      "go on training with `beamline train --from ");
}

// Other targets would end users' training parts elsewhere: the SIDs would have seen what training holds out.
TEST_F(VerbsTest, SidsOfOtherTargetsAreRefused) {
  MakeLog();
  Tokenize();
  EXPECT_THAT(Slurp(File("tokenizer/sids.tsv")), HasSubstr("\ttargets=long_view, k-core 0\tlog="));
  Bad(TrainArguments("model") + " --targets any", "targets long_view, k-core 0, this run has targets any, k-core 0");
  Bad(TrainArguments("model") + " --k-core 2",
      "run `beamline tokenize` with the same --targets, --k-core and --split-at");
  Bad(TrainArguments("model") + " --split-at 2022-05-04,2022-05-06",
      "this run has targets long_view, k-core 0, split at 2022-05-04T00:00:00Z,2022-05-06T00:00:00Z");
  EXPECT_FALSE(fs::exists(File("model")));
}

// On the CPU it would change nothing, and model and checkpoint would say that it had.
TEST_F(VerbsTest, Tf32IsRefusedOnTheCpu) {
  MakeLog();
  Tokenize();
  Bad(TrainArguments("model") + " --tf32", "training option tf32 is of GPUs; train with device cuda or without it");
  EXPECT_FALSE(fs::exists(File("model")));
}

// "--name=" is the empty value, not the next word.
TEST_F(VerbsTest, AnEmptyValueIsAValue) {
  const std::string log = absl::StrCat("generate-data log --users 20 --out ", File("log"));
  Bad(absl::StrCat(log, " --seed= --plain"), "--seed: '' must be a whole number");
  MakeLog();
  Tokenize();
  const std::string pack =
      absl::StrCat("pack --catalogue-only --tokenizer ", File("tokenizer"), " --catalogue-version= ");
  Good(absl::StrCat(pack, "--out ", File("items.bin")));
  EXPECT_THAT(Good(absl::StrCat("inspect ", File("items.bin"))).text, Not(HasSubstr("--out")));
  Bad(absl::StrCat("train --data d --tokenizer t --out o --targets="), "--targets: is empty; name labels, or 'any'");
  Bad(absl::StrCat("tokenize --events ", File("data"), " --targets= --out ", File("t2")), "--targets: is empty");
}

TEST_F(VerbsTest, WhatIsWrongIsNamed) {
  const std::string out = absl::StrCat(" --out ", File("out"));
  const std::string data = File("data");
  Write("data/events.tsv", "user_id\titem_id\ttimestamp_ms\tlabels\nu\t1\t1650000000000\tlong_view\n");
  Bad(absl::StrCat("tokenize", out), "give one of --events");
  Bad(absl::StrCat("tokenize --events ", File("missing"), out), File("missing"));
  Bad(absl::StrCat("tokenize --events ", data, " --levels 0,4", out),
      "--levels: level 1 has 0 codes, must be 1 to 65536");
  Bad(absl::StrCat("tokenize --events ", data, " --levels 4,x", out), "--levels: level sizes '4,x'");
  Bad(absl::StrCat("tokenize --events ", data, " --dialect runes", out), "runes");
  Bad(absl::StrCat("tokenize --events ", data, " --preset huge", out), "huge");
  Bad(absl::StrCat("tokenize --events ", data, " --targets looked_at", out), "--targets: unknown label 'looked_at'");
  for (const std::string verb :
       {"tokenize --events ", "train --tokenizer x --data ", "evaluate --model x --tokenizer x --data "}) {
    Bad(absl::StrCat(verb, data, " --split-at 2022-05-04", verb[0] == 'e' ? "" : out),
        "--split-at: has 1 moment; give two");
  }
  Bad(absl::StrCat("tokenize --vectors ", Write("x.npy", "no numbers"), " --levels 4", out), "x.npy");
  Bad(absl::StrCat("tokenize --from-index ", Write("bad.json", R"({"0": ["<a_9>"]})"), " --levels 4", out),
      "code 9 of level 1");
  Bad(absl::StrCat("tokenize --from-index a --dialect openonerec --write-index b", out), "openonerec is only read");
  const std::string source = absl::StrCat(" --data ", data, " --tokenizer ", File("missing"));
  Bad(absl::StrCat("train --data ", File("nowhere"), " --tokenizer t", out), File("nowhere"));
  Bad(absl::StrCat("train", source, out), File("missing"));
  Bad(absl::StrCat("train", source, " --targets looked_at", out), "--targets: unknown label 'looked_at'");
  Bad(absl::StrCat("train", source, " --preset tiny", out), "--preset: tiny not in {");
  Bad(absl::StrCat("train", source, " --epochs 0", out), "epochs");
  Bad(absl::StrCat("train", source, " --epochs many", out), "many");
  Bad(absl::StrCat("train", source, " --device abacus", out), "abacus");
  for (const char* target : {"127.0.0.1:99999", "127.0.0.1", "127.0.0.1:0", ":50051", "''"}) {
    Bad(absl::StrCat("recommend --items 1 --target ", target), "must be HOST:PORT with a port of 1..65535");
    Bad(absl::StrCat("reload --target ", target), "must be HOST:PORT with a port of 1..65535");
  }
  Bad("reload --bundle ''", "--bundle: empty; leave it out to load the newest");
  Bad("tokenize --from-index a --id-offset 9223372036854775808 --out b", "must be a whole number");
  Bad("tokenize --from-index a --dialect tsv --id-offset 1 --write-index b --out c",
      "--id-offset: 1 cannot be written");
  Bad("tokenize --events e --balance-slack 0x1p1 --out b", "--balance-slack: '0x1p1' must be a number");
  Bad("evaluate --model m", "--data: is missing");
  Bad("evaluate --model m --data d --tokenizer t", "m/config.json");
  Bad(absl::StrCat("evaluate --show ", Write("e.json", "{}")), "e.json");
  Bad(absl::StrCat("evaluate --show ", Write("list.json", "[[[[[[[[[[1]]]]]]]]]]")), "must be an object, is array");
  Bad("pack --tokenizer t --out b", "--model: is missing");
  Bad(absl::StrCat("import kuairand ", data, out), "no log_standard_*");
  Bad(absl::StrCat("import amazon ", data, out), "no .txt file");
  Bad(absl::StrCat("import sequences ", File("missing"), out), File("missing"));
  Bad(absl::StrCat("inspect ", Write("noise", "noise")), "noise");
  Write("both/events.tsv.gz", Slurp(Write("both/events.tsv", "user_id\titem_id\ttimestamp_ms\n")));
  Bad(absl::StrCat("inspect ", File("both")), "events.tsv and events.tsv.gz");
  fs::create_directories(File("empty"));
  Bad(absl::StrCat("inspect ", File("empty")), "nor is it a folder of events.tsv");
  Write("in/events.tsv", "user_id\titem_id\ttimestamp_ms\nu\t1\tyesterday\n");
  Bad(absl::StrCat("tokenize --events ", File("in"), out), "line 2: timestamp_ms 'yesterday'");
  EXPECT_THAT(Files("out"), IsEmpty());
}

TEST_F(VerbsTest, ATrainingThatWasInterruptedGoesOnToTheSameBits) {
  MakeLog();
  Tokenize();
  constexpr int kEpochs = 30;  // seconds: time to interrupt it
  Good(TrainArguments("whole", kEpochs));
  const std::string arguments = TrainArguments("parts", kEpochs);
  Background training(arguments, File("training.log"));
  ASSERT_TRUE(training.Await([&] { return training.text().find("epoch   1") != std::string::npos; }))
      << training.text();
  training.Signal(SIGINT);
  EXPECT_EQ(training.Wait(), 130) << training.text();
  EXPECT_THAT(training.text(), EndsWith(absl::StrCat("beamline train: interrupted; the same command goes on from ",
                                                     File("parts/checkpoint.safetensors"), "\n")));
  EXPECT_THAT(Files("parts"),
              ElementsAre("checkpoint.safetensors", "config.json", "training.json", "vocabulary.safetensors"));
  EXPECT_THAT(Good(arguments).text, HasSubstr("resumed"));
  EXPECT_EQ(Slurp(File("parts/model.safetensors")), Slurp(File("whole/model.safetensors")));

  Background evaluation(absl::StrCat("evaluate --model ", File("whole"), " --data ", File("data"), " --tokenizer ",
                                     File("tokenizer"), " --threads 1 --out ", File("evaluation.json")),
                        File("evaluation.log"));
  ASSERT_TRUE(evaluation.AwaitInterruptible()) << evaluation.text();
  evaluation.Signal(SIGINT);
  EXPECT_EQ(evaluation.Wait(), 130) << evaluation.text();
  EXPECT_FALSE(fs::exists(File("evaluation.json")));
}

TEST_F(VerbsTest, NothingIsReplacedUnasked) {
  MakeLog();
  Tokenize();
  const std::string log = absl::StrCat("generate-data log --users 60 --seed 4 --out ", File("data")),
                    tokenize = absl::StrCat("tokenize --levels 8,8 --dim 8 --threads 1 --events ", File("data")),
                    encode = absl::StrCat("tokenize --encode ", File("tokenizer"), " --vectors ",
                                          File("tokenizer/vectors.safetensors"), " --out ", File("tokenizer")),
                    catalogue = absl::StrCat("generate-data catalogue --items 9 --out ", File("items.bin")),
                    vectors = absl::StrCat("generate-data vectors --items 9 --dim 4 --out ", File("v.safetensors")),
                    pack = absl::StrCat("pack --catalogue-only --tokenizer ", File("tokenizer"), " --out ",
                                        File("items.bin"));
  Good(catalogue);
  Good(vectors);
  const std::string events = Slurp(File("data/events.tsv.gz")),
                    codebook = Slurp(File("tokenizer/codebook.safetensors"));
  Bad(log, "data/events.tsv.gz: exists; pass --overwrite to replace it, or name another place");
  Bad(absl::StrCat(tokenize, " --out ", File("tokenizer")), "tokenizer/codebook.safetensors: exists; pass --overwrite");
  Bad(encode, "tokenizer/codebook.safetensors: exists; pass --overwrite");
  Bad(catalogue, "items.bin: exists; pass --overwrite");
  Bad(pack, "items.bin: exists; pass --overwrite");
  Bad(vectors, "v.safetensors: exists; pass --overwrite");
  fs::create_directories(File("w"));
  Bad(absl::StrCat("evaluate --model m --data d --tokenizer t --out ", File("v.safetensors")),
      "v.safetensors: exists;");
  Bad(absl::StrCat("tokenize --levels 4 --vectors ", File("v.safetensors"), " --out ", File("w"), " --write-index ",
                   File("data/../w/sids.tsv")),  // by another way
      "w/sids.tsv is a file of --out itself");
  EXPECT_EQ(Slurp(File("data/events.tsv.gz")), events);
  EXPECT_EQ(Slurp(File("tokenizer/codebook.safetensors")), codebook);
  Good(log + " --overwrite");
  Good(absl::StrCat(tokenize, " --overwrite --out ", File("tokenizer")));
  Good(catalogue + " --overwrite");
  Good(pack + " --overwrite");
  Good(vectors + " --overwrite");
  EXPECT_NE(Slurp(File("data/events.tsv.gz")), events);
  EXPECT_NE(Slurp(File("tokenizer/codebook.safetensors")), codebook);
  Bad(absl::StrCat("generate-data vectors --items 9 --dim 4 --out ", File("v.npy")), "v.npy must end in .safetensors");
  Bad(absl::StrCat("tokenize --levels 16 --vectors ", File("v.safetensors"), " --out ", File("w")),
      "v.safetensors: residual k-means: 9 vectors of dimension 4 are too few for 16 codes");
  Bad(absl::StrCat("tokenize --encode ", File("tokenizer"), " --vectors ", File("v.safetensors"), " --out ",
                   File("s.tsv")),
      "v.safetensors: vectors have dimension 4");
  // What is refused leaves no folder.
  Bad(absl::StrCat("tokenize --levels 8 --vectors ", File("none.npy"), " --out ", File("left")), "none.npy");
  EXPECT_FALSE(fs::exists(File("left")));
}

TEST_F(VerbsTest, AFreshTrainingKeepsTheOldModelUntilItsEnd) {
  MakeLog();
  Tokenize();
  Good(TrainArguments("model"));
  const std::string old = Slurp(File("model/model.safetensors"));
  const std::string anew = absl::StrCat(TrainArguments("model", 10'000), " --from ", File("model"));
  Background process(anew + " --fresh", File("log"));
  ASSERT_TRUE(process.Await([&] { return fs::exists(File("model/replaced/model.safetensors")); })) << process.text();
  ASSERT_TRUE(process.AwaitInterruptible()) << process.text();
  process.Signal(SIGINT);
  EXPECT_EQ(process.Wait(), 130) << process.text();
  EXPECT_THAT(process.text(), AllOf(HasSubstr("the same command without --fresh goes on from "),
                                    HasSubstr("; the model that was there is in ")));
  EXPECT_EQ(Slurp(File("model/replaced/model.safetensors")), old);
  const std::string source = absl::StrCat(" --data ", File("data"), " --tokenizer ", File("tokenizer"));
  Good(absl::StrCat("evaluate --model ", File("model/replaced"), source, " --beam 16 --resamples 20 --threads 1"));
  Bad(absl::StrCat("evaluate --model ", File("model"), source), "its training is not over");
  Bad(absl::StrCat("pack --model ", File("model"), " --tokenizer ", File("tokenizer"), " --out ", File("bundle")),
      "the model's training is not over");
  const Outcome resumed = Beamline(anew + " --max-minutes 0.001");
  EXPECT_EQ(resumed.exit_code, 130) << resumed.text;
  EXPECT_THAT(resumed.text, HasSubstr("as asked; the same command goes on from "));
  Bad(absl::StrCat(TrainArguments("model"), " --fresh --from ", File("model/replaced")), "--from: ");
  Good(TrainArguments("model") + " --fresh");
  EXPECT_THAT(Files("model"),
              ElementsAre("config.json", "model.safetensors", "training.json", "vocabulary.safetensors"));
  EXPECT_EQ(Slurp(File("model/model.safetensors")), old) << "the same command";
}

TEST_F(VerbsTest, CtrlCLeavesNothingUnderAFinalName) {
  fs::create_directories(File("out"));
  // Interrupts the verb as soon as it can be, or once it has begun to write.
  int calls = 0;
  const auto interrupt = [&](const std::string& arguments, bool writes_early) {
    Background process(absl::StrCat(arguments, " --out ", File(absl::StrCat("out/", ++calls, ".safetensors"))),
                       File("log"));
    ASSERT_TRUE(process.AwaitInterruptible()) << arguments << "\n" << process.text();
    if (writes_early) {
      ASSERT_TRUE(process.Await([&] { return !HiddenFiles("out").empty(); })) << arguments << "\n" << process.text();
    }
    process.Signal(SIGINT);
    EXPECT_EQ(process.Wait(), 130) << arguments << "\n" << process.text();
    const std::string verb = arguments.substr(0, arguments.find(' '));
    EXPECT_THAT(process.text(), EndsWith(absl::StrCat("beamline ", verb, ": interrupted\n")));
    EXPECT_THAT(Files("out"), IsEmpty()) << arguments;
  };
  interrupt("generate-data log --users 10000000", true);
  interrupt("generate-data catalogue", false);
  interrupt("generate-data vectors --items 10000000", false);

  std::string sequences;
  for (int user = 0; user < 200'000; ++user) absl::StrAppend(&sequences, user, " 1 2 3 4 5 6 7 8 9\n");
  interrupt(absl::StrCat("import sequences ", Write("sequences.txt", sequences)), true);

  Good(absl::StrCat("generate-data vectors --items 40000 --dim 32 --out ", File("vectors.safetensors")));
  interrupt(absl::StrCat("tokenize --levels 1024,1024,1024 --iterations 1000 --vectors ", File("vectors.safetensors")),
            false);
}

}  // namespace
}  // namespace beamline::cli
