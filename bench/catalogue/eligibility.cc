// SPDX-License-Identifier: Apache-2.0
//
// Time to compile a request's eligibility for a large catalogue of 3 x 8192 codes, on one thread. BEAMLINE_BENCH_ITEMS
// is its size; 10^7 where it is not set, which take 20 s and 1.3 GB to make. Workloads:
//   Deny/N           N denied items, no rule
//   DenyUnderRule/N  the same under a rule that half of the items pass, compiled before
//   Allow/N          N allowed items
//   Rule             compiling a rule: once per snapshot and rule
#include "catalogue/eligibility.h"

#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "catalogue/generate.h"

namespace beamline::catalogue {
namespace {

const std::shared_ptr<const CatalogueSnapshot>& Snapshot() {
  static const auto snapshot = [] {
    GenerateOptions options;
    if (const char* items = std::getenv("BEAMLINE_BENCH_ITEMS")) options.items = std::stoull(items);
    return GenerateCatalogue(options).value();
  }();
  return snapshot;
}

// Four of the eight values of "region".
std::vector<TagClause> HalfRule() { return {{"region", {"r0", "r1", "r2", "r3"}}}; }

std::vector<ItemId> RandomItems(int64_t count) {
  std::mt19937_64 random(7);
  std::vector<ItemId> items(count);
  for (ItemId& item : items) item = 1 + random() % Snapshot()->num_items();
  return items;
}

void Compile(benchmark::State& state, const Eligibility& eligibility) {
  RuleCache rules(Snapshot(), 4);
  auto compiled = CompileEligibility(rules, eligibility).value();
  state.counters["eligible_items"] = static_cast<double>(compiled->eligible_items());
  state.counters["bytes"] = static_cast<double>(compiled->bytes());
  for (auto _ : state) benchmark::DoNotOptimize(compiled = CompileEligibility(rules, eligibility).value());
}

void Deny(benchmark::State& state) { Compile(state, {.deny = RandomItems(state.range(0))}); }
void DenyUnderRule(benchmark::State& state) {
  Compile(state, {.rule = HalfRule(), .deny = RandomItems(state.range(0))});
}
void Allow(benchmark::State& state) {
  Compile(state, {.allow = RandomItems(state.range(0)), .restrict_to_allow = true});
}
void Rule(benchmark::State& state) {
  for (auto _ : state) {
    RuleCache rules(Snapshot(), 4);
    benchmark::DoNotOptimize(CompileEligibility(rules, {.rule = HalfRule()}).value());
  }
}
BENCHMARK(Deny)->Arg(1000)->Arg(10000)->Unit(benchmark::kMicrosecond);
BENCHMARK(DenyUnderRule)->Arg(1000)->Arg(10000)->Unit(benchmark::kMicrosecond);
BENCHMARK(Allow)->Arg(1000)->Arg(10000)->Unit(benchmark::kMicrosecond);
BENCHMARK(Rule)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace beamline::catalogue
