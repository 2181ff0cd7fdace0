// SPDX-License-Identifier: Apache-2.0
#include "data/dataset.h"

#include <cstdio>
#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/event_table.h"
#include "test_files.h"

namespace beamline::data {
namespace {

using ::testing::ElementsAre;

constexpr char kHeader[] = "user_id\titem_id\ttimestamp_ms\tplay_time_ms\tduration_ms\tlabels\n";

class DatasetTest : public FolderTest {
 protected:
  Dataset Load(const std::string& events, const DatasetOptions& options = {}) {
    return Dataset::Load({WriteText("events.tsv", kHeader + events), {}, {}}, options).value();
  }
  static std::vector<std::vector<ItemId>> Items(const Dataset& dataset) {
    std::vector<std::vector<ItemId>> users(dataset.num_users());
    for (int64_t user = 0; user < dataset.num_users(); ++user) {
      for (const CompactEvent& event : dataset.events(user)) users[user].push_back(dataset.item_id(event.item));
    }
    return users;
  }
};

TEST_F(DatasetTest, TellsOfSkippedRowsAndAttributeNames) {
  std::FILE* out = std::tmpfile();
  std::string rows;
  for (int i = 1; i <= 300; ++i) rows += "u\t" + std::to_string(i) + "\t5\t\t\t\n";
  const auto events = WriteText("events.tsv", kHeader + rows + "u\tx\t5\t\t\t\n");
  const auto users = WriteText("users.tsv", "user_id\tage\tcity\nu\t30\tRiga\n");
  {
    Progress progress({.out = out, .style = Progress::Options::Style::kLines});
    const absl::StatusOr<Dataset> dataset = Dataset::Load({events, {}, users}, {}, &progress);
    ASSERT_TRUE(dataset.ok()) << dataset.status();
    EXPECT_EQ(dataset->num_events(), 300);
    EXPECT_THAT(dataset->AttributeNames(), ElementsAre("age", "city"));
  }
  ASSERT_EQ(std::fseek(out, 0, SEEK_SET), 0);
  std::string told(4096, '\0');
  told.resize(std::fread(told.data(), 1, told.size(), out));
  std::fclose(out);
  EXPECT_THAT(told, ::testing::HasSubstr("events.tsv: 1 bad rows of 301"));
  EXPECT_THAT(told, ::testing::HasSubstr("line 302"));
}

TEST_F(DatasetTest, SortsByTimeStablyAndNumbersByIdAndAppearance) {
  const Dataset dataset = Load(
      "z\t50\t300\t1\t2\tlike\n"
      "a\t7\t5\t\t\t\n"
      "z\t9\t100\t\t\t\n"
      "z\t8\t100\t\t\t\n"
      "z\t9\t100\t\t\t\n");
  EXPECT_THAT(Items(dataset), ElementsAre(ElementsAre(9, 8, 9, 50), ElementsAre(7)));
  EXPECT_THAT(dataset.item_ids(), ElementsAre(7, 8, 9, 50));
  EXPECT_EQ(dataset.user_id(0), "z");
  EXPECT_EQ(dataset.FindUser("a"), 1u);
  EXPECT_EQ(dataset.FindUser("b"), std::nullopt);
  EXPECT_EQ(dataset.FindItem(50), 3u);
  EXPECT_EQ(dataset.FindItem(51), std::nullopt);
  const CompactEvent& last = dataset.events(0)[3];
  EXPECT_EQ(last.timestamp_ms, 300);
  EXPECT_EQ(last.play_time_ms, 1u);
  EXPECT_EQ(last.duration_ms, 2u);
  EXPECT_EQ(last.labels, uint32_t{kLike});
  const ItemSequences sequences = dataset.Sequences();
  EXPECT_THAT(sequences.items, ElementsAre(2, 1, 2, 3, 0));
  EXPECT_THAT(sequences.offsets, ElementsAre(0, 4, 5));
  EXPECT_EQ(sequences.num_items, 4u);
}

TEST_F(DatasetTest, FingerprintsTellLogsApart) {
  const std::string rows = "z\t50\t300\t1\t2\tlike\na\t7\t5\t\t\t\n";
  const std::string same = Load(rows).EventsFingerprint();
  EXPECT_EQ(same.size(), 16u);
  EXPECT_EQ(Load(rows).EventsFingerprint(), same);
  for (const char* other : {"z\t51\t300\t1\t2\tlike\na\t7\t5\t\t\t\n", "z\t50\t301\t1\t2\tlike\na\t7\t5\t\t\t\n",
                            "z\t50\t300\t2\t2\tlike\na\t7\t5\t\t\t\n", "z\t50\t300\t1\t3\tlike\na\t7\t5\t\t\t\n",
                            "z\t50\t300\t1\t2\tclick\na\t7\t5\t\t\t\n", "z\t50\t300\t1\t2\tlike\n",
                            "z\t50\t300\t1\t2\tlike\nb\t7\t5\t\t\t\n"}) {
    EXPECT_NE(Load(other).EventsFingerprint(), same) << other;
  }
}

TEST_F(DatasetTest, AttributesOfItemsAndUsers) {
  DatasetFiles files;
  files.events = WriteText("events.tsv",
                           std::string(kHeader) + "u\t1\t1\t\t70\t\nu\t2\t2\t\t30\t\nu\t2\t2\t\t40\t\nv\t1\t3\t\t\t\n");
  files.items = WriteText(
      "items.tsv", "item_id\tauthor_id\tduration_ms\ttitle\n9\t4\t5\tnine\n2\t3\t\ttwo\n1\t8\t77\tone\n5\t\t\t\n");
  files.users = WriteText("users.tsv", "user_id\tage\nv\t30\nw\t1\n");
  const Dataset dataset = Dataset::Load(files).value();
  EXPECT_EQ(dataset.num_items(), 2);
  EXPECT_EQ(dataset.item_attributes(0).duration_ms, 77);
  EXPECT_EQ(dataset.item_attributes(1).duration_ms,
            0);  // the events' are not the item's: held-out ones may be among them
  EXPECT_EQ(dataset.item_attributes(1).author, 3u);
  EXPECT_EQ(dataset.item_attributes(1).title, "two");
  EXPECT_TRUE(dataset.user_attributes(0).empty());
  ASSERT_EQ(dataset.user_attributes(1).size(), 1u);
  EXPECT_EQ(dataset.user_attributes(1)[0].value, "30");

  DatasetOptions keep;
  keep.keep_unused_items = true;
  const Dataset with_unused = Dataset::Load(files, keep).value();
  EXPECT_THAT(with_unused.item_ids(), ElementsAre(1, 2, 5, 9));
  EXPECT_EQ(with_unused.FindItem(9), 3u);
  EXPECT_EQ(with_unused.item_attributes(3).title, "nine");
}

TEST_F(DatasetTest, FiltersByLabelAndRepeats) {
  const std::string events =
      "a\t1\t1\t\t\tclick\na\t2\t2\t\t\tclick|long_view\na\t2\t3\t\t\tlong_view\na\t3\t4\t\t\tlike\n"
      "b\t4\t1\t\t\t\nc\t2\t1\t\t\tlike\n";
  DatasetOptions options;
  options.any_of_labels = kLongView | kLike;
  const Dataset loaded = Load(events, options);
  EXPECT_THAT(Items(loaded), ElementsAre(ElementsAre(2, 2, 3), ElementsAre(2)));
  EXPECT_EQ(loaded.user_id(1), "c");
  const Dataset filtered = Load(events).WithLabels(kLongView | kLike);
  EXPECT_EQ(Items(filtered), Items(loaded));
  EXPECT_EQ(filtered.FindUser("c"), 1u);
  EXPECT_EQ(filtered.FindUser("b"), std::nullopt);
  EXPECT_EQ(filtered.FindItem(1), std::nullopt);
  EXPECT_THAT(Items(filtered.WithoutRepeats()), ElementsAre(ElementsAre(2, 3), ElementsAre(2)));
}

TEST_F(DatasetTest, KCoreIsTheLargestWithKEach) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    std::mt19937 random(seed);
    std::string events;
    std::map<uint64_t, std::vector<uint64_t>> users;
    for (int event = 0; event < 150; ++event) {
      const uint64_t user = random() % 25;
      const uint64_t item = random() % (1 + random() % 30);
      users[user].push_back(item);
      absl::StrAppend(&events, user, "\t", item, "\t", event, "\t\t\t\n");
    }
    // Naively: drop one user or item at a time.
    const int k = 2 + static_cast<int>(seed % 4);
    for (bool changed = true; changed;) {
      changed = false;
      std::map<uint64_t, int> items;
      for (const auto& [user, list] : users) {
        for (const uint64_t item : list) ++items[item];
      }
      for (auto& [user, list] : users)
        changed |= std::erase_if(list, [&](uint64_t item) { return items[item] < k; }) > 0;
      changed |= std::erase_if(users, [&](const auto& user) { return static_cast<int>(user.second.size()) < k; }) > 0;
    }
    const Dataset core = Load(events, {.k_core = k});
    ASSERT_EQ(core.num_users(), static_cast<int64_t>(users.size())) << seed;
    for (const auto& [user, items] : users) {
      const std::optional<uint32_t> index = core.FindUser(absl::StrCat(user));
      ASSERT_TRUE(index.has_value());
      EXPECT_EQ(Items(core)[*index], items);
    }
  }
}

