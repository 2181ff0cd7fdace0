// SPDX-License-Identifier: Apache-2.0
#include "catalogue/snapshot_file.h"

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "beamline/limits.h"
#include "beamline/status.h"
#include "catalogue/section_file.h"
#include "catalogue/snapshot_check.h"

namespace beamline::catalogue {
namespace {

static_assert(std::endian::native == std::endian::little, "catalogue files are little-endian and read in place");

constexpr uint64_t kMaxManifestBytes = 64 << 10;
constexpr uint64_t kMaxTagBytes = uint64_t{kMaxTags} * (kMaxNameBytes + kMaxValueBytes + 8);

template <typename T>
absl::string_view Bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string CodesName(int level) { return absl::StrCat("trie.", level, ".codes"); }
std::string OffsetsName(int level) { return absl::StrCat("trie.", level, ".offsets"); }

// The dictionary as bytes: per tag u32 key length, u32 value length, key, value.
std::string EncodeTags(const TagDictionary& tags) {
  std::string bytes;
  const auto append_length = [&bytes](size_t length) {
    const uint32_t value = static_cast<uint32_t>(length);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  for (uint32_t tag = 0; tag < tags.size(); ++tag) {
    append_length(tags[tag].first.size());
    append_length(tags[tag].second.size());
    absl::StrAppend(&bytes, tags[tag].first, tags[tag].second);
  }
  return bytes;
}

absl::StatusOr<TagDictionary> DecodeTags(absl::string_view bytes) {
  TagDictionary tags;
  while (!bytes.empty()) {
    uint32_t lengths[2];
    if (bytes.size() < sizeof(lengths)) return absl::InvalidArgumentError("ends inside a tag");
    bytes.copy(reinterpret_cast<char*>(lengths), sizeof(lengths));
    bytes.remove_prefix(sizeof(lengths));
    if (uint64_t{lengths[0]} + lengths[1] > bytes.size()) return absl::InvalidArgumentError("ends inside a tag");
    const uint32_t expected = tags.size();
    BEAMLINE_ASSIGN_OR_RETURN(const uint32_t id,
                              tags.Intern(bytes.substr(0, lengths[0]), bytes.substr(lengths[0], lengths[1])));
    if (id != expected) return absl::InvalidArgumentError(absl::StrCat("tag ", expected, " repeats tag ", id));
    bytes.remove_prefix(uint64_t{lengths[0]} + lengths[1]);
  }
  return tags;
}

// All sections but the manifest. `tag_bytes` must outlive the result.
std::vector<Section> ArraySections(const SnapshotContents& contents, absl::string_view tag_bytes) {
  std::vector<Section> sections;
  for (int level = 0; level < static_cast<int>(contents.trie.levels.size()); ++level) {
    sections.push_back({CodesName(level), Bytes(contents.trie.levels[level].codes)});
    if (level + 1 < static_cast<int>(contents.trie.levels.size())) {
      sections.push_back({OffsetsName(level), Bytes(contents.trie.levels[level].offsets)});
    }
  }
  const ItemColumns& items = contents.items;
  sections.push_back({"leaf_items", Bytes(contents.leaf_items)});
  sections.push_back({"item_id", Bytes(items.item_id)});
  sections.push_back({"author", Bytes(items.author)});
  sections.push_back({"duration_ms", Bytes(items.duration_ms)});
  sections.push_back({"created_ms", Bytes(items.created_ms)});
  sections.push_back({"relevance", Bytes(items.relevance)});
  sections.push_back({"title_offsets", Bytes(items.title_offsets)});
  sections.push_back({"titles", items.titles});
  sections.push_back({"tag_offsets", Bytes(items.tag_offsets)});
  sections.push_back({"tags", Bytes(items.tags)});
  sections.push_back({"tag_dictionary", tag_bytes});
  return sections;
}

std::string EncodeManifest(const SnapshotContents& contents, const std::string& version) {
  nlohmann::json nodes = nlohmann::json::array();
  for (const ItemTrieLevel& level : contents.trie.levels) nodes.push_back(level.codes.size());
  return nlohmann::json({{"version", version},
                         {"codebook_fingerprint", contents.codebook_fingerprint},
                         {"level_sizes", contents.level_sizes},
                         {"trie_nodes", nodes},
                         {"items", contents.items.size()},
                         {"title_bytes", contents.items.titles.size()},
                         {"item_tags", contents.items.tags.size()},
                         {"tags", contents.tags.size()}})
      .dump(2);
}

struct Manifest {
  std::string version;
  std::string codebook_fingerprint;
  std::vector<uint32_t> level_sizes;
  std::vector<uint64_t> trie_nodes;
  uint64_t items = 0;
  uint64_t title_bytes = 0;
  uint64_t item_tags = 0;
  uint64_t tags = 0;
};

// Keys of the manifest, each of its type; no key is missing and there is no other.
class ManifestReader {
 public:
  explicit ManifestReader(const nlohmann::json& json) : json_(json) {}

  void Read(const char* key, std::string& out) {
    if (const nlohmann::json* value = Take(key, "a string", [](const auto& v) { return v.is_string(); })) {
      out = value->get<std::string>();
    }
  }
  void Read(const char* key, uint64_t& out) {
    if (const nlohmann::json* value = Take(key, "a count", [](const auto& v) { return v.is_number_unsigned(); })) {
      out = value->get<uint64_t>();
    }
  }
  template <typename T>
  void Read(const char* key, std::vector<T>& out) {
    const auto valid = [](const nlohmann::json& list) {
      if (!list.is_array() || list.size() > kMaxLevels) return false;
      for (const nlohmann::json& v : list) {
        if (!v.is_number_unsigned() || v.get<uint64_t>() > kMaxItems) return false;
      }
      return true;
    };
    if (const nlohmann::json* value = Take(key, "a list of at most 8 counts", valid))
      out = value->get<std::vector<T>>();
  }
  absl::Status Finish() const {
    if (!status_.ok()) return status_;
    if (json_.size() != taken_) return absl::InvalidArgumentError("has a key this version does not know");
    return absl::OkStatus();
  }

 private:
  template <typename Valid>
  const nlohmann::json* Take(const char* key, const char* type, Valid valid) {
    const auto found = json_.is_object() ? json_.find(key) : json_.end();
    if (found != json_.end() && valid(*found)) {
      ++taken_;
      return &*found;
    }
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat("key '", key, "' must be ", type));
    return nullptr;
  }

  const nlohmann::json& json_;
  size_t taken_ = 0;
  absl::Status status_;
};

absl::StatusOr<Manifest> DecodeManifest(absl::string_view text) {
  BEAMLINE_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, "manifest"));
  Manifest manifest;
  ManifestReader reader(json);
  reader.Read("version", manifest.version);
  reader.Read("codebook_fingerprint", manifest.codebook_fingerprint);
  reader.Read("level_sizes", manifest.level_sizes);
  reader.Read("trie_nodes", manifest.trie_nodes);
  reader.Read("items", manifest.items);
  reader.Read("title_bytes", manifest.title_bytes);
  reader.Read("item_tags", manifest.item_tags);
  reader.Read("tags", manifest.tags);
  BEAMLINE_RETURN_IF_ERROR(reader.Finish());
  BEAMLINE_RETURN_IF_ERROR(CheckLevelSizes(manifest.level_sizes));
  if (manifest.trie_nodes.size() != manifest.level_sizes.size()) {
    return absl::InvalidArgumentError("trie_nodes and level_sizes have different lengths");
  }
  if (manifest.items > kMaxItems) {
    return absl::InvalidArgumentError(absl::StrCat("items: is ", manifest.items, ", at most ", kMaxItems));
  }
  return manifest;
}

