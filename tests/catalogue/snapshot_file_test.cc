// SPDX-License-Identifier: Apache-2.0
#include "catalogue/snapshot_file.h"

#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/file.h"
#include "catalogue/random_catalogue.h"
#include "catalogue/section_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::catalogue {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class SnapshotFile : public testing::Test {
 protected:
  SnapshotFile()
      : folder_(std::filesystem::path(testing::TempDir()) / ("snapshot_file_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
    path_ = folder_ / "catalogue";
  }
  ~SnapshotFile() override { std::filesystem::remove_all(folder_); }

  std::string LoadError(const LoadOptions& options = {}) {
    return std::string(LoadSnapshot(path_, options).status().message());
  }

  // One byte in place: rewriting the file each time would wait for the disk.
  void PutByte(size_t at, char value) {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at)).put(value);
  }

  // Writes the file again, its checksums right, with one section changed by `edit`, or left out or added.
  void Rewrite(const std::string& name, const std::function<void(std::string&)>& edit, bool drop = false) {
    const auto reader = SectionReader::Open(path_, 1 << 20);
    ASSERT_TRUE(reader.ok()) << reader.status();
    std::vector<std::pair<std::string, std::string>> contents;
    for (const SectionInfo& section : reader->sections()) {
      std::string bytes = *reader->ReadString(section.name, 1 << 20);
      if (section.name == name && drop) continue;
      if (section.name == name) edit(bytes);
      contents.emplace_back(section.name, std::move(bytes));
    }
    if (!reader->Find(name).ok()) contents.emplace_back(name, "x");
    std::vector<Section> sections;
    for (const auto& [key, bytes] : contents) sections.push_back({key, bytes});
    ASSERT_TRUE(WriteSectionFile(path_, sections).ok());
  }
  void EditManifest(const std::function<void(nlohmann::json&)>& edit) {
    Rewrite("manifest", [&](std::string& text) {
      nlohmann::json json = nlohmann::json::parse(text);
      edit(json);
      text = json.dump();
    });
  }

  std::filesystem::path folder_;
  std::filesystem::path path_;
};

TEST_F(SnapshotFile, LoadsWhatWasWritten) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    const RandomCatalogue random(seed);
    ASSERT_TRUE(WriteSnapshot(*random.snapshot, path_).ok());
    const auto loaded = LoadSnapshot(path_, {.expected_fingerprint = "book"});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ((*loaded)->version(), random.snapshot->version());
    EXPECT_EQ(ContentVersion((*loaded)->contents()), random.snapshot->version());  // every array is the same
    EXPECT_EQ((*loaded)->level_sizes(), random.level_sizes);
    for (const CatalogueItem& item : random.items) {
      EXPECT_EQ((*loaded)->Encode(item.item), item.sid);
      EXPECT_EQ((*loaded)->GetItem(item.item)->attributes.tags, random.snapshot->GetItem(item.item)->attributes.tags);
    }
  }
}

TEST_F(SnapshotFile, RefusesAnotherCodebook) {
  ASSERT_TRUE(WriteSnapshot(*RandomCatalogue(1).snapshot, path_).ok());
  const auto loaded = LoadSnapshot(path_, {.expected_fingerprint = "other"});
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(loaded.status().message()), AllOf(HasSubstr("codebook book"), HasSubstr("needs other")));
}

TEST_F(SnapshotFile, EveryFlippedByteIsRefusedWithItsSectionNamed) {
  ASSERT_TRUE(WriteSnapshot(*RandomCatalogue(2).snapshot, path_).ok());
  const std::string good = *ReadFile(path_, 1 << 20);
  const auto reader = SectionReader::Open(path_, 1 << 20);
  const std::vector<SectionInfo>& sections = reader->sections();
  // The padding before a section is named after it.
  const auto place = [&](size_t byte) -> std::string {
    if (byte < 24 + 72 * sections.size() + 32) return "header";
    for (const SectionInfo& section : sections) {
      if (byte < section.offset + section.bytes) return section.name;
    }
    return "none";
  };
  for (size_t byte = 0; byte < good.size(); ++byte) {
    PutByte(byte, static_cast<char>(good[byte] ^ 0x10));
    ASSERT_THAT(LoadError(), HasSubstr(absl::StrCat("section '", place(byte), "'"))) << "byte " << byte;
    PutByte(byte, good[byte]);
  }
}

