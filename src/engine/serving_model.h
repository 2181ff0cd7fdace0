// SPDX-License-Identifier: Apache-2.0
//
// What a request is pinned to, from its admission to its answer: a model, the catalogue of its bundle, and the rules
// compiled for that catalogue. Swapped as one, so that nothing ever sees half of a version. Shared as const; its parts
// are thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "catalogue/rule_cache.h"
#include "repository/loader.h"
#include "runtime/runner.h"
#include "scheduler/cost_table.h"

namespace beamline::engine {

struct ServingModel final : repository::Model {
  ServingModel(std::unique_ptr<runtime::Runner> loaded, int max_rules, uint64_t batch_group)
      : runner(std::move(loaded)),
        snapshot(runner->catalogue()),
        rules(std::make_shared<catalogue::RuleCache>(snapshot, max_rules)),
        group(batch_group) {}

  const std::string& version() const override { return runner->info().version; }
  std::string catalogue_version() const override { return std::string(snapshot->version()); }

  const std::unique_ptr<runtime::Runner> runner;
  const std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot;
  const std::shared_ptr<catalogue::RuleCache> rules;
  const uint64_t group;  // of the scheduler: no batch mixes two
  // Written by the warm-up alone, before anybody else sees the model:
  std::vector<scheduler::BatchCost> costs;
  absl::Time catalogue_since = absl::InfinitePast();  // an equal catalogue of the version before goes on
};

using ServingHandle = std::shared_ptr<const ServingModel>;

}  // namespace beamline::engine
