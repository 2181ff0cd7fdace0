// SPDX-License-Identifier: Apache-2.0
//
// The runner over a tiny model: what shares a batch does not matter, a cached context answers as a fresh one, and
// failures stay where they belong.
#include "runtime/runner.h"

#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <random>
#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "backend/cpu/cpu_backend.h"
#include "catalogue/generate.h"
#include "catalogue/rule_cache.h"
#include "model/weights.h"
#include "runtime/model_runner.h"
#include "runtime/tiny_bundle.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::TinyBundleOptions;

absl::Status PassGate(const scheduler::Job&) { return absl::OkStatus(); }

std::string BundlePath(const TinyBundleOptions& options = {}) {
  const fs::path path =
      fs::path(::testing::TempDir()) /
      absl::StrCat("runner_test_bundle_", options.moe, options.causal, options.trunk_layers, options.ranked);
  const auto manifest = testing::WriteTinyBundle(path, options);
  EXPECT_TRUE(manifest.ok()) << manifest.status();
  return path.string();
}

std::unique_ptr<Runner> Load(const TinyBundleOptions& options = {}) {
  auto runner = LoadRunner({.bundle = BundlePath(options), .threads = 1});
  EXPECT_TRUE(runner.ok()) << runner.status();
  return runner.ok() ? *std::move(runner) : nullptr;
}

struct JobSpec {
  uint64_t seed = 1;
  int history = 5;
  std::vector<int> widths = {4, 8, 8};
  ScoreRule score_rule = ScoreRule::kFull;
  Eligibility eligibility;
};

JobSpec RandomSpec(std::mt19937_64& random) {
  JobSpec spec;
  spec.seed = random();
  spec.history = static_cast<int>(random() % 20);
  for (int& width : spec.widths) width = 1 + static_cast<int>(random() % 16);
  spec.score_rule = random() % 2 == 0 ? ScoreRule::kFull : ScoreRule::kLegal;
  if (random() % 2 == 0) spec.eligibility.rule.push_back({"region", {"DE", "US"}});
  for (int i = 0; i < 60; ++i) {
    if (random() % 3 == 0) spec.eligibility.deny.push_back(1000 + random() % 150);
    spec.eligibility.allow.push_back(1000 + random() % 150);
  }
  spec.eligibility.restrict_to_allow = random() % 3 == 0;
  return spec;
}

std::unique_ptr<RequestJob> MakeJob(const Runner& runner, const JobSpec& spec) {
  auto job = std::make_unique<RequestJob>();
  const std::vector<Event> history = testing::TinyHistory(spec.seed, spec.history);
  const std::vector<UserAttribute> attributes = {{"active_degree", absl::StrCat("d", spec.seed % 5)}};
  job->snapshot = runner.catalogue();
  job->input = runner.BuildInput({.user_attributes = attributes, .history = history}, *job->snapshot);
  job->context_key = {absl::StrCat("user", spec.seed), Digest(job->input), runner.info().version};
  job->beam_widths = spec.widths;
  job->score_rule = spec.score_rule;
  catalogue::RuleCache rules(job->snapshot, 4);
  job->eligibility = *catalogue::CompileEligibility(rules, spec.eligibility);
  job->SetCosts();
  return job;
}

using Jobs = std::vector<std::unique_ptr<RequestJob>>;

std::vector<scheduler::Job*> Pointers(const Jobs& jobs) {
  std::vector<scheduler::Job*> pointers;
  for (const auto& job : jobs) pointers.push_back(job.get());
  return pointers;
}

Jobs RunBatch(Runner& runner, const std::vector<JobSpec>& specs) {
  Jobs jobs;
  for (const JobSpec& spec : specs) jobs.push_back(MakeJob(runner, spec));
  for (const absl::Status& status : runner.Encode(Pointers(jobs))) EXPECT_TRUE(status.ok()) << status;
  for (const absl::Status& status : runner.Decode(Pointers(jobs), PassGate)) EXPECT_TRUE(status.ok()) << status;
  return jobs;
}

