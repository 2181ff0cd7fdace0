// SPDX-License-Identifier: Apache-2.0
//
// A training run on disk: one safetensors file, written under a temporary name and renamed, so there is always a whole
// one. Tensors "weights.<name>", "first.<name>", "second.<name>" (Adam's moments), where kept "average.<name>" and
// "best.<name>"; metadata "format", "state" (JSON of the options, the position in the data, the curve) and the digest
// of base/safetensors.h, so that a damaged file is refused and nothing is trained from it. Random numbers need no
// state: all are functions of the seed and the position. Reading checks every tensor against the model's schema before
// any is used.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backend/context.h"
#include "model/config.h"
#include "model/weights.h"

namespace beamline::train {

// A set of tensors and the prefix of their names in the file. Buffers are part of weights, average and best, not of the
// moments.
struct CheckpointPart {
  std::string prefix;  // "weights"
  model::Weights tensors;
  bool buffers = true;
  bool optional = false;  // may be missing from a file as a whole
};

struct CheckpointContents {
  const model::ModelConfig& config;
  nlohmann::json state;
  absl::Span<const CheckpointPart> parts;
};
absl::Status WriteCheckpoint(backend::Context& ctx, const CheckpointContents& contents, const std::string& path);

// Overwrites the parts' tensors in place, after the whole file was checked, and returns the state. An optional part the
// file lacks is left alone; its prefix is not in the returned list.
struct ReadCheckpointResult {
  nlohmann::json state;
  std::vector<std::string> parts;
};
absl::StatusOr<ReadCheckpointResult> ReadCheckpoint(backend::Context& ctx, const model::ModelConfig& config,
                                                    absl::Span<const CheckpointPart> parts, const std::string& path);

}  // namespace beamline::train
