// SPDX-License-Identifier: Apache-2.0
#include "runtime/pack.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/file.h"
#include "base/progress.h"
#include "beamline/status.h"
#include "catalogue/snapshot_file.h"
#include "cli/verb.h"

namespace beamline::cli {
namespace {

struct PackFlags {
  std::string model, tokenizer, items, out, model_version, catalogue_version, gate;
  std::vector<std::string> tuning;
  bool catalogue_only = false;
  bool overwrite = false;
};

void PrintCatalogue(const runtime::CatalogueJoin& join) {
  if (!join.bad_rows_summary.empty()) std::fprintf(stderr, "%s\n", join.bad_rows_summary.c_str());
  std::printf("catalogue   %s\n", join.snapshot->version().c_str());
  std::printf("items       %llu in %llu SIDs of %d levels\n",
              static_cast<unsigned long long>(join.snapshot->num_items()),
              static_cast<unsigned long long>(join.snapshot->num_sids()), join.snapshot->levels());
  if (join.without_sid > 0) {
    std::printf("left out    %lld items of the table that have no SID\n", static_cast<long long>(join.without_sid));
  }
  if (join.without_attributes > 0) {
    std::printf("bare        %lld items with a SID that the table does not have: no attributes\n",
                static_cast<long long>(join.without_attributes));
  }
}

absl::Status RunPack(const PackFlags& flags) {
  Progress progress;
  runtime::PackOptions options;
  options.model = flags.model;
  options.catalogue = {flags.tokenizer, flags.items, flags.catalogue_version};
  options.out = flags.out;
  options.model_version = flags.model_version;
  options.gate = flags.gate;
  options.tuning.assign(flags.tuning.begin(), flags.tuning.end());
  options.overwrite = flags.overwrite;
  if (flags.catalogue_only) {
    BEAMLINE_RETURN_IF_ERROR(CheckNotThere(flags.out, flags.overwrite));
    BEAMLINE_RETURN_IF_ERROR(CheckCanWrite(flags.out, "--out"));
    BEAMLINE_ASSIGN_OR_RETURN(const runtime::CatalogueJoin join, runtime::PackCatalogue(options, &progress));
    BEAMLINE_RETURN_IF_ERROR(catalogue::WriteSnapshot(*join.snapshot, flags.out, &progress));
    PrintCatalogue(join);
    std::printf("wrote       %s\n", flags.out.c_str());
    return absl::OkStatus();
  }
  if (flags.model.empty()) {
    return absl::InvalidArgumentError("--model: is missing; name a checkpoint folder, or use --catalogue-only");
  }
  BEAMLINE_ASSIGN_OR_RETURN(const runtime::PackResult result, runtime::Pack(options, &progress));
  std::printf("model       %s (%s)\n", result.manifest.model_version.c_str(), result.manifest.family.c_str());
  PrintCatalogue(result.catalogue);
  std::printf("wrote       %s\n", flags.out.c_str());
  return absl::OkStatus();
}

}  // namespace

Verb AddPack(Command& root) {
  auto flags = std::make_shared<PackFlags>();
  Command* command = root.AddCommand("pack", "Join a trained model, its tokenizer and an item table into a bundle");
  command->Footer(
      "A bundle is the folder a server loads: weights, codebook, catalogue and the digest of each. It appears under "
      "its\n"
      "name only when it is whole and has passed the checks a server makes.\n\n"
      "Example: beamline pack --model run/checkpoint --tokenizer run/tokenizer --items data/items.tsv --out "
      "run/bundle\n\n"
      "A catalogue of its own, for engine.catalogue, with the same items in the same order:\n"
      "  beamline pack --catalogue-only --model run/checkpoint --tokenizer run/tokenizer --items data/items.tsv --out "
      "items");
  command->AddText("--model", flags->model,
                   "Checkpoint folder of `beamline train`; its popularity orders the items of a SID where the table "
                   "rates none, without it (--catalogue-only) their ids do");
  command->AddText("--tokenizer", flags->tokenizer, "Folder of `beamline tokenize`: codebook.safetensors, sids.tsv")
      ->Required();
  command->AddText("--items", flags->items, "Item table (TSV, plain or gzip); without it items have no attributes");
  command->AddText("--out", flags->out, "Bundle folder to make (or snapshot file, with --catalogue-only)")->Required();
  command->AddText("--model-version", flags->model_version, "Name of the model; default: from the parts' digests");
  command->AddText("--catalogue-version", flags->catalogue_version,
                   "Name of the catalogue; default: from its contents");
  command->AddText("--gate", flags->gate,
                   "Report of `beamline evaluate --gate fp8 --out`, or of another type: of this model, and passed; "
                   "serving fp8 or fp8_mixed needs that of it");
  command->AddTexts("--tuning", flags->tuning,
                    "What a server of a model of this shape measured on a GPU: a file of its tuning folder, or of "
                    "another bundle; may be repeated, a device each");
  command->AddFlag("--catalogue-only", flags->catalogue_only, "Write a catalogue snapshot file alone");
  command->AddFlag("--overwrite", flags->overwrite, "Replace an existing bundle, or snapshot file");
  return {command, [flags] { return RunPack(*flags); }};
}

}  // namespace beamline::cli
