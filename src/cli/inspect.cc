// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "base/progress.h"
#include "base/safetensors.h"
#include "beamline/status.h"
#include "catalogue/section_file.h"
#include "catalogue/snapshot_file.h"
#include "cli/verb.h"
#include "data/dataset.h"
#include "data/labels.h"
#include "data/statistics.h"
#include "model/config.h"
#include "model/size_check.h"
#include "runtime/bundle_folder.h"
#include "runtime/gate_report.h"

namespace beamline::cli {
namespace {

constexpr char kExamples[] =
    R"(Reads and checks the whole of what it is given, then says what it is:
  beamline inspect run/bundle                        a bundle and its catalogue
  beamline inspect run/bundle --item 4711            an item: SID, attributes, tags
  beamline inspect catalogue.bin --sid 12,7          what lies under a SID or the beginning of one
  beamline inspect run/bundle/model.safetensors      tensors, shapes, metadata
  beamline inspect run/data                          a behaviour log: users, items, labels, popularity)";

// Items printed under a SID.
constexpr uint32_t kMaxListed = 20;

struct InspectFlags {
  std::string path;
  std::optional<uint64_t> item;
  std::string sid;
};

template <typename... Args>
void Print(const absl::FormatSpec<Args...>& format, const Args&... args) {
  absl::PrintF(format, args...);
}

// "12,7,255" or "<12,7,255>".
absl::StatusOr<Sid> ParseSid(absl::string_view text, const std::vector<uint32_t>& level_sizes) {
  absl::string_view inner = text;
  if (absl::ConsumePrefix(&inner, "<")) absl::ConsumeSuffix(&inner, ">");
  const std::vector<absl::string_view> parts = absl::StrSplit(inner, ',');
  if (parts.size() > level_sizes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--sid: '", text, "' has ", parts.size(), " codes, the catalogue ",
                                                   level_sizes.size(), " levels"));
  }
  Sid sid;
  for (size_t level = 0; level < parts.size(); ++level) {
    uint32_t code = 0;
    if (!absl::SimpleAtoi(parts[level], &code) || code >= level_sizes[level]) {
      return absl::InvalidArgumentError(
          absl::StrCat("--sid: code ", level, " is '", parts[level], "', must be a number below ", level_sizes[level]));
    }
    sid.push_back(code);
  }
  return sid;
}

absl::Status PrintItem(const catalogue::CatalogueSnapshot& snapshot, ItemId id) {
  const std::optional<CatalogueItem> item = snapshot.GetItem(id);
  if (!item) return absl::NotFoundError(absl::StrCat("--item: the catalogue has no item ", id));
  const ItemAttributes& attributes = item->attributes;
  Print("item        %d\nSID         %s\nauthor      %d\nduration    %s\n", id, item->sid.ToString(), attributes.author,
        absl::FormatDuration(absl::Milliseconds(attributes.duration_ms)));
  if (attributes.created_ms != 0) {
    Print("created     %s\n", absl::FormatTime(absl::FromUnixMillis(attributes.created_ms), absl::UTCTimeZone()));
  }
  Print("relevance   %g\ntitle       %s\n", attributes.relevance, attributes.title);
  Print("tags        %s\n", absl::StrJoin(attributes.tags, " ", absl::PairFormatter("=")));
  Print("same SID    %d items\n", snapshot.Resolve(item->sid).size());
  return absl::OkStatus();
}

absl::Status PrintSid(const catalogue::CatalogueSnapshot& snapshot, const std::string& text) {
  BEAMLINE_ASSIGN_OR_RETURN(const Sid sid, ParseSid(text, snapshot.level_sizes()));
  const std::optional<uint32_t> node = snapshot.contents().trie.Find(sid);
  if (!node) return absl::NotFoundError(absl::StrCat("--sid: no SID of the catalogue begins with ", sid.ToString()));
  const int level = sid.levels() - 1;
  const catalogue::ItemRange items = snapshot.NodeItems(level, *node);
  Print("SID         %s%s\n", sid.ToString(), sid.levels() < snapshot.levels() ? ", the beginning of one" : "");
  Print("node        %d of level %d\n", *node, level);
  if (sid.levels() < snapshot.levels()) {
    const uint32_t* offsets = snapshot.trie().level[level].offsets;
    Print("children    %d\n", offsets[*node + 1] - offsets[*node]);
  }
  Print("items       %d\n", items.size());
  for (uint32_t position = items.begin; position < items.end && position - items.begin < kMaxListed; ++position) {
    Print("  %-12d  %s  relevance %-10g  %s\n", snapshot.item_id(position),
          snapshot.SidOfLeaf(snapshot.LeafOf(position)).ToString(), snapshot.relevance(position),
          snapshot.title(position));
  }
  if (items.size() > kMaxListed) Print("  and %d more\n", items.size() - kMaxListed);
  return absl::OkStatus();
}