// Promise 4: scores within 1e-5, another order only where scores lie closer than 2e-5.
void ExpectSameAnswer(const RequestJob& a, const RequestJob& b, const std::string& where) {
  ASSERT_EQ(a.hypotheses.size(), b.hypotheses.size()) << where;
  std::map<Sid, float> scores;
  for (const Hypothesis& hypothesis : b.hypotheses) scores[hypothesis.sid] = hypothesis.score;
  for (size_t i = 0; i < a.hypotheses.size(); ++i) {
    const Hypothesis& x = a.hypotheses[i];
    const Hypothesis& y = b.hypotheses[i];
    EXPECT_NEAR(x.score, y.score, 2e-5) << where << " rank " << i;
    if (const auto found = scores.find(x.sid); found != scores.end()) {
      EXPECT_NEAR(x.score, found->second, 1e-5) << where << " rank " << i;
    } else {
      EXPECT_NEAR(x.score, b.hypotheses.back().score, 2e-5) << where << ": missing at rank " << i;
    }
  }
}

TEST(Runner, DescribesItsModel) {
  const auto runner = Load();
  ASSERT_NE(runner, nullptr);
  EXPECT_EQ(runner->info().family, "onerec_v1");
  EXPECT_THAT(runner->info().version, HasSubstr("onerec_v1-"));
  EXPECT_EQ(runner->info().level_sizes, (std::vector<uint32_t>{8, 6, 10}));
  EXPECT_EQ(runner->info().codebook_fingerprint, runner->catalogue()->codebook_fingerprint());
  EXPECT_THAT(runner->info().window_lengths, ::testing::ElementsAre(6, 12));
  EXPECT_GT(runner->info().parameters, 1000);
  EXPECT_FALSE(runner->info().ranker);
  EXPECT_TRUE(Load({.ranked = true})->info().ranker);
  EXPECT_TRUE(runner->WarmUp({}, ScoreRule::kFull).ok());
  EXPECT_EQ(runner->context_cache_stats().entries, 0) << "warm-up leaves nothing behind";
}

TEST(Runner, AnswersAloneAndInABatchAreTheSame) {
  const TinyBundleOptions models[] = {{}, {.moe = true}, {.causal = true, .trunk_layers = 1}};
  for (const TinyBundleOptions& options : models) {
    const auto runner = Load(options);
    ASSERT_NE(runner, nullptr);
    for (uint64_t seed = 0; seed < 6; ++seed) {
      std::mt19937_64 random(seed);
      std::vector<JobSpec> specs(2 + random() % 15);
      for (JobSpec& spec : specs) spec = RandomSpec(random);
      const Jobs together = RunBatch(*runner, specs);
      for (size_t i = 0; i < specs.size(); ++i) {
        const Jobs alone = RunBatch(*runner, {specs[i]});
        ExpectSameAnswer(*alone[0], *together[i], absl::StrCat("seed ", seed, " request ", i));
        for (const Hypothesis& hypothesis : together[i]->hypotheses) {
          EXPECT_FALSE(together[i]->eligibility->ResolveEligible(hypothesis.leaf, 1).empty()) << "nothing ineligible";
          EXPECT_EQ(together[i]->eligibility->SidOf(hypothesis.leaf), hypothesis.sid);
        }
      }
    }
  }
}

TEST(Runner, ACachedContextGivesTheSameAnswer) {
  const auto runner = Load();
  const Jobs first = RunBatch(*runner, {{.seed = 3}, {.seed = 4, .history = 20}});
  Jobs second;
  second.push_back(MakeJob(*runner, {.seed = 3}));
  EXPECT_TRUE(runner->HoldsContext(second[0]->context_key));
  EXPECT_EQ(runner->context_cache_stats().hits, 0) << "it was asked for, not used";
  ASSERT_TRUE(runner->TryAttachContext(*second[0]));
  EXPECT_TRUE(second[0]->context_cached);
  ASSERT_TRUE(runner->Decode(Pointers(second), PassGate)[0].ok());
  ExpectSameAnswer(*first[0], *second[0], "cached");

  EXPECT_FALSE(runner->TryAttachContext(*MakeJob(*runner, {.seed = 3, .history = 6}))) << "a longer history";
  auto other_version = MakeJob(*runner, {.seed = 3});
  other_version->context_key.model_version = "another";
  EXPECT_FALSE(runner->TryAttachContext(*other_version));
  EXPECT_FALSE(runner->HoldsContext(other_version->context_key));
  auto uncached = MakeJob(*runner, {.seed = 3});
  uncached->context_key.history_digest.clear();
  EXPECT_FALSE(runner->TryAttachContext(*uncached));
  EXPECT_EQ(runner->context_cache_stats().hits, 1);
}

