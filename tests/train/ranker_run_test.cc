// SPDX-License-Identifier: Apache-2.0
//
// `beamline train-ranker` from files to files: the folder it writes packs, serves and evaluates, the model's own
// weights are what they were, and what it refuses leaves nothing behind.
#include "train/ranker_run.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/folder_lock.h"
#include "base/interrupt.h"
#include "catalogue/eligibility.h"
#include "catalogue/rule_cache.h"
#include "runtime/bundle_folder.h"
#include "runtime/gate_report.h"
#include "runtime/pack.h"
#include "runtime/request_job.h"
#include "runtime/runner.h"
#include "runtime/training_record.h"
#include "sid/codebook.h"
#include "sid/sid_index.h"
#include "train/ranker_test_util.h"

namespace beamline::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int kLoggedItems = 40;

class RankerRunTest : public ::testing::Test {
 protected:
  // A log with its tokenizer, and a model trained on it for an epoch.
  static void SetUpTestSuite() {
    root = TempFolder("ranker_run");
    MakeDataset(TasteLog(40, kLoggedItems, 16),
                "ranker_run/data");  // leaves the folder "beamline_train_ranker_run/data"
    const auto codebook = sid::Codebook::Foreign("tests", {4, 4, 4}, std::string(64, 'b')).value();
    fs::create_directories(root / "tokenizer");
    ASSERT_TRUE(codebook.Save((root / "tokenizer/codebook.safetensors").string()).ok());
    sid::SidTable table{.level_sizes = {4, 4, 4}, .codebook_fingerprint = codebook.fingerprint()};
    for (int item = 0; item < kLoggedItems; ++item) {
      table.items.push_back(item);
      table.sids.push_back(SidOf(item));
    }
    ASSERT_TRUE(sid::WriteSidTsv((root / "tokenizer/sids.tsv").string(), table).ok());
    Train("model", false);
  }
  static void Train(const std::string& name, bool t5) {
    model::ModelConfig config = SmallT5Config();
    if (!t5) {
      config = SmallConfig(runtime::Vocabulary());
      config.positive.features = {{.kind = model::FeatureKind::kSid, .shared = true}};
    }
    ASSERT_TRUE(model::SaveConfig(config, (root / "config.json").string()).ok());
    TrainingRun run;
    run.source = Source();
    run.out = Path(name);
    run.config = Path("config.json");
    run.options = QuickOptions();
    run.options.epochs = 1;
    run.options.validation_users = 0;
    run.device.threads = 1;
    const absl::Status trained = RunTraining(run, {});
    ASSERT_TRUE(trained.ok()) << trained;
  }

  static std::string Path(const std::string& name) { return (root / name).string(); }
  static DataSource Source() { return {Path("data"), Path("tokenizer")}; }
  static RankerRun Run(const std::string& out) {
    RankerRun run;
    run.source = Source();
    run.model = Path("model");
    run.out = Path(out);
    run.ranker = {.width = 16, .heads = {{kLongView, 1}, {kClick, -1}}};
    run.options = QuickRankerOptions();
    run.device.threads = 1;
    return run;
  }
  static void Refused(const RankerRun& run, const std::string& why) {
    const bool was_there = fs::exists(run.out);
    bool trained = false;
    const absl::Status status =
        RunRankerTraining(run, {.on_epoch = [&](const RankerEpoch&) { trained = true; }}).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
    EXPECT_FALSE(trained) << why << ", and that an epoch later";
    EXPECT_EQ(fs::exists(run.out), was_there) << why;
  }

  inline static fs::path root;
};

