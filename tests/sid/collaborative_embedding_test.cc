// SPDX-License-Identifier: Apache-2.0
#include "sid/collaborative_embedding.h"

#include <cmath>
#include <map>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/interrupt.h"
#include "sid/cooccurrence.h"

namespace beamline::sid {
namespace {

using ::testing::HasSubstr;

ItemSequences RandomSequences(uint32_t items, int users, int groups, uint64_t seed) {
  std::mt19937_64 engine(seed);
  ItemSequences sequences;
  sequences.num_items = items;
  for (int u = 0; u < users; ++u) {
    std::vector<uint32_t> row;
    const uint32_t group = engine() % groups;
    for (size_t k = 0, n = 2 + engine() % 10; k < n; ++k) {
      const uint32_t item = engine() % items;
      row.push_back(engine() % 5 == 0 ? item : item / groups * groups % items + group);
    }
    for (uint32_t& item : row) item %= items;
    sequences.Append(row);
  }
  return sequences;
}

// PPMI by the definition in the header, through maps.
std::map<std::pair<uint32_t, uint32_t>, double> NaivePpmi(const ItemSequences& sequences, int window,
                                                          double smoothing) {
  std::map<std::pair<uint32_t, uint32_t>, double> counts;
  for (int64_t u = 0; u < sequences.users(); ++u) {
    const auto row = sequences.user(u);
    std::set<std::pair<uint32_t, uint32_t>> pairs;
    for (size_t p = 0; p < row.size(); ++p) {
      for (size_t q = 0; q < row.size(); ++q) {
        const size_t apart = p > q ? p - q : q - p;
        if (row[p] != row[q] && (window == 0 || apart <= static_cast<size_t>(window))) pairs.insert({row[p], row[q]});
      }
    }
    for (const auto& pair : pairs) ++counts[pair];
  }
  std::map<uint32_t, double> totals;
  for (const auto& [pair, count] : counts) totals[pair.first] += count;
  double context = 0;
  for (const auto& [item, total] : totals) context += std::pow(total, smoothing);
  std::map<std::pair<uint32_t, uint32_t>, double> ppmi;
  for (const auto& [pair, count] : counts) {
    const double value = std::log(count * context / (totals[pair.first] * std::pow(totals[pair.second], smoothing)));
    if (value > 1e-6) ppmi[pair] = value;
  }
  return ppmi;
}

TEST(Ppmi, EqualsTheDefinition) {
  for (const int window : {0, 1, 3}) {
    const ItemSequences sequences = RandomSequences(40, 150, 4, 1);
    CollaborativeEmbeddingOptions options;
    options.window = window;
    const auto ppmi = BuildPpmi(sequences, options, nullptr, nullptr);
    ASSERT_TRUE(ppmi.ok());
    const auto expected = NaivePpmi(sequences, window, options.context_smoothing);
    size_t entries = 0;
    for (int64_t i = 0; i < ppmi->rows(); ++i) {
      for (uint64_t e = ppmi->offsets[i]; e < ppmi->offsets[i + 1]; ++e) {
        if (ppmi->values[e] <= 1e-6) continue;
        const auto it = expected.find({static_cast<uint32_t>(i), ppmi->columns[e]});
        ASSERT_NE(it, expected.end());
        EXPECT_NEAR(ppmi->values[e], it->second, 1e-5);
        ++entries;
      }
    }
    EXPECT_EQ(entries, expected.size()) << "window " << window;
  }
}

TEST(Ppmi, KeepsTheLargestNeighboursAndTheNewestEvents) {
  const ItemSequences sequences = RandomSequences(40, 150, 4, 2);
  CollaborativeEmbeddingOptions options;
  const auto full = BuildPpmi(sequences, options, nullptr, nullptr);
  options.max_neighbours = 3;
  const auto few = BuildPpmi(sequences, options, nullptr, nullptr);
  for (int64_t i = 0; i < 40; ++i) {
    ASSERT_LE(few->offsets[i + 1] - few->offsets[i], 3u);
    float least = 1e30f;
    for (uint64_t e = few->offsets[i]; e < few->offsets[i + 1]; ++e) least = std::min(least, few->values[e]);
    size_t above = 0;
    for (uint64_t e = full->offsets[i]; e < full->offsets[i + 1]; ++e) above += full->values[e] > least ? 1 : 0;
    EXPECT_LE(above, 3u);
  }
  ItemSequences one;
  one.num_items = 4;
  one.Append({0, 1, 2, 3});
  options = {};
  options.max_user_events = 2;
  const auto newest = BuildPpmi(one, options, nullptr, nullptr);
  EXPECT_TRUE(newest->row_empty(0));
  EXPECT_TRUE(newest->row_empty(1));
}

TEST(Attributes, RowsAreUnitIdfVectorsOfSharedKeys) {
  ItemAttributeKeys attributes;
  attributes.keys = {{"a", "x", "all"}, {"a", "all"}, {"b", "all", "b"}, {"b", "a", "all"}, {"alone", "all"}};
  const SparseMatrix block = BuildAttributeBlock(attributes, 5);
  EXPECT_EQ(block.cols, 2) << "neither keys of one item nor of all";
  EXPECT_FLOAT_EQ(block.values[0], 1.0f);
  EXPECT_TRUE(block.row_empty(4));
  const double a = std::log(5.0 / 3.0);
  const double b = std::log(5.0 / 2.0);
  EXPECT_NEAR(block.values[block.offsets[3]], a / std::hypot(a, b), 1e-6);
  EXPECT_EQ(BuildAttributeBlock({}, 7).rows(), 7);
}

double Cosine(const FloatMatrix& m, int64_t a, int64_t b) {
  double ab = 0, aa = 0, bb = 0;
  for (int64_t d = 0; d < m.cols; ++d) {
    ab += double{m.row(a)[d]} * m.row(b)[d];
    aa += double{m.row(a)[d]} * m.row(a)[d];
    bb += double{m.row(b)[d]} * m.row(b)[d];
  }
  return ab / std::sqrt(aa * bb);
}

// Items of one group are watched together; item i belongs to group i % 4. Item 40 and 41 have no events.
class Groups : public ::testing::Test {
 protected:
  Groups() {
    std::mt19937_64 engine(3);
    sequences_.num_items = 42;
    for (int u = 0; u < 300; ++u) {
      const uint32_t group = engine() % 4;
      std::vector<uint32_t> row;
      for (int k = 0; k < 8; ++k) row.push_back(static_cast<uint32_t>(engine() % 10) * 4 + group);
      sequences_.Append(row);
    }
    attributes_.keys.resize(42);
    for (uint32_t i = 0; i < 40; ++i) attributes_.keys[i] = {"group:" + std::to_string(i % 4)};
    attributes_.keys[40] = {"group:2"};
    options_.dim = 6;
  }
  ItemSequences sequences_;
  ItemAttributeKeys attributes_;
  CollaborativeEmbeddingOptions options_;
};

TEST_F(Groups, ItemsWatchedTogetherAreClose) {
  const auto embedding = EmbedItems(sequences_, {}, options_);
  ASSERT_TRUE(embedding.ok()) << embedding.status();
  double same = 0, other = 0;
  int same_count = 0, other_count = 0;
  for (int64_t a = 0; a < 40; ++a) {
    for (int64_t b = 0; b < a; ++b) {
      if (a % 4 == b % 4) same += Cosine(embedding->vectors, a, b), ++same_count;
      if (a % 4 != b % 4) other += Cosine(embedding->vectors, a, b), ++other_count;
    }
  }
  EXPECT_GT(same / same_count, 0.5);
  EXPECT_LT(std::fabs(other / other_count), 0.2);
  EXPECT_EQ(embedding->items_without_events, 2);
  EXPECT_EQ(embedding->items_without_anything, 2);
  EXPECT_EQ(embedding->attribute_columns, 0);
}

TEST_F(Groups, AttributesPlaceItemsWithoutEvents) {
  for (const bool normalize : {false, true}) {
    options_.normalize = normalize;
    const auto embedding = EmbedItems(sequences_, attributes_, options_);
    ASSERT_TRUE(embedding.ok());
    EXPECT_EQ(embedding->attribute_columns, 4);
    EXPECT_EQ(embedding->items_without_events, 2);
    EXPECT_EQ(embedding->items_without_anything, 1);
    EXPECT_GT(Cosine(embedding->vectors, 40, 2), 0.8);
    EXPECT_LT(Cosine(embedding->vectors, 40, 1), 0.3);
    double length = 0;
    for (int64_t d = 0; d < 6; ++d) length += std::pow(embedding->vectors.row(40)[d], 2);
    EXPECT_GT(std::sqrt(length), normalize ? 0.999 : 0.1);
    if (normalize) {
      EXPECT_NEAR(length, 1, 1e-5);
    }
    // Item 41 has neither events nor attributes: it is the mean of the others.
    for (int64_t d = 0; d < 6; ++d) {
      double mean = 0;
      for (int64_t i = 0; i < 41; ++i) mean += embedding->vectors.row(i)[d] / 41;
      EXPECT_NEAR(embedding->vectors.row(41)[d], mean, 1e-5);
    }
  }
}

TEST_F(Groups, AttributesAloneAreEnough) {
  ItemSequences none;
  none.num_items = 42;
  const auto embedding = EmbedItems(none, attributes_, options_);
  ASSERT_TRUE(embedding.ok()) << embedding.status();
  EXPECT_GT(Cosine(embedding->vectors, 0, 4), 0.99);
}

TEST_F(Groups, DeterministicWhateverTheThreads) {
  ThreadPool pool(3);
  const auto a = EmbedItems(sequences_, attributes_, options_);
  const auto b = EmbedItems(sequences_, attributes_, options_, {.pool = &pool});
  EXPECT_EQ(a->vectors.values, b->vectors.values);
}

TEST_F(Groups, Refuses) {
  const auto message = [&](const ItemSequences& sequences, const ItemAttributeKeys& attributes) {
    return std::string(EmbedItems(sequences, attributes, options_).status().message());
  };
  ItemSequences bad = sequences_;
  bad.items[5] = 42;
  EXPECT_THAT(message(bad, {}), HasSubstr("item index is 42"));
  ItemAttributeKeys short_list;
  short_list.keys.resize(3);
  EXPECT_THAT(message(sequences_, short_list), HasSubstr("attribute lists is 3"));
  ItemSequences none;
  EXPECT_THAT(message(none, {}), HasSubstr("num_items"));
  none.num_items = 3;
  EXPECT_THAT(message(none, {}), HasSubstr("nothing to learn"));
  options_.dim = 0;
  EXPECT_THAT(message(sequences_, {}), HasSubstr("dim is 0"));
  options_.dim = 513;
  EXPECT_THAT(message(sequences_, {}), HasSubstr("dim is 513"));
  options_ = {};
  options_.context_smoothing = -1;
  EXPECT_THAT(message(sequences_, {}), HasSubstr("context_smoothing"));
  options_ = {};
  SetInterrupted(true);
  EXPECT_EQ(EmbedItems(sequences_, {}, options_).status().code(), absl::StatusCode::kCancelled);
  SetInterrupted(false);
}

}  // namespace
}  // namespace beamline::sid
