// SPDX-License-Identifier: Apache-2.0
//
// `beamline train` from files to files: what a run goes on from, what it replaces, and what it leaves beside the
// weights.
#include "train/training_run.h"

#include <filesystem>
#include <fstream>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/folder_lock.h"
#include "runtime/training_record.h"
#include "sid/codebook.h"
#include "sid/sid_index.h"
#include "train/train_test_util.h"

namespace beamline::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int kRingItems = 24;
constexpr double kAtOnce = 1e-9;  // minutes

class TrainingRunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = TempFolder("training_run");
    MakeLog("data", RingLog(12, kRingItems, 9));
    MakeTokenizer("tokenizer", 0);
  }
  void TearDown() override { fs::remove_all(root_); }

  static void MakeLog(const std::string& name, const Log& log) { MakeDataset(log, "training_run/" + name); }
  // Of items from `first` on.
  void MakeTokenizer(const std::string& name, ItemId first) {
    const auto codebook = sid::Codebook::Foreign("tests", {4, 4, 4}, std::string(64, 'b')).value();
    fs::create_directories(Path(name));
    ASSERT_TRUE(codebook.Save(Path(name + "/codebook.safetensors")).ok());
    sid::SidTable table{.level_sizes = {4, 4, 4}, .codebook_fingerprint = codebook.fingerprint()};
    for (ItemId item = 0; item < kRingItems; ++item) {
      table.items.push_back(first + item);
      table.sids.push_back(SidOf(item));
    }
    ASSERT_TRUE(sid::WriteSidTsv(Path(name + "/sids.tsv"), table).ok());
  }
  TrainingRun Run(const std::string& out, bool t5 = false) {
    runtime::Vocabulary ids(std::vector<ItemId>(kRingItems), {});
    model::ModelConfig config = SmallConfig(ids, {.t5 = t5});
    if (!t5) config.positive.features[1].buckets = 64;
    EXPECT_TRUE(model::SaveConfig(config, Path("config.json")).ok());
    TrainingRun run;
    run.source = {Path("data"), Path("tokenizer")};
    run.out = Path(out);
    run.config = Path("config.json");
    run.options = QuickOptions();
    run.options.epochs = 2;
    run.options.validation_users = 0;
    run.device.threads = 1;
    return run;
  }
  TrainingRun From(const std::string& model, TrainingRun run) {
    run.config.clear();
    run.from = Path(model);
    return run;
  }
  void Train(const TrainingRun& run) {
    const absl::Status status = RunTraining(run, {});
    ASSERT_TRUE(status.ok()) << status;
  }
  // Before its first step.
  void BreakOff(TrainingRun run) {
    run.max_minutes = kAtOnce;
    ASSERT_EQ(RunTraining(run, {}).code(), absl::StatusCode::kCancelled);
    ASSERT_TRUE(fs::exists(run.out + "/checkpoint.safetensors"));
  }
  void ExpectRefused(const TrainingRun& run, absl::StatusCode code, const std::string& why) {
    const absl::Status status = RunTraining(run, {});
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
  }
  std::string Path(const std::string& name) { return (root_ / name).string(); }
  std::string Read(const std::string& name) { return ReadFile(Path(name), 1 << 24).value(); }

  fs::path root_;
};

TEST_F(TrainingRunTest, GoesOnWithTheWeightsItBeganWithAlone) {
  Train(Run("first"));
  TrainingRun other = Run("other");
  other.options.seed = 5;
  Train(other);
  BreakOff(From("first", Run("out")));
  ExpectRefused(From("other", Run("out")), absl::StatusCode::kFailedPrecondition, "weights to begin with (--from)");
  ExpectRefused(Run("out"), absl::StatusCode::kFailedPrecondition, "weights to begin with (--from)");
  Train(From("first", Run("out")));

  BreakOff(Run("new"));
  ExpectRefused(From("first", Run("new")), absl::StatusCode::kFailedPrecondition, "weights to begin with (--from)");
}

TEST_F(TrainingRunTest, GoesOnWithTheIdsItBeganWithAlone) {
  Train(Run("first"));
  BreakOff(From("first", Run("out")));
  // The same weights under other ids.
  runtime::Vocabulary moved({50, 51, 52}, {});
  fs::copy(Path("first"), Path("moved"));
  ASSERT_TRUE(moved.Save(Path("moved/vocabulary.safetensors")).ok());
  ExpectRefused(From("moved", Run("out")), absl::StatusCode::kDataLoss, "moved/vocabulary.safetensors");
  fs::remove(Path("moved/training.json"));
  ExpectRefused(From("moved", Run("out")), absl::StatusCode::kFailedPrecondition, "the data's vocabulary is");
}

