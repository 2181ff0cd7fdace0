// SPDX-License-Identifier: Apache-2.0
//
// Seeds of the fuzz targets, made by the product's own writers so that they never fall behind its formats:
//   beamline_fuzz_seeds FOLDER
// writes FOLDER/catalogue/..., FOLDER/bundle/..., a folder per target. Those of the server: make_server_seeds.cc.
#include <fstream>

#include "base/file.h"
#include "base/safetensors.h"
#include "catalogue/random_catalogue.h"
#include "catalogue/snapshot_file.h"
#include "data/event_table.h"
#include "data/item_table.h"
#include "data/user_table.h"
#include "fuzz/fuzz_target.h"
#include "model/config.h"
#include "runtime/bundle_manifest.h"
#include "runtime/gate_report.h"
#include "runtime/vocabulary.h"
#include "sid/codebook.h"
#include "sid/sid_index.h"

namespace beamline::fuzz {
namespace {

namespace fs = std::filesystem;

// "TARGET/NAME" under the folder of all seeds, whose folder exists afterwards.
class Seeds {
 public:
  explicit Seeds(fs::path root) : root_(std::move(root)) {}
  std::string Path(const std::string& name) const {
    fs::create_directories((root_ / name).parent_path());
    return (root_ / name).string();
  }
  void Text(const std::string& name, std::string_view text) const {
    std::ofstream(Path(name), std::ios::binary) << text;
  }

