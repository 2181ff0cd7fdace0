// SPDX-License-Identifier: Apache-2.0
#include "catalogue/section_file.h"

#include <cstring>
#include <filesystem>
#include <fstream>

#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::catalogue {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

class SectionFile : public testing::Test {
 protected:
  SectionFile() : folder_(std::filesystem::path(testing::TempDir()) / ("section_file_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
    path_ = folder_ / "file";
  }
  ~SectionFile() override { std::filesystem::remove_all(folder_); }

  void Overwrite(const std::string& bytes) { ASSERT_TRUE(WriteFileAtomically(path_, bytes).ok()); }
  absl::Status Write(const std::vector<Section>& sections) { return WriteSectionFile(path_, sections); }
  // One byte in place: rewriting the file each time would wait for the disk.
  void PutByte(size_t at, char value) {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at)).put(value);
  }
  std::string OpenError() { return std::string(SectionReader::Open(path_, 1 << 20).status().message()); }

  std::filesystem::path folder_;
  std::filesystem::path path_;
};

TEST_F(SectionFile, ReadsBackWhatWasWritten) {
  const std::vector<uint32_t> numbers = {1, 2, 3};
  const absl::string_view number_bytes(reinterpret_cast<const char*>(numbers.data()), 12);
  const std::string long_text(100'000, 'x');
  ASSERT_TRUE(Write({{"numbers", number_bytes}, {"empty", ""}, {"text", long_text}}).ok());
  const auto reader = SectionReader::Open(path_, 1 << 20);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->sections().size(), 3);
  EXPECT_EQ(*reader->ReadArray<uint32_t>("numbers", 3), numbers);
  EXPECT_EQ(*reader->ReadString("empty", 0), "");
  EXPECT_EQ(*reader->ReadString("text", 1 << 20), long_text);
  EXPECT_THAT(std::string(reader->ReadString("other", 9).status().message()), HasSubstr("section 'other': is missing"));
  EXPECT_THAT(std::string(reader->ReadString("text", 9).status().message()), HasSubstr("has 100000 bytes, at most 9"));
  EXPECT_THAT(std::string(reader->ReadArray<uint32_t>("numbers", 4).status().message()),
              HasSubstr("has 12 bytes, must hold 4 values of 4 bytes"));
  EXPECT_FALSE(reader->ReadArray<uint32_t>("numbers", (uint64_t{1} << 62) + 3).ok());
}

// Flips every bit of a small file: each is refused when it is opened or when its section is read, and the section or
// the header is named.
TEST_F(SectionFile, EveryFlippedBitIsRefusedAndNamed) {
  ASSERT_TRUE(Write({{"one", "hello"}, {"two", std::string(70, 'y')}}).ok());
  const std::string good = *ReadFile(path_, 1 << 20);
  for (size_t byte = 0; byte < good.size(); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      PutByte(byte, static_cast<char>(good[byte] ^ (1 << bit)));
      const auto reader = SectionReader::Open(path_, 1 << 20);
      if (!reader.ok()) {
        ASSERT_THAT(std::string(reader.status().message()),
                    AnyOf(HasSubstr("section 'header'"), HasSubstr("section 'one'"), HasSubstr("section 'two'")));
        continue;
      }
      const absl::Status one = reader->ReadString("one", 100).status();
      const absl::Status two = reader->ReadString("two", 100).status();
      ASSERT_TRUE(one.ok() != two.ok()) << "byte " << byte;
      ASSERT_THAT(std::string((one.ok() ? two : one).message()),
                  HasSubstr(one.ok() ? "section 'two': checksum" : "section 'one': checksum"));
      ASSERT_EQ((one.ok() ? two : one).code(), absl::StatusCode::kDataLoss);
    }
    PutByte(byte, good[byte]);
  }
}

TEST_F(SectionFile, EveryTruncationAndAnyAppendedByteIsRefused) {
  ASSERT_TRUE(Write({{"one", "hello"}, {"two", std::string(70, 'y')}}).ok());
  const std::string good = *ReadFile(path_, 1 << 20);
  for (size_t length = good.size(); length-- > 0;) {
    std::filesystem::resize_file(path_, length);
    const absl::StatusCode code = SectionReader::Open(path_, 1 << 20).status().code();
    ASSERT_TRUE(code == absl::StatusCode::kDataLoss || (code == absl::StatusCode::kInvalidArgument && length < 100))
        << length << ": " << absl::StatusCodeToString(code);
  }
  Overwrite(good + '\0');
  EXPECT_THAT(OpenError(), HasSubstr("says the file has"));
}

TEST_F(SectionFile, RefusesWhatIsNoSuchFile) {
  EXPECT_EQ(SectionReader::Open(folder_ / "none", 1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(SectionReader::Open(folder_, 1 << 20).status().message()), HasSubstr("not a regular file"));
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(std::string(SectionReader::Open(folder_ / "pipe", 1 << 20).status().message()),
              HasSubstr("not a regular file"));
  Overwrite("{}");
  EXPECT_THAT(OpenError(), HasSubstr("too short"));
  Overwrite(std::string(4096, 'x'));
  EXPECT_THAT(OpenError(), HasSubstr("is not that of a catalogue"));
  ASSERT_TRUE(Write({{"one", std::string(2000, 'x')}}).ok());
  EXPECT_THAT(std::string(SectionReader::Open(path_, 1000).status().message()), HasSubstr("at most 1000 are allowed"));
}

// A file changed while it is read: the reader has checked the header already, and still notices.
TEST_F(SectionFile, NoticesAFileThatShrinksWhileOpen) {
  ASSERT_TRUE(Write({{"one", std::string(5000, 'x')}}).ok());
  const auto reader = SectionReader::Open(path_, 1 << 20);
  ASSERT_TRUE(reader.ok());
  std::filesystem::resize_file(path_, 1000);
  const absl::Status status = reader->ReadString("one", 10'000).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("ends at byte"));
}

TEST_F(SectionFile, RefusesNamesThatDoNotFit) {
  EXPECT_FALSE(Write({{"", "x"}}).ok());
  EXPECT_FALSE(Write({{std::string(24, 'n'), "x"}}).ok());
  ASSERT_TRUE(Write({{"same", "x"}, {"same", "y"}}).ok());
  EXPECT_THAT(OpenError(), HasSubstr("that of another one"));
}

}  // namespace
}  // namespace beamline::catalogue
