// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints come from strangers: what their files say reaches a terminal short and printable, and a small file costs
// little.
#include <algorithm>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/safetensors.h"
#include "base/utf8.h"
#include "runtime/hf_t5_config.h"
#include "runtime/hf_t5_weights.h"
#include "runtime/hf_tokenizer.h"
#include "testing/paths.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

fs::path NewFolder(const std::string& name) {
  const fs::path folder = fs::path(::testing::TempDir()) / ("hf_text_" + name);
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder;
}

void WriteJson(const fs::path& path, const json& document) {
  const absl::Status status = WriteFileAtomically(path, document.dump());
  ASSERT_TRUE(status.ok()) << status;
}

// Clears a terminal, and fills it.
std::string Strange() { return "\x1b[2J\n\x7f" + std::string(1 << 20, 'x'); }
constexpr char kShown[] = "?[2J??xxx";

void ExpectShortAndPrintable(const std::string& text) {
  EXPECT_LT(text.size(), 2000u);
  EXPECT_EQ(PrintableUtf8(text, text.size()), text);
}

TEST(HfTokenizer, AMegabyteOfTemplateIsNotTaken) {
  const fs::path folder = NewFolder("template");
  const auto read = [&](int ids, int before, int behind) {
    json single = json::array();
    for (int i = 0; i < before; ++i) single.push_back({{"SpecialToken", {{"id", "a"}}}});
    single.push_back({{"Sequence", {{"id", "A"}}}});
    for (int i = 0; i < behind; ++i) single.push_back({{"SpecialToken", {{"id", "a"}}}});
    const json specials = {{"a", {{"ids", std::vector<int>(ids, 1)}}}};
    WriteJson(folder / "tokenizer.json",
              {{"model", {{"vocab", {{"</s>", 1}}}}},
               {"post_processor", {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", specials}}}});
    return ReadHfTokenizer(folder, 1);
  };
  const auto longest = read(64, 10, 6);
  ASSERT_TRUE(longest.ok()) << longest.status();
  EXPECT_EQ(longest->prefix.size(), 640u);
  EXPECT_EQ(longest->suffix.size(), 384u);
  EXPECT_THAT(std::string(read(64, 10, 7).status().message()),
              HasSubstr("post_processor.single: puts 1088 tokens or more around a sequence, the limit is 1024"));
  EXPECT_THAT(std::string(read(1, 1025, 0).status().message()), HasSubstr("puts 1025 tokens or more"));
  // Every part names them all: 10^8 ids of a file of some 300 KB.
  EXPECT_THAT(std::string(read(10'000, 10'000, 0).status().message()), HasSubstr("puts 10000 tokens or more"));
}

TEST(HfTokenizer, TheModelsEndTokenHasTheLimitOfAnyId) {
  const fs::path folder = NewFolder("end");
  WriteJson(folder / "added_tokens.json", {{"<a_0>", 7}});
  WriteJson(folder / "tokenizer_config.json", {{"tokenizer_class", "T5Tokenizer"}});
  constexpr int64_t kMost = (int64_t{1} << 24) - 1;
  const auto most = ReadHfTokenizer(folder, kMost);
  ASSERT_TRUE(most.ok()) << most.status();
  EXPECT_EQ(most->suffix, std::vector<int64_t>{kMost});
  EXPECT_EQ(most->size, kMost + 1);
  for (const int64_t end : {kMost + 1, std::numeric_limits<int64_t>::max()}) {
    EXPECT_THAT(std::string(ReadHfTokenizer(folder, end).status().message()),
                HasSubstr(absl::StrCat("eos_token_id of the model: id ", end, " is above the limit ", kMost)));
  }
}

TEST(HfTokenizer, MessagesAreShortAndPrintable) {
  const fs::path folder = NewFolder("tokenizer");
  const auto expect = [&](const std::string& before, const std::string& behind) {
    const std::string message(ReadHfTokenizer(folder, 5).status().message());
    EXPECT_THAT(message, AllOf(HasSubstr(before + kShown), HasSubstr(behind)));
    ExpectShortAndPrintable(message);
  };
  WriteJson(folder / "added_tokens.json", {{Strange(), -1}});
  expect("$.", "the id must be a whole number");
  WriteJson(folder / "added_tokens.json", {{Strange(), 1 << 24}});
  expect("$.", "id 16777216 is above the limit 16777215");

  WriteJson(folder / "added_tokens.json", {{Strange(), 5}});
  WriteJson(folder / "tokenizer_config.json", {{"added_tokens_decoder", {{"8", {{"content", Strange()}}}}}});
  expect("token '", "' has id 8 here and 5 elsewhere in the folder");
  WriteJson(folder / "tokenizer_config.json", {{"added_tokens_decoder", {{Strange(), {{"content", "a"}}}}}});
  expect("added_tokens_decoder.", "the key must be an id in [0, 16777215]");
  WriteJson(folder / "tokenizer_config.json", {{"tokenizer_class", "T5Tokenizer"}, {"eos_token", "2" + Strange()}});
  expect("eos_token_id 5 is '", "', not '2?[2J??xxx");

  const auto write_processor = [&](const json& processor) {
    WriteJson(folder / "tokenizer.json", {{"model", {{"vocab", {{"</s>", 1}}}}}, {"post_processor", processor}});
  };
  const auto part = [](const std::string& token) { return json{{"SpecialToken", {{"id", token}}}}; };
  write_processor({{"type", "TemplateProcessing"}, {"single", json::array({part(Strange())})}});
  expect("post_processor.special_tokens.", ".ids: must be token ids up to 16777215, is null");
  write_processor({{"type", "TemplateProcessing"},
                   {"single", json::array({part("a")})},
                   {"special_tokens", {{"a", {{"ids", json::array({"\x7f" + Strange()})}}}}}});
  const std::string ids(ReadHfTokenizer(folder, 5).status().message());
  EXPECT_THAT(ids, HasSubstr("must be token ids up to 16777215, is [\"?\\u001b[2J\\n?xxx"));
  ExpectShortAndPrintable(ids);

  write_processor({{"type", "\x7f" + Strange()}});
  fs::remove(folder / "tokenizer_config.json");
  const auto unknown = ReadHfTokenizer(folder, 5);
  ASSERT_TRUE(unknown.ok()) << unknown.status();
  EXPECT_THAT(unknown->unknown_template, HasSubstr(", where only TemplateProcessing is understood"));
  ExpectShortAndPrintable(unknown->unknown_template);
}

fs::path Golden() { return fs::path(BEAMLINE_SOURCE_DIR) / "tests/golden/t5/relu_tied/hf"; }

TEST(HfT5Config, NotesAreShortAndPrintable) {
  const fs::path folder = NewFolder("notes");
  json config = json::parse(*ReadFile(Golden() / "config.json", 1 << 20));
  config["architectures"] = {"\x7f" + Strange()};
  WriteJson(folder / "config.json", config);
  WriteJson(folder / "generation_config.json", {{"watermarking_config", {"\x7f" + Strange()}}, {"num_beam_groups", 4}});
  const auto read = ReadHfT5Config(folder);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->notes.size(), 3u);
  EXPECT_THAT(read->notes[0], AllOf(HasSubstr("architectures is [\"?\\u001b[2J\\n?xxx"), HasSubstr(", taken for a ")));
  EXPECT_THAT(read->notes[1], HasSubstr("num_beam_groups is 4, which Beamline does not apply"));
  EXPECT_THAT(read->notes[2], AllOf(HasSubstr("watermarking_config is [\"?\\u001b[2J\\n?xxx"),
                                    HasSubstr(", which Beamline does not apply")));
  for (const std::string& note : read->notes) ExpectShortAndPrintable(note);
}

TEST(HfT5Weights, ShardsHavePrintableNamesOfFiles) {
  const fs::path folder = NewFolder("shards");
  const auto refused = [&](const std::string& tensor, const json& file) {
    WriteJson(folder / "model.safetensors.index.json", {{"weight_map", {{tensor, file}}}});
    const std::string message(HfT5Weights::Read(folder, HfT5Config()).status().message());
    EXPECT_THAT(message, HasSubstr("must name a .safetensors file beside it, in 1 to 255 printable bytes, is "))
        << tensor.substr(0, 20);
    ExpectShortAndPrintable(message);
    return message;
  };
  EXPECT_THAT(refused(Strange(), 3), AllOf(HasSubstr(absl::StrCat("weight_map.", kShown)), HasSubstr("is 3")));
  EXPECT_THAT(refused("a", "\x1b[2J.safetensors"), HasSubstr("is \"\\u001b[2J.safetensors\""));
  refused("a", "\xc2\x9b.safetensors");
  refused("a", std::string("\0.safetensors", 13));
  refused("a", std::string(300, 'x') + ".safetensors");
  refused("a", Strange());
  WriteJson(folder / "model.safetensors.index.json", {{"weight_map", {{"a", "caf\xc3\xa9.safetensors"}}}});
  EXPECT_EQ(HfT5Weights::Read(folder, HfT5Config()).status().code(), absl::StatusCode::kNotFound) << "looked for";
}

TEST(HfT5Weights, OfVeryManyProblemsTheFirstAreShown) {
  const fs::path folder = NewFolder("weights");
  SafetensorsWriter writer;
  const std::vector<float> values = {1};
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(writer.Add<float>(absl::StrCat("unknown.", i), {1}, values).ok());
  ASSERT_TRUE(writer.Write((folder / "model.safetensors").string()).ok());
  const auto config = ReadHfT5Config(Golden());
  ASSERT_TRUE(config.ok()) << config.status();
  const std::string message(HfT5Weights::Read(folder, *config).status().message());
  EXPECT_THAT(message, AllOf(HasSubstr(": is missing"), ContainsRegex("\nand [0-9]+ more$")));
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 21) << message;
}

}  // namespace
}  // namespace beamline::runtime
