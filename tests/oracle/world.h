// SPDX-License-Identifier: Apache-2.0
//
// A random model of any family with any options that its configuration allows, a catalogue and requests to it. All of
// it follows from the seed; sizes are what a test has time for.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/context.h"
#include "beamline/request.h"
#include "catalogue/eligibility.h"
#include "decode/random_case.h"
#include "model/model.h"
#include "oracle/pass.h"
#include "runtime/encoded_request.h"

namespace beamline::oracle {

using Random = std::mt19937_64;
using decode::testing::TinyCatalogue;
using decode::testing::UniformInt;
bool Chance(Random& random, double probability);

struct WorldRequest {
  runtime::EncodedRequest input;
  Eligibility eligibility;
  std::shared_ptr<const catalogue::CompiledEligibility> compiled;
  std::vector<int> widths;  // [levels]
  ScoreRule score_rule = ScoreRule::kFull;
};

struct World {
  model::ModelConfig config;
  HostWeights weights;
  TinyCatalogue catalogue;
  std::vector<WorldRequest> requests;
};

World RandomWorld(uint64_t seed);
model::ModelConfig RandomConfig(Random& random);
HostWeights RandomWeights(Random& random, const model::ModelConfig& config);
WorldRequest RandomRequest(Random& random, const model::ModelConfig& config, const TinyCatalogue& catalogue);

std::unique_ptr<model::Model> MakeModel(const backend::Context& shared, const World& world);

}  // namespace beamline::oracle
