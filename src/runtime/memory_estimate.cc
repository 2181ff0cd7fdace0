// SPDX-License-Identifier: Apache-2.0
#include "runtime/memory_estimate.h"

#include "absl/strings/str_cat.h"
#include "base/run_catching.h"
#include "beamline/status.h"

namespace beamline::runtime {

std::string MemoryEstimate::Describe() const {
  if (device.empty()) return DescribeMemory(host);
  return absl::StrCat("on the device ", DescribeMemory(device), "; on the host ", DescribeMemory(host));
}

MemoryEstimate EstimateMemory(const BundleManifest& manifest, const model::ModelConfig& config, const MemoryUse& use) {
  const auto file_bytes = [&](const char* name) {
    const auto found = manifest.files.find(name);
    return found == manifest.files.end() ? int64_t{0} : static_cast<int64_t>(found->second.bytes);
  };
  const model::WeightBytes weights = model::EstimateWeights(config, use.storage);
  const int64_t weights_file = use.storage.ranks == 1
                                   ? file_bytes(kWeightsFile)
                                   : model::EstimateWeightBytes(config, {.ranks = use.storage.ranks});
  MemoryEstimate estimate;
  estimate.host = {{"reading the weights", weights_file + weights.largest},
                   {"catalogue and vocabulary", 2 * file_bytes(kItemsFile) + 2 * file_bytes(kVocabularyFile)}};
  std::vector<MemoryPart>& tensors = use.device ? estimate.device : estimate.host;
  tensors.push_back({"weights", weights.kept});
  tensors.push_back({"context cache", use.context_cache_bytes});
  if (!use.device) return estimate;
  // In their own type before they are copied.
  if (use.storage.bytes < 4) estimate.host[0].bytes += weights.largest / 4 * use.storage.bytes;
  estimate.device.push_back({"the catalogue's trie, at most", file_bytes(kItemsFile)});
  estimate.device.push_back({"workspaces", use.device->batch_bytes});
  return estimate;
}

absl::Status CheckEstimate(const std::filesystem::path& folder, const MemoryEstimate& estimate, const MemoryUse& use,
                           int64_t host_limit_bytes) {
  const std::string what = absl::StrCat(folder.string(), ": loading and the context cache");
  if (use.device && use.device->free_bytes) {
    BEAMLINE_RETURN_IF_ERROR(
        CheckDeviceMemory({what, estimate.device,
                           "use a narrower dtype, a smaller model, a smaller context cache, keep_previous_model: false "
                           "or a device with more memory"},
                          *use.device->free_bytes));
  }
  return CheckMemory(
      {what, estimate.host, "use bf16, a smaller model or catalogue, a smaller context cache, or more memory"},
      host_limit_bytes);
}

absl::Status LoadingBesideEstimate(absl::string_view folder, absl::string_view estimate,
                                   absl::FunctionRef<absl::Status()> load) {
  return BesideEstimate(ReturnCatching(absl::StrCat(folder, ": loading"), load, absl::StatusCode::kResourceExhausted),
                        estimate);
}

}  // namespace beamline::runtime
