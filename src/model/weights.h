// SPDX-License-Identifier: Apache-2.0
//
// A model's tensors by schema name: seeded initialisation, loading from and saving to safetensors. Loading checks the
// whole file against the schema and lists all differences at once; non-finite values are refused. Of a model whose
// ranks hold it together, only this rank's share is kept (model/sharding.h). Values share tensors: a trainer that
// updates them in place updates the model.
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
#include "parallel/shard.h"

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
  // What these are of the model.
  parallel::Shard shard() const { return shard_; }
  void SetShard(parallel::Shard shard) { shard_ = shard; }

 private:
  parallel::Shard shard_;
  std::map<std::string, at::Tensor> tensors_;
};

// How the context's backend keeps weights.
WeightStorage StorageOf(const backend::Context& ctx);

// The same numbers on every machine for the same config and seed, whatever the dtype rounds them to. The whole model.
Weights InitWeights(backend::Context& ctx, const ModelConfig& config, uint64_t seed);

// Files hold fp32 or bf16; either is converted to the context's dtype (buffers stay fp32). What is kept is the share of
// the context's rank; INVALID_ARGUMENT where its group cannot share the model, FAILED_PRECONDITION where its backend
// does not compute with such sizes (size_check.h).
absl::StatusOr<Weights> LoadWeights(backend::Context& ctx, const ModelConfig& config, const std::string& path);
// Of a file that is in memory already, whole or in the parts of the context's rank (ChoosePartsOfRank).
absl::StatusOr<Weights> LoadWeights(backend::Context& ctx, const ModelConfig& config, const SafetensorsFile& file);
// Written as fp32 under a temporary name, then renamed.
absl::Status SaveWeights(backend::Context& ctx, const ModelConfig& config, const Weights& weights,
                         const std::string& path);

}  // namespace beamline::model
