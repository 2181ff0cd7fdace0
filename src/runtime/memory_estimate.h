// SPDX-License-Identifier: Apache-2.0
//
// What loading a bundle takes at its peak, about, of the host's memory and of a device's, by parts, before any of it is
// taken: what cannot fit is refused with these numbers. What batches take besides (activations, graphs) depends on the
// backend: the largest one is tried at warm-up (engine/cost_measurement.h). Pure.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/memory.h"
#include "model/config.h"
#include "model/weight_schema.h"
#include "runtime/bundle_manifest.h"

namespace beamline::runtime {

// Of a device with memory of its own, which holds weights, encoded contexts and tries.
struct DeviceUse {
  std::optional<int64_t> free_bytes;  // unknown: nothing is compared
  int64_t batch_bytes = 0;            // of what runs at once
};

struct MemoryUse {
  model::WeightStorage storage;     // how weights will be kept
  int64_t context_cache_bytes = 0;  // it may grow to
  std::optional<DeviceUse> device;  // none: all is in the host's memory
};

struct MemoryEstimate {
  std::vector<MemoryPart> host, device;

  std::string Describe() const;
};

MemoryEstimate EstimateMemory(const BundleManifest& manifest, const model::ModelConfig& config, const MemoryUse& use);

// RESOURCE_EXHAUSTED where the host, or the device, has less: names what is needed, by parts, what is free, and what to
// change. `host_limit_bytes` as in base/memory.h.
absl::Status CheckEstimate(const std::filesystem::path& folder, const MemoryEstimate& estimate, const MemoryUse& use,
                           int64_t host_limit_bytes);

// `load`, a step of loading what is in `folder`: its status, RESOURCE_EXHAUSTED where memory ran out by an exception,
// and then with the estimate (BesideEstimate of base/memory.h).
absl::Status LoadingBesideEstimate(absl::string_view folder, absl::string_view estimate,
                                   absl::FunctionRef<absl::Status()> load);

}  // namespace beamline::runtime