TEST_F(TrainingRunTest, AModelThatReplacesItselfGoesOnFromWhatWasSetAside) {
  // Ended before its first step; then before some of its files were written, and before its checkpoint was.
  const std::vector<std::string> lost[] = {{},
                                           {"vocabulary.safetensors"},
                                           {"vocabulary.safetensors", "config.json"},
                                           {"vocabulary.safetensors", "config.json", "checkpoint.safetensors"}};
  for (const auto& files : lost) {
    for (const bool fresh : {false, true}) {
      fs::remove_all(Path("model"));
      Train(Run("model"));
      TrainingRun again = From("model", Run("model"));
      again.fresh = true;
      BreakOff(again);
      for (const std::string& file : files) ASSERT_TRUE(fs::remove(Path("model/" + file)));
      again.fresh = fresh;
      Train(again);
      EXPECT_FALSE(fs::exists(Path("model/replaced")));
    }
  }
}

// A run without --from set the model aside and was broken off: its files are not that model's.
TEST_F(TrainingRunTest, WhatIsTakenOfAModelIsOfOneModel) {
  MakeLog("newer", RingLog(20, kRingItems + 6, 7));
  Train(Run("model"));
  const std::string ids = runtime::Vocabulary::Load(Path("model/vocabulary.safetensors"))->Fingerprint();
  TrainingRun other = Run("model");
  other.source.data = Path("newer");
  other.fresh = true;
  BreakOff(other);
  ASSERT_NE(runtime::Vocabulary::Load(Path("model/vocabulary.safetensors"))->Fingerprint(), ids);
  TrainingRun again = From("model", Run("model"));
  again.fresh = true;
  Train(again);
  EXPECT_EQ(runtime::Vocabulary::Load(Path("model/vocabulary.safetensors"))->Fingerprint(), ids);
}

TEST_F(TrainingRunTest, WhatAFreshRunForgetsIsForgottenWhole) {
  TrainingRun run = Run("out");
  run.options.epochs = 50;
  BreakOff(run);
  std::ofstream(Path("out/notes.txt")) << "mine";
  ASSERT_TRUE(SetModelAside(ModelFolder(Path("out"))).ok());
  EXPECT_EQ(std::distance(fs::directory_iterator(Path("out")), fs::directory_iterator()), 1) << "the notes";
  Train(Run("out"));
}

TEST_F(TrainingRunTest, AConfigurationMayLieWhereTheModelGoes) {
  TrainingRun run = Run("out");
  fs::create_directories(run.out);
  fs::copy(Path("config.json"), Path("out/config.json"));
  run.config = Path("out/config.json");
  BreakOff(run);
  ASSERT_TRUE(SetModelAside(ModelFolder(run.out), run.config).ok());
  EXPECT_TRUE(fs::exists(run.config));
  EXPECT_FALSE(fs::exists(Path("out/vocabulary.safetensors")));
  Train(run);
  run.fresh = true;
  Train(run);
}