TEST_F(RankerRunTest, KeepsTheModelsWeightsAndRepeats) {
  RankerSummary summary;
  int epochs = 0;
  const auto report = RunRankerTraining(
      Run("kept"), {[&](const RankerSummary& one) { summary = one; }, [&](const RankerEpoch&) { ++epochs; }});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(epochs, 2);
  EXPECT_EQ(summary.parameters, 16 * 16 + 16 + 4 * 16 + 2 * 16 + 2);
  EXPECT_TRUE(summary.warnings.empty());

  backend::Context ctx = CpuContext();
  const auto before = LoadModelFolder(ctx, Path("model")), after = LoadModelFolder(ctx, Path("kept"));
  ASSERT_TRUE(before.ok() && after.ok()) << after.status();
  for (const auto& [name, tensor] : before->model->weights().tensors()) {
    EXPECT_EQ(Values(after->model->weights().Get(name)), Values(tensor)) << name;
  }
  EXPECT_EQ(after->model->weights().tensors().size(), before->model->weights().tensors().size() + 5);
  EXPECT_EQ(after->model->config().ranker.width, 16);
  EXPECT_EQ(after->model->config().ranker.heads[1].weight, -1);
  EXPECT_EQ(ReadFile(Path("kept/vocabulary.safetensors"), 1 << 20).value(),
            ReadFile(Path("model/vocabulary.safetensors"), 1 << 20).value());
  const nlohmann::json& record = after->training->at("ranker");
  EXPECT_EQ(record.at("options").at("epochs"), 2);
  EXPECT_EQ(record.at("curve").size(), 2u);
  EXPECT_EQ(record.at("held_out").at("heads").at(0).at("label"), "long_view");
  EXPECT_EQ(record.at("held_out").at("heads").at(0).at("auc"), *report->heads[0].auc);
  EXPECT_EQ(after->training->at("curve"), before->training->at("curve"));

  ASSERT_TRUE(RunRankerTraining(Run("again"), {}).ok());
  EXPECT_EQ(ReadFile(Path("again/model.safetensors"), 1 << 20).value(),
            ReadFile(Path("kept/model.safetensors"), 1 << 20).value());
}

TEST_F(RankerRunTest, ThePackedBundleServesValues) {
  ASSERT_TRUE(RunRankerTraining(Run("served"), {}).ok());
  runtime::PackOptions pack;
  pack.model = Path("served");
  pack.catalogue.tokenizer = Path("tokenizer");
  pack.out = Path("bundle");
  const auto packed = runtime::Pack(pack);
  ASSERT_TRUE(packed.ok()) << packed.status();
  runtime::RunnerOptions options;
  options.bundle = Path("bundle");
  options.threads = 1;
  const auto runner = runtime::LoadRunner(options);
  ASSERT_TRUE(runner.ok()) << runner.status();
  runtime::RequestJob job;
  const std::vector<Event> history = {{.item = 2, .timestamp_ms = 1'650'000'000'000, .labels = kLongView}};
  job.snapshot = (*runner)->catalogue();
  job.input = (*runner)->BuildInput({.history = history}, *job.snapshot);
  job.beam_widths = {8, 8, 8};
  catalogue::RuleCache rules(job.snapshot, 1);
  job.eligibility = catalogue::CompileEligibility(rules, {}, {}).value();
  job.SetCosts();
  scheduler::Job* const jobs[] = {&job};
  ASSERT_TRUE((*runner)->Encode(jobs)[0].ok());
  ASSERT_TRUE((*runner)->Decode(jobs, [](const scheduler::Job&) { return absl::OkStatus(); })[0].ok());
  EXPECT_TRUE(job.ranked);
  ASSERT_EQ(job.hypotheses.size(), 8u);
  for (size_t i = 1; i < 8; ++i) EXPECT_NE(job.hypotheses[i].value, job.hypotheses[0].value);
}

