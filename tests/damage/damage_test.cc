// SPDX-License-Identifier: Apache-2.0
//
// Rows C4.11, C4.13, C4.15, C5.6, C6.1 in the large: every artefact cut off and with flipped bits, a thousand times
// each. It is refused with an error that names the file, or means what it meant. Text without a checksum
// (configuration, SID indexes of others, plain tables) may turn into other text that is as valid: that is counted
// apart, and what has a checksum never does. BEAMLINE_DAMAGES for another number.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backend/context.h"
#include "backend/ops.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/npy.h"
#include "beamline/status.h"
#include "catalogue/snapshot_file.h"
#include "data/event_table.h"
#include "data/item_table.h"
#include "data/user_table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/config.h"
#include "model/weights.h"
#include "runtime/bundle.h"
#include "runtime/hf_t5_config.h"
#include "runtime/hf_t5_weights.h"
#include "runtime/hf_tokenizer.h"
#include "runtime/tiny_bundle.h"
#include "runtime/training_record.h"
#include "server/config.h"
#include "sid/codebook.h"
#include "sid/item_vectors.h"
#include "sid/sid_index.h"
#include "testing/paths.h"
#include "testing/write_npy.h"
#include "train/checkpoint.h"

namespace beamline {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;

// What was loaded, as text that tells any two apart.
using Loaded = absl::StatusOr<std::string>;

// kOptional: files of others have no checksum, so flips that hit its very name, and others at the same time, pass as
// one of those. Such a file gets one flip at a time.
enum class Checksum { kNone, kOptional, kAlways };

struct Artefact {
  const char* file;
  Checksum checksum;
  std::function<void(const fs::path&)> write;   // a good one
  std::function<Loaded(const fs::path&)> load;  // of the path that was written
};

void Ok(const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; }

runtime::testing::TinyBundleOptions Small() {
  runtime::testing::TinyBundleOptions options;
  options.items = 20;
  return options;
}

void WriteBundleAround(const fs::path& file) {
  fs::remove(file.parent_path());  // a bundle's folder is made whole or not at all
  Ok(runtime::testing::WriteTinyBundle(file.parent_path(), Small()).status());
}

Loaded LoadBundleAround(const fs::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(const runtime::Bundle bundle, runtime::LoadBundle(file.parent_path()));
  Sha256 digest;
  for (const auto& [name, tensor] : bundle.weights.tensors()) {
    digest.Update(name).Update({reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()});
  }
  return absl::StrCat(runtime::ManifestToJson(bundle.manifest), model::ConfigToJson(bundle.config),
                      catalogue::ContentVersion(bundle.catalogue->contents()),
                      absl::StrJoin(bundle.vocabulary->items(), " "), digest.HexDigest());
}

void WriteSnapshotAt(const fs::path& file) {
  WriteBundleAround(file.parent_path() / "bundle" / "items");
  fs::copy_file(file.parent_path() / "bundle" / "items", file);
}

Loaded LoadSnapshotAt(const fs::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(const auto snapshot, catalogue::LoadSnapshot(file));
  return absl::StrCat(snapshot->version(), " ", catalogue::ContentVersion(snapshot->contents()));
}

// The model's part of a folder that `beamline train` wrote, for `pack` and `evaluate`.
void WriteModelAround(const fs::path& file) {
  const fs::path bundle = file.parent_path() / "bundle";
  fs::remove_all(file.parent_path());
  fs::create_directories(file.parent_path());
  Ok(runtime::testing::WriteTinyBundle(bundle, Small()).status());
  for (const char* const name : {runtime::kConfigFile, runtime::kWeightsFile, runtime::kVocabularyFile}) {
    fs::copy_file(bundle / name, file.parent_path() / name);
  }
  Ok(runtime::WriteTrainingRecord(file.parent_path(), {{"corpus", {{"k_core", 5}}}, {"curve", {0.25, 1e-9}}}));
}

Loaded LoadModelAround(const fs::path& file) {
  const fs::path folder = file.parent_path();
  BEAMLINE_ASSIGN_OR_RETURN(auto record, runtime::ReadTrainingRecord(folder));
  BEAMLINE_ASSIGN_OR_RETURN(const auto config, model::LoadConfig((folder / runtime::kConfigFile).string()));
  BEAMLINE_ASSIGN_OR_RETURN(const auto vocabulary,
                            runtime::Vocabulary::Load((folder / runtime::kVocabularyFile).string()));
  backend::Context ctx = *backend::MakeContext("cpu", "fp32", "aten");
  BEAMLINE_ASSIGN_OR_RETURN(const auto weights, model::LoadWeights(ctx, config, folder / runtime::kWeightsFile));
  Sha256 digest;
  for (const auto& [name, tensor] : weights.tensors()) {
    const std::vector<float> values = backend::DownloadFloats(ctx, tensor);
    digest.Update(name).Update({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }
  return absl::StrCat((*record)["corpus"].dump(), (*record)["curve"].dump(), model::ConfigToJson(config),
                      absl::StrJoin(vocabulary.items(), " "), digest.HexDigest());
}

void WriteCodebook(const fs::path& file) {
  std::vector<FloatMatrix> levels;
  std::mt19937 random(1);
  for (const int rows : {4, 3}) {
    FloatMatrix& level = levels.emplace_back(rows, 5);
    for (float& value : level.values) value = std::uniform_real_distribution<float>(-1, 1)(random);
  }
  Ok(sid::Codebook::FromCentroids("small", levels)->Save(file.string()));
}

Loaded LoadCodebook(const fs::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(const sid::Codebook codebook, sid::Codebook::Load(file.string()));
  return codebook.fingerprint();  // its name is for people
}

sid::SidTable Table() {
  sid::SidTable table;
  table.level_sizes = {8, 300, 10};
  for (uint32_t i = 0; i < 30; ++i) {
    table.items.push_back(1000 + 7 * i);
    table.sids.push_back(Sid{i % 8, 10 * i, i % 10});
  }
  return table;
}

Loaded Describe(const absl::StatusOr<sid::SidTable>& table) {
  if (!table.ok()) return table.status();
  Ok(sid::CheckSidTable(*table));
  std::string text = absl::StrJoin(table->level_sizes, ",");
  for (size_t i = 0; i < table->items.size(); ++i) {
    absl::StrAppend(&text, "\n", table->items[i], table->sids[i].ToString());
  }
  return text;
}

void WriteEvents(const fs::path& file) {
  auto writer = data::EventTableWriter::Create(file);
  for (uint64_t i = 0; i < 40; ++i) {
    Ok(writer->Write(absl::StrCat("u", i % 5), {i, static_cast<int64_t>(1'000 * i), 5, 6, static_cast<uint32_t>(i)}));
  }
  Ok(writer->Commit());
}

Loaded LoadEvents(const fs::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(auto reader, data::EventTableReader::Open(file));
  std::string text;
  data::EventRow row;
  while (true) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
    if (!more) return text;
    absl::StrAppend(&text, std::string(row.user_id), " ", row.event.item, " ", row.event.timestamp_ms, " ",
                    row.event.play_time_ms, " ", row.event.duration_ms, " ", row.event.labels, "\n");
  }
}

void WriteItems(const fs::path& file) {
  auto writer = data::ItemTableWriter::Create(file);
  for (const CatalogueItem& item : runtime::testing::TinyItems(Small()))
    Ok(writer->Write({item.item, item.attributes}));
  Ok(writer->Commit());
}

Loaded LoadItems(const fs::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(auto reader, data::ItemTableReader::Open(file));
  std::string text;
  data::ItemRow row;
  while (true) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
    if (!more) return text;
    absl::StrAppend(&text, row.item, " ", row.attributes.author, " ", row.attributes.duration_ms, " ",
                    row.attributes.created_ms, " ", row.attributes.relevance, " ", row.attributes.title, " ",
                    *data::FormatTags(row.attributes.tags), "\n");
  }
}

void WriteUsers(const fs::path& file) {
  auto writer = data::UserTableWriter::Create(file, {"degree", "region"});
  for (int i = 0; i < 30; ++i) Ok(writer->Write(absl::StrCat("u", i), {i % 3 == 0 ? "" : "full", "DE"}));
  Ok(writer->Commit());
}

Loaded LoadUsers(const fs::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(auto reader, data::UserTableReader::Open(file));
  std::string text;
  data::UserRow row;
  while (true) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
    if (!more) return text;
    absl::StrAppend(&text, "\n", row.user_id);
    for (const UserAttribute& attribute : row.attributes)
      absl::StrAppend(&text, " ", attribute.name, "=", attribute.value);
  }
}

void WriteVectors(const fs::path& file) {
  FloatMatrix vectors(9, 4);
  for (size_t i = 0; i < vectors.values.size(); ++i) vectors.values[i] = 0.5f * static_cast<float>(i);
  ASSERT_TRUE(beamline::testing::WriteNpy(file.string(), vectors));
}

Loaded LoadVectors(const fs::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(const FloatMatrix vectors, ReadNpy(file.string()));
  return absl::StrCat(vectors.rows, " ", absl::StrJoin(vectors.values, " "));
}

void WriteItemVectors(const fs::path& file) {
  sid::ItemVectors vectors{{7, 3, 9}, FloatMatrix(3, 4)};
  for (size_t i = 0; i < vectors.vectors.values.size(); ++i) vectors.vectors.values[i] = 0.5f * static_cast<float>(i);
  Ok(sid::WriteItemVectors(file.string(), vectors));
}

Loaded LoadItemVectors(const fs::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(const sid::ItemVectors vectors, sid::ReadItemVectors({file.string(), "", ""}));
  return absl::StrCat(absl::StrJoin(vectors.items, " "), "|", absl::StrJoin(vectors.vectors.values, " "));
}

void WriteOpenOneRec(const fs::path& file) {
  std::ofstream(file) << R"({"67125256": [{"pid": 17, "count": 9, "note": null}, {"pid": 18}],
 "0": [{"iid": 4, "share": 0.5}], "8589934593": [{"pid": 5}]})";
}

// A checkpoint of Hugging Face, as `beamline import hf` reads it.
void WriteHfAround(const fs::path& file) {
  fs::copy(BEAMLINE_SOURCE_DIR + "/tests/golden/t5/relu_tied/hf", file.parent_path(),
           fs::copy_options::recursive | fs::copy_options::overwrite_existing);
}

Loaded LoadHfConfig(const fs::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(const auto config, runtime::ReadHfT5Config(file.parent_path()));
  return absl::StrCat(config.d_model, " ", config.d_kv, " ", config.d_ff, " ", config.heads, " ", config.encoder_layers,
                      " ", config.decoder_layers, " ", config.relative_buckets, " ", config.relative_max_distance, " ",
                      config.norm_epsilon, " ", config.gated, " ", static_cast<int>(config.activation)) +
         absl::StrCat(" ", config.scale_head, " ", config.start_token, " ", config.end_token, " ",
                      absl::StrJoin(config.notes, "; "));
}

Loaded LoadHfTokenizer(const fs::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(const auto tokenizer, runtime::ReadHfTokenizer(file.parent_path(), 1));
  const std::map<std::string, int64_t> ids(tokenizer.ids.begin(), tokenizer.ids.end());
  return absl::StrCat(absl::StrJoin(ids, " ", absl::PairFormatter("=")), "|", absl::StrJoin(tokenizer.prefix, " "), "|",
                      absl::StrJoin(tokenizer.suffix, " "), "|", tokenizer.unknown_template);
}

Loaded LoadHfWeights(const fs::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(const auto config, runtime::ReadHfT5Config(file.parent_path()));
  BEAMLINE_RETURN_IF_ERROR(runtime::HfT5Weights::Read(file.parent_path(), config).status());
  return ReadFile(file, 1 << 30);
}

// A training's checkpoint, of a small bundle's model.
struct CheckpointWorld {
  backend::Context ctx = *backend::MakeContext("cpu", "fp32", "aten");
  model::ModelConfig config;
  model::Weights weights;
  std::vector<train::CheckpointPart> Parts() const { return {{.prefix = "weights", .tensors = weights}}; }
};

CheckpointWorld& CheckpointWorldOf(const fs::path& file) {
  static auto* const world = [&] {
    const fs::path folder = file.parent_path() / "bundle";
    Ok(runtime::testing::WriteTinyBundle(folder, Small()).status());
    const runtime::Bundle bundle = *runtime::LoadBundle(folder);
    auto* const made = new CheckpointWorld;
    made->config = bundle.config;
    made->weights = *model::LoadWeights(made->ctx, bundle.config, bundle.weights);
    return made;
  }();
  return *world;
}

void WriteCheckpointAt(const fs::path& file) {
  CheckpointWorld& world = CheckpointWorldOf(file);
  Ok(train::WriteCheckpoint(world.ctx, {world.config, {{"step", 3}}, world.Parts()}, file));
}

Loaded LoadCheckpoint(const fs::path& file) {
  CheckpointWorld& world = CheckpointWorldOf(file);
  BEAMLINE_ASSIGN_OR_RETURN(const auto read, train::ReadCheckpoint(world.ctx, world.config, world.Parts(), file));
  Sha256 digest;
  for (const auto& [name, tensor] : world.weights.tensors()) {
    const std::vector<float> values = backend::DownloadFloats(world.ctx, tensor);
    digest.Update(name).Update({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }
  return read.state.dump() + digest.HexDigest();
}

Loaded LoadConfig(const fs::path& file) {
  server::ConfigOverrides overrides;
  overrides.bundle = "b";
  overrides.check_artefacts = false;
  BEAMLINE_ASSIGN_OR_RETURN(const auto config, server::LoadServerConfig(file.string(), overrides));
  return config.SerializeAsString();
}

const Artefact kArtefacts[] = {
    {"bundle.json", Checksum::kAlways, WriteBundleAround, LoadBundleAround},
    {"config.json", Checksum::kAlways, WriteBundleAround, LoadBundleAround},
    {"model.safetensors", Checksum::kAlways, WriteBundleAround, LoadBundleAround},
    {"vocabulary.safetensors", Checksum::kAlways, WriteBundleAround, LoadBundleAround},
    {"codebook.safetensors", Checksum::kAlways, WriteBundleAround, LoadBundleAround},
    {"items", Checksum::kAlways, WriteBundleAround, LoadBundleAround},
    {"catalogue", Checksum::kAlways, WriteSnapshotAt, LoadSnapshotAt},
    {"tokenizer_codebook.safetensors", Checksum::kAlways, WriteCodebook, LoadCodebook},
    {"events.tsv.gz", Checksum::kAlways, WriteEvents, LoadEvents},
    {"items.tsv.gz", Checksum::kAlways, WriteItems, LoadItems},
    {"events.tsv", Checksum::kNone, WriteEvents, LoadEvents},
    {"items.tsv", Checksum::kNone, WriteItems, LoadItems},
    {"trained/config.json", Checksum::kOptional, WriteModelAround, LoadModelAround},
    {"trained/training.json", Checksum::kOptional, WriteModelAround, LoadModelAround},
    {"trained/model.safetensors", Checksum::kOptional, WriteModelAround, LoadModelAround},
    {"trained/vocabulary.safetensors", Checksum::kOptional, WriteModelAround, LoadModelAround},
    {"vectors.safetensors", Checksum::kOptional, WriteItemVectors, LoadItemVectors},
    {"sids.tsv", Checksum::kOptional, [](const fs::path& file) { Ok(sid::WriteSidTsv(file.string(), Table())); },
     [](const fs::path& file) { return Describe(sid::ReadSidTsv(file.string())); }},
    {"index.json", Checksum::kNone, [](const fs::path& file) { Ok(sid::WriteIndexJson(file.string(), Table())); },
     [](const fs::path& file) { return Describe(sid::ReadIndexJson(file.string())); }},
    {"info.txt", Checksum::kNone, [](const fs::path& file) { Ok(sid::WriteInfoText(file.string(), Table())); },
     [](const fs::path& file) { return Describe(sid::ReadInfoText(file.string())); }},
    {"openonerec.json", Checksum::kNone, WriteOpenOneRec,
     [](const fs::path& file) { return Describe(sid::ReadSidIndex("openonerec", file.string())); }},
    {"users.tsv.gz", Checksum::kAlways, WriteUsers, LoadUsers},
    {"users.tsv", Checksum::kNone, WriteUsers, LoadUsers},
    {"vectors.npy", Checksum::kNone, WriteVectors, LoadVectors},
    {"hf/config.json", Checksum::kNone, WriteHfAround, LoadHfConfig},
    {"hf/tokenizer.json", Checksum::kNone, WriteHfAround, LoadHfTokenizer},
    {"hf/model.safetensors", Checksum::kNone, WriteHfAround, LoadHfWeights},
    {"checkpoint.safetensors", Checksum::kAlways, WriteCheckpointAt, LoadCheckpoint},
    {"server.textproto", Checksum::kNone,
     [](const fs::path& file) { fs::copy_file(BEAMLINE_SOURCE_DIR + "/configs/server.textproto", file); }, LoadConfig},
};

int Damages() {
  const char* const text = std::getenv("BEAMLINE_DAMAGES");
  int damages = 1000;
  EXPECT_TRUE(text == nullptr || absl::SimpleAtoi(text, &damages));
  return damages;
}

// Turn and turn about: cut off somewhere, or with one to most_flips bits flipped. Always another text than `good`.
std::string Damage(const std::string& good, int turn, uint64_t most_flips, std::mt19937_64& random) {
  if (turn % 2 == 0) return good.substr(0, random() % good.size());
  std::string bad = good;
  for (uint64_t flips = 1 + random() % most_flips; flips > 0 || bad == good; flips -= flips > 0 ? 1 : 0) {
    char& byte = bad[random() % bad.size()];
    byte = static_cast<char>(byte ^ (1 << random() % 8));
  }
  return bad;
}

class DamageTest : public ::testing::TestWithParam<Artefact> {
 protected:
  DamageTest() : folder_(fs::path(::testing::TempDir()) / "damage") {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    path_ = folder_ / GetParam().file;
    fs::create_directories(path_.parent_path());
  }
  ~DamageTest() override { fs::remove_all(folder_); }

  void Put(const std::string& bytes) { std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes; }

  const fs::path folder_;
  fs::path path_;
};

TEST_P(DamageTest, IsRefusedByTheFilesNameOrChangesNothing) {
  GetParam().write(path_);
  ASSERT_FALSE(HasFatalFailure());
  const std::string good = *ReadFile(path_, 1 << 30);
  const Loaded expected = GetParam().load(path_);
  ASSERT_TRUE(expected.ok()) << expected.status();
  std::mt19937_64 random(1);
  int refused = 0, same = 0, other = 0;
  for (int turn = 0; turn < Damages(); ++turn) {
    const std::string bad = Damage(good, turn, GetParam().checksum == Checksum::kOptional ? 1 : 4, random);
    Put(bad);
    const Loaded loaded = GetParam().load(path_);
    if (!loaded.ok()) {
      ++refused;
      // What is wrong with the tensors of all of a checkpoint's files is said of their folder.
      ASSERT_THAT(std::string(loaded.status().message()),
                  AnyOf(HasSubstr(absl::StrCat("/", GetParam().file)),
                        HasSubstr(absl::StrCat(path_.parent_path().string(), ":\n"))))
          << "turn " << turn;
      ASSERT_LT(loaded.status().message().size(), 100'000u) << "turn " << turn;
    } else if (*loaded == *expected) {
      ++same;
    } else {
      ++other;
      ASSERT_EQ(GetParam().checksum, Checksum::kNone) << "turn " << turn << ": damage was not noticed";
    }
  }
  Put(good);
  EXPECT_EQ(*GetParam().load(path_), *expected);
  EXPECT_GT(refused, 0);
  std::cout << GetParam().file << ": " << refused << " refused, " << same << " the same, " << other
            << " other valid text\n";
}

INSTANTIATE_TEST_SUITE_P(All, DamageTest, ::testing::ValuesIn(kArtefacts), [](const auto& info) {
  std::string name = info.param.file;
  for (const char sign : {'.', '/'}) std::replace(name.begin(), name.end(), sign, '_');
  return name;
});

}  // namespace
}  // namespace beamline