absl::Status PrintSummary(const catalogue::CatalogueSnapshot& snapshot, const std::string& path) {
  BEAMLINE_ASSIGN_OR_RETURN(const catalogue::SectionReader file,
                            catalogue::SectionReader::Open(path, catalogue::LoadOptions().max_bytes));
  std::vector<uint32_t> nodes;
  nodes.reserve(snapshot.levels());
  for (int level = 0; level < snapshot.levels(); ++level) nodes.push_back(snapshot.num_nodes(level));
  Print("catalogue   %s\nfile        %s, %d bytes\n", snapshot.version(), path, file.file_bytes());
  Print("codebook    %s\nlevels      %d, of %s codes\n", snapshot.codebook_fingerprint(), snapshot.levels(),
        absl::StrJoin(snapshot.level_sizes(), " x "));
  Print("items       %d in %d SIDs\n", snapshot.num_items(), snapshot.num_sids());
  Print("trie nodes  %s; codes and offsets take %d bytes\n", absl::StrJoin(nodes, ", "),
        snapshot.contents().trie.bytes());
  Print("tags        %d distinct, %d on items\n", snapshot.tags().size(), snapshot.contents().items.tags.size());
  Print("memory      %.1f MiB when loaded\n", static_cast<double>(snapshot.bytes()) / (1 << 20));
  Print("sections    %-16s %14s  sha256\n", "", "bytes");
  for (const catalogue::SectionInfo& section : file.sections()) {
    Print("            %-16s %14d  %s\n", section.name, section.bytes, section.sha256);
  }
  return absl::OkStatus();
}

absl::Status InspectCatalogue(const InspectFlags& flags, const std::string& path, const std::string& fingerprint) {
  Progress progress;
  BEAMLINE_ASSIGN_OR_RETURN(
      const auto snapshot, catalogue::LoadSnapshot(path, {fingerprint, catalogue::LoadOptions().max_bytes, &progress}));
  if (!flags.item && flags.sid.empty()) return PrintSummary(*snapshot, path);
  if (flags.item) BEAMLINE_RETURN_IF_ERROR(PrintItem(*snapshot, *flags.item));
  if (!flags.sid.empty()) BEAMLINE_RETURN_IF_ERROR(PrintSid(*snapshot, flags.sid));
  return absl::OkStatus();
}

absl::Status HasNoItems(const InspectFlags& flags) {
  return absl::InvalidArgumentError(
      absl::StrCat("--item and --sid: ", flags.path, " is no catalogue; name a bundle or a catalogue file"));
}

absl::Status InspectSafetensors(const std::string& path) {
  BEAMLINE_ASSIGN_OR_RETURN(const SafetensorsFile file,
                            SafetensorsFile::Read(path, {.allow_scalars = true, .allow_empty = true}));
  Print("file        %s\n", path);
  for (const auto& [key, value] : file.metadata()) {
    // A stranger's text, onto a terminal.
    Print("metadata    %s = %s\n", absl::Utf8SafeCHexEscape(key), absl::Utf8SafeCHexEscape(value));
  }
  int64_t elements = 0;
  int64_t bytes = 0;
  int64_t non_finite = 0;
  for (const auto& [name, tensor] : file.tensors()) {
    Print("            %-48s %s\n", name, tensor.ToString());
    elements += tensor.elements();
    bytes += static_cast<int64_t>(tensor.bytes.size());
    non_finite += CountNonFinite(tensor);
  }
  Print("tensors     %d with %d values in %d bytes, %d of them NaN or infinite\n", file.tensors().size(), elements,
        bytes, non_finite);
  return absl::OkStatus();
}

// What is in a bundle besides a model and its items.
absl::Status InspectExtras(const std::filesystem::path& folder, const runtime::BundleManifest& manifest) {
  BEAMLINE_ASSIGN_OR_RETURN(const model::ModelConfig config, model::LoadConfig(folder / runtime::kConfigFile));
  if (config.ranker.enabled()) {
    Print("ranker      value = %g x score", config.ranker.score_weight);
    for (const model::RankerHead& head : config.ranker.heads) {
      Print(" %+g x %s", head.weight, data::FormatLabels(head.label));
    }
    Print(", hidden layer of %d\n", config.ranker.width);
  }
  for (const backend::ModelLimits& limits : {backend::CudaModelLimits(), backend::Int8ModelLimits()}) {
    if (const absl::Status fits = model::CheckSizes(config, limits, 1); !fits.ok()) {
      Print("sizes       %s\n", std::string(fits.message()));
    }
  }
  if (!manifest.files.contains(runtime::kGateFile)) return absl::OkStatus();
  BEAMLINE_ASSIGN_OR_RETURN(const runtime::PrecisionGateReport gate, runtime::ReadGate(folder / runtime::kGateFile));
  const absl::Status passed = runtime::CheckGate(gate, manifest);
  Print("gate        %s, %s\n", gate.dtype, passed.ok() ? "passed" : std::string(passed.message()));
  return absl::OkStatus();
}