// Looking at all events again and again would take one user off each time, for minutes.
TEST_F(DatasetTest, KCoreOfAChainEndsAtOnce) {
  constexpr int kUsers = 150000;
  std::string events;
  for (int user = 0; user < kUsers; ++user) {
    absl::StrAppend(&events, user, "\t", user, "\t", user, "\t\t\t\n");
    absl::StrAppend(&events, user, "\t", user + 1, "\t", user, "\t\t\t\n");
  }
  const absl::Time start = absl::Now();
  EXPECT_EQ(Load(events, {.k_core = 2}).num_users(), 0);
  EXPECT_LT(absl::Now() - start, absl::Seconds(60));
}

TEST_F(DatasetTest, LimitsAndErrorsNameTheFile) {
  const auto path = WriteText("events.tsv", std::string(kHeader) + "u\t1\t1\t\t\t\nu\t1\t1\t\t\t\n");
  EXPECT_PRED_FORMAT2(IsError, Dataset::Load({path, {}, {}}, {.max_events = 1}).status(), "limit of 1 events");
  EXPECT_PRED_FORMAT2(IsError, Dataset::Load({Path("absent"), {}, {}}).status(), Path("absent").string());
  EXPECT_PRED_FORMAT2(IsError, Dataset::Load({path, path, {}}).status(), "appears a second time");
  const Dataset empty = Load("");
  EXPECT_EQ(empty.num_users(), 0);
  EXPECT_EQ(empty.KCore(5).num_items(), 0);
  EXPECT_EQ(empty.Sequences().users(), 0);
}

TEST_F(DatasetTest, FindsTheTablesOfAFolder) {
  EXPECT_PRED_FORMAT2(IsError, FindDatasetFiles(folder_).status(), "no events.tsv or events.tsv.gz");
  WriteText("events.tsv.gz", "");
  WriteText("users.tsv", "");
  const DatasetFiles files = FindDatasetFiles(folder_).value();
  EXPECT_EQ(files.events, Path("events.tsv.gz"));
  EXPECT_EQ(files.items, "");
  EXPECT_EQ(files.users, Path("users.tsv"));
  WriteText("events.tsv", "");
  EXPECT_PRED_FORMAT2(IsError, FindDatasetFiles(folder_).status(), "remove the one that is not meant");
}

}  // namespace
}  // namespace beamline::data
