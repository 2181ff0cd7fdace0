// SPDX-License-Identifier: Apache-2.0
//
// Random models of all families and options, random catalogues and requests: every backend's searches beside a
// reference that shares no code with them (reference.h, search_check.h), and each request's answer alone beside the one
// it gets in company, bit for bit (promise 4). A failure names its seed.
//
//   BEAMLINE_FUZZ_SEED=17      begins with this one (default 1)
//   BEAMLINE_FUZZ_SECONDS=600  goes on for so long, or to the first seed that fails
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "backend/test_context.h"
#include "oracle/reference.h"
#include "oracle/search_check.h"
#include "oracle/world.h"
#include "runtime/batch_builder.h"

namespace beamline::oracle {
namespace {

using decode::SearchResult;
using Clock = std::chrono::steady_clock;

std::vector<model::ContextHandle> EncodeRequests(const backend::Context& shared, const model::Model& model,
                                                 const std::vector<const WorldRequest*>& requests, bool first_step) {
  backend::Context ctx = backend::BeginBatch(shared);
  std::vector<const runtime::EncodedRequest*> inputs;
  for (const WorldRequest* request : requests) inputs.push_back(&request->input);
  const model::EncoderInput input = runtime::BuildEncoderBatch(
      model.config(), inputs, [&](int64_t size, int64_t fewest) { return backend::RoomFor(ctx, size, fewest); });
  EXPECT_TRUE(model::CheckEncoderInput(model.config(), input).ok());
  model::EncodedContext encoded = model::EncodePass(ctx, model, model::UploadEncoderInput(ctx, model.config(), input));
  if (first_step) model::TakeFirstStep(ctx, model, encoded);
  return model::SplitContext(ctx, encoded, static_cast<int64_t>(requests.size()));
}

std::vector<SearchResult> SearchRequests(const backend::Context& shared, const model::Model& model,
                                         const std::vector<model::ContextHandle>& contexts,
                                         const std::vector<const WorldRequest*>& requests) {
  backend::Context ctx = backend::BeginBatch(shared);
  std::vector<const model::ContextHandle*> handles;
  std::vector<decode::SearchRequest> searches;
  for (size_t i = 0; i < requests.size(); ++i) {
    handles.push_back(&contexts[i]);
    searches.push_back({&requests[i]->compiled->view(), requests[i]->widths, requests[i]->score_rule, /*trace=*/true});
  }
  const int64_t room = backend::RoomFor(ctx, static_cast<int64_t>(handles.size()));
  return decode::BeamSearch(model).Run(ctx, model::PackContexts(ctx, handles, room), searches,
                                       [](int) { return absl::OkStatus(); });
}

void ExpectSame(const SearchResult& alone, const SearchResult& together) {
  ASSERT_EQ(alone.status, together.status);
  ASSERT_EQ(alone.hypotheses.size(), together.hypotheses.size());
  for (size_t i = 0; i < alone.hypotheses.size(); ++i) {
    const decode::Hypothesis &a = alone.hypotheses[i], &b = together.hypotheses[i];
    ASSERT_EQ(a.sid, b.sid) << "rank " << i;
    ASSERT_EQ(a.leaf, b.leaf) << "rank " << i;
    ASSERT_EQ(a.log_probs, b.log_probs) << "rank " << i;
    ASSERT_EQ(a.score, b.score) << "rank " << i;
    ASSERT_EQ(a.value, b.value) << "rank " << i;
  }
}

// Every request by itself, its first step taken with its context or with its search.
struct Alone {
  std::vector<model::ContextHandle> contexts;
  std::vector<bool> first_steps;
  std::vector<SearchResult> results;
};

Alone SearchAlone(const backend::Context& shared, const model::Model& model, const World& world, Random& random) {
  Alone alone;
  for (const WorldRequest& request : world.requests) {
    alone.first_steps.push_back(Chance(random, .5));
    alone.contexts.push_back(EncodeRequests(shared, model, {&request}, alone.first_steps.back())[0]);
    alone.results.push_back(SearchRequests(shared, model, {alone.contexts.back()}, {&request})[0]);
  }
  return alone;
}

// In any order, one of them twice, encoded together or before, by any number of threads.
void ExpectTheSameInCompany(const backend::Context& shared, const model::Model& model, const World& world,
                            const Alone& alone, Random& random) {
  std::vector<size_t> order(world.requests.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random);
  if (Chance(random, .3)) order.push_back(order[0]);
  bool kept = Chance(random, .4);  // contexts of one batch have all taken the first step, or none has
  for (const bool first_step : alone.first_steps) kept &= first_step == alone.first_steps[0];
  std::vector<const WorldRequest*> requests;
  std::vector<model::ContextHandle> contexts;
  for (const size_t i : order) {
    requests.push_back(&world.requests[i]);
    if (kept) contexts.push_back(alone.contexts[i]);
  }
  backend::SetThreads(UniformInt(random, 1, 3));
  if (!kept) contexts = EncodeRequests(shared, model, requests, Chance(random, .5));
  const std::vector<SearchResult> together = SearchRequests(shared, model, contexts, requests);
  backend::SetThreads(1);
  for (size_t i = 0; i < order.size(); ++i) {
    SCOPED_TRACE(absl::StrCat("request ", order[i], " in a batch of ", order.size()));
    ASSERT_NO_FATAL_FAILURE(ExpectSame(alone.results[order[i]], together[i]));
  }
}

struct Runner {
  const char* backend;
  const char* dtype;
  friend void PrintTo(const Runner& runner, std::ostream* out) { *out << runner.backend << " " << runner.dtype; }
};

#if defined(BEAMLINE_TEST_CUDA)
constexpr int kWorlds = 6;  // every size has its products tuned
const Runner kRunners[] = {{"cuda", "fp32"}, {"cuda", "bf16"}, {"cuda", "fp16"}, {"cuda", "fp8"}};
#else
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kWorlds = 6;
#else
constexpr int kWorlds = 150;
#endif
const Runner kRunners[] = {{"aten", "fp32"}, {"cpu", "fp32"}, {"cpu", "bf16"}, {"cpu", "int8"}};
#endif

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  uint64_t value = otherwise;
  EXPECT_TRUE(text == nullptr || absl::SimpleAtoi(text, &value)) << name << " must be a number: " << text;
  return value;
}

// The worlds of a seed and the references of their requests.
struct Known {
  explicit Known(uint64_t seed) : world(RandomWorld(seed)) {
    for (const WorldRequest& request : world.requests) legal.push_back(LegalOf(world.catalogue, request.eligibility));
    for (const Runner& runner : kRunners) {
      const double rounding = RoundingOf(runner.dtype);
      if (rounding == 0 || references.contains(runner.dtype)) continue;
      const ReferenceModel model(world.config, world.weights, rounding);
      for (size_t i = 0; i < legal.size(); ++i) {
        references[runner.dtype].push_back(model.Run(world.requests[i].input, legal[i].all));
      }
    }
  }
  // Null: of that type there is none.
  const Reference* Find(const char* dtype, size_t request) const {
    const auto found = references.find(dtype);
    return found != references.end() ? &found->second[request] : nullptr;
  }
  World world;
  std::vector<LegalPrefixes> legal;
  std::map<std::string, std::vector<Reference>> references;  // by dtype
};

void CheckWorld(const Known& known, const Runner& runner, uint64_t seed, CheckCounts& counts) {
  const World& world = known.world;
  const bool aten = std::string(runner.backend) == "aten";
  const auto shared = backend::MakeTestContext("cpu", runner.dtype, runner.backend);
  ASSERT_TRUE(shared.ok()) << shared.status();
  const std::unique_ptr<model::Model> model = MakeModel(*shared, world);
  Random random(seed);
  const Alone alone = SearchAlone(*shared, *model, world, random);
  for (size_t i = 0; i < alone.results.size(); ++i) {
    SCOPED_TRACE(absl::StrCat("request ", i));
    SearchCheck check(world, world.requests[i], known.legal[i], counts);
    ASSERT_NO_FATAL_FAILURE(check.Check(alone.results[i], known.Find(runner.dtype, i), !aten));
  }
  if (aten) return;  // the oracle's sums are not the same in every batch
  ASSERT_NO_FATAL_FAILURE(ExpectTheSameInCompany(*shared, *model, world, alone, random));
}

// All of a seed's checks. What an exception leaves is below the trace, too, which names the seed.
void CheckSeed(uint64_t seed, CheckCounts& counts) {
  SCOPED_TRACE(absl::StrCat("BEAMLINE_FUZZ_SEED=", seed));
  try {
    const Known known(seed);
    SCOPED_TRACE(model::ConfigToJson(known.world.config));
    for (const Runner& runner : kRunners) {
      SCOPED_TRACE(absl::StrCat(runner.backend, " ", runner.dtype));
      ASSERT_NO_FATAL_FAILURE(CheckWorld(known, runner, seed, counts));
    }
  } catch (const std::exception& error) {
    FAIL() << error.what();
  }
}

TEST(RandomWorlds, GiveTheReferencesAnswersAloneAndInCompany) {
  const backend::InferenceGuard guard;
  backend::SetThreads(1);
  const uint64_t first = FromEnvironment("BEAMLINE_FUZZ_SEED", 1),
                 seconds = FromEnvironment("BEAMLINE_FUZZ_SECONDS", 0);
  const Clock::time_point end = Clock::now() + std::chrono::seconds(seconds);
  CheckCounts counts;
  uint64_t seed = first;
  for (; seconds > 0 ? Clock::now() < end : seed < first + kWorlds; ++seed) {
    ASSERT_NO_FATAL_FAILURE(CheckSeed(seed, counts));
  }
  std::cout << seed - first << " worlds, " << counts.beams << " beams, largest error " << counts.largest_error << ", "
            << counts.lists << " naive lists (" << counts.near_ties << " with near ties, " << counts.ties
            << " with ties), " << counts.undecided << " undecided, " << counts.all_there << " complete\n";
  if (seconds > 0) return;
  // That it looks at what it is for.
  EXPECT_GT(counts.beams, 10 * kWorlds);
  EXPECT_GT(counts.all_there, kWorlds);
  EXPECT_GT(counts.lists, 2 * (counts.near_ties + counts.undecided));
}

}  // namespace
}  // namespace beamline::oracle