absl::Status InspectParts(const InspectFlags& flags, const std::string& items,
                          const runtime::BundleManifest& manifest) {
  Print("bundle      %s\nmodel       %s (%s)\ncodebook    %s\ncatalogue   %s\n", flags.path, manifest.model_version,
        manifest.family, manifest.codebook_fingerprint, manifest.catalogue_version);
  // A stranger's text, as that of metadata.
  if (!manifest.written_by.empty()) Print("written by  %s\n", absl::Utf8SafeCHexEscape(manifest.written_by));
  Print("files       %-24s %14s  sha256\n", "", "bytes");
  for (const auto& [name, entry] : manifest.files) {
    BEAMLINE_RETURN_IF_ERROR(runtime::VerifyBundleFile(flags.path, manifest, name));
    Print("            %-24s %14d  %s\n", name, entry.bytes, entry.sha256);
  }
  BEAMLINE_RETURN_IF_ERROR(InspectExtras(flags.path, manifest));
  Print("digests     all match\n\n");
  return InspectCatalogue(flags, items, manifest.codebook_fingerprint);
}

absl::Status InspectBundle(const InspectFlags& flags) {
  BEAMLINE_ASSIGN_OR_RETURN(const runtime::BundleManifest manifest, runtime::OpenBundleFolder(flags.path));
  const std::string items = (std::filesystem::path(flags.path) / runtime::kItemsFile).string();
  if (flags.item || !flags.sid.empty()) return InspectCatalogue(flags, items, manifest.codebook_fingerprint);
  return runtime::NameWriter(InspectParts(flags, items, manifest), manifest.written_by);
}

absl::Status InspectData(const std::string& folder, const data::DatasetFiles& files) {
  Progress progress;
  BEAMLINE_ASSIGN_OR_RETURN(const data::Dataset dataset,
                            data::Dataset::Load(files, {.keep_unused_items = true}, &progress));
  Print("data        %s\n%s", folder, data::ComputeStatistics(dataset).ToString());
  const std::vector<std::string> names = dataset.AttributeNames();
  if (!names.empty()) Print("attributes of users: %s\n", absl::StrJoin(names, " "));
  return absl::OkStatus();
}

absl::Status InspectFolder(const InspectFlags& flags) {
  const std::filesystem::path folder = flags.path;
  std::error_code error;
  const absl::StatusOr<data::DatasetFiles> data = data::FindDatasetFiles(folder);
  if (std::filesystem::exists(folder / runtime::kManifestFile, error)) return InspectBundle(flags);
  if (absl::IsNotFound(data.status())) {
    const absl::Status no_bundle = InspectBundle(flags);
    return absl::Status(no_bundle.code(), absl::StrCat(no_bundle.message(), "; nor is it a folder of events.tsv"));
  }
  if (!data.ok()) return data.status();
  if (flags.item || !flags.sid.empty()) return HasNoItems(flags);
  return InspectData(flags.path, *data);
}

// Tensors in a format that is never read go to the reader that says so, with what to do.
bool MeansTensors(const std::string& path) {
  for (const char* suffix :
       {".safetensors", ".pt", ".pth", ".pkl", ".pickle", ".npy", ".npz", ".gguf", ".ckpt", ".h5"}) {
    if (absl::EndsWith(path, suffix)) return true;
  }
  return false;
}

absl::Status RunInspect(const InspectFlags& flags) {
  if (std::error_code error; std::filesystem::is_directory(flags.path, error)) return InspectFolder(flags);
  if (!MeansTensors(flags.path)) return InspectCatalogue(flags, flags.path, "");
  if (flags.item || !flags.sid.empty()) return HasNoItems(flags);
  return InspectSafetensors(flags.path);
}

}  // namespace

Verb AddInspect(Command& root) {
  auto flags = std::make_shared<InspectFlags>();
  Command* command =
      root.AddCommand("inspect", "Check a bundle, a catalogue, a safetensors file or a data folder and describe it");
  command->Footer(kExamples);
  command
      ->AddText("path", flags->path, "Bundle folder, catalogue file, file named *.safetensors, or folder of events.tsv")
      ->Required();
  command->AddNumber("--item", flags->item, {}, "Describe the item with this id");
  command->AddText("--sid", flags->sid, "Describe this SID, or the beginning of one: codes separated by commas");
  return {command, [flags] { return RunInspect(*flags); }};
}

}  // namespace beamline::cli