TEST_F(TrainingRunTest, TheRecordCoversTheVocabulary) {
  Train(Run("model"));
  ASSERT_TRUE(runtime::ReadTrainingRecord(Path("model")).ok());
  ASSERT_TRUE(runtime::Vocabulary({1, 2}, {}).Save(Path("model/vocabulary.safetensors")).ok());
  backend::Context ctx = CpuContext();
  EXPECT_EQ(runtime::ReadTrainingRecord(Path("model")).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(LoadModelFolder(ctx, Path("model")).ok());
}

TEST_F(TrainingRunTest, ATokenizerOfOtherItemsIsRefused) {
  MakeTokenizer("foreign", 5000);
  TrainingRun run = Run("out");
  run.source.tokenizer = Path("foreign");
  ExpectRefused(run, absl::StatusCode::kInvalidArgument, "none is of an item with a semantic ID");
  EXPECT_FALSE(fs::exists(run.out));
  MakeTokenizer("foreign", kRingItems - 1);  // one item
  Train(run);
}

TEST_F(TrainingRunTest, NothingIsReplacedUnasked) {
  for (const char* name : {"config.json", "vocabulary.safetensors", "training.json", "model.safetensors"}) {
    fs::remove_all(Path("mine"));
    fs::create_directories(Path("mine"));
    std::ofstream(Path("mine") + "/" + name) << "mine";
    TrainingRun run = Run("mine");
    ExpectRefused(run, absl::StatusCode::kAlreadyExists, name);
    EXPECT_EQ(Read(std::string("mine/") + name), "mine");
    run.fresh = true;
    Train(run);
    EXPECT_NE(Read(std::string("mine/") + name), "mine");
  }
}

TEST_F(TrainingRunTest, OneRunAtATimeWritesIntoAFolder) {
  fs::create_directories(Path("out"));
  {
    const auto other = FolderLock::Take(Path("out"));
    ASSERT_TRUE(other.ok()) << other.status();
    ExpectRefused(Run("out"), absl::StatusCode::kAborted, "out: another process is writing into it");
    EXPECT_TRUE(fs::is_empty(Path("out")));
  }
  Train(Run("out"));
}

// Item i was a target of training as often as `of` says; what no log has was none.
void ExpectPopularity(const std::string& folder, const std::map<ItemId, uint32_t>& of) {
  const auto vocabulary = runtime::Vocabulary::Load(folder + "/vocabulary.safetensors");
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  for (ItemId item = 0; item < 2 * kRingItems; ++item) {
    EXPECT_EQ(vocabulary->Popularity(item), of.contains(item) ? of.at(item) : 0) << folder << " item " << item;
  }
}

TEST_F(TrainingRunTest, PopularityIsCountedInTheLogOfTheRun) {
  const auto counts = [&](const std::string& log) {
    const auto dataset = data::Dataset::Load({Path(log + "/events.tsv"), {}, {}});
    EXPECT_TRUE(dataset.ok());
    const auto corpus = Corpus::Create(std::make_shared<const data::Dataset>(*dataset));
    const std::vector<uint32_t> popularity = corpus->TrainingPopularity();
    std::map<ItemId, uint32_t> by_id;
    for (size_t i = 0; i < popularity.size(); ++i) by_id[dataset->item_id(i)] = popularity[i];
    return by_id;
  };
  MakeLog("newer", RingLog(20, kRingItems + 6, 7));  // has items that the first log has not
  ASSERT_NE(counts("data"), counts("newer"));
  Train(Run("first"));
  ExpectPopularity(Path("first"), counts("data"));
  TrainingRun newer = From("first", Run("second"));
  newer.source.data = Path("newer");
  Train(newer);
  ExpectPopularity(Path("second"), counts("newer"));
  EXPECT_EQ(runtime::Vocabulary::Load(Path("second/vocabulary.safetensors"))->Fingerprint(),
            runtime::Vocabulary::Load(Path("first/vocabulary.safetensors"))->Fingerprint());
  Train(Run("t5", /*t5=*/true));
  ExpectPopularity(Path("t5"), counts("data"));
  EXPECT_FALSE(runtime::Vocabulary::Load(Path("t5/vocabulary.safetensors"))->tokens().empty());
}

// What was split by time is trained, gone on with and measured as it was split, and as nothing else.
TEST_F(TrainingRunTest, ASplitByTimeGoesFromTrainingToEvaluation) {
  Log log = RingLog(12, kRingItems, 9);
  for (size_t user = 0; user < log.size(); ++user) {
    for (size_t i = 0; i < log[user].size(); ++i) log[user][i].minute = static_cast<int>(20 * i + user);
  }
  MakeLog("data", log);
  const auto at = [](int validation, int test) {
    return TimeSplit{kLogStart + validation * kMinute, kLogStart + test * kMinute};
  };
  TrainingRun run = Run("out");
  run.corpus.time_split = at(120, 140);
  BreakOff(run);
  TrainingRun other = run;
  other.corpus.time_split = at(120, 160);
  ExpectRefused(other, absl::StatusCode::kFailedPrecondition, "split_at");
  other.corpus.time_split = std::nullopt;
  ExpectRefused(other, absl::StatusCode::kFailedPrecondition,
                "split_at is \"2022-04-15T07:20:00Z,2022-04-15T07:40:00Z\"");
  Train(run);

  EvaluationRun evaluation;
  evaluation.source = run.source;
  evaluation.model = run.out;
  evaluation.options.beam = 16;
  evaluation.options.bootstrap.resamples = 10;
  evaluation.device.threads = 1;
  const auto report = RunEvaluation(evaluation);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->users, 12);
  EXPECT_THAT(report->targets, HasSubstr(", split at 2022-04-15T07:20:00Z,2022-04-15T07:40:00Z"));
  evaluation.targets.time_split = at(120, 160);
  EXPECT_THAT(std::string(RunEvaluation(evaluation).status().message()),
              HasSubstr("is not what the model was trained with"));
  // Of one that says nothing the split is whatever is given.
  fs::remove(Path("out/training.json"));
  const auto given = RunEvaluation(evaluation);
  ASSERT_TRUE(given.ok()) << given.status();
  EXPECT_THAT(given->targets, HasSubstr("08:00:00Z"));
  evaluation.targets.time_split = at(10, 2000);
  EXPECT_THAT(std::string(RunEvaluation(evaluation).status().message()),
              HasSubstr("nothing to evaluate: no user has a target at or after 2022-04-16T14:40:00Z"));
}

}  // namespace
}  // namespace beamline::train