TEST_F(RankerRunTest, EvaluatesByValueBesideTheBeamsOrder) {
  ASSERT_TRUE(RunRankerTraining(Run("evaluated"), {}).ok());
  EvaluationRun run;
  run.source = Source();
  run.model = Path("model");
  run.options.beam = 16;
  run.options.by_value = true;
  run.options.bootstrap.resamples = 20;
  run.device.threads = 1;
  EXPECT_THAT(std::string(RunEvaluation(run).status().message()), HasSubstr("model: the model has no ranker"));
  run.model = Path("evaluated");
  const auto by_value = RunEvaluation(run);
  run.options.by_value = false;
  const auto by_beam = RunEvaluation(run);
  ASSERT_TRUE(by_value.ok() && by_beam.ok()) << by_value.status();
  const std::vector<SystemScores>& systems = by_value->rankings[0].systems;
  ASSERT_EQ(systems.size(), 5u);
  EXPECT_EQ(systems[1].name, "beam order");
  EXPECT_EQ(systems[1].intervals.ndcg_10.mean, by_beam->rankings[0].systems[0].intervals.ndcg_10.mean);
  EXPECT_NE(systems[0].intervals.ndcg_10.mean, systems[1].intervals.ndcg_10.mean);
  const auto again = EvaluationFromJson(EvaluationToJson(*by_value), "evaluation.json");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(EvaluationTable(*again), HasSubstr("ordered by the ranker's value"));
}

// What is served by value is gated by value.
TEST_F(RankerRunTest, ThePrecisionGateRanksAsItIsServed) {
  RankerRun ranked = Run("gated");
  ranked.ranker.score_weight = 0;
  ASSERT_TRUE(RunRankerTraining(ranked, {}).ok());
  EvaluationRun run;
  run.source = Source();
  run.model = Path("gated");
  run.options.beam = runtime::kGateList;
  run.options.bootstrap.resamples = 1000;
  run.device = {.threads = 1, .backend = "cpu"};
  const auto gate = RunPrecisionGate(run, {.dtype = "int8"});
  ASSERT_TRUE(gate.ok()) << gate.status();
  const auto by_beam = RunEvaluation(run);
  run.options.by_value = true;
  const auto by_value = RunEvaluation(run);
  ASSERT_TRUE(by_value.ok() && by_beam.ok()) << by_value.status() << by_beam.status();
  const auto recall = [](const EvaluationReport& report) {
    return report.rankings[0].systems[0].intervals.recall_10.mean;
  };
  EXPECT_NEAR(gate->fp32_recall_10, recall(*by_value), 1e-9);
  EXPECT_GT(std::abs(gate->fp32_recall_10 - recall(*by_beam)), 0.01) << "the orders would not be told apart";
  EXPECT_EQ(gate->config_sha256, runtime::DescribeFile(Path("gated/config.json"))->sha256);

  // Both splits: the cases of each, once.
  run.options.held_out = data::HeldOut::kValidation;
  const auto validation = RunEvaluation(run);
  const auto both = RunPrecisionGate(run, {.dtype = "int8", .both_splits = true});
  ASSERT_TRUE(validation.ok() && both.ok()) << validation.status() << both.status();
  EXPECT_EQ(both->requests, gate->requests + validation->users);
  EXPECT_EQ(both->split, "both");
  EXPECT_NEAR(both->fp32_recall_10, (recall(*by_value) + recall(*validation)) / 2, 1e-9);
  EXPECT_NE(recall(*by_value), recall(*validation)) << "one would pass for the other";
}

// Other weights under an old ranker, or random ones in it, would order what is served.
TEST_F(RankerRunTest, NoModelIsTrainedWithARankerInIt) {
  ASSERT_TRUE(RunRankerTraining(Run("with_ranker"), {}).ok());
  TrainingRun run;
  run.source = Source();
  run.out = Path("trained_on");
  run.options = QuickOptions();
  run.device.threads = 1;
  run.from = Path("with_ranker");
  EXPECT_THAT(std::string(RunTraining(run, {}).message()), HasSubstr("with_ranker/config.json: has a ranker"));
  run.from.clear();
  run.config = Path("with_ranker/config.json");
  EXPECT_THAT(std::string(RunTraining(run, {}).message()), HasSubstr("with_ranker/config.json: has a ranker"));
}