// Reads array after array, shows progress and keeps the first error.
class ArrayLoader {
 public:
  ArrayLoader(const SectionReader& reader, Progress* progress) : reader_(reader), progress_(progress) {}

  template <typename T>
  void Load(absl::string_view name, uint64_t count, std::vector<T>& out) {
    if (status_.ok()) Keep(reader_.ReadArray<T>(name, count), out, count * sizeof(T));
  }
  void Load(absl::string_view name, uint64_t bytes, std::string& out) {
    if (!status_.ok()) return;
    Keep(reader_.ReadString(name, bytes), out, bytes);
    if (status_.ok() && out.size() != bytes) {
      status_ = reader_.Error(name, absl::StrCat("has ", out.size(), " bytes, the manifest says ", bytes));
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  template <typename T>
  void Keep(absl::StatusOr<T> value, T& out, uint64_t bytes) {
    if (!value.ok()) {
      status_ = value.status();
      return;
    }
    out = *std::move(value);
    done_ += static_cast<int64_t>(bytes);
    UpdateProgress(progress_, done_ >> 20);
    status_ = CheckInterrupted();
  }

  const SectionReader& reader_;
  Progress* progress_;
  int64_t done_ = 0;
  absl::Status status_;
};

absl::Status LoadArrays(const SectionReader& reader, const Manifest& manifest, Progress* progress,
                        SnapshotContents& contents) {
  ArrayLoader loader(reader, progress);
  const int levels = static_cast<int>(manifest.trie_nodes.size());
  contents.trie.levels.resize(levels);
  for (int level = 0; level < levels; ++level) {
    loader.Load(CodesName(level), manifest.trie_nodes[level], contents.trie.levels[level].codes);
    if (level + 1 < levels) {
      loader.Load(OffsetsName(level), manifest.trie_nodes[level] + 1, contents.trie.levels[level].offsets);
    }
  }
  ItemColumns& items = contents.items;
  loader.Load("leaf_items", manifest.trie_nodes.back() + 1, contents.leaf_items);
  loader.Load("item_id", manifest.items, items.item_id);
  loader.Load("author", manifest.items, items.author);
  loader.Load("duration_ms", manifest.items, items.duration_ms);
  loader.Load("created_ms", manifest.items, items.created_ms);
  loader.Load("relevance", manifest.items, items.relevance);
  loader.Load("title_offsets", manifest.items + 1, items.title_offsets);
  loader.Load("titles", manifest.title_bytes, items.titles);
  loader.Load("tag_offsets", manifest.items + 1, items.tag_offsets);
  loader.Load("tags", manifest.item_tags, items.tags);
  BEAMLINE_RETURN_IF_ERROR(loader.status());
  BEAMLINE_ASSIGN_OR_RETURN(const std::string tag_bytes, reader.ReadString("tag_dictionary", kMaxTagBytes));
  absl::StatusOr<TagDictionary> tags = DecodeTags(tag_bytes);
  if (!tags.ok()) return reader.Error("tag_dictionary", tags.status().message());
  if (tags->size() != manifest.tags) {
    return reader.Error("tag_dictionary",
                        absl::StrCat("has ", tags->size(), " tags, the manifest says ", manifest.tags));
  }
  contents.tags = *std::move(tags);
  return absl::OkStatus();
}

// Nothing but the sections this format has.
absl::Status CheckNoOtherSections(const SectionReader& reader, int levels) {
  SnapshotContents shape;
  shape.trie.levels.resize(levels);
  std::vector<Section> expected = ArraySections(shape, "");
  expected.push_back({"manifest", ""});
  for (const SectionInfo& section : reader.sections()) {
    const auto known = [&section](const Section& other) { return other.name == section.name; };
    if (std::none_of(expected.begin(), expected.end(), known)) {
      return reader.Error(section.name, "is not a section of a catalogue");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const CatalogueSnapshot>> LoadSnapshot(const std::filesystem::path& path,
                                                                      const LoadOptions& options) {
  BEAMLINE_ASSIGN_OR_RETURN(const SectionReader reader, SectionReader::Open(path, options.max_bytes));
  BEAMLINE_ASSIGN_OR_RETURN(const std::string text, reader.ReadString("manifest", kMaxManifestBytes));
  const absl::StatusOr<Manifest> manifest = DecodeManifest(text);
  if (!manifest.ok()) return reader.Error("manifest", manifest.status().message());
  if (!options.expected_fingerprint.empty() && manifest->codebook_fingerprint != options.expected_fingerprint) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.string(), ": the catalogue was made with codebook ", manifest->codebook_fingerprint,
                     ", the model needs ", options.expected_fingerprint, "; build it again with the model's codebook"));
  }
  BEAMLINE_RETURN_IF_ERROR(CheckNoOtherSections(reader, static_cast<int>(manifest->level_sizes.size())));
  StartProgress(options.progress, "load catalogue", static_cast<int64_t>(reader.file_bytes() >> 20), "MiB");
  SnapshotContents contents;
  contents.version = manifest->version;
  contents.codebook_fingerprint = manifest->codebook_fingerprint;
  contents.level_sizes = manifest->level_sizes;
  BEAMLINE_RETURN_IF_ERROR(LoadArrays(reader, *manifest, options.progress, contents));
  FinishProgress(options.progress);
  absl::StatusOr<std::shared_ptr<const CatalogueSnapshot>> snapshot = CatalogueSnapshot::Create(std::move(contents));
  if (!snapshot.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", snapshot.status().message()));
  }
  return snapshot;
}

absl::Status WriteSnapshot(const CatalogueSnapshot& snapshot, const std::filesystem::path& path, Progress* progress) {
  const std::string manifest = EncodeManifest(snapshot.contents(), snapshot.version());
  const std::string tags = EncodeTags(snapshot.tags());
  std::vector<Section> sections = {{"manifest", manifest}};
  for (Section& section : ArraySections(snapshot.contents(), tags)) sections.push_back(std::move(section));
  return WriteSectionFile(path, sections, progress);
}

std::string ContentVersion(const SnapshotContents& contents) {
  const std::string tags = EncodeTags(contents.tags);
  Sha256 digest;
  digest.Update(EncodeManifest(contents, ""));
  for (const Section& section : ArraySections(contents, tags))
    digest.Update(section.name).Update({section.bytes.data(), section.bytes.size()});
  return absl::StrCat("c-", digest.HexDigest().substr(0, 16));
}

}  // namespace beamline::catalogue
