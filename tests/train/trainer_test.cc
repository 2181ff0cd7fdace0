// SPDX-License-Identifier: Apache-2.0
#include "train/trainer.h"

#include <cstdio>
#include <fstream>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/safetensors.h"
#include "train/checkpoint.h"
#include "train/expert_balance.h"
#include "train/train_test_util.h"

namespace beamline::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::unique_ptr<Trainer> MakeTrainer(const World& world, const TrainOptions& options) {
  absl::StatusOr<std::unique_ptr<Trainer>> trainer = Trainer::Create(CpuContext(), world.inputs(), options);
  EXPECT_TRUE(trainer.ok()) << trainer.status();
  return *std::move(trainer);
}

void ExpectSameBits(const model::Weights& a, const model::Weights& b) {
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const auto& [name, tensor] : a.tensors()) EXPECT_EQ(Values(tensor), Values(b.Get(name))) << name;
}

// Nothing that keeps a model from learning a ring by heart; all users are ranked at the end.
TrainOptions RingOptions(int epochs, int users) {
  TrainOptions options = QuickOptions();
  options.epochs = epochs;
  options.dropout = 0;
  options.label_smoothing = 0;
  options.validate_every = epochs;
  options.validation_users = users;
  options.exclude_seen = false;
  return options;
}

TEST(TrainerTest, MemorisesARing) {
  for (const bool causal : {true, false}) {
    Log log = RingLog(48, 24, 14);
    for (size_t user = 0; user < log.size(); ++user) log[user].resize(6 + user % 9);
    const World world(log, "ring", {.causal = causal});
    const std::unique_ptr<Trainer> trainer = MakeTrainer(world, RingOptions(causal ? 60 : 40, 48));
    ASSERT_TRUE(trainer->Run("").ok());
    const std::vector<EpochRecord>& curve = trainer->curve();
    EXPECT_LT(curve.back().loss, 0.5 * curve.front().loss);
    ASSERT_TRUE(curve.back().validation.has_value());
    // Chance is .21. With fewer users, rounding (other vector widths, sanitizers) decides about the last tenth of them.
    EXPECT_GT(curve.back().validation->recall_5, 0.9) << "causal " << causal << ", loss " << curve.back().loss;
  }
}

// The last update comes too soon after another to be drawn, and is the one that counts.
TEST(TrainerTest, TheLastLineOfAnEpochHasItsLoss) {
  const World world(RingLog(24, 24, 14), "progress");
  TrainOptions options = QuickOptions();
  options.validation_users = 0;
  const std::unique_ptr<Trainer> trainer = MakeTrainer(world, options);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(std::tmpfile(), std::fclose);
  Progress progress({.out = out.get(), .style = Progress::Options::Style::kLines});
  ASSERT_TRUE(trainer->Run("", &progress).ok());
  std::string text(static_cast<size_t>(std::ftell(out.get())), '\0');
  ASSERT_EQ(std::fseek(out.get(), 0, SEEK_SET), 0);
  ASSERT_EQ(std::fread(text.data(), 1, text.size(), out.get()), text.size());
  ASSERT_EQ(trainer->curve().size(), 3u);
  for (const EpochRecord& epoch : trainer->curve()) {
    EXPECT_THAT(text, ::testing::ContainsRegex(absl::StrFormat("epoch %d/3 100%%.*, loss %.4f, [0-9]+ targets/s\n",
                                                               epoch.epoch, epoch.loss)));
  }
}

TEST(TrainerTest, MixtureOfExpertsTrains) {
  const World world(RingLog(24, 24, 14), "moe", {.experts = 4});
  TrainOptions options = QuickOptions();
  options.epochs = 10;
  const std::unique_ptr<Trainer> trainer = MakeTrainer(world, options);
  const std::string bias = "decoder.0.moe.bias";
  ASSERT_TRUE(trainer->Run("").ok());
  EXPECT_LT(trainer->curve().back().loss, trainer->curve().front().loss);
  double moved = 0;
  for (float value : Values(trainer->result().Get(bias))) moved += std::abs(value);
  EXPECT_GT(moved, 0);
}

