// SPDX-License-Identifier: Apache-2.0
//
// Training of family t5 against a PyTorch script that trains transformers' own model by the same recipe
// (tests/golden/t5_training.py): the same examples; from the same initial weights and batches the same loss at every
// step; then the same loss and ranks of validation items. The small set is in the repository;
// BEAMLINE_TRAINING_PARITY_DIR names the folder of another one, such as Amazon Beauty's.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include "absl/strings/numbers.h"
#include "base/safetensors.h"
#include "data/import.h"
#include "data/ranking_metrics.h"
#include "runtime/import_hf.h"
#include "sid/codebook.h"
#include "testing/paths.h"
#include "train/item_ranker.h"
#include "train/loss.h"
#include "train/model_folder.h"
#include "train/train_presets.h"
#include "train/train_test_util.h"

namespace beamline::train {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 1e-3;

// One folder that the script wrote, and all that a trainer needs to do the same.
class Golden {
 public:
  explicit Golden(const fs::path& folder)
      : file_(SafetensorsFile::Read((folder / "golden.safetensors").string()).value()) {
    const fs::path temp = TempFolder("t5_training");
    runtime::ImportHfOptions hf;
    hf.folder = folder / "hf";
    hf.sid_index = (folder / "index.json").string();
    hf.index.id_offset = 1;
    hf.index.level_sizes = sid::ParseLevelSizes(file_.GetMetadata("levels").value()).value();
    hf.max_items = static_cast<int>(Number("max_items"));
    hf.score_end = true;
    hf.out = temp / "bundle";
    hf.model_out = temp / "parts";
    const auto imported = runtime::ImportHf(hf);
    EXPECT_TRUE(imported.ok()) << imported.status();
    data::ImportOptions import;
    import.out = temp / "data";
    import.gzip = false;
    const auto log = data::ImportSequences(folder / "log.txt", kLongView, import);
    EXPECT_TRUE(log.ok()) << log.status();

    const ModelFolder parts((temp / "parts").string());
    corpus_.emplace(
        Corpus::Create(
            std::make_shared<const data::Dataset>(
                data::Dataset::Load({temp / "data/events.tsv", {}, {}}, {.keep_unused_items = true}).value()))
            .value());
    snapshot_ = LoadTrainingCatalogue(parts.path, *corpus_).value().snapshot;
    vocabulary_ = std::make_shared<const runtime::Vocabulary>(runtime::Vocabulary::Load(parts.vocabulary()).value());
    features_ = std::make_unique<runtime::FeatureBuilder>(model::LoadConfig(parts.config()).value(), vocabulary_);
    ctx_ = CpuContext();
    initial_ = model::LoadWeights(ctx_, config(), parts.weights()).value();
    for (size_t row = 0; row < vocabulary_->tokens().size(); ++row) {
      const int64_t token = vocabulary_->tokens()[row];
      if (token < 0) continue;
      rows_.resize(std::max<size_t>(rows_.size(), token + 1), -1);
      rows_[token] = static_cast<int32_t>(row);
    }
  }

