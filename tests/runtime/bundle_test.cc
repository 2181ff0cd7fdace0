// SPDX-License-Identifier: Apache-2.0
//
// Bundles that are whole load to what was written; every other kind is refused by the name of the file at fault.
#include "runtime/bundle.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/program.h"
#include "base/safetensors.h"
#include "catalogue/generate.h"
#include "runtime/bundle_folder.h"
#include "runtime/bundle_writer.h"
#include "runtime/runner.h"
#include "runtime/tiny_bundle.h"

namespace {

bool knows_rename_flags = true;
std::string renames_nothing_to;  // EIO

}  // namespace

// In the C library's place. NFS and 9p know no flags; what is exchanged must be there, whatever the file system.
extern "C" int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  if (knows_rename_flags) return static_cast<int>(syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
  errno = (flags & RENAME_EXCHANGE) != 0 && faccessat(to_folder, to, F_OK, 0) != 0 ? ENOENT : EINVAL;
  return -1;
}

extern "C" int rename(const char* from, const char* to) noexcept {
  if (to != renames_nothing_to) return static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
  errno = EIO;
  return -1;
}

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class BundleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) /
            absl::StrCat("bundle_test_", ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    bundle_ = root_ / "bundle";
    const auto manifest = testing::WriteTinyBundle(bundle_);
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    manifest_ = *manifest;
  }
  void TearDown() override { fs::remove_all(root_); }

  void ExpectRefused(const std::string& part, absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
    const absl::Status status = LoadBundle(bundle_).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
  std::string Read(const std::string& name) { return *ReadFile(bundle_ / name, 1 << 30); }
  void Write(const std::string& name, const std::string& contents) {
    std::ofstream(bundle_ / name, std::ios::binary) << contents;
  }
  // As another packer would have written it: the manifest knows of it.
  void Repack(const std::string& name, const std::string& contents) {
    Write(name, contents);
    manifest_.files[name] = {contents.size(), Sha256Hex(contents)};
    Write(kManifestFile, ManifestToJson(manifest_));
  }
  // Leftovers of an unfinished write would stand beside the bundle.
  int EntriesInRoot() {
    return static_cast<int>(std::distance(fs::directory_iterator(root_), fs::directory_iterator()));
  }

  fs::path root_, bundle_;
  BundleManifest manifest_;
};

TEST_F(BundleTest, RoundTrip) {
  const absl::StatusOr<Bundle> bundle = LoadBundle(bundle_);
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  EXPECT_EQ(bundle->manifest, manifest_);
  EXPECT_EQ(model::ConfigToJson(bundle->config), model::ConfigToJson(testing::TinyConfig()));
  EXPECT_EQ(bundle->catalogue->num_items(), testing::TinyItems().size());
  for (const CatalogueItem& item : testing::TinyItems()) EXPECT_EQ(bundle->catalogue->Encode(item.item), item.sid);
  EXPECT_EQ(bundle->vocabulary->ItemIndex(1000), 1);
  EXPECT_TRUE(bundle->weights.contains("decoder.bos") || bundle->weights.tensors().size() > 10);
  EXPECT_EQ(EntriesInRoot(), 1);
}

TEST_F(BundleTest, TheSamePartsGiveTheSameBytesAndVersion) {
  const auto again = testing::WriteTinyBundle(root_ / "again");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, manifest_);
  testing::TinyBundleOptions other;
  other.seed = 2;
  EXPECT_NE(testing::WriteTinyBundle(root_ / "other", other)->model_version, manifest_.model_version);
}

TEST_F(BundleTest, AFlippedBitAnywhereIsRefusedByTheFilesName) {
  std::mt19937_64 random(1);
  std::vector<std::string> names(BundleFileNames().begin(), BundleFileNames().end());
  names.push_back(kManifestFile);
  for (const std::string& name : names) {
    const std::string good = Read(name);
    std::vector<size_t> offsets = {0, 7, 8, good.size() / 2, good.size() - 1};
    for (int i = 0; i < 8; ++i) offsets.push_back(random() % good.size());
    for (size_t offset : offsets) {
      std::string bad = good;
      bad[offset] = static_cast<char>(bad[offset] ^ (1 << (random() % 8)));
      Write(name, bad);
      const absl::Status status = LoadBundle(bundle_).status();
      EXPECT_FALSE(status.ok()) << name << " byte " << offset;
      EXPECT_THAT(std::string(status.message()), HasSubstr(name)) << offset;
    }
    Write(name, good);
    EXPECT_TRUE(LoadBundle(bundle_).ok());
  }
}

