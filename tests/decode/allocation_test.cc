// SPDX-License-Identifier: Apache-2.0
//
// On the cpu backend a decode step and its selection take no storage from the heap once their shapes were seen: tensors
// come from the workspace, and what the search writes to has room before the first step. What is left are the headers
// of tensors (a view is one), each a few hundred bytes. Of this binary alone: it counts what malloc is asked for.
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "backend/test_context.h"
#include "decode/beam_search.h"
#include "decode/random_case.h"
#include "model/model.h"

namespace {

constexpr size_t kHeaderBytes = 512;  // of a tensor, a map's node, ...

std::atomic<bool> counting{false};
std::atomic<int64_t> large{0}, small{0};

void Count(size_t bytes) {
  if (counting) ++(bytes > kHeaderBytes ? large : small);
}

}  // namespace

// NOLINTBEGIN(readability-identifier-naming): the C library's names
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);

void* malloc(size_t bytes) {
  Count(bytes);
  return __libc_malloc(bytes);
}
int posix_memalign(void** out, size_t alignment, size_t bytes) {
  Count(bytes);
  *out = __libc_memalign(alignment, bytes);
  return *out == nullptr ? ENOMEM : 0;
}
}
// NOLINTEND(readability-identifier-naming)

namespace beamline::decode {
namespace {

model::ModelConfig OneRec(const std::vector<uint32_t>& level_sizes) {
  model::ModelConfig config;
  config.level_sizes = level_sizes;
  config.d_model = 64;
  config.heads = 2;
  config.head_dim = 32;
  config.short_term.length = 6;
  config.short_term.features = {{model::FeatureKind::kSid, 0, 0, true}};
  config.encoder.layers = 1;
  config.encoder.ffn.width = 128;
  config.decoder.layers = 2;
  config.decoder.ffn.width = 128;
  config.decoder.ffn.experts = 4;
  config.decoder.ffn.top_k = 2;
  return config;
}

// Levels, and an end token that is scored.
model::ModelConfig T5(const std::vector<uint32_t>& level_sizes) {
  model::ModelConfig config;
  config.family = model::kT5;
  config.level_sizes = level_sizes;
  config.d_model = 64;
  config.heads = 2;
  config.head_dim = 32;
  config.encoder = {.layers = 1, .ffn = {.width = 128, .gated = false}};
  config.decoder = {.layers = 2, .ffn = {.width = 128, .gated = true}};
  const int codes = static_cast<int>(std::accumulate(level_sizes.begin(), level_sizes.end(), uint32_t{0}));
  config.t5 = {.vocabulary = codes + 2,
               .start = codes,
               .end = codes + 1,
               .score_end = true,
               .input = {.prefix = {}, .suffix = {codes + 1}, .max_items = 3}};
  model::SetT5Pathway(config);
  return config;
}

class Allocations : public ::testing::TestWithParam<model::ModelConfig (*)(const std::vector<uint32_t>&)> {};
INSTANTIATE_TEST_SUITE_P(Families, Allocations, ::testing::Values(OneRec, T5),
                         [](const auto& info) { return info.param == OneRec ? "onerec_v1" : "t5"; });

TEST_P(Allocations, ALaterStepTakesNoStorage) {
  const backend::Context cpu = *backend::MakeTestContext("cpu", "fp32", "cpu");
  const backend::InferenceGuard guard;
  std::mt19937_64 random(5);
  testing::TinyCatalogue catalogue;
  do {
    catalogue = testing::RandomCatalogue(random, 300);
  } while (catalogue.snapshot->levels() < 4);
  const model::ModelConfig config = GetParam()(catalogue.level_sizes);
  backend::Context loading = cpu;
  const auto model = model::MakeModel(config, model::InitWeights(loading, config, 1));
  ASSERT_TRUE(model.ok()) << model.status();
  const auto compiled = testing::Compile(catalogue, {});
  const std::vector<int> widths(catalogue.snapshot->levels(), 70);
  const std::vector<SearchRequest> requests(3, {&compiled->view(), widths, ScoreRule::kFull});

  for (int round = 0; round < 4; ++round) {
    backend::Context ctx = backend::BeginBatch(cpu);
    const model::EncoderInput input = model::MakeEncoderInput(config, static_cast<int>(requests.size()), 2, 0);
    model::EncodedContext context = (*model)->Encode(ctx, model::UploadEncoderInput(ctx, config, input));
    large = small = 0;
    int gates = 0;
    // The gate is asked before every step but the first: what is counted are whole steps.
    const auto results = BeamSearch(**model).Run(ctx, std::move(context), requests, [&](int request) {
      if (request == 0) counting = ++gates < config.steps() - 1;
      return absl::OkStatus();
    });
    counting = false;
    EXPECT_EQ(gates, config.steps() - 1);
    ASSERT_TRUE(results[2].status.ok()) << results[2].status;
    EXPECT_GT(results[2].hypotheses.size(), 0u);
    std::cout << "round " << round << ": " << large << " of more than " << kHeaderBytes << " bytes, " << small
              << " smaller\n";
    if (round >= 2) {
      EXPECT_EQ(large, 0) << "round " << round;
    }
    EXPECT_GT(small, 0) << "or nothing is counted";
  }
}

}  // namespace
}  // namespace beamline::decode
