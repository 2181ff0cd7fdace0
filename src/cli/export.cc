// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "beamline/status.h"
#include "cli/verb.h"
#include "model/config.h"
#include "runtime/export_hf.h"
#include "sid/codebook.h"

namespace beamline::cli {
namespace {

constexpr char kExamples[] =
    R"(A model of family t5, trained here or imported, as a Hugging Face folder: config.json, model.safetensors, tokenizer.json.
T5ForConditionalGeneration.from_pretrained and AutoTokenizer.from_pretrained load it, and so does `beamline import hf`,
with the options that are printed: a checkpoint does not say how long a history the model reads.

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
            BEAMLINE_ASSIGN_OR_RETURN(const model::ModelConfig config,
                                      model::LoadConfig(flags->model + "/config.json"));
            std::printf("wrote       %s\nimport      with --levels %s --max-items %d%s\n", flags->out.c_str(),
                        sid::FormatLevelSizes(config.level_sizes).c_str(), config.t5.input.max_items,
                        config.t5.score_end ? " --score-end" : "");
            return absl::OkStatus();
          }};
}

}  // namespace beamline::cli
