// SPDX-License-Identifier: Apache-2.0
//
// A world (train_test_util.h) whose model has a ranker, for the tests of the ranker's training.
#pragma once

#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "catalogue/eligibility.h"
#include "catalogue/rule_cache.h"
#include "decode/beam_search.h"
#include "runtime/batch_builder.h"
#include "train/ranker_trainer.h"
#include "train/train_test_util.h"

namespace beamline::train {

// Every user likes and watches the items whose last code has one parity, nine times of ten, and of the others one of
// ten. The rest are clicks: no positive feedback, so that the history tells the two apart.
inline Log TasteLog(int users, int items, int length) {
  std::mt19937 generator(7);
  Log log(users);
  for (int user = 0; user < users; ++user) {
    for (int i = 0; i < length; ++i) {
      const int item = static_cast<int>(generator() % items);
      const bool fits = item / 16 % 2 == user % 2, surprise = generator() % 10 == 0;
      log[user].push_back({item, fits != surprise ? "long_view|like" : "click"});
    }
  }
  return log;
}

struct RankedWorld {
  World world;
  backend::Context ctx = CpuContext();
  Corpus every_event;
  std::unique_ptr<runtime::FeatureBuilder> features;
  BehaviourCounts counts;
  std::unique_ptr<model::Model> model;

  // The model's other weights: random ones, or what `trunk` has.
  RankedWorld(const Log& log, const std::string& name, const model::Weights* trunk = nullptr,
              const ModelOptions& options = {})
      : world(log, name, options), every_event(world.corpus->EveryEvent()) {
    model::ModelConfig config = world.features->config();
    config.ranker = {.width = 16,
                     .heads = {{.label = kLongView, .weight = 1}, {.label = kClick, .weight = -0.5}},
                     .score_weight = 0};
    features = std::make_unique<runtime::FeatureBuilder>(config, world.vocabulary);
    counts = CountBehaviours(every_event, *world.snapshot);
    const model::Weights random = model::InitWeights(ctx, world.features->config(), 5);
    model =
        model::MakeModel(config, WithNewRanker(ctx, trunk == nullptr ? random : *trunk, {config, counts, 9})).value();
  }
  RankerInputs inputs() const { return {&every_event, features.get(), world.snapshot.get(), model.get()}; }
};

inline RankerOptions QuickRankerOptions() {
  RankerOptions options;
  options.epochs = 2;
  options.batch_windows = 8;
  return options;
}

// What a search over the whole catalogue, as of a request at that event, gives each SID.
inline std::map<Sid, float> SearchValues(const RankedWorld& ranked, const CorpusCase& one) {
  const data::Dataset& dataset = *ranked.world.dataset;
  std::vector<Event> history;
  for (const data::CompactEvent& event : dataset.events(one.user).subspan(0, one.event)) {
    history.push_back(ToEvent(dataset, event));
  }
  runtime::FeatureSource source;
  source.user_id = dataset.user_id(one.user);
  source.history = history;
  const runtime::EncodedRequest encoded = ranked.features->Build(source, *ranked.world.snapshot);
  const runtime::EncodedRequest* const inputs[] = {&encoded};
  const model::ModelConfig& config = ranked.model->config();
  backend::Context ctx = ranked.ctx;
  const backend::InferenceGuard no_gradients;
  model::EncodedContext context =
      ranked.model->Encode(ctx, model::UploadEncoderInput(ctx, config, runtime::BuildEncoderBatch(config, inputs)));
  catalogue::RuleCache rules(ranked.world.snapshot, 1);
  const auto everything = catalogue::CompileEligibility(rules, {}, {}).value();
  const std::vector<int> widths(config.levels(), 64);
  const decode::SearchRequest request{.constraint = &everything->view(), .widths = widths};
  const auto results = decode::BeamSearch(*ranked.model).Run(ctx, std::move(context), {&request, 1}, [](int) {
    return absl::OkStatus();
  });
  EXPECT_TRUE(results[0].status.ok()) << results[0].status;
  std::map<Sid, float> values;
  for (const decode::Hypothesis& hypothesis : results[0].hypotheses) values[hypothesis.sid] = hypothesis.value;
  return values;
}

}  // namespace beamline::train
