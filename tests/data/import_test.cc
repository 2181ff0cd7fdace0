// SPDX-License-Identifier: Apache-2.0
#include "data/import.h"

#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "data/dataset.h"
#include "data/item_table.h"
#include "data/table_folder.h"
#include "test_files.h"

namespace beamline::data {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kLogHeader[] =
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n";

class ImportTest : public FolderTest {
 protected:
  ImportOptions Options() {
    ImportOptions options;
    options.overwrite = true;
    options.out = Path("out");
    options.gzip = false;
    return options;
  }
  void WriteLog(const std::string& name, const std::string& rows) { WriteText("in/" + name, kLogHeader + rows); }
};

TEST_F(ImportTest, KuaiRandArchive) {
  WriteLog("data/log_standard_4_08_to_4_21_pure.csv",
           "0,7,20220408,1200,1649400000000,1,1,0,0,0,0,1,61802,49866.0,0,0,1,0,1\n"
           "3,8,20220408,1200,1649400000001,0,0,0,0,0,1,0,0,,0,0,0,0,1\n");
  WriteLog("data/log_standard_4_22_to_5_08_pure.csv", "0,8,20220422,1200,1650600000000,0,0,1,1,1,0,0,5,9,0,0,0,0,1\n");
  WriteLog("data/log_random_4_22_to_5_08_pure.csv", "0,9,20220422,1200,1650600000001,0,0,0,0,0,0,0,5,9,0,0,0,1,1\n");
  WriteText("in/data/video_features_basic_pure.csv",
            "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,"
            "server_height,music_id,music_type,tag\n"
            "7,7349781,NORMAL,2022-04-10,LongImport,0.0,87433.0,720.0,1280.0,9155697141,9.0,\"39,68\"\n"
            "8,1,AD,,,0.0,,720.0,1280.0,,,\n");
  WriteText("in/data/user_features_pure.csv",
            "user_id,user_active_degree,is_video_author,follow_user_num,follow_user_num_range,onehot_feat4\n"
            "0,full_active,1,514,\"(250,500]\",1.0\n3,full_active,-124,1,500+,\n");
  const ImportReport report = ImportKuaiRand(Path("in"), {}, Options()).value();
  EXPECT_EQ(report.events, 3);
  EXPECT_EQ(report.items, 2);
  EXPECT_EQ(report.users, 2);
  const Dataset dataset = Dataset::Load(FindDatasetFiles(Path("out")).value()).value();
  ASSERT_EQ(dataset.num_events(), 3);
  const CompactEvent& first = dataset.events(0)[0];
  EXPECT_EQ(first.labels, uint32_t{kClick | kLike | kLongView | kProfileEnter});
  EXPECT_EQ(first.play_time_ms, 61802u);
  EXPECT_EQ(first.duration_ms, 49866u);
  EXPECT_EQ(dataset.events(0)[1].labels, uint32_t{kFollow | kComment | kForward});
  EXPECT_EQ(dataset.events(1)[0].labels, uint32_t{kHate});
  const ItemAttributes& item = dataset.item_attributes(0);
  EXPECT_EQ(item.author, 7349781u);
  EXPECT_EQ(item.duration_ms, 87433);
  EXPECT_EQ(item.created_ms, 1649520000000);  // 10 April 2022, midnight in Beijing
  EXPECT_EQ(item.relevance, 0);
  const std::vector<std::pair<std::string, std::string>> tags = {
      {"tag", "39"}, {"tag", "68"}, {"video_type", "NORMAL"}, {"upload_type", "LongImport"}, {"music_type", "9"}};
  EXPECT_EQ(item.tags, tags);
  ASSERT_EQ(dataset.user_attributes(0).size(), 4u);  // the count beside a range is left out
  EXPECT_EQ(dataset.user_attributes(0)[2].name, "follow_user_num_range");
  EXPECT_EQ(dataset.user_attributes(0)[2].value, "(250,500]");
  EXPECT_EQ(dataset.user_attributes(0)[3].value, "1");
  EXPECT_EQ(dataset.user_attributes(1).size(), 2u);  // missing values are left out

  EXPECT_EQ(ImportKuaiRand(Path("in"), {.include_random = true}, Options()).value().events, 4);
}

TEST_F(ImportTest, KuaiRandAnySubsetAndPlainBeforeGzip) {
  EXPECT_PRED_FORMAT2(IsError, ImportKuaiRand(Path("in"), {}, Options()).status(), "in: no such folder");
  WriteText("in/other.csv", "a\n");
  EXPECT_PRED_FORMAT2(IsError, ImportKuaiRand(Path("in"), {}, Options()).status(), "no log_standard_*");
  WriteLog("log_random_4_22_to_5_08_pure.csv", "0,9,20220422,1200,1650600000001,0,0,0,0,0,0,0,5,9,0,0,0,1,1\n");
  WriteText("in/log_random_4_22_to_5_08_pure.csv.gz", "not read, since the plain file is there");
  const ImportReport report = ImportKuaiRand(Path("in"), {}, Options()).value();
  EXPECT_EQ(report.events, 1);
  EXPECT_EQ(report.items, 0);
  EXPECT_FALSE(std::filesystem::exists(Path("out/items.tsv")));
}

TEST_F(ImportTest, KuaiRandWholeNumbersAsFloats) {
  WriteLog("log_standard.csv", "0,9.0,20220422,1200,1650600000001.0,1.0,0.0,0,0,0,0,1.0,5.0,9.0,0,0,0,1,1\n");
  ASSERT_EQ(ImportKuaiRand(Path("in"), {}, Options()).value().events, 1);
  EXPECT_THAT(ReadText(Path("out/events.tsv")), HasSubstr("0\t9\t1650600000001\t5\t9\tclick|long_view\n"));
}

// A table that pandas read with a gap and wrote again: its ids are those of the tables that have none.
TEST_F(ImportTest, KuaiRandIdsAsFloatsAreThoseOfOtherTables) {
  WriteLog("log_standard.csv", "3.0,9,20220422,1200,1650600000001,1,0,0,0,0,0,1,5,9,0,0,0,1,1\n");
  WriteText("in/video_features_basic_pure.csv", "video_id,author_id\n9.0,5.0\n");
  WriteText("in/video_features_statistic_pure.csv", "video_id,show_cnt,long_time_play_cnt\n9.0,200.0,50.0\n");
  WriteText("in/user_features_pure.csv", "user_id,is_video_author,onehot_feat4\n3.0,-124.0,2.0\n");
  ASSERT_TRUE(ImportKuaiRand(Path("in"), {.statistic_relevance = true}, Options()).ok());
  const Dataset dataset = Dataset::Load(FindDatasetFiles(Path("out")).value()).value();
  EXPECT_EQ(dataset.user_id(0), "3");
  EXPECT_EQ(dataset.item_attributes(0).author, 5u);
  EXPECT_EQ(dataset.item_attributes(0).relevance, 0.25f);
  ASSERT_EQ(dataset.user_attributes(0).size(), 1u) << "-124 is no value";
  EXPECT_EQ(dataset.user_attributes(0)[0].value, "2");
}

TEST_F(ImportTest, KuaiRandStatisticRelevanceOnRequest) {
  WriteText("in/video_features_basic_pure.csv", "video_id\n7\n8\n");
  WriteText("in/video_features_statistic_pure.csv", "video_id,show_cnt,long_time_play_cnt\n7,200.0,50.5\n");
  ASSERT_TRUE(ImportKuaiRand(Path("in"), {.statistic_relevance = true}, Options()).ok());
  EXPECT_THAT(ReadText(Path("out/items.tsv")), HasSubstr("7\t0\t0\t0\t0.2525\t"));
  EXPECT_FALSE(std::filesystem::exists(Path("out/events.tsv")));
}

// An item table would refuse them: what is written is read again.
TEST_F(ImportTest, KuaiRandRelevanceBeyondAnItemTablesIsABadRow) {
  WriteText("in/video_features_basic_pure.csv", "video_id\n1\n2\n");
  const std::pair<const char*, const char*> rows[] = {
      {"1,1e-300,1e300", "long_time_play_cnt 1e+300 by show_cnt 1e-300 is inf, more than the largest relevance, 1e+30"},
      {"1,1,1e35", "long_time_play_cnt 1e+35 by show_cnt 1 is 1e+35, more than the largest relevance, 1e+30"},
  };
  for (const auto& [row, why] : rows) {
    WriteText("in/video_features_statistic_pure.csv",
              absl::StrCat("video_id,show_cnt,long_time_play_cnt\n", row, "\n2,1,1e30\n"));
    EXPECT_PRED_FORMAT2(IsError, ImportKuaiRand(Path("in"), {.statistic_relevance = true}, Options()).status(), why);
    ImportOptions options = Options();
    options.bad_rows.max_fraction = 1;
    ASSERT_TRUE(ImportKuaiRand(Path("in"), {.statistic_relevance = true}, options).ok());
    EXPECT_THAT(ReadText(Path("out/items.tsv")),
                AllOf(HasSubstr("\n1\t0\t0\t0\t0\t"), HasSubstr("\n2\t0\t0\t0\t1e+30\t")));
    ItemTableReader items = ItemTableReader::Open(Path("out/items.tsv")).value();
    ItemRow item;
    while (items.Next(&item).value()) {
    }
    EXPECT_EQ(items.bad_rows().bad(), 0);
  }
}

TEST_F(ImportTest, KuaiRandBadRows) {
  const char* rows[] = {
      "0,7,1,1,-5,1,0,0,0,0,0,1,1,1,0,0,0,0,1\n",
      "0,7,1,1,1649400000000,2,0,0,0,0,0,1,1,1,0,0,0,0,1\n",
      "0,x,1,1,1649400000000,1,0,0,0,0,0,1,1,1,0,0,0,0,1\n",
      "0,7,1,1,1649400000000,1,0,0,0,0,0,1,-1,1,0,0,0,0,1\n",
      "0,7,1,1,1649400000000,1\n",
      "\"0,7,1,1,1649400000000,1,0,0,0,0,0,1,1,1,0,0,0,0,1\n",
  };
  for (const char* row : rows) {
    WriteLog("log_standard.csv", row);
    EXPECT_PRED_FORMAT2(IsError, ImportKuaiRand(Path("in"), {}, Options()).status(), "line 2: ");
    EXPECT_FALSE(std::filesystem::exists(Path("out/events.tsv"))) << row;
  }
}

TEST_F(ImportTest, AmazonWithTitlesAndAttributes) {
  WriteText("in/Beauty.txt", "1 1 2 3\n2 3 1\n");
  WriteText("in/item_titles.tsv", "1\tB004\tNail; Lacquer\n2\tB005\tTab\tin title\n3\t\t\xFFodd\n");
  WriteText("in/Beauty_item2attributes.json", "{\"1\": [4, 5], \"9\": [1]}");
  const ImportReport report = ImportAmazon(Path("in"), Options()).value();
  EXPECT_EQ(report.events, 5);
  EXPECT_EQ(report.items, 3);
  const Dataset dataset = Dataset::Load(FindDatasetFiles(Path("out")).value()).value();
  EXPECT_EQ(dataset.user_id(0), "1");
  EXPECT_EQ(dataset.events(0).size(), 3u);
  EXPECT_EQ(dataset.item_attributes(0).title, "Nail; Lacquer");
  EXPECT_EQ(dataset.item_attributes(0).tags.size(), 3u);
  EXPECT_EQ(dataset.item_attributes(1).title, "Tab in title");
  EXPECT_EQ(dataset.item_attributes(2).title, " odd");
}

TEST_F(ImportTest, WhatIsLeftOutIsTold) {
  WriteText("in/Beauty.txt", "1 1 2 3\n");
  WriteText("in/Beauty_item2attributes.json", "{\"1\": [4]}");
  EXPECT_THAT(ImportAmazon(Path("in"), Options()).value().notes,
              ::testing::Contains(::testing::HasSubstr("Beauty_item2attributes.json: left out")));
}

TEST_F(ImportTest, AFileThatIsNotThereLeavesNoFolder) {
  EXPECT_PRED_FORMAT2(IsError, ImportSequences(Path("none.txt"), kClick, Options()).status(), "none.txt");
  EXPECT_FALSE(std::filesystem::exists(Path("out")));
}

TEST_F(ImportTest, AmazonBadAttributes) {
  WriteText("in/Beauty.txt", "1 1 2 3\n");
  WriteText("in/item_titles.tsv", "1\tB004\tx\n");
  for (const char* bad : {"[]", "{\"x\": [1]}", "{\"1\": 1}", "{\"1\": [-1]}", "{\"1\": [\"a\"]}", "{"}) {
    WriteText("in/Beauty_item2attributes.json", bad);
    EXPECT_PRED_FORMAT2(IsError, ImportAmazon(Path("in"), Options()).status(), "item2attributes.json") << bad;
    EXPECT_FALSE(std::filesystem::exists(Path("out/events.tsv"))) << "events are last: they mean that all is there";
  }
  std::filesystem::remove(Path("in/Beauty_item2attributes.json"));
  WriteText("in/Sports.txt", "1 1\n");
  EXPECT_PRED_FORMAT2(IsError, ImportAmazon(Path("in"), Options()).status(), "more than one *.txt");
}

TEST_F(ImportTest, AmazonFolderThatIsNoneIsToldAsThat) {
  EXPECT_PRED_FORMAT2(IsError, ImportAmazon(Path("in"), Options()).status(), "in: no such folder");
  WriteText("Beauty.txt", "1 1 2 3\n");
  EXPECT_PRED_FORMAT2(IsError, ImportAmazon(Path("Beauty.txt"), Options()).status(), "Beauty.txt: is not a folder");
}

TEST_F(ImportTest, AmazonTitlesThatAreTooLongAreBadRows) {
  WriteText("in/Beauty.txt", "1 1 2 3\n");
  WriteText("in/item_titles.tsv", "1\tB004\tx\n2\tB005\t" + std::string(2 << 20, 'y') + "\n3\tB006\tz\n");
  EXPECT_PRED_FORMAT2(IsError, ImportAmazon(Path("in"), Options()).status(), "line 2: longer than");
  ImportOptions options = Options();
  options.bad_rows.max_fraction = 0.5;
  EXPECT_EQ(ImportAmazon(Path("in"), options).value().items, 2);
}

TEST_F(ImportTest, FoldersNeverMixDataSets) {
  WriteText("in.txt", "1 1 2 3\n");
  ASSERT_TRUE(ImportSequences(Path("in.txt"), kClick, Options()).ok());
  ASSERT_TRUE(ImportSequences(Path("in.txt"), kClick, Options()).ok());  // the same tables again
  ImportOptions once = Options();
  once.overwrite = false;
  EXPECT_PRED_FORMAT2(IsError, ImportSequences(Path("in.txt"), kClick, once).status(),
                      "out/events.tsv: exists; pass --overwrite");
  ImportOptions gzip = Options();
  gzip.gzip = true;
  EXPECT_PRED_FORMAT2(IsError, ImportSequences(Path("in.txt"), kClick, gzip).status(), "events.tsv is there");
  WriteText("out/items.tsv", "item_id\n");
  EXPECT_PRED_FORMAT2(IsError, ImportSequences(Path("in.txt"), kClick, Options()).status(), "items.tsv is there");
}

}  // namespace
}  // namespace beamline::data
