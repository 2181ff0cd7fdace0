// SPDX-License-Identifier: Apache-2.0
//
// A model's tensors by schema name: seeded initialisation, loading from and saving to safetensors. Loading checks the
// whole file against the schema and lists all differences at once; non-finite values are refused. Values share tensors:
// a trainer that updates them in place updates the model.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "backend/context.h"
#include "model/config.h"
#include "model/weight_schema.h"

namespace beamline {
class SafetensorsFile;
}

namespace beamline::model {

class Weights {
 public:
  void Set(const std::string& name, at::Tensor tensor) { tensors_[name] = std::move(tensor); }
  // REQUIRES: the schema has the name; an undefined tensor otherwise.
  const at::Tensor& Get(const std::string& name) const;
  // Sorted by name.
  const std::map<std::string, at::Tensor>& tensors() const { return tensors_; }

 private:
  std::map<std::string, at::Tensor> tensors_;
};

// How the context's backend keeps weights.
WeightStorage StorageOf(const backend::Context& ctx);

// The same numbers on every machine for the same config and seed, whatever the dtype rounds them to.
Weights InitWeights(backend::Context& ctx, const ModelConfig& config, uint64_t seed);

// Files hold fp32 or bf16; either is converted to the context's dtype (buffers stay fp32).
absl::StatusOr<Weights> LoadWeights(backend::Context& ctx, const ModelConfig& config, const std::string& path);
// Of a file that is in memory already.
absl::StatusOr<Weights> LoadWeights(backend::Context& ctx, const ModelConfig& config, const SafetensorsFile& file);
// Written as fp32 under a temporary name, then renamed.
absl::Status SaveWeights(backend::Context& ctx, const ModelConfig& config, const Weights& weights,
                         const std::string& path);

}  // namespace beamline::model
