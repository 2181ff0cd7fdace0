// SPDX-License-Identifier: Apache-2.0
// Loss, optimizer, schedule, averaging and balancing against double-precision references.
#include <cmath>
#include <random>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "absl/algorithm/container.h"
#include "backend/ops.h"
#include "train/expert_balance.h"
#include "train/learning_rate.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/train_options.h"
#include "train/train_test_util.h"
#include "train/weight_average.h"

namespace beamline::train {
namespace {

TEST(LearningRateTest, WarmsUpThenFollowsTheCosine) {
  const LearningRateSchedule schedule{.peak = 2.0, .warmup_steps = 4, .total_steps = 12, .final_fraction = 0.1};
  EXPECT_DOUBLE_EQ(schedule.At(0), 0.5);
  EXPECT_DOUBLE_EQ(schedule.At(3), 2.0);
  EXPECT_DOUBLE_EQ(schedule.At(4), 2.0);
  EXPECT_DOUBLE_EQ(schedule.At(8), 2.0 * (0.1 + 0.9 * 0.5));
  EXPECT_NEAR(schedule.At(12), 0.2, 1e-12);
  EXPECT_NEAR(schedule.At(1000), 0.2, 1e-12);
  for (int step = 4; step < 20; ++step) EXPECT_GE(schedule.At(step), schedule.At(step + 1));
}

TEST(LossTest, EqualsTheNaiveSum) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  const int batch = 3, targets = 4;
  const std::vector<int64_t> sizes = {5, 7};
  std::vector<std::vector<float>> values;
  std::vector<at::Tensor> logits;
  for (int64_t size : sizes) {
    values.emplace_back(batch * targets * size);
    for (float& value : values.back()) value = 3 * normal(generator);
    logits.push_back(at::from_blob(values.back().data(), {batch, targets, size}, at::kFloat).clone());
  }
  std::vector<int64_t> labels(batch * targets * 2);
  for (int row = 0; row < batch * targets; ++row) {
    const bool padding = row % 4 == 3;
    for (int level = 0; level < 2; ++level) {
      labels[row * 2 + level] = padding ? kNoLabel : static_cast<int64_t>(generator() % sizes[level]);
    }
  }
  for (const double smoothing : {0.0, 0.1}) {
    double expected = 0;
    for (int level = 0; level < 2; ++level) {
      const int64_t size = sizes[level];
      double sum = 0, plain = 0;
      int count = 0;
      for (int row = 0; row < batch * targets; ++row) {
        if (labels[row * 2 + level] == kNoLabel) continue;
        ++count;
        double total = 0;
        for (int64_t code = 0; code < size; ++code) total += std::exp(double(values[level][row * size + code]));
        for (int64_t code = 0; code < size; ++code) {
          const double log_p = values[level][row * size + code] - std::log(total);
          const bool label = code == labels[row * 2 + level];
          sum -= ((1 - smoothing) * label + smoothing / size) * log_p;
          if (label) plain -= log_p;
        }
      }
      expected += sum / count;
      const Loss loss = CodeLoss(logits, at::from_blob(labels.data(), {batch, targets, 2}, at::kLong), smoothing);
      EXPECT_NEAR(loss.levels[level].item<double>(), plain / count, 1e-5);
    }
    const Loss loss = CodeLoss(logits, at::from_blob(labels.data(), {batch, targets, 2}, at::kLong), smoothing);
    EXPECT_NEAR(loss.total.item<double>(), expected, 1e-5);
  }
}

// The gradient of the whole training loss against central differences of it, along random directions.
TEST(GradientTest, EqualsFiniteDifferences) {
  for (const bool causal : {true, false}) {
    const World world(RingLog(6, 20, 10), "gradient", {.causal = causal});
    backend::Context ctx = CpuContext();
    const model::ModelConfig& config = world.features->config();
    const model::Weights weights = model::InitWeights(ctx, config, 3);
    const auto model = model::MakeModel(config, weights).value();
    AdamW optimizer(config, weights, {});
    const ExampleBuilder examples(*world.corpus, *world.features, *world.snapshot, QuickOptions());
    const ExampleBatch batch = examples.Build(examples.Plan(0)[0], 1);
    const at::Tensor labels = at::from_blob(const_cast<int64_t*>(batch.labels.data()),
                                            {batch.teacher.batch, batch.teacher.targets, 3}, at::kLong);
    const auto loss = [&] {
      const auto context = model->Encode(ctx, model::UploadEncoderInput(ctx, config, batch.encoder));
      return CodeLoss(model->TeacherForced(ctx, context, model::UploadTeacherInput(ctx, config, batch.teacher)), labels,
                      0.05)
          .total;
    };
    loss().backward();
    std::mt19937 generator(2);
    std::normal_distribution<float> normal;
    int checked = 0;
    for (const auto& [name, tensor] : weights.tensors()) {
      if (!tensor.grad().defined()) continue;
      const at::NoGradGuard no_gradients;
      at::Tensor parameter = tensor.detach();
      // Half along the gradient, so that there is a slope to compare, half anywhere.
      at::Tensor direction = at::empty_like(parameter);
      for (int64_t i = 0; i < direction.numel(); ++i) direction.mutable_data_ptr<float>()[i] = normal(generator);
      direction = direction / direction.norm() + tensor.grad() / (tensor.grad().norm() + 1e-12);
      const double slope = (tensor.grad() * direction).sum().item<double>();
      const double step = 1e-2;
      parameter.add_(direction, step);
      const double above = loss().item<double>();
      parameter.add_(direction, -2 * step);
      const double below = loss().item<double>();
      parameter.add_(direction, step);
      const double difference = (above - below) / (2 * step);
      EXPECT_NEAR(slope, difference, 1e-3 + 0.02 * std::abs(difference)) << name;
      checked += std::abs(slope) > 1e-2;
    }
    EXPECT_GT(checked, 5) << "most weights must have a gradient worth comparing";
  }
}

TEST(OptimizerTest, EqualsAdamWInDoublePrecision) {
  const World world(RingLog(2, 20, 6), "adamw");
  backend::Context ctx = CpuContext();
  const model::ModelConfig& config = world.features->config();
  const model::Weights weights = model::InitWeights(ctx, config, 3);
  const OptimizerOptions options{.weight_decay = 0.1, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .clip_norm = 0};
  AdamW optimizer(config, weights, options);
  const std::string name = "encoder.0.ffn.down";  // a matrix: decayed
  const at::Tensor& tensor = weights.Get(name);
  std::vector<double> expected, first(tensor.numel()), second(tensor.numel());
  for (float value : Values(tensor)) expected.push_back(value);
  for (int step = 1; step <= 5; ++step) {
    optimizer.ZeroGradients();
    std::vector<float> gradient(tensor.numel());
    for (size_t i = 0; i < gradient.size(); ++i) gradient[i] = std::sin(float(i) * 0.7f + step);
    tensor.mutable_grad() = at::from_blob(gradient.data(), tensor.sizes(), at::kFloat).clone();
    optimizer.Step(1e-2);
    for (size_t i = 0; i < gradient.size(); ++i) {
      first[i] = 0.9 * first[i] + 0.1 * gradient[i];
      second[i] = 0.95 * second[i] + 0.05 * gradient[i] * gradient[i];
      const double m = first[i] / (1 - std::pow(0.9, step)), v = second[i] / (1 - std::pow(0.95, step));
      expected[i] -= 1e-2 * 0.1 * expected[i];
      expected[i] -= 1e-2 * m / (std::sqrt(v) + 1e-8);
    }
  }
  const std::vector<float> actual = Values(tensor);
  for (size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-5);
  EXPECT_EQ(optimizer.steps(), 5);
}

TEST(OptimizerTest, ClipsTheGlobalNormAndRefusesNonFiniteGradients) {
  const World world(RingLog(2, 20, 6), "clip");
  backend::Context ctx = CpuContext();
  const model::Weights weights = model::InitWeights(ctx, world.features->config(), 3);
  AdamW optimizer(world.features->config(), weights, {.clip_norm = 1.0});
  optimizer.ZeroGradients();
  const at::Tensor tensor = weights.Get("encoder.norm");
  tensor.mutable_grad() = at::full_like(tensor.detach(), 3.0);
  EXPECT_NEAR(optimizer.Step(1e-3).item<double>(), 3.0 * 4, 1e-4);  // sqrt(16 * 9)
  EXPECT_NEAR(optimizer.moments().size(), weights.tensors().size(), 0);
  const std::vector<float> before = Values(tensor);
  tensor.mutable_grad() = at::full_like(tensor.detach(), NAN);
  const auto moment = absl::c_find_if(optimizer.moments(), [](const auto& one) { return one.name == "encoder.norm"; });
  const std::vector<float> first = Values(moment->first), second = Values(moment->second);
  EXPECT_FALSE(std::isfinite(optimizer.Step(1e-3).item<double>()));
  EXPECT_EQ(Values(tensor), before);
  EXPECT_EQ(Values(moment->first), first);
  EXPECT_EQ(Values(moment->second), second);
  EXPECT_EQ(optimizer.steps(), 1);
}

TEST(WeightAverageTest, FollowsTheRecurrence) {
  model::Weights weights;
  weights.Set("w", at::full({2}, 1.0, at::kFloat));
  WeightAverage average(weights, 0.9);
  double expected = 1;
  for (int step = 0; step < 200; ++step) {
    at::Tensor tensor = weights.Get("w");
    tensor.fill_(step);
    average.Update(step);
    const double decay = std::min(0.9, (1.0 + step) / (10.0 + step));
    expected = decay * expected + (1 - decay) * step;
  }
  EXPECT_NEAR(Values(average.average().Get("w"))[0], expected, 1e-3);
}

TEST(ExpertBalanceTest, MovesBiasesAgainstTheLoad) {
  EXPECT_EQ(BalancedBias({0.f, 0.f, 1.f}, {10, 2, 6}, 0.5), (std::vector<float>{-0.5f, 0.5f, 1.f}));
  backend::Context ctx = CpuContext();
  model::Weights weights;
  weights.Set("decoder.0.moe.bias", at::zeros({2}, at::kFloat));
  const std::vector<backend::ExpertLoad> loads = {{"decoder.0.moe", {3, 0}}, {"decoder.0.moe", {0, 1}}};
  UpdateExpertBiases(ctx, loads, 0.25, weights);
  EXPECT_EQ(Values(weights.Get("decoder.0.moe.bias")), (std::vector<float>{-0.25f, 0.25f}));
}

TEST(TrainOptionsTest, NamesTheFieldTheLimitAndTheValue) {
  TrainOptions options = QuickOptions();
  EXPECT_TRUE(Validate(options).ok());
  options.dropout = 1.5;
  const absl::Status status = Validate(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("dropout is 1.5"), std::string::npos) << status;
}

}  // namespace
}  // namespace beamline::train
