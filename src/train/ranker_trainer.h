// SPDX-License-Identifier: Apache-2.0
//
// Trains the ranker of a model (model/ranker.h) and nothing else of it: the probability of each head's label of an
// event, given the events before it and its item. The model runs without gradients and dropout; binary cross-entropy,
// AdamW under warm-up and cosine on the weights `ranker.*`.
//
// On the CPU a run repeats bit for bit from its options on the same machine with the same thread count. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "backend/context.h"
#include "base/progress.h"
#include "beamline/catalogue.h"
#include "model/model.h"
#include "runtime/feature_builder.h"
#include "train/corpus.h"
#include "train/examples.h"
#include "train/ranker_examples.h"
#include "train/ranker_options.h"

namespace beamline::train {

// All outlive what they are given to.
struct RankerInputs {
  const Corpus* corpus = nullptr;  // Corpus::EveryEvent of the model's
  const runtime::FeatureBuilder* features = nullptr;
  const Catalogue* catalogue = nullptr;
  const model::Model* model = nullptr;  // with a ranker
};

struct RankerEpoch {
  int epoch = 0;    // from 1
  double loss = 0;  // mean over events
  int64_t events = 0;
  double learning_rate = 0;  // at its end
  double seconds = 0;
};

struct NewRanker {
  const model::ModelConfig& config;  // with a ranker
  const BehaviourCounts& counts;
  uint64_t seed = 0;
};

// The trunk's weights, which are shared, and a new ranker's: random ones of the seed, and biases that say each label's
// rate.
model::Weights WithNewRanker(backend::Context& ctx, const model::Weights& trunk, const NewRanker& ranker);

// The builder of a ranker's batches.
ExampleBuilder RankerExamples(const RankerInputs& inputs, const RankerOptions& options);

struct RankerWatch {
  Progress* progress = nullptr;
  std::function<void(const RankerEpoch&)> on_epoch;  // sees every finished epoch, all of which are returned
};

// Changes the weights `ranker.*` of the model in place. Errors: the options, a loss that is not finite; CANCELLED
// after Ctrl-C.
absl::StatusOr<std::vector<RankerEpoch>> TrainRanker(backend::Context ctx, const RankerInputs& inputs,
                                                     const RankerOptions& options, const RankerWatch& watch = {});

}  // namespace beamline::train