TEST(Runner, AnEmptyHistoryIsAnswered) {
  const auto runner = Load();
  EXPECT_EQ(RunBatch(*runner, {{.history = 0}})[0]->hypotheses.size(), 8);
}

TEST(Runner, CancellationBetweenStepsEndsOneRequest) {
  const auto runner = Load();
  Jobs jobs;
  for (uint64_t seed : {1, 2, 3}) jobs.push_back(MakeJob(*runner, {.seed = seed}));
  runner->Encode(Pointers(jobs));
  int asked = 0;
  const auto statuses = runner->Decode(Pointers(jobs), [&](const scheduler::Job& job) {
    ++asked;
    if (&job == jobs[1].get()) return absl::CancelledError("the caller is gone");
    return absl::OkStatus();
  });
  EXPECT_EQ(asked, 3 + 2) << "three requests after the first step, two after the second";
  EXPECT_TRUE(statuses[0].ok());
  EXPECT_EQ(statuses[1].code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(jobs[1]->hypotheses.empty());
  EXPECT_TRUE(statuses[2].ok());
  ExpectSameAnswer(*jobs[2], *RunBatch(*runner, {{.seed = 3}})[0], "beside a cancelled one");
}

TEST(Runner, BadDataFailsAlone) {
  const auto runner = Load();
  Jobs jobs;
  for (uint64_t seed : {1, 2, 3, 4, 5}) jobs.push_back(MakeJob(*runner, {.seed = seed}));
  jobs[0]->input.pathways[0].features[0] = 100;  // no such code
  jobs[1]->input.pathways[1].length = 1000;
  jobs[2]->input.static_features.clear();
  jobs[3]->input.pathways[0].features[0] = -1;
  const auto statuses = runner->Encode(Pointers(jobs));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(statuses[i].code(), absl::StatusCode::kInvalidArgument) << i << statuses[i];
  EXPECT_TRUE(statuses[4].ok());
  EXPECT_THAT(std::string(statuses[2].message()), HasSubstr("input.static_features: 0 values"));
}

TEST(Runner, DecodeChecksWhatItIsGivenPerRequest) {
  const auto runner = Load();
  Jobs jobs;
  for (uint64_t seed : {1, 2, 3, 4, 5}) jobs.push_back(MakeJob(*runner, {.seed = seed}));
  runner->Encode(Pointers(jobs));
  jobs[0]->context = nullptr;
  jobs[1]->snapshot = *catalogue::GenerateCatalogue({.items = 20, .levels = 3, .codes = 4});
  jobs[2]->beam_widths = {1, 2};
  jobs[3]->snapshot = nullptr;
  const auto statuses = runner->Decode(Pointers(jobs), PassGate);
  EXPECT_EQ(statuses[0].code(), absl::StatusCode::kInternal);
  EXPECT_EQ(statuses[1].code(), absl::StatusCode::kFailedPrecondition) << "another codebook's catalogue";
  EXPECT_EQ(statuses[2].code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(statuses[3].code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(statuses[4].ok()) << statuses[4];
  EXPECT_EQ(jobs[4]->hypotheses.size(), 8);
}

// A user's attribute whose embedding overflowed, or makes what is computed of it overflow (row C3.9).
class RunnerDtype : public ::testing::TestWithParam<const char*> {
 protected:
  static constexpr int kBroken = 31;  // a bucket
  static std::unique_ptr<ModelRunner> MakeRunner(float broken) {
    const auto bundle = LoadBundle(BundlePath());
    EXPECT_TRUE(bundle.ok()) << bundle.status();
    ModelRunner::Parts parts;
    parts.context = *backend::MakeContext("cpu", GetParam());
    parts.model =
        *model::MakeModel(bundle->config, *model::LoadWeights(parts.context, bundle->config, bundle->weights));
    parts.model->weights().Get("static.attribute.0").select(0, kBroken).fill_(broken);
    parts.vocabulary = bundle->vocabulary;
    parts.catalogue = bundle->catalogue;
    parts.model_version = "broken";
    parts.codebook_fingerprint = bundle->manifest.codebook_fingerprint;
    return std::make_unique<ModelRunner>(std::move(parts));
  }
};

TEST_P(RunnerDtype, WhatOverflowsFailsAlone) {
  for (const float broken : {3e38f, std::numeric_limits<float>::infinity()}) {
    const auto runner = MakeRunner(broken);
    Jobs jobs;
    for (uint64_t seed : {1, 2, 3}) {
      jobs.push_back(MakeJob(*runner, {.seed = seed}));
      jobs.back()->input.static_features[0] = seed == 2 ? kBroken : 1;
    }
    for (const absl::Status& status : runner->Encode(Pointers(jobs))) EXPECT_TRUE(status.ok()) << status;
    const auto statuses = runner->Decode(Pointers(jobs), PassGate);
    if (std::isinf(broken)) {
      EXPECT_EQ(statuses[1].code(), absl::StatusCode::kInternal);
      EXPECT_THAT(std::string(statuses[1].message()), HasSubstr("non_finite_logits"));
    }
    for (const Hypothesis& hypothesis : jobs[1]->hypotheses) EXPECT_TRUE(std::isfinite(hypothesis.score));
    for (const int i : {0, 2}) {
      EXPECT_TRUE(statuses[i].ok()) << statuses[i];
      Jobs alone;
      alone.push_back(MakeJob(*runner, {.seed = static_cast<uint64_t>(i + 1)}));
      alone[0]->input.static_features[0] = 1;
      for (const absl::Status& status : runner->Encode(Pointers(alone))) EXPECT_TRUE(status.ok()) << status;
      for (const absl::Status& status : runner->Decode(Pointers(alone), PassGate)) EXPECT_TRUE(status.ok()) << status;
      ExpectSameAnswer(*jobs[i], *alone[0], absl::StrCat("job ", i));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, RunnerDtype, ::testing::Values("fp32", "bf16"));

// A real model that throws when told to.
class FaultyModel : public model::Model {
 public:
  FaultyModel(std::unique_ptr<model::Model> real, const bool* fail_encode, const bool* fail_decode)
      : real_(std::move(real)), fail_encode_(fail_encode), fail_decode_(fail_decode) {}
  const model::ModelConfig& config() const override { return real_->config(); }
  const model::Weights& weights() const override { return real_->weights(); }
  model::EncodedContext Encode(backend::Context& ctx, const model::EncoderBatch& batch) const override {
    if (*fail_encode_) throw std::runtime_error("broken sizes\nframe #0\nframe #1");
    return real_->Encode(ctx, batch);
  }
  model::DecodeState BeginDecode(backend::Context& ctx, model::EncodedContext context) const override {
    return real_->BeginDecode(ctx, std::move(context));
  }
  at::Tensor DecodeStep(backend::Context& ctx, model::DecodeState& state, const model::StepInput& step) const override {
    if (*fail_decode_ && step.level == 1) throw std::bad_alloc();
    return real_->DecodeStep(ctx, state, step);
  }
  std::vector<at::Tensor> TeacherForced(backend::Context& ctx, const model::EncodedContext& context,
                                        const model::TeacherBatch& targets) const override {
    return real_->TeacherForced(ctx, context, targets);
  }
  at::Tensor TeacherForcedOutput(backend::Context& ctx, const model::EncodedContext& context,
                                 const model::TeacherBatch& targets) const override {
    return real_->TeacherForcedOutput(ctx, context, targets);
  }

 private:
  std::unique_ptr<model::Model> real_;
  const bool* fail_encode_;
  const bool* fail_decode_;
};

TEST(Runner, AFailedBatchFailsItsRequestsWithOneStatus) {
  const auto bundle = LoadBundle(BundlePath());
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  bool fail_encode = false;
  bool fail_decode = false;
  ModelRunner::Parts parts;
  parts.context = *backend::MakeContext("cpu", "fp32");
  auto real = model::MakeModel(bundle->config, *model::LoadWeights(parts.context, bundle->config, bundle->weights));
  ASSERT_TRUE(real.ok()) << real.status();
  parts.model = std::make_unique<FaultyModel>(*std::move(real), &fail_encode, &fail_decode);
  parts.vocabulary = bundle->vocabulary;
  parts.catalogue = bundle->catalogue;
  parts.model_version = "faulty";
  parts.codebook_fingerprint = bundle->manifest.codebook_fingerprint;
  parts.context_cache_bytes = 1 << 20;
  ModelRunner runner(std::move(parts));

  Jobs jobs;
  for (uint64_t seed : {1, 2}) jobs.push_back(MakeJob(runner, {.seed = seed}));
  fail_encode = true;
  for (const absl::Status& status : runner.Encode(Pointers(jobs))) {
    EXPECT_EQ(status, absl::InternalError("encode failed: broken sizes"));
  }
  EXPECT_EQ(runner.context_cache_stats().entries, 0);
  fail_encode = false;
  for (const absl::Status& status : runner.Encode(Pointers(jobs))) EXPECT_TRUE(status.ok()) << status;
  fail_decode = true;
  for (const absl::Status& status : runner.Decode(Pointers(jobs), PassGate)) {
    EXPECT_EQ(status, absl::InternalError("decode: out of memory"));  // and not "retry later"
  }
  for (const auto& job : jobs) EXPECT_TRUE(job->hypotheses.empty());
  fail_decode = false;
  for (const absl::Status& status : runner.Decode(Pointers(jobs), PassGate)) EXPECT_TRUE(status.ok()) << "goes on";
}

TEST(LoadRunner, RefusesBadOptionsByName) {
  const std::string bundle = BundlePath();
  const std::pair<RunnerOptions, std::string> cases[] = {
      {{}, "bundle: is empty"},
      {{.bundle = bundle, .device = "tpu"}, "device"},
      {{.bundle = bundle, .dtype = "fp8"}, "dtype"},
      {{.bundle = bundle, .threads = -1}, "threads"},
      {{.bundle = bundle, .workers = 0}, "workers"},
      {{.bundle = bundle, .context_cache_bytes = -1}, "context_cache_bytes"},
      {{.bundle = bundle + "/nothing"}, "no such bundle"},
      {{.bundle = bundle, .catalogue = bundle + "/config.json"}, "config.json"},
      {{.bundle = bundle, .memory_limit_bytes = 1}, "of memory ("}};
  for (const auto& [options, part] : cases) {
    const absl::Status status = LoadRunner(options).status();
    EXPECT_FALSE(status.ok()) << part;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

TEST(LoadRunner, WhatTheBackendPackedGoesWithTheModel) {
  const backend::Context ctx = *backend::MakeContext("cpu", "fp32", "cpu");
  const auto& backend = static_cast<const backend::CpuBackend&>(*ctx.backend);
  const int64_t before = backend.packed_bytes();
  auto runner = LoadRunner({.bundle = BundlePath(), .device = "cpu", .dtype = "fp32", .backend = "cpu", .threads = 1});
  ASSERT_TRUE(runner.ok()) << runner.status();
  EXPECT_TRUE((*runner)->WarmUp({}, ScoreRule::kLegal).ok());
  EXPECT_GT(backend.packed_bytes(), before);
  runner->reset();
  EXPECT_EQ(backend.packed_bytes(), before);
}

TEST(LoadRunner, Bf16AndAutoDeviceLoad) {
  RunnerOptions options{.bundle = BundlePath(), .device = "auto", .dtype = "bf16", .backend = "cpu", .threads = 1};
  options.device = *ChooseDevice(options);
  EXPECT_EQ(options.device, "cpu") << "asked for by the backend, whatever there is";
  auto runner = LoadRunner(options);
  ASSERT_TRUE(runner.ok()) << runner.status();
  EXPECT_TRUE((*runner)->WarmUp({}, ScoreRule::kFull).ok());
}

}  // namespace
}  // namespace beamline::runtime
