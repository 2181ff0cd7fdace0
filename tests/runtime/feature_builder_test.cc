// SPDX-License-Identifier: Apache-2.0
#include "runtime/feature_builder.h"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/feature_index.h"

namespace beamline::runtime {
namespace {

using model::FeatureKind;
using ::testing::ElementsAre;

// Items by hand; the rest of the interface is not used here.
class FakeCatalogue : public Catalogue {
 public:
  std::map<ItemId, CatalogueItem> items;
  const std::string& version() const override { return text_; }
  const std::string& codebook_fingerprint() const override { return text_; }
  int levels() const override { return 2; }
  std::vector<uint32_t> level_sizes() const override { return {4, 4}; }
  uint64_t num_items() const override { return items.size(); }
  uint64_t num_sids() const override { return items.size(); }
  std::optional<Sid> Encode(ItemId item) const override {
    const auto found = items.find(item);
    return found == items.end() ? std::nullopt : std::optional<Sid>(found->second.sid);
  }
  std::vector<ItemId> Resolve(const Sid&) const override { return {}; }
  std::optional<CatalogueItem> GetItem(ItemId item) const override {
    const auto found = items.find(item);
    return found == items.end() ? std::nullopt : std::optional<CatalogueItem>(found->second);
  }

 private:
  std::string text_ = "fake";
};

FakeCatalogue Items() {
  FakeCatalogue catalogue;
  catalogue.items[10] = {10, {3, 0}, {.author = 7, .duration_ms = 20'000, .tags = {{"kind", "x"}, {"tag", "39"}}}};
  catalogue.items[11] = {11, {1, 2}, {.author = 8}};
  catalogue.items[12] = {12, {0, 3}, {}};
  return catalogue;
}

model::ModelConfig Config(std::vector<FeatureKind> kinds, int short_term, int positive) {
  model::ModelConfig config;
  config.level_sizes = {4, 4};
  for (FeatureKind kind : kinds) {
    const int64_t buckets = kind == FeatureKind::kItem ? 3 : 16;
    config.short_term.features.push_back({kind, buckets, 4, false});
  }
  config.positive.features = config.short_term.features;
  config.short_term.length = short_term;
  config.positive.length = positive;
  return config;
}

EncodedRequest Build(const model::ModelConfig& config, const std::vector<Event>& history) {
  const FeatureBuilder builder(config,
                               std::make_shared<Vocabulary>(std::vector<ItemId>{10, 11, 12}, std::vector<uint64_t>{7}));
  return builder.Build({.user_id = "u", .history = history}, Items());
}

TEST(FeatureBuilder, IdsOfEveryFeature) {
  const model::ModelConfig config =
      Config({FeatureKind::kSid, FeatureKind::kItem, FeatureKind::kAuthor, FeatureKind::kTag, FeatureKind::kHour,
              FeatureKind::kPlay, FeatureKind::kDuration, FeatureKind::kLabels},
             4, 0);
  const int64_t hour_5 = 1'600'000'000'000 / 86'400'000 * 86'400'000 + 5 * 3'600'000;
  const EncodedRequest request =
      Build(config, {{10, hour_5, 3000, 0, kClick | kLike}, {12, 0, 0, 9000, 0}, {10, hour_5, 3000, 7000, kHate}});
  ASSERT_EQ(request.pathways[0].length, 3);
  ASSERT_EQ(request.pathways[0].features.size(), 3 * 9);
  const auto row = [&](int element) {
    return std::vector<int32_t>(request.pathways[0].features.begin() + element * 9,
                                request.pathways[0].features.begin() + (element + 1) * 9);
  };
  EXPECT_THAT(row(0), ElementsAre(4, 1, 1, 1, model::HashBucket("39", 16), 6, model::LogBucket(3, 16),
                                  model::LogBucket(20, 16), kClick | kLike))
      << "codes count from 1; the duration is the catalogue's";
  EXPECT_THAT(row(1), ElementsAre(1, 4, 0, 0, 0, 0, 0, model::LogBucket(9, 16), 0))
      << "its index 3 is beyond the item table";
  EXPECT_EQ(row(2)[7], model::LogBucket(7, 16)) << "the event's own duration wins";
  EXPECT_EQ(request.unknown_items, 0);
  EXPECT_EQ(request.dropped_events, 0);
}

TEST(FeatureBuilder, UnknownAuthorIsNotTheFirstOne) {
  const EncodedRequest request = Build(Config({FeatureKind::kAuthor}, 4, 0), {{11, 0, 0, 0, 0}, {10, 0, 0, 0, 0}});
  EXPECT_THAT(request.pathways[0].features, ElementsAre(0, 1));
}

TEST(FeatureBuilder, AgeAndGapCountSeconds) {
  const model::ModelConfig config = Config({FeatureKind::kAge, FeatureKind::kGap}, 4, 0);
  const std::vector<Event> history = {{10, 1'000'000}, {10, 1'060'000}, {10, 0}, {10, 1'100'000}};
  const auto bucket = [](double seconds) { return model::LogBucket(seconds, 16); };
  EXPECT_THAT(Build(config, history).pathways[0].features,
              ElementsAre(bucket(100), 0, bucket(40), bucket(60), 0, 0, bucket(0), 0));
}

TEST(FeatureBuilder, PathwaysKeepTheNewestInOneOrder) {
  const model::ModelConfig config = Config({FeatureKind::kItem}, 2, 2);
  // Positive: 1, 3, 5. Short-term keeps 4 and 5, positive 3 and 5.
  std::vector<Event> history;
  for (int i = 0; i < 6; ++i) history.push_back({10, 0, 0, 0, i % 2 == 1 ? kLongView : kClick});
  const EncodedRequest request = Build(config, history);
  EXPECT_THAT(request.pathways[0].order, ElementsAre(1, 2)) << "counted from event 3, the oldest kept";
  EXPECT_THAT(request.pathways[1].order, ElementsAre(0, 2));
  EXPECT_EQ(request.dropped_events, 3);
  EXPECT_EQ(request.context_tokens(), 4);
}

TEST(FeatureBuilder, PositiveMeansLikedAndNotDisliked) {
  EXPECT_TRUE(IsPositive({.labels = kLike}));
  EXPECT_TRUE(IsPositive({.labels = kLongView | kClick}));
  EXPECT_FALSE(IsPositive({.labels = kClick}));
  EXPECT_FALSE(IsPositive({.labels = kLike | kHate}));
}

TEST(FeatureBuilder, ABareItemIdIsAnEventTheUserLiked) {
  EXPECT_TRUE(IsPositive({.item = 10}));
  EXPECT_TRUE(IsPositive({.item = 10, .timestamp_ms = 1'000'000}));
  EXPECT_FALSE(IsPositive({.item = 10, .duration_ms = 60'000})) << "an exposure that led to nothing";
  EXPECT_FALSE(IsPositive({.item = 10, .play_time_ms = 500}));
}

// The newest of a history are what the catalogue has not got yet: the model goes on seeing what it knows.
TEST(FeatureBuilder, UnknownItemsTakeNoPlace) {
  const model::ModelConfig config = Config({FeatureKind::kSid, FeatureKind::kItem}, 2, 1);
  const std::vector<Event> known = {{12}, {10, 0, 0, 0, kClick}, {11}};
  std::vector<Event> history = known;
  for (ItemId item = 900; item < 905; ++item) history.push_back({item});
  const EncodedRequest request = Build(config, history);
  EXPECT_EQ(Digest(request), Digest(Build(config, known)));
  EXPECT_EQ(request.unknown_items, 5);
  EXPECT_EQ(request.dropped_events, 1) << "the oldest, of those that are known";
  EXPECT_EQ(request.seen_events, 2);
  EXPECT_EQ(request.first_event, 1);

  const EncodedRequest cold = Build(config, {{900}, {901}});
  EXPECT_EQ(Digest(cold), Digest(Build(config, {}))) << "as no history";
  EXPECT_EQ(cold.unknown_items, 2);
  EXPECT_EQ(cold.dropped_events, 0);
  EXPECT_EQ(cold.seen_events, 0);
}

TEST(FeatureBuilder, AgesCountFromTheNewestEventThatTheCatalogueKnows) {
  const model::ModelConfig config = Config({FeatureKind::kAge}, 4, 0);
  const EncodedRequest request = Build(config, {{10, 1'000'000}, {11, 1'060'000, 500}, {900, 1'900'000}});
  EXPECT_THAT(request.pathways[0].features, ElementsAre(model::LogBucket(60, 16), model::LogBucket(0, 16)));
  const model::ModelConfig positive = Config({FeatureKind::kAge}, 0, 4);
  EXPECT_THAT(Build(positive, {{10, 1'000'000}, {11, 1'060'000, 500}, {900, 1'900'000}}).pathways[1].features,
              ElementsAre(model::LogBucket(60, 16)))
      << "of any kind";
}

TEST(FeatureBuilder, TokensAreOfItemsThatTheCatalogueKnows) {
  model::ModelConfig config = Config({}, 0, 0);
  config.family = model::kT5;
  config.t5.input = {.prefix = {7}, .suffix = {9}, .max_items = 2};
  const EncodedRequest request = Build(config, {{901}, {12}, {10}, {900}, {11}, {902}});
  EXPECT_THAT(request.pathways[0].features,
              ElementsAre(7, 3, config.first_code(1) + 0, 1, config.first_code(1) + 2, 9));
  EXPECT_EQ(request.seen_events, 2);
  EXPECT_EQ(request.unknown_items, 3);
  EXPECT_EQ(request.dropped_events, 1);
}

TEST(FeatureBuilder, StaticFeaturesByName) {
  model::ModelConfig config = Config({FeatureKind::kItem}, 2, 0);
  config.user = {.user_buckets = 100, .attribute_buckets = 50, .attributes = {"age", "city"}, .enabled = true};
  const FeatureBuilder builder(config, std::make_shared<Vocabulary>());
  const std::vector<UserAttribute> attributes = {{"city", "Riga"}, {"shoe", "43"}};
  EXPECT_THAT(builder.Build({.user_id = "u1", .user_attributes = attributes}, Items()).static_features,
              ElementsAre(model::HashBucket("u1", 100), 0, model::HashBucket("Riga", 50)));
  EXPECT_THAT(builder.Build({}, Items()).static_features, ElementsAre(0, 0, 0));
}

TEST(FeatureBuilder, DigestsDifferWhereInputsDo) {
  const model::ModelConfig config = Config({FeatureKind::kItem, FeatureKind::kLabels}, 3, 2);
  const std::vector<Event> history = {{10, 0, 0, 0, kLike}, {11, 0, 0, 0, 0}};
  const EncodedRequest request = Build(config, history);
  EXPECT_EQ(Digest(request), Digest(Build(config, history)));
  EXPECT_NE(Digest(request), Digest(Build(config, {history[1], history[0]})));
  EXPECT_NE(Digest(request), Digest(Build(config, {history[0]})));
  EncodedRequest moved = request;
  moved.static_features.push_back(moved.pathways[0].features.front());
  moved.pathways[0].features.erase(moved.pathways[0].features.begin());
  EXPECT_NE(Digest(request), Digest(moved)) << "the same numbers in other places";
}

}  // namespace
}  // namespace beamline::runtime
