// SPDX-License-Identifier: Apache-2.0
//
// A small log, its catalogue and a small model for the tests of train/: everything in memory or in a temporary folder.
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "catalogue/snapshot_builder.h"
#include "data/dataset.h"
#include "model/config.h"
#include "runtime/feature_builder.h"
#include "train/corpus.h"
#include "train/trainer.h"

namespace beamline::train {

// One event: item and labels. Times are the event's place in the file, a minute apart, or a minute that is said.
struct LogEvent {
  int item = 0;
  std::string labels = "long_view";
  std::optional<int> minute = std::nullopt;
};
inline constexpr int64_t kLogStart = 1'650'000'000'000, kMinute = 60'000;
using Log = std::vector<std::vector<LogEvent>>;  // per user

inline std::filesystem::path TempFolder(const std::string& name) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / ("beamline_train_" + name);
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

inline std::shared_ptr<const data::Dataset> MakeDataset(const Log& log, const std::string& name) {
  const std::filesystem::path folder = TempFolder(name);
  std::ofstream events(folder / "events.tsv");
  events << "user_id\titem_id\ttimestamp_ms\tplay_time_ms\tduration_ms\tlabels\n";
  int64_t time = kLogStart;
  for (size_t user = 0; user < log.size(); ++user) {
    for (const LogEvent& event : log[user]) {
      time = event.minute ? kLogStart + *event.minute * kMinute : time + kMinute;
      events << "u" << user << "\t" << event.item << "\t" << time << "\t1000\t2000\t" << event.labels << "\n";
    }
  }
  events.close();
  absl::StatusOr<data::Dataset> dataset = data::Dataset::Load({folder / "events.tsv", {}, {}});
  EXPECT_TRUE(dataset.ok()) << dataset.status();
  return std::make_shared<const data::Dataset>(*std::move(dataset));
}

// Users walk along the ring of items from different starts, so the next item is certain.
inline Log RingLog(int users, int items, int length) {
  Log log(users);
  for (int user = 0; user < users; ++user) {
    for (int i = 0; i < length; ++i) log[user].push_back({(user * 3 + i) % items});
  }
  return log;
}

// Item i has SID <i / 4 % 4, i % 4, i / 16 % 4>: unique below 64.
inline Sid SidOf(ItemId item) {
  const Code code = static_cast<Code>(item);
  return Sid{code / 4 % 4, code % 4, code / 16 % 4};
}

// Of the log's items, but for `without`.
inline std::shared_ptr<const catalogue::CatalogueSnapshot> MakeSnapshot(const Corpus& corpus,
                                                                        std::optional<ItemId> without = std::nullopt) {
  auto builder =
      catalogue::SnapshotBuilder::Create({.codebook_fingerprint = std::string(64, 'a'), .level_sizes = {4, 4, 4}});
  EXPECT_TRUE(builder.ok()) << builder.status();
  const std::vector<uint32_t> popularity = corpus.TrainingPopularity();
  for (int64_t i = 0; i < corpus.dataset().num_items(); ++i) {
    CatalogueItem item{.item = corpus.dataset().item_id(i), .sid = SidOf(corpus.dataset().item_id(i))};
    if (item.item == without) continue;
    item.attributes.relevance = static_cast<float>(popularity[i]);
    EXPECT_TRUE(builder->Add(item).ok());
  }
  auto snapshot = std::move(*builder).Build();
  EXPECT_TRUE(snapshot.ok()) << snapshot.status();
  return *std::move(snapshot);
}

struct ModelOptions {
  bool causal = true;
  int experts = 0;
  bool experts_of_encoder = false;
  int length = 12;
  bool t5 = false;
};

inline model::ModelConfig SmallT5Config() {
  model::ModelConfig config;
  config.family = model::kT5;
  config.level_sizes = {4, 4, 4};
  config.d_model = 16;
  config.heads = 2;
  config.head_dim = 8;
  config.encoder = {.layers = 1, .ffn = {.width = 32, .gated = false}};
  config.decoder = {.layers = 1, .ffn = {.width = 32, .gated = false}};
  config.t5 = {.vocabulary = 14,
               .start = 12,
               .end = 13,
               .score_end = true,
               .input = {.prefix = {}, .suffix = {13}, .max_items = 5}};
  model::SetT5Pathway(config);
  return config;
}

inline model::ModelConfig SmallConfig(const runtime::Vocabulary& vocabulary, const ModelOptions& options = {}) {
  if (options.t5) return SmallT5Config();
  model::ModelConfig config;
  config.level_sizes = {4, 4, 4};
  config.d_model = 16;
  config.heads = 2;
  config.head_dim = 8;
  config.positive.length = options.length;
  config.positive.fusion = model::InputFusion::kSum;
  config.positive.features = {{.kind = model::FeatureKind::kSid, .shared = true},
                              {.kind = model::FeatureKind::kItem, .buckets = vocabulary.num_items()}};
  config.encoder = {.layers = 1, .causal = options.causal, .ffn = {.width = 32}};
  config.decoder = {.layers = 1, .ffn = {.width = 32}};
  if (options.experts > 0) config.decoder.ffn = {.width = 16, .experts = options.experts, .top_k = 2};
  if (options.experts_of_encoder) config.encoder.ffn = config.decoder.ffn;
  return config;
}

// A corpus with all a trainer needs.
struct World {
  std::shared_ptr<const data::Dataset> dataset;
  std::unique_ptr<Corpus> corpus;
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot;
  std::shared_ptr<const runtime::Vocabulary> vocabulary;
  std::unique_ptr<runtime::FeatureBuilder> features;

  World(const Log& log, const std::string& name, const ModelOptions& options = {}, const CorpusOptions& split = {})
      : dataset(MakeDataset(log, name)) {
    absl::StatusOr<Corpus> made = Corpus::Create(dataset, split);
    EXPECT_TRUE(made.ok()) << made.status();
    corpus = std::make_unique<Corpus>(*std::move(made));
    snapshot = MakeSnapshot(*corpus);
    vocabulary = std::make_shared<const runtime::Vocabulary>(corpus->FitVocabulary());
    features = std::make_unique<runtime::FeatureBuilder>(SmallConfig(*vocabulary, options), vocabulary);
  }
  TrainInputs inputs() const { return {corpus.get(), features.get(), snapshot}; }
};

inline backend::Context CpuContext() {
  backend::SetThreads(1);
  return backend::MakeContext("cpu", "fp32").value();
}

inline TrainOptions QuickOptions() {
  TrainOptions options;
  options.epochs = 3;
  options.batch_windows = 8;
  options.targets_per_window = 8;
  options.learning_rate = 1e-2;
  options.dropout = 0.1;
  options.validation_users = 10;
  options.validation_beam = 16;
  return options;
}

inline std::vector<float> Values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().contiguous().view({-1});
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

}  // namespace beamline::train