  double Number(const std::string& key) const {
    double value = 0;
    EXPECT_TRUE(absl::SimpleAtod(file_.GetMetadata(key).value(), &value)) << key;
    return value;
  }
  // Rows of a matrix of token ids, without padding.
  std::vector<std::vector<int32_t>> Tokens(const std::string& name) const {
    const TensorView view = file_.Get(name).value();
    const absl::Span<const int32_t> values = view.as<int32_t>();
    std::vector<std::vector<int32_t>> rows(view.shape[0]);
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i] != 0) rows[i / view.shape[1]].push_back(values[i]);
    }
    return rows;
  }
  template <typename T>
  std::vector<T> Vector(const std::string& name) const {
    const TensorView view = file_.Get(name).value();
    const absl::Span<const T> values = view.as<T>();
    return {values.begin(), values.end()};
  }

  TrainOptions Options() const {
    TrainOptions options = PresetTrainOptions("t5-d128");
    options.epochs = static_cast<int>(Number("epochs"));
    options.batch_windows = static_cast<int>(Number("batch"));
    options.learning_rate = Number("learning_rate");
    options.dropout = 0;
    options.validation_users = 0;
    return options;
  }
  TrainInputs Inputs() const { return {&*corpus_, features_.get(), snapshot_, &initial_}; }

  const model::ModelConfig& config() const { return features_->config(); }
  const Corpus& corpus() const { return *corpus_; }
  const runtime::FeatureBuilder& features() const { return *features_; }
  const runtime::Vocabulary& vocabulary() const { return *vocabulary_; }
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot() const { return snapshot_; }
  backend::Context ctx() const { return ctx_; }

  // The batch as Beamline's trainer takes it, of examples [begin, end).
  ExampleBatch Batch(const std::vector<std::vector<int32_t>>& inputs, const std::vector<std::vector<int32_t>>& labels,
                     size_t begin, size_t end) const {
    size_t longest = 1;
    for (size_t i = begin; i < end; ++i) longest = std::max(longest, inputs[i].size());
    ExampleBatch batch;
    batch.encoder = model::MakeEncoderInput(config(), static_cast<int>(end - begin), static_cast<int>(longest), 0);
    batch.teacher = {.batch = static_cast<int>(end - begin), .targets = 1};
    batch.targets = static_cast<int64_t>(end - begin);
    for (size_t i = begin; i < end; ++i) {
      for (size_t t = 0; t < inputs[i].size(); ++t) {
        const size_t at = (i - begin) * longest + t;
        batch.encoder.pathways[model::kShortTerm].features[at] = rows_.at(inputs[i][t]);
        batch.encoder.order[at] = static_cast<int32_t>(t);
      }
      batch.teacher.order_limit.push_back(backend::kSeesAllOrders);
      for (int step = 0; step < config().steps(); ++step) {
        const int32_t row = rows_.at(labels[i][step]);
        batch.labels.push_back(row);
        if (step < config().levels()) batch.teacher.codes.push_back(row - config().first_code(step));
      }
    }
    return batch;
  }

 private:
  SafetensorsFile file_;
  std::optional<Corpus> corpus_;
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot_;
  std::shared_ptr<const runtime::Vocabulary> vocabulary_;
  std::unique_ptr<runtime::FeatureBuilder> features_;
  backend::Context ctx_;
  model::Weights initial_;
  std::vector<int32_t> rows_;  // by token id
};

std::vector<fs::path> Folders() {
  std::vector<fs::path> folders = {fs::path(BEAMLINE_SOURCE_DIR) / "tests/golden/t5_training"};
  if (const char* other = std::getenv("BEAMLINE_TRAINING_PARITY_DIR"); other != nullptr) folders.emplace_back(other);
  return folders;
}

class T5TrainingTest : public testing::Test {
 protected:
  static std::unique_ptr<Golden> Load(const fs::path& folder) { return std::make_unique<Golden>(folder); }
};

// An epoch holds each example of the recipe once: tokens of the history, tokens of the target, the end token behind
// both.
TEST_F(T5TrainingTest, ExamplesAreThoseOfTheRecipe) {
  for (const fs::path& folder : Folders()) {
    SCOPED_TRACE(folder);
    const auto golden = Load(folder);
    std::vector<std::vector<int32_t>> expected = golden->Tokens("example_inputs"), actual;
    const std::vector<std::vector<int32_t>> labels = golden->Tokens("example_labels");
    for (size_t i = 0; i < expected.size(); ++i) {
      expected[i].insert(expected[i].end(), labels[i].begin(), labels[i].end());
    }
    const ExampleBuilder examples(golden->corpus(), golden->features(), *golden->snapshot(), golden->Options());
    const absl::Span<const int64_t> tokens = golden->vocabulary().tokens();
    const int steps = golden->config().steps();
    for (const auto& windows : examples.Plan(0)) {
      const ExampleBatch batch = examples.Build(windows, 1);
      ASSERT_EQ(batch.teacher.targets, 1);
      const int length = batch.encoder.pathways[model::kShortTerm].length;
      for (int b = 0; b < batch.teacher.batch; ++b) {
        std::vector<int32_t>& example = actual.emplace_back();
        for (int i = 0; i < length; ++i) {
          if (batch.encoder.order[b * length + i] == backend::kPaddingOrder) continue;
          example.push_back(
              static_cast<int32_t>(tokens[batch.encoder.pathways[model::kShortTerm].features[b * length + i]]));
        }
        for (int step = 0; step < steps; ++step) {
          example.push_back(static_cast<int32_t>(tokens[batch.labels[b * steps + step]]));
        }
      }
    }
    EXPECT_EQ(actual.size(), expected.size());
    std::sort(expected.begin(), expected.end());
    std::sort(actual.begin(), actual.end());
    EXPECT_TRUE(actual == expected);
  }
}