// Biases move by the tokens of a batch's windows, however much padding brings them to one length.
TEST(TrainerTest, PaddingIsNoLoadOfExperts) {
  Log log;
  for (int user = 0; user < 8; ++user) {
    log.emplace_back();
    for (int i = 0; i < 4 + (user == 0 ? 9 : 0); ++i) log.back().push_back({(user * 5 + i * 3) % 24});
  }
  const World world(log, "padding", {.experts = 4, .experts_of_encoder = true});
  TrainOptions options = QuickOptions();
  options.dropout = 0;
  options.targets_per_window = 16;  // all of them
  options.balance_rate = 0.125;
  const std::unique_ptr<Trainer> trainer = MakeTrainer(world, options);
  const model::ModelConfig& config = trainer->model().config();
  const ExampleBuilder builder(*world.corpus, *world.features, *world.snapshot, options);
  const EpochPlan plan = builder.Plan(0);
  ASSERT_EQ(plan.size(), 1u);

  backend::Context ctx = CpuContext();
  std::vector<backend::ExpertLoad> loads;
  ctx.expert_loads = &loads;
  for (const Window& window : plan[0]) {
    const ExampleBatch alone = builder.Build({&window, 1}, 1);  // nothing of it is padding
    const auto context = trainer->model().Encode(ctx, model::UploadEncoderInput(ctx, config, alone.encoder));
    trainer->model().TeacherForced(ctx, context, model::UploadTeacherInput(ctx, config, alone.teacher));
  }
  std::map<std::string, std::vector<int64_t>> expected;
  for (const backend::ExpertLoad& load : loads) {
    std::vector<int64_t>& total = expected[load.layer];
    total.resize(load.tokens.size());
    for (size_t expert = 0; expert < total.size(); ++expert) total[expert] += load.tokens[expert];
  }
  ASSERT_EQ(expected.size(), 2u);
  ASSERT_TRUE(trainer->TrainStep(builder.Build(plan[0], 1)).ok());
  for (const auto& [layer, tokens] : expected) {
    EXPECT_EQ(Values(trainer->result().Get(layer + ".bias")), BalancedBias({0, 0, 0, 0}, tokens, options.balance_rate))
        << layer << ": " << ::testing::PrintToString(tokens);
  }
}

// Family t5 on the same path: it learns, and its dropout inside of sublayers comes from the run's own generator.
TEST(TrainerTest, T5LearnsARing) {
  const World world(RingLog(24, 24, 14), "t5_ring", {.t5 = true});
  TrainOptions options = RingOptions(40, 24);
  options.min_history = 1;
  const std::unique_ptr<Trainer> trainer = MakeTrainer(world, options);
  ASSERT_TRUE(trainer->Run("").ok());
  EXPECT_GT(trainer->curve().back().validation->recall_5, 0.9) << "loss " << trainer->curve().back().loss;
  EXPECT_EQ(trainer->curve().back().level_losses.size(), 4u);
  EXPECT_LT(trainer->curve().back().level_losses[3], 0.01) << "after the last code comes the end token";
}

TEST(TrainerTest, T5ResumedEqualsUninterrupted) {
  const World world(RingLog(12, 24, 9), "t5_resume", {.t5 = true});
  const TrainOptions options = QuickOptions();
  const auto whole = MakeTrainer(world, options);
  ASSERT_TRUE(whole->Run("").ok());
  const std::string checkpoint = (TempFolder("t5_resume_out") / "checkpoint.safetensors").string();
  for (const int64_t stop : {int64_t{2}, whole->steps_per_epoch(), whole->steps_per_epoch() + 1}) {
    std::filesystem::remove(checkpoint);
    const auto stopped = MakeTrainer(world, options);
    stopped->StopBeforeStep(stop);
    EXPECT_EQ(stopped->Run(checkpoint).code(), absl::StatusCode::kCancelled);
    const auto resumed = MakeTrainer(world, options);
    ASSERT_TRUE(resumed->Restore(checkpoint).ok());
    ASSERT_TRUE(resumed->Run(checkpoint).ok());
    ExpectSameBits(resumed->result(), whole->result());
  }
}

