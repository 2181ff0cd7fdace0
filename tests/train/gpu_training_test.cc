// SPDX-License-Identifier: Apache-2.0
//
// Training on a GPU beside training on the CPU: the same weights and batches give the same losses, step by step and
// through Run, which hands steps to the GPU without waiting for them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "train/train_test_util.h"

namespace beamline::train {
namespace {

using ::testing::HasSubstr;

constexpr double kTolerance = 1e-3;

struct Case {
  const char* name;
  ModelOptions model;
};
const Case kCases[] = {{"t5", {.t5 = true}}, {"onerec_v1_causal", {}}, {"onerec_v1_bidirectional", {.causal = false}}};

// Histories of many lengths, so that batches have padding.
Log UnevenLog() {
  Log log = RingLog(40, 24, 14);
  for (size_t user = 0; user < log.size(); ++user) log[user].resize(5 + user % 10);
  return log;
}

TrainOptions Options(double dropout) {
  TrainOptions options = QuickOptions();
  options.dropout = dropout;
  options.epochs = 1;
  options.average_decay = 0.9;
  options.validation_users = 40;
  options.batch_windows = 4;  // more steps in an epoch than are in flight at once
  return options;
}

std::unique_ptr<Trainer> MakeTrainer(const World& world, const std::string& device, const TrainOptions& options) {
  backend::SetThreads(1);
  auto trainer = Trainer::Create(backend::MakeContext(device, "fp32").value(), world.inputs(), options);
  EXPECT_TRUE(trainer.ok()) << trainer.status();
  return *std::move(trainer);
}

TEST(GpuTrainingTest, LossOfEveryStepIsTheCpus) {
  for (const Case& one : kCases) {
    SCOPED_TRACE(one.name);
    const World world(UnevenLog(), std::string("gpu_steps_") + one.name, one.model);
    const TrainOptions options = Options(0);
    const auto cpu = MakeTrainer(world, "cpu", options), gpu = MakeTrainer(world, "cuda", options);
    const ExampleBuilder examples(*world.corpus, *world.features, *world.snapshot, options);
    const EpochPlan plan = examples.Plan(0);
    double first = 0, last = 0, worst = 0;
    for (uint64_t step = 0; step < 30; ++step) {
      const ExampleBatch batch = examples.Build(plan[step % plan.size()], step);
      const auto expected = cpu->TrainStep(batch), actual = gpu->TrainStep(batch);
      ASSERT_TRUE(expected.ok() && actual.ok()) << expected.status() << actual.status();
      EXPECT_NEAR(*actual, *expected, kTolerance) << "step " << step + 1;
      worst = std::max(worst, std::abs(*actual - *expected));
      if (step == 0) first = *actual;
      last = *actual;
    }
    EXPECT_LT(last, 0.95 * first) << "nothing was learnt, so nothing was compared";
    std::printf("%s: loss %.4f -> %.4f, worst difference %.1e\n", one.name, first, last, worst);
  }
}

TEST(GpuTrainingTest, CurveIsTheCpus) {
  for (const Case& one : kCases) {
    SCOPED_TRACE(one.name);
    const World world(UnevenLog(), std::string("gpu_curve_") + one.name, one.model);
    const auto cpu = MakeTrainer(world, "cpu", Options(0)), gpu = MakeTrainer(world, "cuda", Options(0));
    ASSERT_TRUE(cpu->Run("").ok());
    const absl::Status status = gpu->Run("");
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(gpu->curve().size(), cpu->curve().size());
    for (size_t epoch = 0; epoch < cpu->curve().size(); ++epoch) {
      const EpochRecord &expected = cpu->curve()[epoch], &actual = gpu->curve()[epoch];
      EXPECT_EQ(actual.targets, expected.targets);
      EXPECT_EQ(actual.step, expected.step);
      EXPECT_NEAR(actual.loss, expected.loss, kTolerance);
      EXPECT_NEAR(actual.gradient_norm, expected.gradient_norm, 1e-2 * expected.gradient_norm);
      for (size_t level = 0; level < expected.level_losses.size(); ++level) {
        EXPECT_NEAR(actual.level_losses[level], expected.level_losses[level], kTolerance);
      }
      ASSERT_TRUE(actual.validation.has_value());
      EXPECT_NEAR(actual.validation->recall_10, expected.validation->recall_10, 0.1);
    }
  }
}

TEST(GpuTrainingTest, DropoutRepeatsFromTheSeed) {
  const World world(UnevenLog(), "gpu_seed", {.t5 = true});
  const auto last_loss = [&](uint64_t seed, double dropout) {
    TrainOptions options = Options(dropout);
    options.seed = seed;
    const auto trainer = MakeTrainer(world, "cuda", options);
    EXPECT_TRUE(trainer->Run("").ok());
    return trainer->curve().back().loss;
  };
  const double loss = last_loss(1, 0.3);
  EXPECT_NEAR(last_loss(1, 0.3), loss, 1e-4);
  EXPECT_GT(std::abs(last_loss(2, 0.3) - loss), kTolerance);
  EXPECT_LT(last_loss(1, 0), loss - kTolerance);
}

TEST(GpuTrainingTest, AStepThatIsNotFiniteEndsTheRun) {
  const World world(UnevenLog(), "gpu_not_finite", {.t5 = true});
  backend::Context ctx = backend::MakeContext("cuda", "fp32").value();
  const model::Weights initial = model::InitWeights(ctx, world.features->config(), 77);
  initial.Get("decoder.norm").fill_(NAN);
  TrainInputs inputs = world.inputs();
  inputs.initial = &initial;
  const auto trainer = Trainer::Create(ctx, inputs, Options(0));
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  const absl::Status status = (*trainer)->Run("");
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step 1: the loss is nan"));
}

}  // namespace
}  // namespace beamline::train
