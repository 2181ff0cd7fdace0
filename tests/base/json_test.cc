// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace beamline {
namespace {

using ::testing::HasSubstr;

TEST(Json, ReadsWhatJsonIs) {
  const auto value = ParseJson(R"({"a": [1, -2, 3.5, true, null, "x"], "b": {"c": {}}})", "t");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ((*value)["a"][0], 1);
  EXPECT_EQ((*value)["a"][1], -2);
  EXPECT_EQ((*value)["a"][2], 3.5);
  EXPECT_EQ((*value)["a"][3], true);
  EXPECT_TRUE((*value)["a"][4].is_null());
  EXPECT_EQ((*value)["a"][5], "x");
  EXPECT_TRUE((*value)["b"]["c"].empty());
  EXPECT_EQ(value->dump(), nlohmann::json::parse(value->dump()).dump());
}

TEST(Json, KeepsDeeplyInterleavedContainersApart) {
  const std::string text = R"([[{"a":[{"b":1},{"c":[2,[3]]}]},4],{"d":[]},[5]])";
  const auto value = ParseJson(text, "t");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(value->dump(), text);
}

struct BadJson {
  const char* what;
  std::string text;
  const char* message;
};

class JsonRefuses : public ::testing::TestWithParam<BadJson> {};

TEST_P(JsonRefuses, WithSourceAndReason) {
  const auto value = ParseJson(GetParam().text, "file.json");
  ASSERT_FALSE(value.ok()) << GetParam().what;
  EXPECT_EQ(value.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(value.status().message()), HasSubstr("file.json"));
  EXPECT_THAT(std::string(value.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Table, JsonRefuses,
    ::testing::Values(BadJson{"empty", "", "empty"}, BadJson{"blank", "  ", "not valid"},
                      BadJson{"byte order mark", "\xEF\xBB\xBF{}", "byte order mark"},
                      BadJson{"duplicate key", R"({"a": 1, "b": {"k": 1, "k": 2}})", "duplicate JSON key \"k\""},
                      BadJson{"syntax names line and column", "{\n  \"a\": nux}", ":2:10"},
                      BadJson{"comment", "{/*x*/}", "not valid"}, BadJson{"trailing text", "{} {}", "not valid"},
                      BadJson{"trailing comma", "[1,]", "not valid"}, BadJson{"nan", "[NaN]", "not valid"},
                      BadJson{"overflow", "[1e400]", "overflow"}, BadJson{"invalid UTF-8", "[\"\xff\"]", "not valid"},
                      BadJson{"truncated", "{\"a\": [1", "not valid"},
                      BadJson{"nul", std::string("{}\n\0{\"b\": 1", 11), "2:1: a NUL byte"},
                      BadJson{"raw control", "[\"a\nb\"]", "not valid"},
                      BadJson{"nine deep", "[[[[[[[[[1]]]]]]]]]", "deeper than the limit of 8"},
                      BadJson{"a million deep", std::string(1'000'000, '['), "deeper than the limit of 8"},
                      BadJson{"a million deep objects",
                              "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}}",
                              "deeper than the limit of 8"}),
    [](const auto& info) { return "case" + std::to_string(info.index); });

TEST(Json, HoldsLimits) {
  JsonLimits limits;
  limits.max_depth = 2;
  EXPECT_TRUE(ParseJson("[[1]]", "t", limits).ok());
  EXPECT_FALSE(ParseJson("[[[1]]]", "t", limits).ok());
  EXPECT_TRUE(ParseJson("[[1],[2],[3]]", "t", limits).ok()) << "depth must fall when a container closes";
  limits.max_elements = 3;
  EXPECT_TRUE(ParseJson("[1,2]", "t", limits).ok());
  EXPECT_THAT(std::string(ParseJson("[1,2,3]", "t", limits).status().message()), HasSubstr("limit of 3"));
  limits.max_string_bytes = 4;
  EXPECT_TRUE(ParseJson(R"(["1234"])", "t", limits).ok());
  EXPECT_FALSE(ParseJson(R"(["12345"])", "t", limits).ok());
  EXPECT_FALSE(ParseJson(R"({"12345":1})", "t", limits).ok());
  limits.max_bytes = 3;
  EXPECT_THAT(std::string(ParseJson("[1,2]", "t", limits).status().message()), HasSubstr("5 bytes"));
}

TEST(Json, FileErrorsNameThePath) {
  EXPECT_EQ(ReadJsonFile("/nonexistent/x.json").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(ReadJsonFile("/nonexistent/x.json").status().message()), HasSubstr("x.json"));
}

class Ignore final : public JsonHandler {
 public:
  absl::Status status() const override { return absl::OkStatus(); }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t) override { return true; }
  bool number_unsigned(uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(nlohmann::json::binary_t&) override { return true; }
  bool start_object(size_t) override { return true; }
  bool key(std::string&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override { return false; }
};

TEST(Json, AFileOfOtherBytesIsRefusedByItsStart) {
  const std::string path = testing::TempDir() + absl::StrCat("not_json_", ::getpid());
  JsonLimits limits;
  limits.max_bytes = uint64_t{1} << 50;
  Ignore ignore;
  { std::ofstream(path) << "{\"a\": [1, 2],\n\t\"b\": {}}\n"; }
  EXPECT_TRUE(ReadJsonInto(path, ignore, limits).ok());
  std::filesystem::resize_file(path, uint64_t{1} << 43);  // more than any machine's memory
  const absl::Status status = ReadJsonInto(path, ignore, limits);
  std::filesystem::remove(path);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
}

TEST(Json, LineAndColumn) {
  EXPECT_EQ(LineAndColumn("ab\ncd", 0), "1:1");
  EXPECT_EQ(LineAndColumn("ab\ncd", 4), "2:2");
  EXPECT_EQ(LineAndColumn("ab\ncd", 99), "2:3");
}

}  // namespace
}  // namespace beamline