TEST(TrainerTest, ATimeBudgetEndsARunThatGoesOn) {
  const World world(RingLog(12, 24, 9), "budget", {.t5 = true});
  const TrainOptions options = QuickOptions();
  const auto whole = MakeTrainer(world, options);
  const absl::Time start = absl::Now();
  ASSERT_TRUE(whole->Run("").ok());
  const absl::Duration budget = (absl::Now() - start) / 20;
  const std::string checkpoint = (TempFolder("budget_out") / "checkpoint.safetensors").string();
  absl::Status status = absl::CancelledError("");
  int calls = 0;
  std::unique_ptr<Trainer> trainer;
  for (; absl::IsCancelled(status) && calls < 10000; ++calls) {
    trainer = MakeTrainer(world, options);
    if (calls > 0) {
      ASSERT_TRUE(trainer->Restore(checkpoint).ok());
    }
    trainer->StopAt(calls == 0 ? absl::InfinitePast() : absl::Now() + budget);
    status = trainer->Run(checkpoint);
    if (calls == 0) {
      EXPECT_THAT(std::string(status.message()), HasSubstr("stopped before step 1 of"));
    }
  }
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_GT(calls, 2) << "some budget ended a run that had begun";
  ExpectSameBits(trainer->result(), whole->result());
}

TEST(TrainerTest, StartsFromGivenWeightsWithoutChangingThem) {
  const World world(RingLog(12, 24, 9), "initial", {.t5 = true});
  backend::Context ctx = CpuContext();
  const model::Weights initial = model::InitWeights(ctx, world.features->config(), 77);
  const std::vector<float> before = Values(initial.Get("embedding"));
  TrainInputs inputs = world.inputs();
  inputs.initial = &initial;
  for (const double rate : {0.0, 1e-2}) {
    TrainOptions options = QuickOptions();
    options.epochs = 1;
    options.learning_rate = rate;
    const auto trainer = Trainer::Create(ctx, inputs, options);
    ASSERT_TRUE(trainer.ok()) << trainer.status();
    EXPECT_EQ(Values((*trainer)->model().weights().Get("embedding")), before);
    ASSERT_TRUE((*trainer)->Run("").ok());
    EXPECT_EQ(Values(initial.Get("embedding")), before);
    EXPECT_EQ(Values((*trainer)->result().Get("embedding")) == before, rate == 0);
  }
}

TEST(TrainerTest, TheLossOfATargetIsSumOrMeanOverItsCodes) {
  const World world(RingLog(12, 24, 9), "mean", {.t5 = true});
  TrainOptions options = QuickOptions();
  const ExampleBuilder examples(*world.corpus, *world.features, *world.snapshot, options);
  const ExampleBatch batch = examples.Build(examples.Plan(0)[0], 1);
  const auto sum = MakeTrainer(world, options)->TrainStep(batch);
  options.mean_over_codes = true;
  const auto mean = MakeTrainer(world, options)->TrainStep(batch);
  ASSERT_TRUE(sum.ok() && mean.ok());
  EXPECT_NEAR(*sum, 4 * *mean, 1e-4);  // three codes and the end token
}

