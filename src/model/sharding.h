// SPDX-License-Identifier: Apache-2.0
//
// What a rank of a tensor-parallel group holds of a model (Megatron-LM, 1909.08053): its share of every layer's heads,
// of the feed-forward's hidden columns, in each expert too, and of the rows of heads over codes that are no embedding
// at the same time. The rest, embeddings, norms, input layers and gates, is small and whole on every rank; of a tied
// embedding a rank multiplies with its share alone. Experts are split like dense layers, not dealt out: each rank then
// does the same work whichever experts are chosen. Pure, no torch.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "base/safetensors.h"
#include "model/config.h"
#include "model/weight_schema.h"
#include "parallel/shard.h"

namespace beamline::model {

// INVALID_ARGUMENT names the size that `ranks` does not divide, by its path in config.json.
absl::Status CheckRanks(const ModelConfig& config, int ranks);

std::vector<int64_t> ShapeOfRank(const WeightSpec& spec, parallel::Shard shard);

// The elements [first, first + count) of the whole row-major tensor that are the rank's, in the order it keeps them.
void ForEachRunOfRank(const WeightSpec& spec, parallel::Shard shard,
                      absl::FunctionRef<void(int64_t first, int64_t count)> run);

// Of a file of whole tensors, what LoadWeights keeps on a rank; INVALID_ARGUMENT where a shape is not the schema's. A
// tensor that the schema lacks is kept whole, for LoadWeights to refuse.
PartChooser ChoosePartsOfRank(const ModelConfig& config, parallel::Shard shard);

}  // namespace beamline::model
