// SPDX-License-Identifier: Apache-2.0
//
// Whether a safetensors file holds a model's weights: `pack` asks before it writes a bundle, and the loader
// (model/weights.h) before it uses one. Pure, no torch.
#pragma once

#include "absl/status/status.h"
#include "base/safetensors.h"
#include "model/config.h"
#include "parallel/shard.h"

namespace beamline::model {

// Names, dtypes (F32, BF16) and shapes against the schema, of the shard that the file is, and every value finite. The
// differences come in one error, below the file's name; of very many, the first and their number.
absl::Status CheckWeightFile(const ModelConfig& config, parallel::Shard of_file, const SafetensorsFile& file);

}  // namespace beamline::model