TEST(TrainerTest, AStepThatIsNotFiniteEndsTheRun) {
  const World world(RingLog(12, 24, 9), "not_finite", {.t5 = true});
  backend::Context ctx = CpuContext();
  const model::Weights initial = model::InitWeights(ctx, world.features->config(), 77);
  initial.Get("decoder.norm").fill_(NAN);
  TrainInputs inputs = world.inputs();
  inputs.initial = &initial;
  const auto trainer = Trainer::Create(ctx, inputs, QuickOptions());
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  const absl::Status status = (*trainer)->Run("");
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step 1: the loss is nan and the gradient's norm nan; lower"));
}

TEST(TrainerTest, RepeatsFromItsSeed) {
  const World world(RingLog(20, 24, 14), "repeat_run");
  TrainOptions options = QuickOptions();
  const auto first = MakeTrainer(world, options), second = MakeTrainer(world, options);
  ASSERT_TRUE(first->Run("").ok());
  ASSERT_TRUE(second->Run("").ok());
  ExpectSameBits(first->result(), second->result());
  options.seed = 2;
  const auto other = MakeTrainer(world, options);
  ASSERT_TRUE(other->Run("").ok());
  EXPECT_NE(Values(other->result().Get("bos")), Values(first->result().Get("bos")));
}

// Stopped before any step, in the middle of an epoch or at its end, a run resumes to the same bits.
TEST(TrainerTest, ResumedEqualsUninterrupted) {
  const World world(RingLog(20, 24, 14), "resume", {.experts = 4});
  TrainOptions options = QuickOptions();
  options.average_decay = 0.9;
  const auto whole = MakeTrainer(world, options);
  ASSERT_TRUE(whole->Run("").ok());
  ASSERT_EQ(whole->steps_per_epoch(), 3);
  const std::string checkpoint = (TempFolder("resume_out") / "checkpoint.safetensors").string();
  for (const int64_t stop : {0, 1, 3, 4, 8}) {
    std::filesystem::remove(checkpoint);
    const auto stopped = MakeTrainer(world, options);
    stopped->StopBeforeStep(stop);
    EXPECT_EQ(stopped->Run(checkpoint).code(), absl::StatusCode::kCancelled);
    const auto resumed = MakeTrainer(world, options);
    ASSERT_TRUE(resumed->Restore(checkpoint).ok()) << resumed->Restore(checkpoint);
    ASSERT_TRUE(resumed->Run(checkpoint).ok());
    ExpectSameBits(resumed->result(), whole->result());
    ASSERT_EQ(resumed->curve().size(), whole->curve().size());
    for (size_t i = 0; i < whole->curve().size(); ++i) {
      EXPECT_EQ(resumed->curve()[i].loss, whole->curve()[i].loss) << "stopped before step " << stop;
      EXPECT_EQ(resumed->curve()[i].validation->recall_10, whole->curve()[i].validation->recall_10);
    }
  }
}

TEST(TrainerTest, InterruptSavesACheckpoint) {
  const World world(RingLog(20, 24, 14), "interrupt");
  const auto trainer = MakeTrainer(world, QuickOptions());
  const std::filesystem::path folder = TempFolder("interrupt_out");
  const std::string checkpoint = (folder / "checkpoint.safetensors").string();
  SetInterrupted(true);
  const absl::Status status = trainer->Run(checkpoint);
  SetInterrupted(false);
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    EXPECT_EQ(entry.path().filename(), "checkpoint.safetensors");
    ++files;
  }
  EXPECT_EQ(files, 1);
  EXPECT_TRUE(MakeTrainer(world, QuickOptions())->Restore(checkpoint).ok());
}

TEST(TrainerTest, StopsEarlyWithTheBestWeights) {
  const World world(RingLog(24, 24, 14), "early");
  TrainOptions options = QuickOptions();
  options.epochs = 50;
  options.learning_rate = 0;  // nothing gets better
  options.patience = 2;
  const auto trainer = MakeTrainer(world, options);
  const std::vector<float> before = Values(trainer->model().weights().Get("bos"));
  ASSERT_TRUE(trainer->Run("").ok());
  EXPECT_TRUE(trainer->stopped_early());
  EXPECT_EQ(trainer->curve().size(), 3u);  // the first is the best, then two without gain
  EXPECT_TRUE(trainer->curve()[0].best);
  EXPECT_FALSE(trainer->curve()[2].best);
  EXPECT_EQ(Values(trainer->result().Get("bos")), before);
}

