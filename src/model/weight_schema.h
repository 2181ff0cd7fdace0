// SPDX-License-Identifier: Apache-2.0
//
// One table of every weight a config has: name, shape, initialiser. Loader, saver, initialisation, parameter count and
// memory estimate all read it, so they cannot disagree. Pure, no torch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/config.h"

namespace beamline::model {

enum class Initializer { kZeros, kOnes, kNormal };

// What a tensor is for: optimizers and counts treat the kinds differently.
enum class WeightRole {
  kMatrix,     // projections: decayed
  kEmbedding,  // tables looked up by id (feature tables, codes, positions): not decayed
  kVector,     // norms, biases: not decayed
  kBuffer,     // expert biases: fp32 in every dtype, moved by rule, no gradient
};

// How the ranks of a group share a tensor (model/sharding.h): `axis` in `parts` equal blocks that stand for themselves
// (queries, keys and values of a joined projection), each of them in consecutive shares. -1: every rank holds all of
// it.
struct WeightSplit {
  int axis = -1;
  int parts = 1;
};

struct WeightSpec {
  std::string name;  // "encoder.0.attention.qkv"
  std::vector<int64_t> shape;
  Initializer initializer = Initializer::kNormal;
  double stddev = 0;  // of kNormal
  WeightRole role = WeightRole::kMatrix;
  // Of kNormal: the first rows, where they start with a deviation of their own (t5's queries in the joined projection).
  int64_t leading_rows = 0;
  double leading_stddev = 0;
  WeightSplit split;

  int64_t elements() const;
};

std::vector<WeightSpec> WeightSchema(const ModelConfig& config);

struct ParameterCount {
  int64_t total = 0;
  int64_t input = 0;    // feature tables and pathway MLPs
  int64_t network = 0;  // all the rest: what papers call the model's size
  int64_t active = 0;   // of network, per token (MoE: the chosen experts)
};
ParameterCount CountParameters(const ModelConfig& config);

// How a backend keeps weights.
struct WeightStorage {
  int64_t bytes = 4;         // each; buffers are always 4
  int64_t packed_bytes = 0;  // besides, of every element of a layer's or head's matrix
  int ranks = 1;             // that share what can be split
};

// `kept` where the tensors are; `largest`, in fp32, on the host for as long as it is loaded.
struct WeightBytes {
  int64_t kept = 0;
  int64_t largest = 0;
};
WeightBytes EstimateWeights(const ModelConfig& config, const WeightStorage& storage);
// Both, of a model on the host.
int64_t EstimateWeightBytes(const ModelConfig& config, const WeightStorage& storage);

// RESOURCE_EXHAUSTED with the estimate where it exceeds `available_bytes` (<= 0: what base/memory.h finds).
absl::Status CheckMemory(const ModelConfig& config, const WeightStorage& storage, int64_t available_bytes);

}  // namespace beamline::model
