// SPDX-License-Identifier: Apache-2.0
#include "data/parse.h"

#include <locale>

#include <gtest/gtest.h>

#include "beamline/request.h"
#include "data/bad_rows.h"
#include "data/delimited_reader.h"
#include "data/labels.h"
#include "test_files.h"

namespace beamline::data {
namespace {

TEST(ParseTest, WholeNumbersAreStrict) {
  EXPECT_EQ(ParseUnsigned("18446744073709551615"), 18446744073709551615ull);
  EXPECT_EQ(ParseUnsigned("0"), 0u);
  EXPECT_EQ(ParseInteger("-5"), -5);
  for (const char* bad : {"", " 1", "1 ", "+1", "0x10", "1e3", "1.0", "18446744073709551616", "-1", "1,000", "one"}) {
    EXPECT_FALSE(ParseUnsigned(bad).has_value()) << bad;
  }
}

TEST(ParseTest, NumbersAreFiniteAndTheSameInEveryLocale) {
  EXPECT_EQ(ParseNumber("87433.0"), 87433.0);
  EXPECT_EQ(ParseNumber("-1e3"), -1000.0);
  for (const char* bad : {"", "nan", "inf", "-inf", "1e999", "1,5", "1.5x", " 1"}) {
    EXPECT_FALSE(ParseNumber(bad).has_value()) << bad;
  }
}

TEST(ParseTest, FieldsNameTheirLimit) {
  EXPECT_EQ(ParseRangeField("t", "7", 10, false).value(), 7);
  EXPECT_EQ(ParseRangeField("t", "", 10, true).value(), 0);
  for (const char* bad : {"", "-1", "11", "9223372036854775808", "-9223372036854775808"}) {
    EXPECT_PRED_FORMAT2(IsError, ParseRangeField("t", bad, 10, false).status(), "is not a whole number from 0 to 10");
  }
  EXPECT_PRED_FORMAT2(IsError, ParseIdField("item_id", "-3").status(), "item_id '-3' is not a whole number");
  EXPECT_PRED_FORMAT2(IsError, ParseUserField("user_id", "").status(), "user_id is empty");
  EXPECT_PRED_FORMAT2(IsError, ParseUserField("user_id", std::string(257, 'u')).status(), "257 bytes");
  EXPECT_PRED_FORMAT2(IsError, ParseUserField("user_id", "a\nb").status(), "'a\\nb'");
  EXPECT_EQ(ParseUserField("user_id", "../../x; DROP").value(), "../../x; DROP");
}

TEST(ParseTest, CleanTextIsUtf8WithoutControlCharacters) {
  for (const char* good : {"", "plain", "caf\xC3\xA9", "\xE7\x8C\xAB", "\xF0\x9F\x90\xB1", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(IsCleanText(good)) << good;
    EXPECT_EQ(CleanText(good, 100), good);
  }
  for (const char* bad : {"\x01", "a\tb", "\x7F", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                          "\xC3", "\xE7\x8C", "\x80", "\xFF", "\xC2\x85", "\xF0\x8F\xBF\xBF"}) {
    EXPECT_FALSE(IsCleanText(bad)) << bad;
    EXPECT_TRUE(IsCleanText(CleanText(bad, 100))) << bad;
  }
  EXPECT_EQ(CleanText("a;b\tc", 100, ";"), "a b c");
  EXPECT_EQ(CleanText("\xE7\x8C\xAB\xE7\x8C\xAB", 5), "\xE7\x8C\xAB");  // cut at a character's border
}

TEST(ParseTest, QuotedValuesAreShortAndPrintable) {
  EXPECT_EQ(Quoted("x"), "'x'");
  EXPECT_EQ(Quoted(std::string_view("\0\n", 2)), "'\\x00\\n'");
  EXPECT_LT(Quoted(std::string(1 << 20, 'x')).size(), 60u);
}

TEST(LabelsTest, RoundTripAndErrors) {
  for (uint32_t labels = 0; labels <= kAllLabels; ++labels) {
    EXPECT_EQ(ParseLabels(FormatLabels(labels)).value(), labels);
  }
  EXPECT_EQ(FormatLabels(kLongView | kClick), "click|long_view");
  EXPECT_EQ(ParseLabels("like|like").value(), uint32_t{kLike});
  for (const char* bad : {"Click", "click,like", "click|", "|", "|click", "click||like", "click like"}) {
    EXPECT_FALSE(ParseLabels(bad).ok()) << bad;
  }
  EXPECT_PRED_FORMAT2(IsError, ParseLabels("longview").status(), "'longview'; known are click|like|follow");
}

TEST(BadRowsTest, RefusesAboveTheFraction) {
  BadRows rows("f.tsv", {0.1, 2});
  EXPECT_TRUE(rows.Verdict().ok());
  EXPECT_EQ(rows.Summary(), "");
  for (int row = 0; row < 27; ++row) rows.CountGood();
  for (int row = 0; row < 3; ++row) rows.CountBad(row + 5, "why");
  EXPECT_TRUE(rows.Verdict().ok());  // exactly a tenth
  EXPECT_EQ(rows.Summary(), "f.tsv: 3 bad rows of 30 (limit 10%): line 5: why; line 6: why; ...");
  rows.CountBad(9, "why");
  EXPECT_PRED_FORMAT2(IsError, rows.Verdict(), "4 bad rows of 31");
}

TEST(SplitLineTest, QuotesOfCsv) {
  struct Case {
    const char* line;
    std::vector<std::string> fields;  // empty: malformed
  };
  const Case cases[] = {
      {"", {""}},
      {"a,b", {"a", "b"}},
      {"a,", {"a", ""}},
      {",,", {"", "", ""}},
      {"\"a,b\",c", {"a,b", "c"}},
      {"\"(250,500]\",\"\"", {"(250,500]", ""}},
      {"\"say \"\"hi\"\"\",x", {"say \"hi\"", "x"}},
      {"a\"b,c", {"a\"b", "c"}},
      {"\"open", {}},
      {"\"a\"b,c", {}},
      {"\"", {}},
  };
  for (const Case& one : cases) {
    std::string line = one.line;
    std::vector<std::string_view> fields;
    ASSERT_EQ(SplitLine(&line, ',', true, &fields), !one.fields.empty()) << one.line;
    if (one.fields.empty()) continue;
    EXPECT_EQ(std::vector<std::string>(fields.begin(), fields.end()), one.fields) << one.line;
  }
  std::string tsv = "\"a\tb\"";
  std::vector<std::string_view> fields;
  ASSERT_TRUE(SplitLine(&tsv, '\t', false, &fields));
  EXPECT_EQ(fields[0], "\"a");
}

}  // namespace
}  // namespace beamline::data