TEST(TrainerTest, RefusesTheCheckpointOfAnotherRun) {
  const World world(RingLog(20, 24, 14), "other_run");
  const std::string checkpoint = (TempFolder("other_out") / "checkpoint.safetensors").string();
  TrainOptions options = QuickOptions();
  options.epochs = 1;
  ASSERT_TRUE(MakeTrainer(world, options)->Run(checkpoint).ok());
  options.dropout = 0.5;
  const absl::Status status = MakeTrainer(world, options)->Restore(checkpoint);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("dropout is 0.1, this run has 0.5"));

  const World wider(RingLog(20, 24, 14), "other_model", {.length = 20});
  EXPECT_THAT(std::string(MakeTrainer(wider, options)->Restore(checkpoint).message()), HasSubstr("position"));
}

// Half a run on each of two logs is a model of neither: targets and catalogue are the same here.
TEST(TrainerTest, RefusesTheCheckpointOfAnotherLog) {
  Log log = RingLog(20, 24, 14);
  const World world(log, "one_log");
  const std::string checkpoint = (TempFolder("logs_out") / "checkpoint.safetensors").string();
  TrainOptions options = QuickOptions();
  options.epochs = 1;
  ASSERT_TRUE(MakeTrainer(world, options)->Run(checkpoint).ok());
  log[3][4].labels = "long_view|like";
  const World other(log, "another_log");
  const absl::Status status = MakeTrainer(other, options)->Restore(checkpoint);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the data's events is "));
}

TEST(TrainerTest, RefusesADamagedCheckpoint) {
  const World world(RingLog(20, 24, 14), "damaged");
  const std::string checkpoint = (TempFolder("damaged_out") / "checkpoint.safetensors").string();
  TrainOptions options = QuickOptions();
  options.epochs = 1;
  ASSERT_TRUE(MakeTrainer(world, options)->Run(checkpoint).ok());
  const std::string bytes = ReadFile(checkpoint, 1 << 30).value();
  for (const std::string& damaged : {std::string(), bytes.substr(0, 100), bytes.substr(0, bytes.size() - 1),
                                     std::string(8, '\xff') + bytes.substr(8), bytes + "x"}) {
    std::ofstream(checkpoint, std::ios::binary) << damaged;
    const absl::Status status = MakeTrainer(world, options)->Restore(checkpoint);
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr("checkpoint.safetensors"));
  }
  EXPECT_EQ(MakeTrainer(world, options)->Restore(checkpoint + "x").code(), absl::StatusCode::kNotFound);
}

TEST(TrainerTest, SaysWhichWayACheckpointsFormatIsAnother) {
  const World world(RingLog(20, 24, 14), "formats");
  const std::string checkpoint = (TempFolder("formats_out") / "checkpoint.safetensors").string();
  const std::vector<float> values(1);
  for (const auto& [format, problem] :
       {std::pair("beamline-training-checkpoint-2", "of an earlier version cannot go on: remove it to begin anew"),
        std::pair("beamline-training-checkpoint-4", "by a newer Beamline: upgrade, or give another --out"),
        std::pair("beamline-training-checkpoint-10", "by a newer Beamline: upgrade, or give another --out"),
        std::pair("beamline-training-checkpoint-x", "is no training checkpoint: give another --out"),
        std::pair("pt", "is no training checkpoint: give another --out")}) {
    SafetensorsWriter writer;
    ASSERT_TRUE(writer.Add<float>("weights.a", {1}, values).ok());
    writer.SetMetadata("format", format);
    writer.SetMetadata("state", "{}");
    ASSERT_TRUE(writer.Write(checkpoint).ok());
    const absl::Status status = MakeTrainer(world, QuickOptions())->Restore(checkpoint);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("checkpoint.safetensors: metadata 'format' is '"),
                                                     HasSubstr(format), HasSubstr(problem)));
  }
}