TEST_F(BundleTest, TruncatedAndGrownFilesAreRefused) {
  for (absl::string_view view : BundleFileNames()) {
    const std::string name(view);
    const std::string good = Read(name);
    Write(name, good.substr(0, good.size() - 1));
    ExpectRefused(name, absl::StatusCode::kDataLoss);
    Write(name, good + "PK\x03\x04");
    ExpectRefused(name, absl::StatusCode::kDataLoss);
    fs::remove(bundle_ / name);
    ExpectRefused(name, absl::StatusCode::kDataLoss);  // the bundle's fault: it is not tried again and again
    Write(name, good);
  }
}

TEST_F(BundleTest, OtherThingsInTheFolderAreRefused) {
  Write("notes.txt", "hello");
  ExpectRefused("notes.txt");
  fs::remove(bundle_ / "notes.txt");
  Write("model.pt", "PK");
  ExpectRefused("pickle and its like are never read");
  fs::remove(bundle_ / "model.pt");
  fs::create_directory(bundle_ / "folder");
  ExpectRefused("folder: is not a regular file");
  fs::remove(bundle_ / "folder");
  ASSERT_EQ(mkfifo((bundle_ / "pipe").c_str(), 0600), 0);
  ExpectRefused("pipe: is not a regular file");
  fs::remove(bundle_ / "pipe");
  fs::rename(bundle_ / "items", root_ / "items");
  fs::create_symlink(root_ / "items", bundle_ / "items");
  ExpectRefused("items: is a symbolic link");
  fs::remove(bundle_ / "items");
  ASSERT_EQ(mkfifo((bundle_ / "items").c_str(), 0600), 0);
  ExpectRefused("items: is not a regular file");
}

TEST_F(BundleTest, WhatCameInPlaceOfTheBundleThatIsMeantIsRefused) {
  LoadBundleOptions options{.digest = *IdentifyBundle(bundle_)};
  const absl::StatusOr<Bundle> meant = LoadBundle(bundle_, options);
  ASSERT_TRUE(meant.ok()) << meant.status();
  EXPECT_EQ(DigestOf(meant->manifest), options.digest);
  options.digest.back() = options.digest.back() == '0' ? '1' : '0';
  const absl::Status other = LoadBundle(bundle_, options).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(other.message()), HasSubstr("was replaced by another bundle while it was loaded"));
}

