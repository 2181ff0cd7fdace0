// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "beamline/status.h"
#include "cli/verb.h"
#include "runtime/export_hf.h"

namespace beamline::cli {
namespace {

constexpr char kExamples[] =
    R"(A model of family t5, trained here or imported, as a Hugging Face folder: config.json, model.safetensors, tokenizer.json.
T5ForConditionalGeneration.from_pretrained and AutoTokenizer.from_pretrained load it, and so does `beamline import hf`.

Example: beamline export hf --model model --out checkpoint)";

struct ExportFlags {
  std::string model, out;
  bool overwrite = false;
};

}  // namespace

Verb AddExport(Command& root) {
  auto flags = std::make_shared<ExportFlags>();
  Command* command = root.AddCommand("export", "Write a model in a format of others");
  command->Footer(kExamples);
  command->RequireCommand();
  Command* hf = command->AddCommand("hf", "A model of family t5, to a Hugging Face T5ForConditionalGeneration");
  hf->AddText("--model", flags->model, "Folder of `beamline train`, or a bundle")->Required();
  hf->AddText("--out", flags->out, "Folder to make")->Required();
  hf->AddFlag("--overwrite", flags->overwrite, "Replace a model that is there");
  return {command, [flags]() -> absl::Status {
            BEAMLINE_RETURN_IF_ERROR(
                runtime::ExportHf({.model = flags->model, .out = flags->out, .overwrite = flags->overwrite}));
            std::printf("wrote       %s\n", flags->out.c_str());
            return absl::OkStatus();
          }};
}

}  // namespace beamline::cli