TEST_F(RankerRunTest, RefusesAndLeavesNothing) {
  RankerRun run = Run("refused");
  run.ranker.heads = {{kLike, 1}, {kHate, -2}};
  Refused(run, "'hate' is the label of 0 of ");
  run.ranker.heads = {{kLike, 1}, {kLike, 2}};
  Refused(run, "has a head already");
  run = Run("refused");
  run.ranker.width = 12;
  Refused(run, "multiple of 8");
  run = Run("refused");
  run.options.learning_rate = 11;
  Refused(run, "ranker option learning_rate is 11");
  run = Run("refused");
  run.source.tokenizer = Path("model");
  Refused(run, "codebook");
  Train("t5", true);
  run = Run("refused");
  run.model = Path("t5");
  Refused(run, "family t5 has no ranker");
  run = Run("refused");
  SetInterrupted(true);
  Refused(run, "interrupted");
  SetInterrupted(false);
  Refused(Run("model"), "is the model's own folder");
  std::ofstream(Path("a_file")) << "in the way";
  Refused(Run("a_file/refused"), "a_file");
  fs::create_directories(Path("unfinished"));
  std::ofstream(Path("unfinished/checkpoint.safetensors")) << "a run";
  Refused(Run("unfinished"), "that is not over");
}

// A folder that was there stays, by whatever name and whoever is writing into it.
TEST_F(RankerRunTest, AFolderThatWasThereIsNotRemoved) {
  fs::create_directories(Path("made"));
  {
    const auto other = FolderLock::Take(Path("made"));
    Refused(Run("made"), "another process is writing into it");
  }
  const auto interrupt = [](const RankerSummary&) { SetInterrupted(true); };
  for (const char* out : {"made", "unmade"}) {
    EXPECT_TRUE(absl::IsCancelled(RunRankerTraining(Run(out), {interrupt, {}}).status()));
    SetInterrupted(false);
  }
  EXPECT_TRUE(fs::exists(Path("made")));
  EXPECT_FALSE(fs::exists(Path("unmade")));
  fs::create_directory_symlink(Path("made"), Path("link"));
  ASSERT_TRUE(RunRankerTraining(Run("link"), {}).ok());
  EXPECT_TRUE(fs::is_symlink(Path("link")));
  EXPECT_TRUE(fs::exists(Path("made/model.safetensors")));
}

TEST_F(RankerRunTest, ARankerOrAModelIsReplacedOnlyWhereAsked) {
  ASSERT_TRUE(RunRankerTraining(Run("first"), {}).ok());
  Refused(Run("first"), "pass --fresh");
  RankerRun run = Run("second");
  run.model = Path("first");
  Refused(run, "has a ranker already; pass --retrain");
  run.retrain = true;
  run.ranker.width = 8;
  ASSERT_TRUE(RunRankerTraining(run, {}).ok());
  EXPECT_EQ(model::LoadConfig(Path("second/config.json"))->ranker.width, 8);
  run.fresh = true;
  run.ranker.width = 24;
  std::ofstream(Path("second/checkpoint.safetensors")) << "a run";
  const auto replaced = RunRankerTraining(run, {});
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  backend::Context ctx = CpuContext();
  EXPECT_EQ(LoadModelFolder(ctx, Path("second"))->model->config().ranker.width, 24);
  EXPECT_FALSE(fs::exists(Path("second/checkpoint.safetensors"))) << "of the model that is no more";
  EXPECT_FALSE(fs::exists(Path("second/replaced")));
  fs::create_directories(Path("third"));
  fs::copy(Path("first"), Path("third/replaced"), fs::copy_options::recursive);
  RankerRun own = Run("third");
  own.model = Path("third/replaced");
  own.retrain = true;
  Refused(own, "is where --out keeps the model it replaces");
}

}  // namespace
}  // namespace beamline::train