 private:
  const fs::path root_;
};

void MakeSafetensors(const Seeds& seeds) {
  const std::vector<float> floats = {1.5f, -2, 0, 1e30f, 5, 6};
  const std::vector<uint16_t> halves = {0x3c00, 0x7bff, 1, 0x8000};
  const std::vector<int64_t> longs = {-1, 7};
  const std::vector<std::byte> bools = {std::byte{0}, std::byte{1}, std::byte{1}};
  SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  writer.SetMetadata("name", "caf\xc3\xa9 \"x\"");
  RequireOk(writer.Add<float>("decoder.0.attention.qkv", {2, 3}, floats), "seed");
  RequireOk(writer.Add("bf16", DType::kBF16, {2, 2}, {reinterpret_cast<const std::byte*>(halves.data()), 8}), "seed");
  RequireOk(writer.Add("f16", DType::kF16, {4}, {reinterpret_cast<const std::byte*>(halves.data()), 8}), "seed");
  RequireOk(writer.Add<int64_t>("ids", {2}, longs), "seed");
  RequireOk(writer.Add("mask", DType::kBool, {3, 1}, bools), "seed");
  RequireOk(writer.Write(seeds.Path("safetensors/several")), "seed");
  SafetensorsWriter one;
  RequireOk(one.Add<float>("a", {6}, floats), "seed");
  RequireOk(one.Write(seeds.Path("safetensors/one")), "seed");
  // As of another program, without our digest: what is changed in it gets past that.
  std::string foreign = *ReadFile(seeds.Path("safetensors/several"), 1 << 20);
  foreign[foreign.find(kSafetensorsDigest)] = 'x';
  seeds.Text("safetensors/foreign", foreign);
  const auto with_length = [](const std::string& header, const std::string& data) {
    return std::string(1, static_cast<char>(header.size())) + std::string(7, '\0') + header + data;
  };
  seeds.Text("safetensors/scalar", with_length(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", "abcd"));
  seeds.Text("safetensors/empty", with_length(R"({"a":{"dtype":"U8","shape":[0,3],"data_offsets":[0,0]}}   )", ""));
  seeds.Text("safetensors/pickle", "\x80\x02}q\x01.rest of a pickle");
}

void MakeSids(const Seeds& seeds) {
  sid::SidTable table;
  table.level_sizes = {8, 300, 10};
  table.codebook_fingerprint = std::string(64, 'a');
  table.targets = "any";
  table.log = std::string(64, '7');
  table.items = {17, 3, ~ItemId{0} - 9, 40};
  table.sids = {Sid{7, 255, 0}, Sid{0, 0, 0}, Sid{7, 255, 0}, Sid{1, 299, 9}};
  table.titles = {"A video", "caf\xc3\xa9", "", "1 < 2"};
  RequireOk(sid::WriteSidTsv(seeds.Path("sid_index/tsv"), table), "seed");
  RequireOk(sid::WriteIndexJson(seeds.Path("sid_index/letter"), table, 1), "seed");
  RequireOk(sid::WriteInfoText(seeds.Path("sid_index/info"), table), "seed");
  seeds.Text("sid_index/openonerec", R"({"67125256": [{"pid": 17, "count": 9, "note": null}, {"pid": 18}],
 "0": [{"iid": 4, "share": 0.5}]})");
  seeds.Text("sid_index/bad_rows",
             "#beamline-sids\t1\tlevels=4,4\nitem_id\tsid\n1\t0,3\nx\t0,0\n2\t0,4\n1\t1,1\n9\t3\n");
}

void MakeCatalogues(const Seeds& seeds) {
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    const catalogue::RandomCatalogue random(seed, 12);
    RequireOk(catalogue::WriteSnapshot(*random.snapshot, seeds.Path(absl::StrCat("catalogue/", seed))), "seed");
  }
}

void MakeTables(const Seeds& seeds) {
  for (const char* suffix : {"", ".gz"}) {
    auto events = data::EventTableWriter::Create(seeds.Path(absl::StrCat("event_table/events", suffix)));
    auto items = data::ItemTableWriter::Create(seeds.Path(absl::StrCat("event_table/items", suffix)));
    auto users = data::UserTableWriter::Create(seeds.Path(absl::StrCat("event_table/users", suffix)), {"age", "city"});
    for (uint64_t i = 0; i < 5; ++i) {
      const std::string user = absl::StrCat("user ", i % 2);
      const Event event{i * i, 1'650'000'000'000 + static_cast<int64_t>(i), 9500, 10'000,
                        static_cast<uint32_t>(37 * i)};
      RequireOk(events->Write(user, event), "seed");
      data::ItemRow item{i, {7, 1234, 1'650'000'000'000, -2.5f, "caf\xc3\xa9", {{"tag", "39"}, {"kind", "NORMAL"}}}};
      RequireOk(items->Write(item), "seed");
      RequireOk(users->Write(absl::StrCat("u", i), {"30", i == 1 ? "" : "Berlin"}), "seed");
    }
    RequireOk(events->Commit(), "seed");
    RequireOk(items->Commit(), "seed");
    RequireOk(users->Commit(), "seed");
  }
  seeds.Text("event_table/crlf", "\xef\xbb\xbfuser_id\titem_id\ttimestamp_ms\r\nu\t1\t2\r\n\r\nv\t3\t4\r\n");
  seeds.Text("event_table/bad_rows",
             "labels\tuser_id\titem_id\ttimestamp_ms\nlike|x\tu\t1\t2\n\tu\t-1\t2\nclick\tu\t1\t2\n");
  seeds.Text("event_table/spaced", "1 10 11 12 13\n2 10 14\n7 1 2 3 4 5 6\n");
  seeds.Text("event_table/tabbed", "u1\t10 11 12\nu2\t13 14\n");
  seeds.Text("event_table/csv", "user_id,item_id\n\"a\"\"b\",1\n");
}

void MakeBundleFiles(const Seeds& seeds) {
  runtime::BundleManifest manifest{"onerec_v1", "v-1", std::string(64, 'c'), "c-4f1a", {}, "0.1.0 (0123456789ab)"};
  for (const absl::string_view name : runtime::BundleFileNames()) {
    manifest.files[std::string(name)] = {812, std::string(64, '0')};
  }
  seeds.Text("bundle/manifest", runtime::ManifestToJson(manifest));
  runtime::PrecisionGateReport gate{.dtype = "fp8",
                                    .weights_sha256 = std::string(64, '0'),
                                    .config_sha256 = std::string(64, '1'),
                                    .device = "cuda",
                                    .backend = "cuda",
                                    .split = "test",
                                    .beam = 64};
  gate.requests = 20'000;
  gate.recall_10 = 0.07;
  gate.bf16_recall_10 = 0.07;
  gate.recall_10_difference = {.low = -0.001, .mean = 0, .high = 0.002};
  seeds.Text("bundle/gate", runtime::GateToJson(gate).dump(1));
  for (const char* preset : {"demo", "small", "0.935B", "t5-d128"}) {
    const auto config = model::PresetConfig({.name = preset, .items = 100, .authors = 10, .attributes = {"age"}});
    RequireOk(config.status(), preset);
    seeds.Text(absl::StrCat("bundle/config_", preset), model::ConfigToJson(*config));
  }
  runtime::Vocabulary vocabulary({5, 9, 1000}, {1, 2});
  vocabulary.SetPopularity({5, 9, 1000}, {3, 0, 7});
  RequireOk(vocabulary.Save(seeds.Path("bundle/vocabulary")), "seed");
  vocabulary = runtime::Vocabulary::OfTokens({3, 4, -1, 0, 1});
  RequireOk(vocabulary.Save(seeds.Path("bundle/tokens")), "seed");
  vocabulary.SetPopularity({5, 9}, {3, 7});
  RequireOk(vocabulary.Save(seeds.Path("bundle/counted_tokens")), "seed");
  std::vector<FloatMatrix> centroids;
  for (const int rows : {3, 2}) {
    FloatMatrix& level = centroids.emplace_back(rows, 2);
    for (size_t i = 0; i < level.values.size(); ++i) level.values[i] = static_cast<float>(i) - 1.5f;
  }
  RequireOk(sid::Codebook::FromCentroids("small", centroids)->Save(seeds.Path("bundle/codebook")), "seed");
  RequireOk(sid::Codebook::Foreign("foreign", {4, 4}, std::string(64, 'b'))->Save(seeds.Path("bundle/foreign")),
            "seed");
}

}  // namespace
}  // namespace beamline::fuzz

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const beamline::fuzz::Seeds seeds(argv[1]);
  beamline::fuzz::MakeSafetensors(seeds);
  beamline::fuzz::MakeSids(seeds);
  beamline::fuzz::MakeCatalogues(seeds);
  beamline::fuzz::MakeTables(seeds);
  beamline::fuzz::MakeBundleFiles(seeds);
  return 0;
}
