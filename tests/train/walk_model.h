// SPDX-License-Identifier: Apache-2.0
//
// A small model that was really trained, on a log whose next items are uncertain: what precisions are compared on.
#pragma once

#include <memory>
#include <random>
#include <string>

#include "train/item_ranker.h"
#include "train/train_test_util.h"

namespace beamline::train {

struct WalkOptions {
  int items = 240, users = 600, events = 24;
  double stay = 0.25;  // the step along the ring is geometric: the larger, the surer
  int layers = 2;      // of the encoder, and of the decoder
  int epochs = 40;
  std::string name = "walk";  // of its folder
};

// A user walks along a ring of items in steps of random length, now and then elsewhere: the next item is uncertain, so
// that the ten best of a list are close to each other.
inline Log WalkLog(const WalkOptions& options = {}) {
  std::mt19937 random(7);
  std::geometric_distribution<int> step(options.stay);
  Log log(options.users);
  for (auto& events : log) {
    int item = static_cast<int>(random() % options.items);
    for (int i = 0; i < options.events; ++i) {
      events.push_back({item});
      item =
          random() % 16 == 0 ? static_cast<int>(random() % options.items) : (item + 1 + step(random)) % options.items;
    }
  }
  return log;
}

inline std::shared_ptr<const catalogue::CatalogueSnapshot> WalkCatalogue(const Corpus& corpus) {
  auto builder =
      catalogue::SnapshotBuilder::Create({.codebook_fingerprint = std::string(64, 'b'), .level_sizes = {16, 16, 16}});
  EXPECT_TRUE(builder.ok()) << builder.status();
  for (int64_t i = 0; i < corpus.dataset().num_items(); ++i) {
    const ItemId item = corpus.dataset().item_id(i);
    const Code code = static_cast<Code>(item);
    EXPECT_TRUE(
        builder->Add(CatalogueItem{.item = item, .sid = Sid{code / 32, code / 2 % 16, (code * 5 + code / 32) % 16}})
            .ok());
  }
  auto snapshot = std::move(*builder).Build();
  EXPECT_TRUE(snapshot.ok()) << snapshot.status();
  return *std::move(snapshot);
}

struct TrainedModel {
  std::unique_ptr<Corpus> corpus;
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot;
  std::unique_ptr<runtime::FeatureBuilder> features;
  model::Weights weights;
};

inline TrainedModel TrainWalker(const WalkOptions& walk = {}) {
  TrainedModel trained;
  trained.corpus = std::make_unique<Corpus>(Corpus::Create(MakeDataset(WalkLog(walk), walk.name)).value());
  trained.snapshot = WalkCatalogue(*trained.corpus);
  const auto vocabulary = std::make_shared<const runtime::Vocabulary>(trained.corpus->FitVocabulary());
  model::ModelConfig config;
  config.level_sizes = {16, 16, 16};
  config.d_model = 64;
  config.heads = 4;
  config.head_dim = 16;
  config.positive.length = walk.events;
  config.positive.fusion = model::InputFusion::kSum;
  config.positive.features = {{.kind = model::FeatureKind::kSid, .shared = true}};
  config.encoder = {.layers = walk.layers, .causal = true, .ffn = {.width = 128}};
  config.decoder = {.layers = walk.layers, .ffn = {.width = 128}};
  trained.features = std::make_unique<runtime::FeatureBuilder>(config, vocabulary);
  TrainOptions options = QuickOptions();
  options.epochs = walk.epochs;
  options.batch_windows = 16;
  options.targets_per_window = 16;
  options.learning_rate = 3e-3;
  options.validate_every = options.epochs;
  options.validation_users = 50;
  const auto trainer =
      Trainer::Create(CpuContext(), {trained.corpus.get(), trained.features.get(), trained.snapshot}, options).value();
  EXPECT_TRUE(trainer->Run("").ok());
  trained.weights = trainer->result();
  return trained;
}

}  // namespace beamline::train
