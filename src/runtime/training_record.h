// SPDX-License-Identifier: Apache-2.0
//
// training.json of a model folder: what `beamline train` notes beside the model (options, corpus, codebook, curve),
// with the SHA-256 of config.json ("config_sha256"), vocabulary.safetensors ("vocabulary_sha256") and itself
// ("digest"). With the digest inside every safetensors file (base/safetensors.h) all of the folder is covered: who
// reads it notes a damaged file, or one of another run, before anything comes of it. A model of other making has no
// training.json, and one without the digests is taken as it is. Pure functions.
#pragma once

#include <filesystem>
#include <optional>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace beamline::runtime {

inline constexpr char kTrainingFile[] = "training.json";
inline constexpr char kCheckpointFile[] = "checkpoint.safetensors";  // of a training that has not ended

// Beside the folder's config.json, which must be there, and its vocabulary, if it has one.
absl::Status WriteTrainingRecord(const std::filesystem::path& folder, nlohmann::json record);

// nullopt: the folder has none. DATA_LOSS: it, config.json or the vocabulary was changed since.
absl::StatusOr<std::optional<nlohmann::json>> ReadTrainingRecord(const std::filesystem::path& folder);

}  // namespace beamline::runtime
