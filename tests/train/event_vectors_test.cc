// SPDX-License-Identifier: Apache-2.0
//
// The tokenizer sees only what lies before a user's validation event: item vectors of logs that differ in held-out
// events alone are equal.
#include "train/event_vectors.h"

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace beamline::train {
namespace {

using UserItems = std::vector<std::vector<int>>;  // items of each user, in time order; every third is not a target

constexpr int kLogItems = 30;

bool IsTarget(size_t position) { return position % 3 != 1; }

class EmbedEventsTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    std::mt19937 generator(11);
    log_.resize(40);
    for (auto& user : log_) {
      for (int i = 0; i < 12; ++i) user.push_back(1 + static_cast<int>(generator() % kLogItems));
    }
    for (int item = 0; item < kLogItems; ++item) log_[item][0] = 1 + item;  // every log names every item
  }

  std::vector<float> Vectors(const UserItems& log, const std::string& name) const {
    const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / absl::StrCat("embed_", name);
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "items.tsv") << "item_id\n";
    std::ofstream events(folder / "events.tsv");
    events << "user_id\titem_id\ttimestamp_ms\tlabels\n";
    for (size_t user = 0; user < log.size(); ++user) {
      for (size_t i = 0; i < log[user].size(); ++i) {
        events << "u" << user << "\t" << log[user][i] << "\t" << 1'650'000'000'000 + 1000 * i << "\t"
               << (IsTarget(i) ? "long_view" : "click") << "\n";
      }
    }
    events.close();
    EventVectorsOptions options;
    options.embedding.dim = 8;
    options.all_events = GetParam();
    const absl::StatusOr<EventVectors> vectors = EmbedEvents(folder, options, nullptr, nullptr);
    EXPECT_TRUE(vectors.ok()) << vectors.status();
    std::filesystem::remove_all(folder);
    return vectors.ok() ? vectors->items.vectors.values : std::vector<float>();
  }

  UserItems log_;
};

// Positions 9, 10, 11: targets are 9 and 11, so the training part ends before 9.
TEST_P(EmbedEventsTest, HeldOutEventsChangeNothing) {
  const std::vector<float> before = Vectors(log_, "before");
  UserItems changed = log_;
  std::mt19937 generator(12);
  for (auto& user : changed) {
    for (size_t i = 9; i < user.size(); ++i) user[i] = 1 + static_cast<int>(generator() % kLogItems);
  }
  EXPECT_EQ(Vectors(changed, "held_out"), before);
}

TEST_P(EmbedEventsTest, EventsOfTheTrainingPartDo) {
  const std::vector<float> before = Vectors(log_, "before");
  UserItems changed = log_;
  for (auto& user : changed) user[8] = 1 + user[8] % kLogItems;  // the last target of the training part
  EXPECT_NE(Vectors(changed, "training"), before);
}

INSTANTIATE_TEST_SUITE_P(AllEvents, EmbedEventsTest, ::testing::Bool());

}  // namespace
}  // namespace beamline::train
