// SPDX-License-Identifier: Apache-2.0
#include "base/line_reader.h"

#include <fstream>
#include <iterator>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "absl/strings/str_cat.h"

namespace beamline {
namespace {

using ::testing::ElementsAre;

class LineReaderTest : public ::testing::Test {
 protected:
  LineReaderTest() {
    path_ = std::filesystem::path(::testing::TempDir()) /
            absl::StrCat("lines_", ::testing::UnitTest::GetInstance()->current_test_info()->name(), getpid());
  }
  ~LineReaderTest() override { std::filesystem::remove(path_); }

  void Put(std::string_view text) { std::ofstream(path_, std::ios::binary) << text; }
  void PutGzip(std::string_view text) {
    gzFile file = gzopen(path_.c_str(), "wb");
    gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
    gzclose(file);
  }
  // All lines; over-long ones as "<long N>" with their line number; an error as "<code>".
  std::vector<std::string> Lines(uint64_t max_line_bytes = LineReader::kDefaultMaxLineBytes) {
    std::vector<std::string> lines;
    absl::StatusOr<LineReader> reader = LineReader::Open(path_, max_line_bytes);
    if (!reader.ok()) return {reader.status().ToString()};
    std::string_view line;
    while (true) {
      const absl::StatusOr<bool> more = reader->Next(&line);
      if (absl::IsOutOfRange(more.status())) {
        lines.push_back(absl::StrCat("<long ", reader->line_number(), ">"));
      } else if (!more.ok()) {
        lines.push_back(absl::StrCat("<", absl::StatusCodeToString(more.status().code()), ">"));
        return lines;
      } else if (!*more) {
        return lines;
      } else {
        lines.emplace_back(line);
      }
    }
  }

  std::filesystem::path path_;
};

TEST_F(LineReaderTest, EndsOfLines) {
  Put("a\nb\r\n\nc");
  EXPECT_THAT(Lines(), ElementsAre("a", "b", "", "c"));
  Put("");
  EXPECT_THAT(Lines(), ElementsAre());
  Put("\n");
  EXPECT_THAT(Lines(), ElementsAre(""));
  Put("\xEF\xBB\xBFhead\n\xEF\xBB\xBFtail\n");
  EXPECT_THAT(Lines(), ElementsAre("head", "\xEF\xBB\xBFtail"));
}

TEST_F(LineReaderTest, SkipsOverlongLinesAndGoesOn) {
  Put("abc\nabcd\r\nabcde\nab\n");
  EXPECT_THAT(Lines(4), ElementsAre("abc", "abcd", "<long 3>", "ab"));
  Put(absl::StrCat(std::string(3 << 20, 'x'), "\nshort"));
  EXPECT_THAT(Lines(1 << 20), ElementsAre("<long 1>", "short"));
}

TEST_F(LineReaderTest, PlainAndGzipGiveTheSameLinesAcrossBuffers) {
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    std::string text;
    std::vector<std::string> expected;
    for (int line = 0; line < 40; ++line) {
      expected.push_back(std::string(random() % 30000, static_cast<char>('a' + line % 26)));
      absl::StrAppend(&text, expected.back(), "\n");
    }
    Put(text);
    EXPECT_EQ(Lines(), expected);
    PutGzip(text);
    EXPECT_EQ(Lines(), expected);
  }
}

TEST_F(LineReaderTest, DamagedGzipIsDataLoss) {
  std::string text;
  for (int line = 0; line < 20000; ++line) absl::StrAppend(&text, line * 7919, "\n");
  PutGzip(text);
  const auto size = std::filesystem::file_size(path_);
  std::filesystem::resize_file(path_, size / 2);
  EXPECT_EQ(Lines().back(), "<DATA_LOSS>");
  PutGzip(text);
  {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(size / 2));
    file.write("damaged!", 8);
  }
  EXPECT_EQ(Lines().back(), "<DATA_LOSS>");
}

// zlib's gzread takes what is behind a member for padding, be it half the log.
TEST_F(LineReaderTest, AllMembersOfAGzipFileCount) {
  const auto append = [&](std::string_view bytes) { std::ofstream(path_, std::ios::binary | std::ios::app) << bytes; };
  PutGzip("c\nd\n");
  std::ifstream file(path_, std::ios::binary);
  const std::string second((std::istreambuf_iterator<char>(file)), {});
  PutGzip("a\nb\n");
  append(second);
  EXPECT_THAT(Lines(), ElementsAre("a", "b", "c", "d"));
  for (const size_t byte : {size_t{0}, size_t{1}, size_t{2}, second.size() - 8, second.size() - 1}) {
    std::string damaged = second;
    damaged[byte] ^= 1;
    PutGzip("a\nb\n");
    append(damaged);
    EXPECT_EQ(Lines().back(), "<DATA_LOSS>") << byte;
  }
  PutGzip("a\nb\n");
  append("x");
  EXPECT_EQ(Lines().back(), "<DATA_LOSS>") << "anything behind the end";
  PutGzip("a\nb\n");
  append(second.substr(0, second.size() - 1));
  EXPECT_EQ(Lines().back(), "<DATA_LOSS>") << "the last byte is missing";
}

TEST_F(LineReaderTest, RefusesWhatIsNotARegularFile) {
  EXPECT_TRUE(absl::IsNotFound(LineReader::Open(path_).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(LineReader::Open(::testing::TempDir()).status()));
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(LineReader::Open(path_).status()));
}

TEST_F(LineReaderTest, ReportsProgressInBytesOfTheFile) {
  Put("ab\ncd\n");
  LineReader reader = LineReader::Open(path_).value();
  EXPECT_EQ(reader.file_bytes(), 6u);
  std::string_view line;
  while (reader.Next(&line).value()) {
  }
  EXPECT_EQ(reader.bytes_read(), 6u);
  EXPECT_EQ(reader.line_number(), 2);
}

}  // namespace
}  // namespace beamline
