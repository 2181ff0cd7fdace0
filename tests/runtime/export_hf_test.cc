// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint that was imported and exported again is the checkpoint: imported once more it gives the same model.
#include "runtime/export_hf.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/safetensors.h"
#include "runtime/bundle_manifest.h"
#include "runtime/import_hf.h"
#include "runtime/pack.h"
#include "runtime/t5_vocabulary.h"
#include "runtime/training_record.h"
#include "runtime/vocabulary.h"
#include "testing/paths.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

fs::path Temp(const std::string& name) {
  const fs::path folder = fs::path(::testing::TempDir()) / ("export_hf_" + name);
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder;
}

ImportHfOptions Case(const std::string& name, const fs::path& temp) {
  const fs::path folder = fs::path(BEAMLINE_SOURCE_DIR) / "tests/golden/t5" / name;
  ImportHfOptions options;
  options.folder = folder / "hf";
  options.sid_index = (folder / "index.json").string();
  options.index.id_offset = 1;
  options.score_end = true;
  options.out = temp / "bundle";
  options.model_out = temp / "parts";
  return options;
}

std::string Bytes(const fs::path& path) { return ReadFile(path, 1 << 26).value(); }

// Tied and untied embeddings, gated and plain feed-forwards, codes without a token.
TEST(ExportHf, IsTheInverseOfTheImport) {
  for (const std::string name : {"relu_tied", "gated_untied_end", "few_items_end"}) {
    SCOPED_TRACE(name);
    const fs::path temp = Temp(name);
    const ImportHfOptions import = Case(name, temp);
    ASSERT_TRUE(ImportHf(import).ok()) << ImportHf(import).status();
    for (const fs::path& model : {import.model_out, import.out}) {
      const absl::Status status = ExportHf({.model = model, .out = temp / "hf", .overwrite = true});
      ASSERT_TRUE(status.ok()) << status;
      ImportHfOptions again = import;
      again.folder = temp / "hf";
      again.score_end = false;  // the checkpoint says it
      again.out = temp / "bundle2";
      again.model_out = temp / "parts2";
      again.overwrite = true;
      const auto result = ImportHf(again);
      ASSERT_TRUE(result.ok()) << result.status();
      for (const char* file : {kConfigFile, kWeightsFile, kVocabularyFile}) {
        EXPECT_EQ(Bytes(again.model_out / file), Bytes(import.model_out / file)) << file;
      }
    }
    const auto before = SafetensorsFile::Read((import.folder / "model.safetensors").string());
    const auto after = SafetensorsFile::Read((temp / "hf/model.safetensors").string()).value();
    if (before.ok()) {  // not in shards
      for (const auto& [tensor, view] : before->tensors()) {
        ASSERT_TRUE(after.contains(tensor)) << tensor;
        EXPECT_EQ(after.Get(tensor)->shape, view.shape) << tensor;
        EXPECT_TRUE(std::equal(view.bytes.begin(), view.bytes.end(), after.Get(tensor)->bytes.begin())) << tensor;
      }
    }
  }
}

TEST(ExportHf, RefusesWhatHasNoCounterpartAndWhatIsThere) {
  const fs::path temp = Temp("refuse");
  const ImportHfOptions import = Case("relu_tied", temp);
  ASSERT_TRUE(ImportHf(import).ok());
  ASSERT_TRUE(ExportHf({.model = import.model_out, .out = temp / "hf"}).ok());
  EXPECT_EQ(ExportHf({.model = import.model_out, .out = temp / "hf"}).code(), absl::StatusCode::kAlreadyExists);
  const std::string config_before = Bytes(import.model_out / kConfigFile);
  EXPECT_THAT(
      std::string(ExportHf({.model = import.model_out, .out = import.model_out / "", .overwrite = true}).message()),
      HasSubstr("is the model's own folder"));
  EXPECT_EQ(Bytes(import.model_out / kConfigFile), config_before);
  ASSERT_TRUE(Vocabulary::OfTokens({0, 1, 2}).Save((import.model_out / kVocabularyFile).string()).ok());
  EXPECT_THAT(std::string(ExportHf({.model = import.model_out, .out = temp / "other"}).message()),
              HasSubstr("names 3 tokens"));
  model::ModelConfig config = *model::PresetConfig({.name = "demo"});
  ASSERT_TRUE(model::SaveConfig(config, (import.model_out / kConfigFile).string()).ok());
  EXPECT_THAT(std::string(ExportHf({.model = import.model_out, .out = temp / "other"}).message()),
              HasSubstr("family is onerec_v1"));
  EXPECT_FALSE(fs::exists(temp / "other"));
}

