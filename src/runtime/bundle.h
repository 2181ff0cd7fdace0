// SPDX-License-Identifier: Apache-2.0
//
// A bundle: the unit in which a model is deployed and reloaded (design, "Model repository"). A folder of bundle.json
// (runtime/bundle_manifest.h), config.json (model/config.h), model.safetensors (model/weight_schema.h),
// codebook.safetensors (sid/codebook.h), vocabulary.safetensors (runtime/vocabulary.h) and items, a catalogue snapshot
// (catalogue/snapshot_file.h); where a narrow precision was measured, also of gate.json (runtime/gate_report.h), and of
// tuning of devices (runtime/tuning_file.h).
//
// LoadBundle verifies every file in full, and that the parts belong together (one codebook fingerprint, level sizes,
// tables large enough), before it returns any of it; what it returns is private memory, independent of the folder. The
// memory needed, of the host and of a device, is estimated and compared with what there is before anything large is
// read (memory_estimate.h). Functions keep no state and are thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "backend/model_limits.h"
#include "base/safetensors.h"
#include "catalogue/snapshot.h"
#include "model/config.h"
#include "parallel/shard.h"
#include "runtime/bundle_manifest.h"
#include "runtime/memory_estimate.h"
#include "runtime/vocabulary.h"

namespace beamline::runtime {

struct Bundle {
  BundleManifest manifest;
  model::ModelConfig config;
  SafetensorsFile weights;  // or the parts of a rank; names and shapes are checked when the model is made of them
  std::shared_ptr<const Vocabulary> vocabulary;
  std::shared_ptr<const catalogue::CatalogueSnapshot> catalogue;
  MemoryEstimate memory;
};

struct LoadBundleOptions {
  std::string digest;     // of the bundle that is meant: ABORTED, before anything large is read, where it is another
  std::string catalogue;  // a snapshot file to use instead of the bundle's own
  MemoryUse memory;
  // Of who computes: FAILED_PRECONDITION, before anything large is read, where the model's sizes are beyond them.
  backend::ModelLimits limits;
  parallel::Shard shard;           // of the weights, this alone is kept in memory
  int64_t memory_limit_bytes = 0;  // of the host; 0: what the machine has available
  // The bundle must hold a gate of this type, of its weights, that passed: else FAILED_PRECONDITION, before anything
  // large is read. Empty: it need not. A gate that is none is INVALID_ARGUMENT in either case.
  std::string gated_dtype;
};

absl::StatusOr<Bundle> LoadBundle(const std::filesystem::path& folder, const LoadBundleOptions& options = {});

// Whether so many ranks can share the model and its sizes are within the limits, as LoadBundle asks. Reads its manifest
// and its config.json alone.
absl::Status CheckBundleSizes(const std::filesystem::path& folder, const backend::ModelLimits& limits, int ranks);

// Every id that the vocabulary knows needs its row in the tables that are looked up by it. `source` opens the error.
absl::Status CheckTables(const model::ModelConfig& config, const Vocabulary& vocabulary, const std::string& source);

}  // namespace beamline::runtime