TEST(TrainerTest, RefusesACheckpointWithValuesNoRunReaches) {
  const World world(RingLog(20, 24, 14), "absurd");
  const std::string checkpoint = (TempFolder("absurd_out") / "checkpoint.safetensors").string();
  TrainOptions options = QuickOptions();
  options.epochs = 1;
  ASSERT_TRUE(MakeTrainer(world, options)->Run(checkpoint).ok());
  const SafetensorsFile file = SafetensorsFile::Read(checkpoint).value();
  const std::string state = file.GetMetadata("state").value();
  const struct {
    std::string from, to, mention;
  } edits[] = {
      {R"("batch":0)", R"("batch":9)", "outside"},  // past the epoch's end, where an epoch has fewer steps
      {R"("worse":0)", R"("worse":7)", "outside"},
      {R"(,"epoch":1,)", R"(,"epoch":9,)", "outside"},
      {R"("level_losses":[0.0,)", R"("level_losses":[)", "outside"},
      // What a conversion would make 1, 0 and 0.
      {R"(,"epoch":1,)", R"(,"epoch":4294967297,)", "epoch: must lie in [-2147483648, 2147483647], is 4294967297"},
      {R"("worse":0)", R"("worse":0.9)", "worse: must be an integer, is 0.9"},
      {R"("batch":0)", R"("batch":false)", "batch: must be an integer, is false"},
      {R"("seconds":0.0)", R"("seconds":"0")", "running.seconds: must be a number, is string"},
  };
  int applied = 0;
  for (const auto& [from, to, mention] : edits) {
    std::string edited = state;
    const size_t at = edited.rfind(from);
    if (at == std::string::npos) continue;
    ++applied;
    edited.replace(at, from.size(), to);
    SafetensorsWriter writer;
    for (const auto& [name, tensor] : file.tensors()) {
      ASSERT_TRUE(writer.Add(name, tensor.dtype, tensor.shape, tensor.bytes).ok());
    }
    for (const auto& [key, value] : file.metadata()) writer.SetMetadata(key, value);
    writer.SetMetadata("state", edited);
    ASSERT_TRUE(writer.Write(checkpoint).ok());
    const absl::Status status = MakeTrainer(world, options)->Restore(checkpoint);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << from << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(mention)) << from;
  }
  EXPECT_GE(applied, 6) << "the checkpoint's spelling changed: bring the edits up to date";
}

TEST(TrainerTest, RefusesOptionsAndModelsItCannotTrain) {
  const World world(RingLog(4, 24, 8), "refuse");
  TrainOptions options = QuickOptions();
  options.epochs = 0;
  EXPECT_THAT(std::string(Trainer::Create(CpuContext(), world.inputs(), options).status().message()),
              HasSubstr("epochs is 0"));
  model::ModelConfig config = world.features->config();
  config.positive.features.push_back({.kind = model::FeatureKind::kAge, .buckets = 8});
  const runtime::FeatureBuilder aged(config, world.vocabulary);
  TrainInputs inputs = world.inputs();
  inputs.features = &aged;
  EXPECT_THAT(std::string(Trainer::Create(CpuContext(), inputs, QuickOptions()).status().message()),
              HasSubstr("'age'"));
  config = world.features->config();
  config.level_sizes = {8, 8, 8};
  const runtime::FeatureBuilder other(config, world.vocabulary);
  inputs.features = &other;
  EXPECT_THAT(std::string(Trainer::Create(CpuContext(), inputs, QuickOptions()).status().message()),
              HasSubstr("different tokenizers"));
}

}  // namespace
}  // namespace beamline::train
