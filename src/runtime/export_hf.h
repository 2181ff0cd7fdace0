// SPDX-License-Identifier: Apache-2.0
//
// A model of family t5 -> a Hugging Face T5ForConditionalGeneration folder (config.json, generation_config.json,
// model.safetensors, tokenizer.json, tokenizer_config.json) that from_pretrained and AutoTokenizer load: what
// runtime/import_hf.h reads, the other way round. Nothing is computed anew. SID tokens have the names of LETTER's code
// ("<a_12>"), the start "<pad>", the end "</s>"; the texts of other tokens are not kept in a bundle, so they are named
// by id.
#pragma once

#include <filesystem>

#include "absl/status/status.h"

namespace beamline::runtime {

struct ExportHfOptions {
  std::filesystem::path model;  // folder of `beamline train`, or a bundle
  std::filesystem::path out;
  bool overwrite = false;
};

// Thread-safe but for the folder it writes to. Errors: another family, files that do not fit together, a folder that
// holds a model already, the model's own folder.
absl::Status ExportHf(const ExportHfOptions& options);

}  // namespace beamline::runtime
