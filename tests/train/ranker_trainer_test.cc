// SPDX-License-Identifier: Apache-2.0
//
// A ranker's training: what it learns from, its gradient, what it changes, and that it learns what there is to learn.
#include "train/ranker_trainer.h"

#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/interrupt.h"
#include "train/binary_metrics.h"
#include "train/item_ranker.h"
#include "train/loss.h"
#include "train/ranker_evaluation.h"
#include "train/ranker_test_util.h"

namespace beamline::train {
namespace {

using ::testing::HasSubstr;

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

TEST(BinaryMetricsTest, EqualTheirDefinitions) {
  std::mt19937 generator(3);
  std::vector<float> logits(60);
  std::vector<uint8_t> labels(60);
  for (float& logit : logits) logit = static_cast<float>(generator() % 9) - 4;  // many ties
  for (uint8_t& label : labels) label = generator() % 3 == 0;
  double wins = 0, pairs = 0, loss = 0, constant = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double p = Sigmoid(logits[i]);
    loss -= labels[i] != 0 ? std::log(p) : std::log(1 - p);
    constant -= labels[i] != 0 ? std::log(0.3) : std::log(0.7);
    for (size_t j = 0; j < logits.size(); ++j) {
      if (labels[i] == 0 || labels[j] != 0) continue;
      pairs += 1;
      wins += logits[i] > logits[j] ? 1 : logits[i] == logits[j] ? 0.5 : 0;
    }
  }
  EXPECT_NEAR(*AreaUnderCurve(logits, labels), wins / pairs, 1e-12);
  EXPECT_NEAR(LogLoss(logits, labels), loss / 60, 1e-12);
  EXPECT_NEAR(ConstantLogLoss(0.3, labels), constant / 60, 1e-12);
  EXPECT_EQ(AreaUnderCurve(logits, std::vector<uint8_t>(60, 1)), std::nullopt);
  EXPECT_EQ(AreaUnderCurve(logits, std::vector<uint8_t>(60, 0)), std::nullopt);
  EXPECT_NEAR(LogLoss({500.0f, -500.0f}, {1, 1}), 250, 1e-9) << "no overflow";
}

// Long views: 1 3 4 6; the validation item is event 3 (item 4), so the training part is the first three events.
const Log kFewEvents = {{{1}, {2, "click"}, {3}, {4}, {5, "comment"}, {6}, {7, "click"}}};

TEST(RankerExamplesTest, TheModelsSplitWithEveryEvent) {
  const World world(kFewEvents, "every_event");
  const Corpus every = world.corpus->EveryEvent();
  EXPECT_THAT(every.targets(0), ::testing::ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_EQ(every.training_end(0), world.corpus->training_end(0));
  EXPECT_EQ(every.training_targets(0), 3);
  EXPECT_EQ(world.corpus->training_targets(0), 2);
  const BehaviourCounts counts = CountBehaviours(every, *world.snapshot);
  EXPECT_EQ(counts.events, 3);
  EXPECT_EQ(counts.With(kLongView), 2);
  EXPECT_EQ(counts.With(kClick), 1);
  EXPECT_EQ(counts.With(kComment), 0) << "event 4 is held out";
}

TEST(RankerExamplesTest, EventsWithoutASidAreLeftOut) {
  const World world(kFewEvents, "no_sid");
  auto builder =
      catalogue::SnapshotBuilder::Create({.codebook_fingerprint = std::string(64, 'a'), .level_sizes = {4, 4, 4}});
  ASSERT_TRUE(builder->Add(CatalogueItem{.item = 3, .sid = SidOf(3)}).ok());
  const auto snapshot = std::move(*builder).Build().value();
  const BehaviourCounts counts = CountBehaviours(world.corpus->EveryEvent(), *snapshot);
  EXPECT_EQ(counts.events, 1);
  EXPECT_EQ(counts.without_sid, 2);
}

// Labels and last codes of single events, and that their values are those that a request's search finds.
TEST(RankerExamplesTest, HeldOutEventsAreSeenAsARequestSeesThem) {
  for (const bool causal : {true, false}) {
    const RankedWorld ranked(TasteLog(6, 40, 30), "as_request", nullptr, {.causal = causal, .length = 5});
    const ExampleBuilder examples = RankerExamples(ranked.inputs(), QuickRankerOptions());
    backend::Context ctx = ranked.ctx;
    int64_t events = 0, expected = 0;
    for (int64_t user = 0; user < 6; ++user) expected += 30 - ranked.every_event.training_end(user);
    for (const std::vector<Window>& windows : examples.HeldOutPlan()) {
      const RankerRows rows = MakeRankerRows(ctx, *ranked.model, examples.Build(windows, 1));
      ASSERT_EQ(rows.output.size(0), static_cast<int64_t>(windows.size()));
      const std::vector<float> logits = Values(RowLogits(ctx, *ranked.model->ranker(), rows));
      const std::vector<float> labels = Values(rows.labels);
      for (size_t i = 0; i < windows.size(); ++i) {
        const uint32_t position = windows[i].last_target;
        EXPECT_GE(position, ranked.every_event.training_end(windows[i].user));
        const data::CompactEvent& event = ranked.world.dataset->events(windows[i].user)[position];
        EXPECT_EQ(labels[2 * i], (event.labels & kLongView) != 0);
        EXPECT_EQ(labels[2 * i + 1], (event.labels & kClick) != 0);
        const std::map<Sid, float> values = SearchValues(ranked, {windows[i].user, position});
        const double value = Sigmoid(logits[2 * i]) - 0.5 * Sigmoid(logits[2 * i + 1]);
        EXPECT_NEAR(values.at(SidOf(ranked.world.dataset->item_id(event.item))), value, 1e-5);
        ++events;
      }
    }
    EXPECT_EQ(events, expected);
  }
}

// Of the loss over many positions of a batch, in every weight, against central differences in double precision.
TEST(RankerGradientTest, EqualsFiniteDifferences) {
  const RankedWorld ranked(TasteLog(6, 40, 20), "ranker_gradient");
  const ExampleBuilder examples = RankerExamples(ranked.inputs(), QuickRankerOptions());
  backend::Context ctx = ranked.ctx;
  const model::Weights& weights = ranked.model->weights();
  const std::vector<std::string> names = {"ranker.state.weight", "ranker.state.bias", "ranker.code",
                                          "ranker.head.weight", "ranker.head.bias"};
  for (const std::string& name : names) weights.Get(name).set_requires_grad(true);
  weights.Get("decoder.norm").set_requires_grad(true);
  const ExampleBatch batch = examples.Build(examples.Plan(0)[0], 1);
  ASSERT_LT(batch.targets, static_cast<int64_t>(batch.behaviours.size())) << "some are padding";
  const RankerRows rows = MakeRankerRows(ctx, *ranked.model, batch);
  EXPECT_EQ(rows.output.size(0), batch.targets);
  EXPECT_FALSE(rows.output.requires_grad()) << "the rest of the model has no part in it";
  ASSERT_GT(rows.output.size(0), 50) << "many positions of a history train at once";
  const at::Tensor loss = BehaviourLoss(RowLogits(ctx, *ranked.model->ranker(), rows), rows.labels);
  loss.backward();

  std::map<std::string, std::vector<double>> at;
  for (const std::string& name : names) {
    const std::vector<float> values = Values(weights.Get(name));
    at[name] = {values.begin(), values.end()};
  }
  const std::vector<float> output = Values(rows.output), labels = Values(rows.labels);
  const std::vector<int32_t> codes = backend::DownloadInts(ctx, rows.codes);
  const size_t d = 16, width = 16, heads = 2;
  const auto reference = [&] {
    double sum = 0;
    for (size_t i = 0; i < codes.size(); ++i) {
      std::vector<double> hidden(width);
      for (size_t j = 0; j < width; ++j) {
        double x = at["ranker.state.bias"][j] + at["ranker.code"][codes[i] * width + j];
        for (size_t k = 0; k < d; ++k) x += at["ranker.state.weight"][j * d + k] * output[i * d + k];
        hidden[j] = x * Sigmoid(x);
      }
      for (size_t h = 0; h < heads; ++h) {
        double logit = at["ranker.head.bias"][h];
        for (size_t j = 0; j < width; ++j) logit += at["ranker.head.weight"][h * width + j] * hidden[j];
        sum -= std::log(labels[i * heads + h] != 0 ? Sigmoid(logit) : Sigmoid(-logit));
      }
    }
    return sum / static_cast<double>(codes.size());
  };
  EXPECT_NEAR(loss.item<double>(), reference(), 1e-5);
  double largest = 0;
  for (const std::string& name : names) {
    const std::vector<float> gradient = Values(weights.Get(name).grad());
    for (size_t i = 0; i < gradient.size(); ++i) {
      const double value = at[name][i], step = 1e-5;
      at[name][i] = value + step;
      const double above = reference();
      at[name][i] = value - step;
      const double slope = (above - reference()) / (2 * step);
      at[name][i] = value;
      EXPECT_NEAR(gradient[i], slope, 1e-6 + 1e-4 * std::abs(slope)) << name << " " << i;
      largest = std::max(largest, std::abs(slope));
    }
  }
  EXPECT_GT(largest, 1e-2);
}

TEST(RankerTrainerTest, ChangesTheRankerAlone) {
  const RankedWorld ranked(TasteLog(12, 40, 20), "alone");
  const model::Weights before = CloneWeights(ranked.model->weights());
  const auto curve = TrainRanker(ranked.ctx, ranked.inputs(), QuickRankerOptions());
  ASSERT_TRUE(curve.ok()) << curve.status();
  EXPECT_EQ(curve->size(), 2u);
  EXPECT_EQ((*curve)[0].events, ranked.counts.events) << "every event of the training part, once an epoch";
  for (const auto& [name, tensor] : ranked.model->weights().tensors()) {
    const bool own = name.starts_with("ranker.");
    EXPECT_EQ(Values(tensor) != Values(before.Get(name)), own) << name;
    EXPECT_EQ(tensor.requires_grad(), own) << name;
  }
}

TEST(RankerTrainerTest, RepeatsFromItsSeed) {
  const auto train = [](uint64_t seed) {
    const RankedWorld ranked(TasteLog(12, 40, 20), "repeat");
    RankerOptions options = QuickRankerOptions();
    options.seed = seed;
    EXPECT_TRUE(TrainRanker(ranked.ctx, ranked.inputs(), options).ok());
    std::vector<float> all;
    for (const auto& [name, tensor] : ranked.model->weights().tensors()) {
      const std::vector<float> values = Values(tensor);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  };
  EXPECT_EQ(train(1), train(1));
  EXPECT_NE(train(1), train(2)) << "of the order of the examples";
}

// Before the first step every probability is about the label's rate.
TEST(RankerTrainerTest, StartsAtTheRates) {
  const RankedWorld ranked(TasteLog(12, 40, 20), "rates");
  const std::vector<float> bias = Values(ranked.model->weights().Get("ranker.head.bias"));
  EXPECT_NEAR(Sigmoid(bias[0]), ranked.counts.Rate(kLongView), 1e-6);
  EXPECT_NEAR(Sigmoid(bias[1]), ranked.counts.Rate(kClick), 1e-6);
}

// The label depends on user and item together, which nothing but the history tells.
TEST(RankerTrainerTest, LearnsWhatUserAndItemSayTogether) {
  const Log log = TasteLog(120, 64, 24);
  const World world(log, "taste_trunk");
  TrainOptions options = QuickOptions();
  options.epochs = 10;
  options.validation_users = 0;
  const auto trainer = Trainer::Create(CpuContext(), world.inputs(), options);
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  ASSERT_TRUE((*trainer)->Run("").ok());
  const RankedWorld ranked(log, "taste", &(*trainer)->result());
  RankerOptions quick = QuickRankerOptions();
  quick.epochs = 8;
  quick.learning_rate = 1e-2;
  const auto untrained = EvaluateRanker(ranked.ctx, {ranked.inputs(), ranked.counts}, quick);
  ASSERT_TRUE(untrained.ok()) << untrained.status();
  ASSERT_TRUE(TrainRanker(ranked.ctx, ranked.inputs(), quick).ok());
  const auto report = EvaluateRanker(ranked.ctx, {ranked.inputs(), ranked.counts}, quick);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->heads.size(), 2u);
  for (const HeadScores& head : report->heads) {
    EXPECT_GT(*head.auc, 0.75) << head.label;  // .9 at best
    EXPECT_LT(head.log_loss, head.constant_loss - 0.1) << head.label;
    EXPECT_NEAR(head.training_rate, 0.5, 0.05);
  }
  EXPECT_LT(*untrained->heads[0].auc, 0.65);
  EXPECT_EQ(report->heads[1].weight, -0.5);
  EXPECT_THAT(RankerTable(*report), ::testing::AllOf(HasSubstr("long_view"), HasSubstr("click")));
}

// The lists of `evaluate --by-value` are the beam's items in the order of the values that a search gives.
TEST(RankerTrainerTest, ItemsRankedByValue) {
  const RankedWorld ranked(TasteLog(20, 40, 20), "by_value");
  const ItemRanker ranker = ItemRanker::Create(*ranked.world.corpus, *ranked.features, ranked.world.snapshot).value();
  const absl::Span<const CorpusCase> cases = ranked.world.corpus->Cases(data::HeldOut::kTest);
  ASSERT_GT(cases.size(), 10u);
  RankOptions options{.beam = 64, .exclude_seen = false, .threads = 1, .list = 1000};
  const CaseRankings by_beam = ranker.Rank(ranked.ctx, *ranked.model, cases, options).value();
  options.by_value = true;
  const CaseRankings by_value = ranker.Rank(ranked.ctx, *ranked.model, cases, options).value();
  int moved = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::map<Sid, float> values = SearchValues(ranked, cases[i]);
    const std::vector<ItemId>& items = by_value.lists[i];
    for (size_t j = 1; j < items.size(); ++j) {
      EXPECT_GE(values.at(SidOf(items[j - 1])), values.at(SidOf(items[j])) - 1e-6);
    }
    EXPECT_THAT(items, ::testing::UnorderedElementsAreArray(by_beam.lists[i]));
    moved += items != by_beam.lists[i];
    const ItemId target =
        ranked.world.dataset->item_id(ranked.world.dataset->events(cases[i].user)[cases[i].event].item);
    EXPECT_EQ(items[static_cast<size_t>(by_value.ranks[i]) - 1], target);
  }
  EXPECT_GT(moved, 10);
}

TEST(RankerTrainerTest, RefusesWhatCannotBeTrained) {
  const RankedWorld ranked(TasteLog(6, 40, 20), "refuse_ranker");
  RankerOptions options = QuickRankerOptions();
  options.epochs = 0;
  EXPECT_THAT(std::string(TrainRanker(ranked.ctx, ranked.inputs(), options).status().message()),
              HasSubstr("ranker option epochs is 0"));
  SetInterrupted(true);
  const absl::Status interrupted = TrainRanker(ranked.ctx, ranked.inputs(), QuickRankerOptions()).status();
  SetInterrupted(false);
  EXPECT_EQ(interrupted.code(), absl::StatusCode::kCancelled);

  BehaviourCounts counts{.events = 10};
  counts.with_label[0] = 10;
  EXPECT_THAT(std::string(CheckHeads({.width = 8, .heads = {{kClick, 1}}}, counts).message()),
              HasSubstr("'click' is the label of 10 of 10 events"));
  EXPECT_THAT(std::string(CheckHeads({.width = 8, .heads = {{kLike, 1}}}, counts).message()),
              HasSubstr("'like' is the label of 0 of 10 events"));
  counts.with_label[0] = 9;
  EXPECT_TRUE(CheckHeads({.width = 8, .heads = {{kClick, 1}}}, counts).ok());

  ranked.model->weights().Get("decoder.norm").fill_(NAN);
  const absl::Status not_finite = TrainRanker(ranked.ctx, ranked.inputs(), QuickRankerOptions()).status();
  EXPECT_THAT(std::string(not_finite.message()), HasSubstr("step 1: the loss is nan"));
}

TEST(RankerEvaluationTest, SaysWhatCannotBeMeasured) {
  const RankedWorld few({{{1}, {2}}, {{3}, {4, "click"}}}, "nothing_held_out");
  EXPECT_THAT(std::string(CheckHeldOut(few.inputs(), QuickRankerOptions()).message()),
              HasSubstr("no user has the three targets"));
  const RankedWorld ranked(TasteLog(6, 40, 20), "not_finite");
  EXPECT_TRUE(CheckHeldOut(ranked.inputs(), QuickRankerOptions()).ok());
  ranked.model->weights().Get("ranker.head.bias").fill_(NAN);
  EXPECT_THAT(
      std::string(
          EvaluateRanker(ranked.ctx, {ranked.inputs(), ranked.counts}, QuickRankerOptions()).status().message()),
      HasSubstr("prediction of an event is not a number"));

  RankerReport report{.events = 10,
                      .heads = {{.label = kLike, .log_loss = 0.3, .constant_loss = 0.2},
                                {.label = kClick, .log_loss = 0.1, .constant_loss = 0.2}}};
  EXPECT_THAT(RankerTable(report), ::testing::AllOf(HasSubstr("warning: like is predicted no better"),
                                                    ::testing::Not(HasSubstr("warning: click"))));
}

TEST(RankerOptionsTest, HeadsFromText) {
  const auto heads = ParseHeads("long_view=1,like=2.5,hate=-1");
  ASSERT_TRUE(heads.ok()) << heads.status();
  ASSERT_EQ(heads->size(), 3u);
  EXPECT_EQ((*heads)[1].label, kLike);
  EXPECT_EQ((*heads)[1].weight, 2.5);
  EXPECT_EQ((*heads)[2].weight, -1);
  for (const char* text : {"", "like", "like=", "like=x", "=1", "likes=1", "like|click=1", "like=1,,click=1"}) {
    EXPECT_FALSE(ParseHeads(text).ok()) << text;
  }
}

}  // namespace
}  // namespace beamline::train