double ValidationLoss(const Golden& golden, const model::Model& model, const std::vector<CorpusCase>& cases) {
  backend::Context ctx = golden.ctx();
  const backend::InferenceGuard no_gradients;
  const data::Dataset& dataset = golden.corpus().dataset();
  double sum = 0;
  for (const CorpusCase& one : cases) {
    std::vector<Event> history;
    for (const data::CompactEvent& event : dataset.events(one.user).subspan(0, one.event)) {
      history.push_back(ToEvent(dataset, event));
    }
    const runtime::EncodedRequest input = golden.features().Build({.history = history}, *golden.snapshot());
    const Sid sid = golden.snapshot()->Encode(dataset.item_id(dataset.events(one.user)[one.event].item)).value();
    std::vector<int32_t> tokens, labels;
    const absl::Span<const int64_t> ids = golden.vocabulary().tokens();
    for (const int32_t row : input.pathways[0].features) tokens.push_back(static_cast<int32_t>(ids[row]));
    for (int level = 0; level < sid.levels(); ++level) {
      labels.push_back(static_cast<int32_t>(ids[golden.config().first_code(level) + sid[level]]));
    }
    labels.push_back(static_cast<int32_t>(ids[golden.config().t5.end]));
    const ExampleBatch batch = golden.Batch({tokens}, {labels}, 0, 1);
    const auto context = model.Encode(ctx, model::UploadEncoderInput(ctx, golden.config(), batch.encoder));
    const auto logits =
        model.TeacherForced(ctx, context, model::UploadTeacherInput(ctx, golden.config(), batch.teacher));
    const int steps = golden.config().steps();
    const at::Tensor wanted = at::from_blob(const_cast<int64_t*>(batch.labels.data()), {1, 1, steps}, at::kLong);
    sum += CodeLoss(logits, wanted, 0).total.item<double>() / steps;
  }
  return sum / static_cast<double>(cases.size());
}

TEST_F(T5TrainingTest, LossOfEveryStepAndValidationAreThoseOfTransformers) {
  for (const fs::path& folder : Folders()) {
    SCOPED_TRACE(folder);
    const auto golden = Load(folder);
    const auto trainer = Trainer::Create(golden->ctx(), golden->Inputs(), golden->Options());
    ASSERT_TRUE(trainer.ok()) << trainer.status();
    const auto inputs = golden->Tokens("inputs"), labels = golden->Tokens("labels");
    const std::vector<double> losses = golden->Vector<double>("losses");
    const size_t size = inputs.size() / losses.size();
    double worst = 0;
    for (size_t step = 0; step < losses.size(); ++step) {
      const auto loss = (*trainer)->TrainStep(golden->Batch(inputs, labels, step * size, (step + 1) * size));
      ASSERT_TRUE(loss.ok()) << loss.status();
      EXPECT_NEAR(*loss, losses[step], kTolerance) << "step " << step + 1;
      worst = std::max(worst, std::abs(*loss - losses[step]));
    }
    EXPECT_LT(losses.back(), 0.97 * losses.front()) << "nothing was learnt, so nothing was compared";

    const absl::Span<const CorpusCase> all = golden->corpus().Cases(data::HeldOut::kValidation);
    std::vector<CorpusCase> cases;
    for (const int32_t user : golden->Vector<int32_t>("validation_users")) cases.push_back(all[user]);
    const model::Model& model = (*trainer)->model();
    const double loss = ValidationLoss(*golden, model, cases);
    EXPECT_NEAR(loss, golden->Number("validation_loss"), kTolerance);

    const ItemRanker ranker = ItemRanker::Create(golden->corpus(), golden->features(), golden->snapshot()).value();
    RankOptions rank;
    rank.beam = static_cast<int>(golden->Number("beam"));
    rank.exclude_seen = false;
    rank.threads = 1;
    const auto rankings = ranker.Rank(golden->ctx(), model, cases, rank);
    ASSERT_TRUE(rankings.ok()) << rankings.status();
    const std::vector<int32_t> expected = golden->Vector<int32_t>("validation_ranks");
    std::vector<double> theirs;
    int different = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      theirs.push_back(expected[i] == 0 ? data::kMissRank : expected[i]);
      different += rankings->ranks[i] != theirs.back();
    }
    // The weights differ by roundings, so near ties may swap.
    EXPECT_LE(different, static_cast<int>(expected.size()) / 20);
    const data::RankingMetrics our_metrics = data::MeanMetrics(rankings->ranks),
                               their_metrics = data::MeanMetrics(theirs);
    EXPECT_NEAR(our_metrics.recall_10, their_metrics.recall_10, 0.01);
    EXPECT_NEAR(our_metrics.ndcg_10, their_metrics.ndcg_10, 0.01);
    std::printf(
        "%zu steps, loss %.4f -> %.4f: worst difference %.1e; validation of %zu users: loss %.4f, theirs %.4f; %s, "
        "theirs %s; %d ranks differ\n",
        losses.size(), losses.front(), losses.back(), worst, cases.size(), loss, golden->Number("validation_loss"),
        data::FormatMetrics(our_metrics).c_str(), data::FormatMetrics(their_metrics).c_str(), different);
  }
}

}  // namespace
}  // namespace beamline::train
