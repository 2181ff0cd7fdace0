// SPDX-License-Identifier: Apache-2.0
#include "sid/sid_index.h"

#include <filesystem>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "sid/sid_test_util.h"
#include "testing/paths.h"

namespace beamline::sid {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

SidTable Small() {
  SidTable table;
  table.level_sizes = {256, 300, 4};
  table.items = {5, 18446744073709551615u, 9};
  table.sids = {Sid{0, 299, 3}, Sid{255, 0, 0}, Sid{0, 299, 3}};
  return table;
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(SidTokens, BothWays) {
  EXPECT_EQ(SidToken(0, 183), "<a_183>");
  EXPECT_EQ(SidToken(7, 0), "<h_0>");
  EXPECT_EQ(*ParseSidToken("<b_65535>", 1), 65535u);
  EXPECT_EQ(SidTokens(Sid{1, 2}), "<a_1><b_2>");
  EXPECT_EQ(*ParseSidTokens("<a_1><b_2>"), (Sid{1, 2}));
  for (const char* bad : {"", "<a_1", "a_1>", "<a_>", "<a_-1>", "<a_01>", "<a_1.0>", "<a_ 1>", "<A_1>", "<b_1>",
                          "<a_1>x", "<a_9999999999>", "<a_1><a_2>", "<a_1><b_1><c_1><d_1><e_1><f_1><g_1><h_1><i_1>"}) {
    EXPECT_FALSE(ParseSidTokens(bad).ok()) << bad;
  }
}

TEST(SidTsv, RoundTrip) {
  const TempFolder folder;
  SidTable table = Small();
  table.codebook_fingerprint = std::string(64, 'f');
  ASSERT_TRUE(WriteSidTsv(folder.file("s.tsv"), table).ok());
  EXPECT_THAT(Slurp(folder.file("s.tsv")), HasSubstr("item_id\tsid\n5\t0,299,3\n"));
  const auto read = ReadSidTsv(folder.file("s.tsv"));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->items, table.items);
  EXPECT_EQ(read->sids, table.sids);
  EXPECT_EQ(read->level_sizes, table.level_sizes);
  EXPECT_EQ(read->codebook_fingerprint, table.codebook_fingerprint);
}

TEST(SidTsv, RefusesBadRowsWithTheirLine) {
  const TempFolder folder;
  const std::string head = "#beamline-sids\t1\tlevels=4,4\nitem_id\tsid\n";
  const auto message = [&](const std::string& contents, int64_t max_bad_rows = 0) {
    SidIndexOptions options;
    options.max_bad_rows = max_bad_rows;
    return Message(ReadSidTsv(folder.Write("s.tsv", contents), options).status());
  };
  EXPECT_EQ(message(head + "1\t0,3\n2\t1,1\n"), "");
  EXPECT_THAT(message(head + "1\t0,3\n2\t0,4\n"), HasSubstr("s.tsv:4: code 4 of level 2 must be below 4"));
  EXPECT_THAT(message(head + "1\t0,3\n2\t0\n"), HasSubstr("s.tsv:4: SID has 1 codes, must have 2"));
  EXPECT_THAT(message(head + "1\t0,3\n2\t0,1,2\n"), HasSubstr("s.tsv:4"));
  EXPECT_THAT(message(head + "1\t0,3\n1\t0,1\n"), HasSubstr("s.tsv:4: item 1 is there twice"));
  EXPECT_THAT(message(head + "1\t0,-3\n"), HasSubstr("s.tsv:3"));
  EXPECT_THAT(message(head + "x\t0,3\n"), HasSubstr("s.tsv:3"));
  EXPECT_THAT(message(head + "1 0,3\n"), HasSubstr("s.tsv:3"));
  EXPECT_THAT(message(head + "\n1\t0,3\n"), HasSubstr("s.tsv:3"));
  EXPECT_THAT(message(head + "18446744073709551616\t0,3\n"), HasSubstr("s.tsv:3"));
  EXPECT_THAT(message(head + "1\t" + std::string(100'000, '0') + "\n"), HasSubstr("s.tsv:3"));
  EXPECT_THAT(message(head), HasSubstr("no item"));
  EXPECT_THAT(message(""), HasSubstr("s.tsv:1"));
  EXPECT_THAT(message("item_id\tsid\n1\t0,3\n"), HasSubstr("s.tsv:1"));
  EXPECT_THAT(message("#beamline-sids\t2\tlevels=4,4\nitem_id\tsid\n1\t0,3\n"), HasSubstr("version 2"));
  EXPECT_THAT(message("#beamline-sids\t1\tlevels=4,0\nitem_id\tsid\n1\t0,3\n"), HasSubstr("s.tsv:1"));
  EXPECT_THAT(message("#beamline-sids\t1\tlevels=4,4\nsid\titem_id\n1\t0,3\n"), HasSubstr("s.tsv:2"));
  EXPECT_EQ(message(head + "1\t0,3\nx\n2\t9,9\n", 2), "");
  EXPECT_THAT(message(head + "1\t0,3\nx\n2\t9,9\n", 1), HasSubstr("more than 1 bad rows"));
}

TEST(SidTsv, CountsWhatItSkips) {
  const TempFolder folder;
  SidIndexOptions options;
  options.max_bad_rows = 100;
  BadRows bad_rows;
  std::string contents = "#beamline-sids\t1\tlevels=4,4\nitem_id\tsid\n1\t0,3\n";
  for (int i = 0; i < 50; ++i) contents += "broken\n";
  const auto table = ReadSidTsv(folder.Write("s.tsv", contents), options, &bad_rows);
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(table->items.size(), 1u);
  EXPECT_EQ(bad_rows.count, 50);
  EXPECT_EQ(bad_rows.messages.size(), 10u);
  EXPECT_THAT(bad_rows.messages[0], HasSubstr("s.tsv:4"));
}

// The first line's digest is of everything else; a table of other making has none.
TEST(SidTsv, ADigestCoversEveryLine) {
  const TempFolder folder;
  ASSERT_TRUE(WriteSidTsv(folder.file("s.tsv"), Small()).ok());
  const std::string good = Slurp(folder.file("s.tsv"));
  const size_t field = good.find("\tsha256=");
  ASSERT_NE(field, std::string::npos);
  const auto read = [&](std::string text, const std::string& from, const std::string& to) {
    text.replace(text.find(from), from.size(), to);
    std::ofstream(folder.file("s.tsv"), std::ios::binary) << text;
    return ReadSidTsv(folder.file("s.tsv")).status();
  };
  EXPECT_TRUE(read(good, "", "").ok());
  EXPECT_EQ(read(good, "299,", "298,").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(read(good, "levels=", "levels=1").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(read(good.substr(0, good.rfind('\n', good.size() - 2) + 1), "", "").code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(read(good, "299,", "298,")), HasSubstr("s.tsv: its rows do not have the SHA-256"));
  EXPECT_THAT(Message(read(good, "sha256=", "shb256=")), HasSubstr("s.tsv:1: field"));
  EXPECT_THAT(Message(read(good, "\tsha256=", " sha256=")), HasSubstr("s.tsv:1: "));
  EXPECT_TRUE(read(good, good.substr(field, good.find('\n') - field), "").ok()) << "without it";
}

TEST(SidTsv, AFieldOfTheHeaderAppearsOnce) {
  const TempFolder folder;
  const auto read = [&](const std::string& fields) {
    std::ofstream(folder.file("s.tsv")) << "#beamline-sids\t1\tlevels=3,300\t" << fields
                                        << "\nitem_id\tsid\n1\t2,299\n";
    return ReadSidTsv(folder.file("s.tsv")).status();
  };
  EXPECT_TRUE(read("codebook=c\ttargets=t\tlog=l").ok()) << read("codebook=c\ttargets=t\tlog=l");
  for (const char* name : {"levels", "codebook", "targets", "log", "sha256"}) {
    const std::string twice = absl::StrCat(name, "=a\t", name, "=b");
    const absl::Status status = read(name == std::string("levels") ? "levels=3,300" : twice);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(Message(status), AllOf(HasSubstr("s.tsv:1: field"), HasSubstr(name), HasSubstr("a second time")));
  }
}

TEST(SidTsv, OptionsCanFixTheSizes) {
  const TempFolder folder;
  ASSERT_TRUE(WriteSidTsv(folder.file("s.tsv"), Small()).ok());
  SidIndexOptions options;
  options.level_sizes = {256, 256, 4};
  EXPECT_THAT(Message(ReadSidTsv(folder.file("s.tsv"), options).status()), HasSubstr("256,300,4"));
  options = {};
  options.max_rows = 2;
  EXPECT_THAT(Message(ReadSidTsv(folder.file("s.tsv"), options).status()), HasSubstr("limit of 2 rows"));
}

TEST(IndexJson, RoundTripWithOffset) {
  const TempFolder folder;
  ASSERT_TRUE(WriteIndexJson(folder.file("x.index.json"), Small(), 5).ok());
  EXPECT_THAT(Slurp(folder.file("x.index.json")), HasSubstr("{\"0\": [\"<a_0>\", \"<b_299>\", \"<c_3>\"], "));
  SidIndexOptions options;
  options.id_offset = 5;
  options.level_sizes = Small().level_sizes;
  const auto read = ReadIndexJson(folder.file("x.index.json"), options);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->items, Small().items);
  EXPECT_EQ(read->sids, Small().sids);
  options.level_sizes = {};
  EXPECT_THAT(ReadIndexJson(folder.file("x.index.json"), options)->level_sizes, ElementsAre(256, 300, 4));
  EXPECT_FALSE(WriteIndexJson(folder.file("y"), Small(), 6).ok()) << "an id below the offset has no key";
}

TEST(IndexJson, RefusesBadEntriesWithTheirKey) {
  const TempFolder folder;
  const auto message = [&](const std::string& contents, std::vector<uint32_t> sizes = {}) {
    SidIndexOptions options;
    options.level_sizes = std::move(sizes);
    return Message(ReadIndexJson(folder.Write("x.json", contents), options).status());
  };
  const std::string one = R"("0": ["<a_1>", "<b_2>"])";
  EXPECT_EQ(message("{" + one + R"(, "1": ["<a_1>", "<b_2>"]})"), "");
  EXPECT_THAT(message("{" + one + R"(, "7": ["<a_1>"]})"), HasSubstr("key \"7\": SID has 1 codes, must have 2"));
  EXPECT_THAT(message("{" + one + R"(, "7": []})"), HasSubstr("key \"7\""));
  EXPECT_THAT(message("{" + one + R"(, "0": ["<a_3>", "<b_2>"]})"), HasSubstr("item 0 is there twice"));
  EXPECT_THAT(message("{" + one + R"(, "7": ["<b_1>", "<b_2>"]})"), HasSubstr("must be <a_CODE>"));
  EXPECT_THAT(message("{" + one + R"(, "7": ["<x_1>", "<b_2>"]})"), HasSubstr("key \"7\""));
  EXPECT_THAT(message("{" + one + R"(, "7": ["<a_-1>", "<b_2>"]})"), HasSubstr("key \"7\""));
  EXPECT_THAT(message("{" + one + R"(, "7": ["<a_65536>", "<b_2>"]})"), HasSubstr("code 65536"));
  EXPECT_THAT(message("{" + one + R"(, "7": ["<a_1>", "<b_256>"]})", {256, 256}), HasSubstr("must be below 256"));
  EXPECT_THAT(message("{" + one + R"(, "x": ["<a_1>", "<b_2>"]})"), HasSubstr("key \"x\""));
  EXPECT_THAT(message("{" + one + R"(, "-1": ["<a_1>", "<b_2>"]})"), HasSubstr("key \"-1\""));
  EXPECT_THAT(message("{" + one + R"(, "07": ["<a_1>", "<b_2>"]})"), HasSubstr("key \"07\""));
  EXPECT_THAT(message("{" + one + R"(, "7": [1, 2]})"), HasSubstr("a number"));
  EXPECT_THAT(message("{" + one + R"(, "7": "<a_1>"})"), HasSubstr("object of arrays"));
  EXPECT_THAT(message("{" + one + R"(, "7": {"a": 1}})"), HasSubstr("object inside"));
  EXPECT_THAT(message("{" + one + R"(, "7": [["<a_1>"]]})"), HasSubstr("x.json"));
  EXPECT_THAT(message("[]"), HasSubstr("object of arrays"));
  EXPECT_THAT(message("{}"), HasSubstr("no item"));
  EXPECT_THAT(message("{" + one), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("{" + one + "}{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message(""), HasSubstr("empty"));
  EXPECT_THAT(message("\"0\""), HasSubstr("x.json"));
  EXPECT_THAT(message(std::string(100'000, '[')), HasSubstr("x.json"));
}

TEST(IndexJson, OffsetsThatOverflowAreBadRows) {
  const TempFolder folder;
  SidIndexOptions options;
  options.id_offset = 1;
  const std::string path = folder.Write("x.json", R"({"18446744073709551615": ["<a_1>"]})");
  EXPECT_THAT(Message(ReadIndexJson(path, options).status()), HasSubstr("not an item id"));
  options.id_offset = -1;
  EXPECT_EQ(ReadIndexJson(path, options)->items[0], 18446744073709551614u);
  EXPECT_FALSE(ReadIndexJson(folder.Write("y.json", R"({"0": ["<a_1>"]})"), options).ok());
}

TEST(InfoText, RoundTripKeepsTitles) {
  const TempFolder folder;
  SidTable table = Small();
  table.titles = {"Red\tlamp", "", "caf\xc3\xa9"};
  ASSERT_TRUE(WriteInfoText(folder.file("info.txt"), table).ok());
  const auto read = ReadInfoText(folder.file("info.txt"));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->sids, table.sids);
  EXPECT_EQ(read->items, table.items);
  EXPECT_THAT(read->titles, ElementsAre("Red lamp", "", "caf\xc3\xa9"));
}

TEST(InfoText, RefusesBadRows) {
  const TempFolder folder;
  const auto message = [&](const std::string& contents) {
    return Message(ReadInfoText(folder.Write("info.txt", contents)).status());
  };
  EXPECT_EQ(message("<a_60><b_159><c_203>\tPens\t0\n"), "");
  EXPECT_THAT(message("<a_60><b_159><c_203>\tPens\n"), HasSubstr("info.txt:1"));
  EXPECT_THAT(message("<a_60><b_159>\tPens\t0\n<a_60>\tPens\t1\n"), HasSubstr("info.txt:2"));
  EXPECT_THAT(message("<a_60>\tPens\t0\n<a_61>\tPens\t0\n"), HasSubstr("info.txt:2: item 0 is there twice"));
  EXPECT_THAT(message("a_60\tPens\t0\n"), HasSubstr("info.txt:1"));
  EXPECT_THAT(message("<a_60>\tPens\tx\n"), HasSubstr("info.txt:1"));
}

TEST(SidMapJson, ReadsWhatOpenOneRecWrites) {
  const TempFolder folder;
  // 340 * 8192^2 + 6566 * 8192 + 5603, and 1: by views, the last one a product's id.
  const auto table = ReadSidMapJson(folder.Write(
      "good.json", R"({"22870808035": [{"pid": 17, "count": 9, "count_after_downsample": -2.5, "note": "x"}, )"
                   R"({"count": null, "pid": 18446744073709551615}], "1": [{"iid": 5}], "2": []})"));
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_THAT(table->level_sizes, ElementsAre(8192, 8192, 8192));
  EXPECT_THAT(table->items, ElementsAre(17, 18446744073709551615u, 5));
  EXPECT_THAT(table->sids, ElementsAre(Sid{340, 6566, 5603}, Sid{340, 6566, 5603}, Sid{0, 0, 1}));
}

TEST(SidMapJson, OtherBasesAndBadEntries) {
  const TempFolder folder;
  SidIndexOptions options;
  options.level_sizes = {2, 10};
  const auto read = [&](const std::string& contents) {
    return ReadSidMapJson(folder.Write("map.json", contents), options);
  };
  EXPECT_EQ(read(R"({"19": [{"pid": 4}]})")->sids[0], (Sid{1, 9}));
  const auto message = [&](const std::string& contents) { return Message(read(contents).status()); };
  EXPECT_THAT(message(R"({"20": [{"pid": 4}]})"), HasSubstr("map.json: key \"20\": SID number 20 is beyond"));
  for (const char* key : {"", "x", "-1", "1.0", " 1", "18446744073709551616"}) {
    EXPECT_THAT(message(absl::StrCat("{\"", key, "\": [{\"pid\": 4}]}")), HasSubstr("not a SID number")) << key;
  }
  for (const char* record : {"{}", R"({"pid": "4"})", R"({"pid": -4})", R"({"pid": 4.0})", R"({"pid": null})"}) {
    EXPECT_THAT(message(absl::StrCat("{\"1\": [", record, "]}")), HasSubstr("no whole number 'pid'")) << record;
  }
  EXPECT_THAT(message(R"({"1": [{"pid": 4}], "2": [{"pid": 4}]})"), HasSubstr("item 4 is there twice"));
  for (const char* shape : {"[]", "1", R"({"1": 4})", R"({"1": {"pid": 4}})", R"({"1": [4]})", R"({"1": [[]]})"}) {
    EXPECT_THAT(message(shape), HasSubstr("the map must be")) << shape;
  }
  EXPECT_THAT(message("{}"), HasSubstr("holds no item"));
  EXPECT_THAT(message(R"({"1": [{"pid": 4)"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message(R"({"1": [{"pid": 4, "other": [1.5]}]})"), HasSubstr("nested deeper"));
  options.max_bad_rows = 2;
  BadRows bad_rows;
  const auto some =
      ReadSidMapJson(folder.Write("some.json", R"({"x": [{"pid": 1}], "1": [{}, {"pid": 2}]})"), options, &bad_rows);
  ASSERT_TRUE(some.ok()) << some.status();
  EXPECT_THAT(some->items, ElementsAre(2));
  EXPECT_EQ(bad_rows.count, 2);
  options.level_sizes = {0, 10};
  EXPECT_FALSE(read(R"({"1": [{"pid": 4}]})").ok());
}

TEST(SidTable, WritersRefuseInvalidTables) {
  const TempFolder folder;
  SidTable table = Small();
  table.items[2] = 5;
  EXPECT_FALSE(WriteSidTsv(folder.file("s"), table).ok());
  table = Small();
  table.sids[0] = Sid{256, 0, 0};
  EXPECT_FALSE(WriteIndexJson(folder.file("s"), table).ok());
  table = Small();
  table.titles = {"one"};
  EXPECT_FALSE(WriteInfoText(folder.file("s"), table).ok());
  table = Small();
  table.sids.pop_back();
  EXPECT_FALSE(CheckSidTable(table).ok());
  EXPECT_FALSE(std::filesystem::exists(folder.file("s")));
}

TEST(IndexJson, ReadsTheLetterAuthorsBeautyIndex) {
  const std::string path = BEAMLINE_SHARED_DIR + "/data/amazon-beauty/Beauty.index.json";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "missing " << path;
  SidIndexOptions options;
  options.id_offset = 1;
  options.level_sizes = {256, 256, 256, 256};
  const auto table = ReadIndexJson(path, options);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->items.size(), 12101u);
  EXPECT_EQ(table->items.front(), 1u);
  EXPECT_EQ(table->sids.front(), (Sid{183, 70, 232, 6}));
  EXPECT_EQ(std::set<Sid>(table->sids.begin(), table->sids.end()).size(), 12088u);
  options.level_sizes = {256, 256, 256, 255};
  EXPECT_FALSE(ReadIndexJson(path, options).ok());
}

}  // namespace
}  // namespace beamline::sid