// A catalogue beside the bundle is what an operator names.
TEST_F(BundleTest, NothingButARegularFileIsDescribed) {
  EXPECT_TRUE(DescribeFile(bundle_ / "items").ok());
  ASSERT_EQ(mkfifo((root_ / "pipe").c_str(), 0600), 0);
  for (const fs::path& path : {root_ / "pipe", root_, fs::path("/dev/zero")}) {
    EXPECT_THAT(std::string(DescribeFile(path).status().message()), HasSubstr("is not a regular file")) << path;
  }
  EXPECT_EQ(DescribeFile(root_ / "nothing").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(BundleTest, NoBundleAtAll) {
  EXPECT_EQ(LoadBundle(root_ / "nothing").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(LoadBundle(bundle_ / "items").status().code(), absl::StatusCode::kInvalidArgument);
  fs::remove(bundle_ / kManifestFile);
  ExpectRefused("has no bundle.json");
}

TEST_F(BundleTest, ManifestsThatAreNotOursAreRefusedByPath) {
  const std::string good = Read(kManifestFile);
  const auto replaced = [&](const std::string& from, const std::string& to) {
    EXPECT_THAT(good, HasSubstr(from));
    return absl::StrReplaceAll(good, {{from, to}});
  };
  const std::pair<std::string, std::string> cases[] = {
      {replaced("\"schema_version\": 1", "\"schema_version\": 2"), "schema_version: is 2, this program reads 1"},
      {replaced("\"schema_version\": 1", "\"schema_version\": 1.5"), "schema_version: is 1.5"},
      {replaced("\"schema_version\": 1", "\"schema_version\": \"1\""), "schema_version"},
      {replaced("\"schema_version\": 1,", ""), "schema_version: is missing"},
      {replaced("\"family\"", "\"famly\""), "unknown key 'famly'"},
      {replaced("\"family\": \"onerec_v1\"", "\"family\": 7"), "family: must be a string"},
      {replaced("\"family\": \"onerec_v1\"", "\"family\": \"t5\""), "digest"},
      {replaced("\"family\": \"onerec_v1\",", ""), "key 'family' is missing"},
      {replaced("\"family\": \"onerec_v1\",", "\"family\": \"a\", \"family\": \"b\","), "family"},
      {replaced(absl::StrCat("\"written_by\": \"", ProgramBuild(), "\""), "\"written_by\": 7"),
       "written_by: must be a string, is number"},
      {replaced(ProgramBuild(), ""), "written_by: must have 1..256 bytes, has 0"},
      {replaced(ProgramBuild(), std::string(257, 'x')), "written_by: must have 1..256 bytes, has 257"},
      {replaced("\"items\": {", "\"../items\": {"), "unknown key '../items'"},
      {replaced("\"bytes\": ", "\"bytes\": -"), "bytes"},
      {replaced("\"bytes\": ", "\"bytes\": 1e400, \"more\": "), "bundle.json"},
      {replaced("\"sha256\": \"", "\"sha256\": \"Z"), "sha256: must be 64"},
      {"[" + good + "]", "schema_version"},
      {good + "// a comment", "bundle.json"},
      {"", "bundle.json"},
      {std::string(2 << 20, ' '), "bundle.json"}};
  for (const auto& [json, part] : cases) {
    Write(kManifestFile, json);
    ExpectRefused(part);
  }
}

TEST_F(BundleTest, BundlesThatDoNotSayWhoWroteThemAreReadAsBefore) {
  EXPECT_EQ(manifest_.written_by, ProgramBuild());
  const std::string written = Read(kManifestFile);
  manifest_.written_by.clear();
  const std::string before = ManifestToJson(manifest_);
  EXPECT_THAT(before, Not(HasSubstr("written_by")));
  Write(kManifestFile, before);
  const absl::StatusOr<Bundle> bundle = LoadBundle(bundle_);
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  EXPECT_EQ(bundle->manifest, manifest_);
  EXPECT_EQ(*IdentifyBundle(bundle_), Sha256Hex(before));
  EXPECT_NE(before, written);
}

// What seems wrong may be what this program does not know yet: of the manifest, of a part, and of the weights, which
// are looked at when a model is made of them.
TEST_F(BundleTest, ARefusalNamesTheOtherBeamlineThatWroteTheBundle) {
  const std::string named = absl::StrCat("; the bundle was written by Beamline 9.8.7 (abc), this is ", ProgramBuild());
  const std::string config = Read(kConfigFile), weights = Read(kWeightsFile);
  const auto refusal = [&](const std::string& writer) {
    manifest_.written_by = writer;
    Write(kManifestFile, ManifestToJson(manifest_));
    const RunnerOptions options{.bundle = bundle_.string(), .device = "cpu", .threads = 1};
    return std::string(LoadRunner(options).status().message());
  };
  EXPECT_EQ(refusal("9.8.7 (abc)"), "") << "another's bundle that this program understands";

  const std::string manifest = Read(kManifestFile);
  for (const auto& [from, to, problem] : {std::array{"\"files\"", "\"novelty\": 1, \"files\"", "unknown key 'novelty'"},
                                          std::array{"\"items\"", "\"more.bin\"", "unknown key 'more.bin'"},
                                          std::array{"\"schema_version\": 1", "\"schema_version\": 2", "is 2"}}) {
    Write(kManifestFile, absl::StrReplaceAll(manifest, {{from, to}}));
    EXPECT_THAT(std::string(LoadBundle(bundle_).status().message()), AllOf(HasSubstr(problem), EndsWith(named)));
  }

  Repack(kConfigFile,
         absl::StrReplaceAll(config, {{"\"attribute_buckets\"", "\"novelty\": 1, \"attribute_buckets\""}}));
  EXPECT_THAT(refusal("9.8.7 (abc)"), AllOf(HasSubstr("config.json"), HasSubstr("novelty"), EndsWith(named)));
  EXPECT_THAT(refusal(ProgramBuild()), AllOf(HasSubstr("novelty"), Not(HasSubstr("was written by"))));
  EXPECT_THAT(refusal(""), AllOf(HasSubstr("novelty"), Not(HasSubstr("was written by"))));
  Repack(kConfigFile, config);

  const SafetensorsFile file = *SafetensorsFile::Read((bundle_ / kWeightsFile).string());
  SafetensorsWriter writer;
  for (const auto& [name, tensor] : file.tensors()) {
    ASSERT_TRUE(writer.Add(name, tensor.dtype, tensor.shape, tensor.bytes).ok());
  }
  const std::vector<float> novelty(1);
  ASSERT_TRUE(writer.Add<float>("novelty", {1}, novelty).ok());
  const std::string path = (root_ / "more.safetensors").string();
  ASSERT_TRUE(writer.Write(path).ok());
  Repack(kWeightsFile, *ReadFile(path, 1 << 30));
  EXPECT_THAT(refusal("9.8.7 (abc)"), AllOf(HasSubstr("unexpected novelty"), EndsWith(named)));
  EXPECT_THAT(refusal("\x1b[2J"), HasSubstr("was written by Beamline ?[2J, this is")) << "a stranger's text";

  Write(kWeightsFile, weights.substr(1));
  EXPECT_THAT(refusal("9.8.7 (abc)"), AllOf(HasSubstr("copy the bundle again"), Not(HasSubstr("was written by"))))
      << "damage is no matter of versions";
}

TEST_F(BundleTest, MemoryIsEstimatedBeforeAnythingLargeIsRead) {
  LoadBundleOptions options;
  options.memory_limit_bytes = 1000;
  const absl::Status status = LoadBundle(bundle_, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is the limit"));
  options.memory_limit_bytes = int64_t{1} << 40;
  EXPECT_TRUE(LoadBundle(bundle_, options).ok());
  options.memory.context_cache_bytes = int64_t{1} << 40;
  EXPECT_EQ(LoadBundle(bundle_, options).status().code(), absl::StatusCode::kResourceExhausted);
}

// Where the memory is there it is the weights' own check that refuses.
TEST_F(BundleTest, MemoryForWeightsThatTheFileCannotHoldIsNotAskedFor) {
  Repack(kConfigFile,
         absl::StrReplaceAll(Read(kConfigFile), {{"\"attribute_buckets\": 32", "\"attribute_buckets\": 20000000"}}));
  LoadBundleOptions options;
  options.memory_limit_bytes = int64_t{1} << 28;
  const absl::Status status = LoadBundle(bundle_, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              ::testing::AllOf(HasSubstr("config.json: describes weights of at least"),
                               HasSubstr("static.attribute.0 [20000000,8]"), HasSubstr("model.safetensors has")));
}

TEST_F(BundleTest, ACatalogueOfAnotherCodebookIsRefused) {
  catalogue::GenerateOptions generate;
  generate.items = 50;
  generate.codes = 8;
  const auto other = catalogue::GenerateCatalogue(generate);
  ASSERT_TRUE(other.ok()) << other.status();
  const fs::path parts_folder = root_ / "parts";
  ASSERT_TRUE(testing::WriteTinyParts(parts_folder).ok());
  BundleParts parts = {parts_folder / kConfigFile, parts_folder / kWeightsFile, parts_folder / kVocabularyFile,
                       parts_folder / kCodebookFile, *other};
  const absl::Status status = WriteBundle(parts, root_ / "mixed").status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("codebook"));
  EXPECT_FALSE(fs::exists(root_ / "mixed"));
  EXPECT_EQ(EntriesInRoot(), 2) << "the temporary folder is gone";
}

TEST_F(BundleTest, PartsOfDifferentModelsAreRefused) {
  const auto with = [&](const char* name, const testing::TinyBundleOptions& options) {
    EXPECT_TRUE(testing::WriteTinyParts(root_ / "parts").ok());
    EXPECT_TRUE(testing::WriteTinyParts(root_ / "foreign", options).ok());
    fs::copy_file(root_ / "foreign" / name, root_ / "parts" / name, fs::copy_options::overwrite_existing);
    const fs::path folder = root_ / "parts";
    const BundleParts parts = {folder / kConfigFile, folder / kWeightsFile, folder / kVocabularyFile,
                               folder / kCodebookFile, LoadBundle(bundle_)->catalogue};
    const absl::Status status = WriteBundle(parts, root_ / "mixed").status();
    EXPECT_FALSE(status.ok());
    EXPECT_FALSE(fs::exists(root_ / "mixed"));
    return std::string(status.message());
  };
  testing::TinyBundleOptions sizes;
  sizes.level_sizes = {8, 6, 11};
  EXPECT_THAT(with(kCodebookFile, sizes), HasSubstr("level sizes"));
  EXPECT_THAT(with(kConfigFile, sizes), HasSubstr("level sizes"));
  testing::TinyBundleOptions moe;
  moe.moe = true;
  EXPECT_THAT(with(kWeightsFile, moe), HasSubstr("moe"));
  testing::TinyBundleOptions more_items;
  more_items.items = 200;
  EXPECT_THAT(with(kVocabularyFile, more_items), HasSubstr("feature item has 151 buckets, the vocabulary needs 201"));
  testing::TinyBundleOptions other_codebook;
  other_codebook.seed = 9;
  EXPECT_THAT(with(kCodebookFile, other_codebook), HasSubstr("codebook"));
}

TEST_F(BundleTest, PickledWeightsAreRefusedWithAHint) {
  ASSERT_TRUE(testing::WriteTinyParts(root_ / "parts").ok());
  std::ofstream(root_ / "parts" / kWeightsFile, std::ios::binary) << "PK\x03\x04" << std::string(100, 'x');
  const fs::path folder = root_ / "parts";
  const BundleParts parts = {folder / kConfigFile, folder / kWeightsFile, folder / kVocabularyFile,
                             folder / kCodebookFile, LoadBundle(bundle_)->catalogue};
  EXPECT_THAT(std::string(WriteBundle(parts, root_ / "pickled").status().message()), HasSubstr("safetensors"));
}

TEST_F(BundleTest, OfTwoWritersOneWins) {
  ASSERT_TRUE(testing::WriteTinyParts(root_ / "parts").ok());
  const fs::path folder = root_ / "parts";
  const auto catalogue = LoadBundle(bundle_)->catalogue;
  const auto write = [&](const std::string& version) {
    const BundleParts parts = {folder / kConfigFile,
                               folder / kWeightsFile,
                               folder / kVocabularyFile,
                               folder / kCodebookFile,
                               catalogue,
                               version};
    for (int i = 0; i < 20; ++i) {
      const absl::Status status = WriteBundle(parts, bundle_, {.overwrite = true}).status();
      EXPECT_TRUE(status.ok() || status.message().find(bundle_.string()) != std::string::npos) << status;
    }
  };
  std::thread other([&] { write("a"); });
  write("b");
  other.join();
  const auto bundle = LoadBundle(bundle_);
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  EXPECT_THAT(bundle->manifest.model_version, ::testing::AnyOf("a", "b"));
  EXPECT_EQ(EntriesInRoot(), 2);
}

TEST_F(BundleTest, IsWrittenWhereTheFileSystemKnowsNoFlagsOfRename) {
  ASSERT_TRUE(testing::WriteTinyParts(root_ / "parts").ok());
  const fs::path folder = root_ / "parts";
  const BundleParts parts = {folder / kConfigFile,   folder / kWeightsFile,          folder / kVocabularyFile,
                             folder / kCodebookFile, LoadBundle(bundle_)->catalogue, "v2"};
  knows_rename_flags = false;
  const absl::Status first = WriteBundle(parts, root_ / "another").status();
  const absl::Status replaced = WriteBundle(parts, bundle_, {.overwrite = true}).status();
  knows_rename_flags = true;
  EXPECT_TRUE(first.ok()) << first;
  EXPECT_TRUE(replaced.ok()) << replaced;
  for (const fs::path& written : {root_ / "another", bundle_}) {
    const auto bundle = LoadBundle(written);
    ASSERT_TRUE(bundle.ok()) << bundle.status();
    EXPECT_EQ(bundle->manifest.model_version, "v2");
  }
  EXPECT_EQ(EntriesInRoot(), 3) << "these and the parts";
}

// A server that fails between two steps: neither the new bundle nor the old one can be put in place.
TEST_F(BundleTest, WhatCannotBePutBackIsKept) {
  ASSERT_TRUE(testing::WriteTinyParts(root_ / "parts").ok());
  const fs::path folder = root_ / "parts";
  const BundleParts parts = {folder / kConfigFile,   folder / kWeightsFile,          folder / kVocabularyFile,
                             folder / kCodebookFile, LoadBundle(bundle_)->catalogue, "v2"};
  const std::string version = LoadBundle(bundle_)->manifest.model_version;
  knows_rename_flags = false;
  renames_nothing_to = bundle_.string();
  const absl::Status status = WriteBundle(parts, bundle_, {.overwrite = true}).status();
  knows_rename_flags = true;
  renames_nothing_to.clear();
  ASSERT_FALSE(status.ok());
  const std::string message(status.message());
  const auto kept = LoadBundle(message.substr(message.rfind(' ') + 1));
  ASSERT_TRUE(kept.ok()) << status << "\n" << kept.status();
  EXPECT_EQ(kept->manifest.model_version, version);
}

TEST_F(BundleTest, OverwritesOnlyBundlesAndOnlyWhenAsked) {
  ASSERT_TRUE(testing::WriteTinyParts(root_ / "parts").ok());
  const fs::path folder = root_ / "parts";
  BundleParts parts = {folder / kConfigFile,   folder / kWeightsFile,          folder / kVocabularyFile,
                       folder / kCodebookFile, LoadBundle(bundle_)->catalogue, "v2"};
  EXPECT_EQ(WriteBundle(parts, bundle_).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(WriteBundle(parts, folder, {.overwrite = true}).status().code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(WriteBundle(parts, bundle_, {.overwrite = true}).ok());
  EXPECT_EQ(LoadBundle(bundle_)->manifest.model_version, "v2");
  EXPECT_EQ(EntriesInRoot(), 2);
  // Whatever else lies in the folder would go with it.
  for (const char* foreign : {"notes.txt", ".git/config", "backup/model.safetensors"}) {
    const fs::path file = bundle_ / foreign;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << "mine";
    const absl::Status refused = WriteBundle(parts, bundle_, {.overwrite = true}).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists) << foreign;
    EXPECT_THAT(std::string(refused.message()), HasSubstr((bundle_ / *fs::path(foreign).begin()).string()));
    EXPECT_TRUE(fs::exists(file));
    fs::remove_all(bundle_ / *fs::path(foreign).begin());
  }
  EXPECT_EQ(EntriesInRoot(), 2);
  parts.model_version = "no/slashes";
  EXPECT_THAT(std::string(WriteBundle(parts, root_ / "new").status().message()), HasSubstr("model_version"));
  parts.model_version = "v3";
  parts.weights = root_ / "nothing";
  EXPECT_THAT(std::string(WriteBundle(parts, root_ / "new").status().message()), HasSubstr("nothing"));
}

}  // namespace
}  // namespace beamline::runtime