TEST_F(SnapshotFile, MissingAndForeignSectionsAreRefused) {
  const RandomCatalogue random(3);
  ASSERT_TRUE(WriteSnapshot(*random.snapshot, path_).ok());
  std::vector<std::string> names;
  const auto reader = SectionReader::Open(path_, 1 << 20);
  for (const SectionInfo& section : reader->sections()) names.push_back(section.name);
  for (const std::string& name : names) {
    ASSERT_TRUE(WriteSnapshot(*random.snapshot, path_).ok());
    Rewrite(
        name, [](std::string&) {}, true);
    EXPECT_THAT(LoadError(), HasSubstr("section '" + name + "': is missing"));
  }
  ASSERT_TRUE(WriteSnapshot(*random.snapshot, path_).ok());
  Rewrite("surprise", [](std::string&) {});
  EXPECT_THAT(LoadError(), HasSubstr("section 'surprise': is not a section of a catalogue"));
}

TEST_F(SnapshotFile, ManifestMustFitTheArrays) {
  const RandomCatalogue random(4);
  const std::vector<std::pair<std::string, std::function<void(nlohmann::json&)>>> table = {
      {"'version' must be a string", [](auto& m) { m.erase("version"); }},
      {"'version' must be a string", [](auto& m) { m["version"] = 3; }},
      {"'items' must be a count", [](auto& m) { m["items"] = -1; }},
      {"'items' must be a count", [](auto& m) { m["items"] = 1.5; }},
      {"items: is 4294967295, at most 4294967294", [](auto& m) { m["items"] = 0xffffffffull; }},
      {"section 'item_id': has", [](auto& m) { m["items"] = 4294967294ull; }},
      {"section 'item_id': has", [](auto& m) { m["items"] = m["items"].template get<int>() + 1; }},
      {"'level_sizes' must be a list", [](auto& m) { m["level_sizes"] = "x"; }},
      {"'level_sizes' must be a list", [](auto& m) { m["level_sizes"] = std::vector<int>(9, 1); }},
      {"level_sizes[0]: is 70000", [](auto& m) { m["level_sizes"][0] = 70000; }},
      {"trie_nodes and level_sizes have different lengths", [](auto& m) { m["trie_nodes"].push_back(1); }},
      {"section 'trie.0.codes': has", [](auto& m) { m["trie_nodes"][0] = 1'000'000'000; }},
      {"section 'titles': has", [](auto& m) { m["title_bytes"] = m["title_bytes"].template get<int>() - 1; }},
      {"section 'tags': has", [](auto& m) { m["item_tags"] = 0; }},
      {"the manifest says 77", [](auto& m) { m["tags"] = 77; }},
      {"a key this version does not know", [](auto& m) { m["more"] = 1; }},
  };
  for (const auto& [message, edit] : table) {
    ASSERT_TRUE(WriteSnapshot(*random.snapshot, path_).ok());
    EditManifest(edit);
    EXPECT_THAT(LoadError(), HasSubstr(message));
    EXPECT_THAT(LoadError(), HasSubstr(path_.string()));
  }
  for (const char* text : {"", "{", "[]", "{\"version\":1,\"version\":2}", "nonsense"}) {
    ASSERT_TRUE(WriteSnapshot(*random.snapshot, path_).ok());
    Rewrite("manifest", [&](std::string& bytes) { bytes = text; });
    EXPECT_THAT(LoadError(), HasSubstr("section 'manifest'")) << text;
  }
}

TEST_F(SnapshotFile, StructureIsCheckedBehindRightChecksums) {
  const RandomCatalogue random(5);
  const auto flip = [](std::string& bytes) { bytes[0] = static_cast<char>(bytes[0] ^ 0x40); };
  for (const char* name : {"trie.0.codes", "leaf_items", "title_offsets", "tag_offsets", "tags", "tag_dictionary"}) {
    ASSERT_TRUE(WriteSnapshot(*random.snapshot, path_).ok());
    Rewrite(name, flip);
    EXPECT_FALSE(LoadSnapshot(path_).ok()) << name;
  }
}

TEST_F(SnapshotFile, HostileTagDictionariesAreRefused) {
  const RandomCatalogue random(6);
  const std::vector<std::string> table = {
      std::string("\x01\0\0", 3), std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8), std::string(8, '\0'),
      std::string("\x01\0\0\0\x01\0\0\0kv\x01\0\0\0\x01\0\0\0kv", 20), std::string("\x01\0\0\0\x01\0\0\0k\xff", 10)};
  for (const std::string& bytes : table) {
    ASSERT_TRUE(WriteSnapshot(*random.snapshot, path_).ok());
    Rewrite("tag_dictionary", [&](std::string& section) { section = bytes; });
    EXPECT_THAT(LoadError(), HasSubstr("section 'tag_dictionary'"));
  }
}

TEST_F(SnapshotFile, LeavesNothingBehindWhenItFails) {
  const RandomCatalogue random(7);
  EXPECT_FALSE(WriteSnapshot(*random.snapshot, folder_ / "none" / "catalogue").ok());
  ASSERT_TRUE(WriteSnapshot(*random.snapshot, path_).ok());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

}  // namespace
}  // namespace beamline::catalogue