// Each spoiled in one row of a vocabulary that was right.
TEST(ExportHf, RefusesTokensThatWouldLeaveTheTablesOrMeanNothing) {
  const fs::path temp = Temp("tokens");
  const ImportHfOptions import = Case("relu_tied", temp);
  const auto imported = ImportHf(import);
  ASSERT_TRUE(imported.ok()) << imported.status();
  const model::T5Config& t5 = imported->config.t5;
  const std::string path = (import.model_out / kVocabularyFile).string();
  const Vocabulary whole = *Vocabulary::Load(path);
  ASSERT_EQ(t5.input.suffix, std::vector<int32_t>{t5.end});
  const auto refused = [&](int32_t row, int64_t token, const std::string& message) {
    std::vector<int64_t> tokens(whole.tokens().begin(), whole.tokens().end());
    tokens[row] = token;
    ASSERT_TRUE(Vocabulary::OfTokens(tokens).Save(path).ok());
    const absl::Status status = ExportHf({.model = import.model_out, .out = temp / "hf"});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("row ", row, ": ", message)));
    EXPECT_FALSE(fs::exists(temp / "hf"));
  };
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();  // + 1 is the least: far before any table
  refused(0, kMost, "must be -1 or an id below the number of rows");
  refused(3, -7, "must be -1 or an id below the number of rows");
  refused(3, t5.vocabulary, "must be -1 or an id below the number of rows");
  refused(t5.start, -1, "is -1, no token, but ");
  refused(t5.end, -1, "is -1, no token, but ");

  model::ModelConfig config = imported->config;
  config.t5.input.prefix = {3};
  ASSERT_TRUE(model::SaveConfig(config, (import.model_out / kConfigFile).string()).ok());
  refused(3, -1, "is -1, no token, but ");
  config.t5.input = {.prefix = {}, .suffix = {4}, .max_items = config.t5.input.max_items};
  ASSERT_TRUE(model::SaveConfig(config, (import.model_out / kConfigFile).string()).ok());
  refused(4, -1, "is -1, no token, but ");
  refused(5, whole.tokens()[4], absl::StrCat("is ", whole.tokens()[4], ", as row 4 is"));
  ASSERT_TRUE(whole.Save(path).ok());
  EXPECT_TRUE(ExportHf({.model = import.model_out, .out = temp / "hf"}).ok());
}

// A model trained here: ids as LETTER's code gives them, SID tokens behind the specials in lexicographic order.
TEST(NewTokens, AreThoseOfLettersCode) {
  const model::ModelConfig config = *model::PresetConfig({.name = "t5-d128", .level_sizes = {12, 3}});
  const std::vector<int64_t> tokens = NewTokens(config);
  ASSERT_EQ(tokens.size(), 17u);
  EXPECT_EQ(tokens[config.t5.start], 0);
  EXPECT_EQ(tokens[config.t5.end], 1);
  // Python's sorted() compares '>' with digits: <a_10> comes before <a_1>.
  EXPECT_EQ(tokens[0], 2);    // <a_0>
  EXPECT_EQ(tokens[10], 3);   // <a_10>
  EXPECT_EQ(tokens[11], 4);   // <a_11>
  EXPECT_EQ(tokens[1], 5);    // <a_1>
  EXPECT_EQ(tokens[2], 6);    // <a_2>
  EXPECT_EQ(tokens[12], 14);  // <b_0>
}

// What a folder that was there holds, before and after.
std::map<std::string, std::string> Contents(const fs::path& folder) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : fs::directory_iterator(folder)) contents[entry.path().filename()] = Bytes(entry.path());
  return contents;
}

// None of the parts, one by one, is replaced unasked; a tokenizer's folder has some of them.
TEST(HfTargets, AnImportReplacesNoPartUnasked) {
  ImportHfOptions options = Case("relu_tied", Temp("unasked"));
  for (const char* name : {kConfigFile, kWeightsFile, kCodebookFile, kVocabularyFile, kSidsFile}) {
    fs::remove_all(options.model_out);
    fs::create_directories(options.model_out);
    ASSERT_TRUE(WriteFileAtomically(options.model_out / name, "mine").ok());
    const auto before = Contents(options.model_out);
    const absl::Status status = ImportHf(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    EXPECT_EQ(Contents(options.model_out), before);
    EXPECT_FALSE(fs::exists(options.out));
  }
  options.overwrite = true;
  EXPECT_TRUE(ImportHf(options).ok());
}

TEST(HfTargets, ABundleAndATrainedModelAreReplacedByNoFlag) {
  const fs::path temp = Temp("kept");
  ImportHfOptions options = Case("relu_tied", temp);
  ASSERT_TRUE(ImportHf(options).ok());
  const fs::path model = options.model_out;
  for (const char* name : {kManifestFile, kTrainingFile, kCheckpointFile}) {
    const fs::path folder = temp / "folder";
    fs::remove_all(folder);
    fs::create_directories(folder);
    ASSERT_TRUE(WriteFileAtomically(folder / name, "mine").ok());
    const auto before = Contents(folder);
    options.model_out = folder;
    options.out = temp / "other";
    options.overwrite = true;
    EXPECT_THAT(std::string(ImportHf(options).status().message()), HasSubstr("is of a bundle or a trained model"));
    EXPECT_THAT(std::string(ExportHf({.model = model, .out = folder, .overwrite = true}).message()),
                HasSubstr("is of a bundle or a trained model"));
    EXPECT_EQ(Contents(folder), before) << name;
  }
  for (const fs::path& parts : {options.out / "", options.out / "parts", temp}) {
    options.model_out = parts;
    EXPECT_THAT(std::string(ImportHf(options).status().message()), HasSubstr("is --out, or one is in the other"));
  }
  EXPECT_FALSE(fs::exists(options.out));
}

TEST(HfTargets, AnExportMixesNoCheckpoints) {
  const fs::path temp = Temp("mixed");
  const ImportHfOptions options = Case("relu_tied", temp);
  ASSERT_TRUE(ImportHf(options).ok());
  const fs::path out = temp / "hf";
  const auto refused = [&](const char* name, bool overwrite) {
    fs::remove_all(out);
    fs::create_directories(out);
    EXPECT_TRUE(WriteFileAtomically(out / name, "mine").ok());
    const absl::Status status = ExportHf({.model = options.model_out, .out = out, .overwrite = overwrite});
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << name << ": " << status;
    EXPECT_EQ(Contents(out).size(), 1u) << name;
  };
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"}) {
    refused(name, false);
  }
  for (const char* name : {"added_tokens.json", "model.safetensors.index.json"}) refused(name, true);
  fs::remove(options.model_out / kWeightsFile);
  fs::remove_all(out);
  EXPECT_EQ(ExportHf({.model = options.model_out, .out = out}).code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(fs::exists(out)) << "nothing is begun without weights";
}

}  // namespace
}  // namespace beamline::runtime
