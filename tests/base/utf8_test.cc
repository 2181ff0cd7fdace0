// SPDX-License-Identifier: Apache-2.0
//
// Against the definition: what encoding each code point gives, and nothing else, is a character.
#include "base/utf8.h"

#include <cstdint>
#include <set>
#include <string>

#include "gtest/gtest.h"

namespace beamline {
namespace {

std::string Encode(uint32_t code_point) {
  std::string text;
  const auto add = [&](uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    add(code_point);
  } else if (code_point < 0x800) {
    add(0xC0 | code_point >> 6);
    add(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    add(0xE0 | code_point >> 12);
    add(0x80 | (code_point >> 6 & 0x3F));
    add(0x80 | (code_point & 0x3F));
  } else {
    add(0xF0 | code_point >> 18);
    add(0x80 | (code_point >> 12 & 0x3F));
    add(0x80 | (code_point >> 6 & 0x3F));
    add(0x80 | (code_point & 0x3F));
  }
  return text;
}

TEST(Utf8Test, EveryCodePointIsOneCharacter) {
  for (uint32_t code_point = 0; code_point <= 0x10FFFF; ++code_point) {
    const std::string text = Encode(code_point);
    const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    ASSERT_EQ(Utf8Length(text + "x"), surrogate ? 0 : text.size()) << std::hex << code_point;
    if (surrogate) continue;
    const bool control = code_point < 0x20 || (code_point >= 0x7F && code_point < 0xA0);
    ASSERT_EQ(IsControl(text), control) << std::hex << code_point;
  }
}

TEST(Utf8Test, NothingElseIs) {
  std::set<std::string> two;  // every well-formed text of two bytes that starts with none of ASCII
  for (uint32_t code_point = 0x80; code_point < 0x800; ++code_point) two.insert(Encode(code_point));
  for (int first = 0x80; first < 0x100; ++first) {
    for (int second = 0; second < 0x100; ++second) {
      const std::string text = {static_cast<char>(first), static_cast<char>(second)};
      ASSERT_EQ(IsUtf8(text), two.count(text) > 0) << first << " " << second;
    }
  }
  for (const char* bad : {"\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80", "\xe2\x82", "\xf0\x9f\x98", "a\xff", "\xe2\x28\xa1"}) {
    EXPECT_FALSE(IsUtf8(bad)) << bad;
  }
  EXPECT_TRUE(IsUtf8(""));
  EXPECT_TRUE(IsUtf8("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"));
  EXPECT_EQ(Utf8Length(""), 0u);
}

TEST(Utf8Test, PrintableTextIsUtf8WithoutControlCharactersAndBounded) {
  EXPECT_EQ(PrintableUtf8("caf\xc3\xa9 \xf0\x9f\x98\x80", 100), "caf\xc3\xa9 \xf0\x9f\x98\x80");
  EXPECT_EQ(PrintableUtf8("a\nb\xff\xc3(\xc2\x85", 100),
            "a?b?"
            "?(?");
  EXPECT_EQ(PrintableUtf8("\xc3\xa9\xc3\xa9", 3), "\xc3\xa9");
  EXPECT_EQ(PrintableUtf8(std::string(10, 'x'), 4), "xxxx");
  EXPECT_EQ(PrintableUtf8("", 4), "");
}

}  // namespace
}  // namespace beamline
