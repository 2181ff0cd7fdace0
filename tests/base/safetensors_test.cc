// SPDX-License-Identifier: Apache-2.0
#include "base/safetensors.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>
#include <random>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

namespace beamline {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

std::string LengthPrefix(uint64_t length) {
  std::string prefix(8, '\0');
  std::memcpy(prefix.data(), &length, 8);
  return prefix;
}

std::string FileOf(const std::string& header, const std::string& data) {
  return LengthPrefix(header.size()) + header + data;
}

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "beamline_st_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

absl::Status RefusedBecause(const std::string& contents) {
  return SafetensorsFile::Parse(contents, "m.safetensors").status();
}

TEST(Safetensors, RoundTripKeepsEveryDType) {
  const std::vector<double> f64 = {1, -2.5};
  const std::vector<float> f32 = {1.5f, 2, 3, 4, 5, 6};
  const std::vector<int64_t> i64 = {std::numeric_limits<int64_t>::min()};
  const std::vector<int32_t> i32 = {-7};
  const std::vector<int16_t> i16 = {-8, 9, 10};
  const std::vector<int8_t> i8 = {-1, 2, 3};
  const std::vector<uint64_t> u64 = {~uint64_t{0}};
  const std::vector<uint32_t> u32 = {~0u};
  const std::vector<uint16_t> u16 = {65535, 1, 2};
  const std::vector<uint8_t> u8 = {255};
  SafetensorsWriter writer;
  writer.SetMetadata("who", "caf\xc3\xa9 \"quoted\"");
  ASSERT_TRUE(writer.Add<uint8_t>("u8", {1}, u8).ok());
  ASSERT_TRUE(writer.Add<double>("f64", {2}, f64).ok());
  ASSERT_TRUE(writer.Add<float>("f32", {2, 3}, f32).ok());
  ASSERT_TRUE(writer.Add<int64_t>("i64", {1}, i64).ok());
  ASSERT_TRUE(writer.Add<int32_t>("i32", {1, 1, 1}, i32).ok());
  ASSERT_TRUE(writer.Add<int16_t>("i16", {3}, i16).ok());
  ASSERT_TRUE(writer.Add<int8_t>("i8", {3}, i8).ok());
  ASSERT_TRUE(writer.Add<uint64_t>("u64", {1}, u64).ok());
  ASSERT_TRUE(writer.Add<uint32_t>("u32", {1}, u32).ok());
  ASSERT_TRUE(writer.Add<uint16_t>("u16", {3}, u16).ok());
  const std::vector<std::byte> bools = {std::byte{0}, std::byte{1}};
  ASSERT_TRUE(writer.Add("bool", DType::kBool, {2}, bools).ok());
  TempFolder folder;
  ASSERT_TRUE(writer.Write(folder.file("a.safetensors")).ok());

  const auto file = SafetensorsFile::Read(folder.file("a.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().size(), 11u);
  EXPECT_EQ(*file->GetMetadata("who"), "caf\xc3\xa9 \"quoted\"");
  EXPECT_EQ(file->GetMetadata("nobody").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(file->Get("f64")->as<double>(), ::testing::ElementsAreArray(f64));
  EXPECT_THAT(file->Get("f32")->as<float>(), ::testing::ElementsAreArray(f32));
  EXPECT_EQ(file->Get("f32")->ToString(), "F32[2,3]");
  EXPECT_THAT(file->Get("i64")->as<int64_t>(), ::testing::ElementsAreArray(i64));
  EXPECT_THAT(file->Get("i32")->as<int32_t>(), ::testing::ElementsAreArray(i32));
  EXPECT_THAT(file->Get("i16")->as<int16_t>(), ::testing::ElementsAreArray(i16));
  EXPECT_THAT(file->Get("i8")->as<int8_t>(), ::testing::ElementsAreArray(i8));
  EXPECT_THAT(file->Get("u64")->as<uint64_t>(), ::testing::ElementsAreArray(u64));
  EXPECT_THAT(file->Get("u32")->as<uint32_t>(), ::testing::ElementsAreArray(u32));
  EXPECT_THAT(file->Get("u16")->as<uint16_t>(), ::testing::ElementsAreArray(u16));
  EXPECT_THAT(file->Get("u8")->as<uint8_t>(), ::testing::ElementsAreArray(u8));
  EXPECT_EQ(file->Get("bool")->bytes[1], std::byte{1});
  for (const auto& [name, tensor] : file->tensors()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % DTypeBytes(tensor.dtype), 0u) << name;
  }
}

TEST(Safetensors, WriterIsDeterministicWhateverTheOrder) {
  const std::vector<float> a = {1};
  const std::vector<uint8_t> b = {2};
  std::string bytes[2];
  for (int order = 0; order < 2; ++order) {
    SafetensorsWriter writer;
    if (order == 0) {
      ASSERT_TRUE(writer.Add<float>("a", {1}, a).ok());
    }
    ASSERT_TRUE(writer.Add<uint8_t>("b", {1}, b).ok());
    if (order == 1) {
      ASSERT_TRUE(writer.Add<float>("a", {1}, a).ok());
    }
    writer.SetMetadata(order == 0 ? "x" : "y", "1");
    writer.SetMetadata(order == 0 ? "y" : "x", "1");
    ASSERT_TRUE(writer
                    .WriteTo([&](absl::string_view part) {
                      bytes[order].append(part.data(), part.size());
                      return absl::OkStatus();
                    })
                    .ok());
  }
  EXPECT_EQ(bytes[0], bytes[1]);
}

TEST(Safetensors, WriterRefuses) {
  SafetensorsWriter writer;
  const std::vector<float> values = {1, 2};
  EXPECT_FALSE(writer.Add<float>("", {2}, values).ok());
  EXPECT_FALSE(writer.Add<float>("a b", {2}, values).ok());
  EXPECT_FALSE(writer.Add<float>("a", {3}, values).ok());
  EXPECT_FALSE(writer.Add<float>("a", {-2, -1}, values).ok());
  EXPECT_FALSE(writer.Add<float>("a", {int64_t{1} << 40, int64_t{1} << 40}, values).ok());
  EXPECT_TRUE(writer.Add<float>("a", {2}, values).ok());
  EXPECT_FALSE(writer.Add<float>("a", {2}, values).ok());
  EXPECT_FALSE(writer.Write("/nonexistent/folder/x").ok());
}

struct BadFile {
  std::string contents;
  std::string message;
};

std::vector<BadFile> BadFiles() {
  const std::string four(4, '\1');
  const std::string good = "{" + Entry("a", "F32", "[1]", "[0,4]") + "}";
  std::vector<BadFile> bad = {
      // C4.1 too small
      {"", "too small"},
      {std::string(1, '\0'), "too small"},
      {std::string(7, '\0'), "too small"},
      {std::string(8, '\0'), "too small"},
      // C4.2 header length
      {LengthPrefix(0) + good + four, "header length 0"},
      {LengthPrefix(1) + good + four, "header length 1"},
      {LengthPrefix(good.size() + 5) + good + four, "header length"},
      {LengthPrefix(100'000'001) + good + four, "header length 100000001"},
      {LengthPrefix(uint64_t{1} << 63) + good + four, "header length"},
      {LengthPrefix(~uint64_t{0}) + good + four, "header length"},
      // C4.3, C4.4 header text
      {FileOf("[1, 2, 3]", ""), "must start with '{'"},
      {FileOf(" " + good, four), "must start with '{'"},
      {FileOf("\xEF\xBB\xBF" + good, four), "must start with '{'"},
      {FileOf("{\"a\xff\":1}", four), "not valid"},
      {FileOf("{\"a\":}", four), "not valid"},
      {FileOf("{\"a\":" + std::string(1'000'000, '['), four), "deeper than"},
      // C4.5 names
      {FileOf("{" + Entry("a", "F32", "[1]", "[0,4]") + "," + Entry("a", "F32", "[1]", "[4,8]") + "}", four + four),
       "duplicate"},
      {FileOf("{" + Entry("", "F32", "[1]", "[0,4]") + "}", four), "tensor name ''"},
      {FileOf("{" + Entry(std::string(1 << 20, 'x'), "F32", "[1]", "[0,4]") + "}", four), "1048576 bytes"},
      {FileOf("{" + Entry("a\\u0000b", "F32", "[1]", "[0,4]") + "}", four), "printable"},
      {FileOf("{" + Entry("../a", "F32", "[1]", "[0,4]") + "}", four), "'..'"},
      {FileOf("{" + Entry("\xd0\xb0", "F32", "[1]", "[0,4]") + "}", four), "printable"},
      // C4.6 offsets
      {FileOf("{" + Entry("a", "F32", "[1]", "[-4,0]") + "}", four), "unsigned integers as data_offsets"},
      {FileOf("{" + Entry("a", "F32", "[1]", "[0.0,4.0]") + "}", four), "unsigned integers as data_offsets"},
      {FileOf("{" + Entry("a", "F32", "[1]", "[\"0\",\"4\"]") + "}", four), "unsigned integers as data_offsets"},
      {FileOf("{" + Entry("a", "F32", "[1]", "[0,1e30]") + "}", four), "unsigned integers as data_offsets"},
      {FileOf("{" + Entry("a", "F32", "[1]", "[0,99999999999999999999999]") + "}", four), "data_offsets"},
      {FileOf("{" + Entry("a", "F32", "[1]", "[4,0]") + "}", four), "data_offsets [4,0]"},
      {FileOf("{" + Entry("a", "F32", "[1]", "[0,4,8]") + "}", four), "data_offsets"},
      {FileOf("{" + Entry("a", "F32", "[2]", "[0,8]") + "}", four), "the data has 4 bytes"},
      {FileOf("{" + Entry("a", "F32", "[1]", "[0,4]") + "," + Entry("b", "F32", "[1]", "[0,4]") + "}", four),
       "overlap"},
      {FileOf("{" + Entry("a", "F32", "[1]", "[0,4]") + "," + Entry("b", "F32", "[1]", "[8,12]") + "}",
              four + four + four),
       "hole"},
      {FileOf("{" + Entry("a", "F32", "[1]", "[4,8]") + "}", four + four), "hole"},
      {FileOf("{" + Entry("a", "U8", "[1]", "[0,1]") + "," + Entry("b", "F32", "[1]", "[1,5]") + "}", four + "x"),
       "not a multiple"},
      // C4.7 shapes
      {FileOf("{" + Entry("a", "F32", "[2]", "[0,4]") + "}", four), "needs 8 bytes"},
      {FileOf("{" + Entry("a", "F32", "[4294967296,4294967296]", "[0,4]") + "}", four), "more bytes than any file"},
      {FileOf("{" + Entry("a", "F32", "[18446744073709551615,4]", "[0,4]") + "}", four), "more bytes than any file"},
      {FileOf("{" + Entry("a", "F32", "[0]", "[0,0]") + "}", ""), "size 0"},
      {FileOf("{" + Entry("a", "F32", "[]", "[0,4]") + "}", four), "rank 0"},
      {FileOf("{" + Entry("a", "F32", "[-1]", "[0,4]") + "}", four), "unsigned integers as shape"},
      {FileOf("{" + Entry("a", "F32", "[1.0]", "[0,4]") + "}", four), "unsigned integers as shape"},
      {FileOf("{" + Entry("a", "F32", "4", "[0,4]") + "}", four), "array as shape"},
      // C4.8 dtypes
      {FileOf("{" + Entry("a", "F8_E4M3", "[4]", "[0,4]") + "}", four), "unknown dtype"},
      {FileOf("{" + Entry("a", "F4", "[8]", "[0,4]") + "}", four), "unknown dtype"},
      {FileOf("{" + Entry("a", ">F32", "[1]", "[0,4]") + "}", four), "unknown dtype"},
      {FileOf("{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", four), "unknown dtype"},
      {FileOf("{" + Entry("a", "BOOL", "[4]", "[0,4]") + "}", std::string("\0\1\2\0", 4)), "a BOOL is 0 or 1"},
      // C4.13 trailing bytes, C4.14 other formats
      {FileOf(good, four + "PK\x03\x04"), "4 bytes follow"},
      {std::string("\x80\x02}q\x01.") + std::string(20, 'x'), "pickle"},
      {"PK\x03\x04" + std::string(20, 'x'), "zip"},
      {"\x93NUMPY\x01" + std::string(20, '\0'), "NumPy"},
      {"GGUF" + std::string(20, '\0'), "GGUF"},
      // the rest of an entry
      {FileOf("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", four), "exactly dtype"},
      {FileOf("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", four), "exactly dtype"},
      {FileOf("{\"a\":1}", four), "exactly dtype"},
      {FileOf("{\"__metadata__\":{\"a\":1}," + good.substr(1), four), "must be a string"},
      {FileOf("{\"__metadata__\":[]," + good.substr(1), four), "object of strings"},
      {FileOf("{}", ""), "no tensor"},
  };
  std::string deep = "[1";
  for (int i = 0; i < 999; ++i) deep += ",1";
  bad.push_back({FileOf("{" + Entry("a", "F32", deep + "]", "[0,4]") + "}", four), "rank 1000"});
  return bad;
}

TEST(Safetensors, RefusesEveryBadFileWithSourceAndReason) {
  int index = 0;
  for (const BadFile& bad : BadFiles()) {
    const absl::Status status = RefusedBecause(bad.contents);
    ASSERT_FALSE(status.ok()) << "case " << index << ": " << bad.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr("m.safetensors")) << "case " << index;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message)) << "case " << index;
    EXPECT_LT(status.message().size(), 1000u) << "case " << index;
    ++index;
  }
}

TEST(Safetensors, AcceptsTrailingSpacesInTheHeaderAndWhatTheOptionsAllow) {
  const std::string four(4, '\1');
  EXPECT_TRUE(RefusedBecause(FileOf("{" + Entry("a", "F32", "[1]", "[0,4]") + "}   ", four)).ok());
  SafetensorsLimits limits;
  limits.allow_scalars = true;
  limits.allow_empty = true;
  EXPECT_TRUE(SafetensorsFile::Parse(FileOf("{" + Entry("a", "F32", "[]", "[0,4]") + "}", four), "m", limits).ok());
  EXPECT_TRUE(SafetensorsFile::Parse(FileOf("{" + Entry("a", "F32", "[0,3]", "[0,0]") + "}", ""), "m", limits).ok());
  EXPECT_TRUE(SafetensorsFile::Parse(FileOf("{}", ""), "m", limits).ok());
}

// 640 is 80 02, as a pickle of protocol 2 begins; 896, 1152 and 1408 are those of protocols 3 to 5.
TEST(Safetensors, ReadsAHeaderWhoseLengthLooksLikeAPickle) {
  const std::string header = "{" + Entry("a", "F32", "[1]", "[0,4]") + "}";
  for (const size_t length : {640, 896, 1152, 1408, 65536 + 640}) {
    const std::string padded = header + std::string(length - header.size(), ' ');
    EXPECT_TRUE(RefusedBecause(FileOf(padded, "abcd")).ok()) << RefusedBecause(FileOf(padded, "abcd"));
  }
  EXPECT_THAT(std::string(RefusedBecause(LengthPrefix(640) + std::string(2000, 'x')).message()), HasSubstr("pickle"));
}

// C4.11-C4.13 in the large: no prefix of a good file and no file with one flipped header byte may crash; prefixes are
// all refused.
TEST(Safetensors, SurvivesTruncationAndFlippedBytes) {
  const std::vector<float> values = {1, 2, 3, 4};
  SafetensorsWriter writer;
  writer.SetMetadata("k", "v");
  ASSERT_TRUE(writer.Add<float>("a", {2, 2}, values).ok());
  ASSERT_TRUE(writer.Add<float>("b", {4}, values).ok());
  std::string good;
  ASSERT_TRUE(writer
                  .WriteTo([&](absl::string_view part) {
                    good.append(part.data(), part.size());
                    return absl::OkStatus();
                  })
                  .ok());
  ASSERT_TRUE(RefusedBecause(good).ok());
  for (size_t size = 0; size < good.size(); ++size) EXPECT_FALSE(RefusedBecause(good.substr(0, size)).ok()) << size;
  EXPECT_FALSE(RefusedBecause(good + "x").ok());
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = good;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << bit));
      const auto file = SafetensorsFile::Parse(flipped, "flipped");
      if (!file.ok()) continue;  // else: another spelling of the same, or of the digest's key
      ASSERT_EQ(file->tensors().size(), 2u) << at;
      EXPECT_THAT(file->Get("a")->as<float>(), ElementsAreArray(values)) << at;
      EXPECT_THAT(file->Get("b")->as<float>(), ElementsAreArray(values)) << at;
    }
  }
}

TEST(Safetensors, DigestsAreOfTheContentAndOptional) {
  const std::vector<float> values = {1, 2};
  SafetensorsWriter writer;
  writer.SetMetadata(kSafetensorsDigest, "a copy of another file's");
  writer.SetMetadata("k", "v");
  ASSERT_TRUE(writer.Add<float>("a", {2}, values).ok());
  TempFolder folder;
  const std::string path = folder.file("a.safetensors");
  ASSERT_TRUE(writer.Write(path).ok());
  const auto good = SafetensorsFile::Read(path);
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->GetMetadata(kSafetensorsDigest)->size(), 64u);

  std::string bytes = *ReadFile(path, 1 << 20);
  bytes.back() ^= 1;
  const auto refused = SafetensorsFile::Parse(bytes, "m.safetensors");
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("m.safetensors: its content does not have the SHA-256"));
  // Other programs' files have no such key.
  bytes[bytes.find(kSafetensorsDigest)] = 'x';
  EXPECT_TRUE(SafetensorsFile::Parse(bytes, "m.safetensors").ok());

  // A tensor's dtype and shape count, not only its bytes.
  SafetensorsWriter other;
  other.SetMetadata("k", "v");
  ASSERT_TRUE(other.Add<float>("a", {2, 1}, values).ok());
  ASSERT_TRUE(other.Write(path).ok());
  EXPECT_NE(*SafetensorsFile::Read(path)->GetMetadata(kSafetensorsDigest), *good->GetMetadata(kSafetensorsDigest));
}

TEST(Safetensors, ReadsOnlyRegularFiles) {
  TempFolder folder;
  const std::vector<float> values = {1};
  SafetensorsWriter writer;
  ASSERT_TRUE(writer.Add<float>("a", {1}, values).ok());
  ASSERT_TRUE(writer.Write(folder.file("a")).ok());
  ASSERT_TRUE(SafetensorsFile::Read(folder.file("a")).ok());
  std::filesystem::create_symlink(folder.file("a"), folder.file("link"));
  EXPECT_THAT(std::string(SafetensorsFile::Read(folder.file("link")).status().message()), HasSubstr("symbolic link"));
  ASSERT_EQ(mkfifo(folder.file("pipe").c_str(), 0600), 0);
  EXPECT_FALSE(SafetensorsFile::Read(folder.file("pipe")).ok());
  EXPECT_FALSE(SafetensorsFile::Read(folder.file("")).ok());
  EXPECT_FALSE(SafetensorsFile::Read("/dev/zero").ok());
  EXPECT_EQ(SafetensorsFile::Read(folder.file("none")).status().code(), absl::StatusCode::kNotFound);
  // A sparse file claims a terabyte and holds nothing.
  { std::ofstream(folder.file("sparse")) << LengthPrefix(100); }
  std::filesystem::resize_file(folder.file("sparse"), uint64_t{1} << 40);
  EXPECT_THAT(std::string(SafetensorsFile::Read(folder.file("sparse")).status().message()),
              HasSubstr("over the limit"));
  // One that may be as large asks for memory that there is, not for what the machine was built with.
  const uint64_t bytes = uint64_t{1} << 43;
  const std::string header =
      absl::StrCat("{", Entry("a", "F32", absl::StrCat("[", bytes / 4, "]"), absl::StrCat("[0,", bytes, "]")), "}");
  { std::ofstream(folder.file("large")) << LengthPrefix(header.size()) << header; }
  std::filesystem::resize_file(folder.file("large"), 8 + header.size() + bytes);
  const absl::Status large = SafetensorsFile::Read(folder.file("large"), {.max_file_bytes = bytes * 2}).status();
  EXPECT_EQ(large.code(), absl::StatusCode::kResourceExhausted) << large;
  EXPECT_THAT(std::string(large.message()), HasSubstr("large: its tensors need about 8796"));
}

TEST(Safetensors, CheckTensorsListsAllDifferencesAtOnce) {
  const std::string data(24, '\0');
  const auto file =
      SafetensorsFile::Parse(FileOf("{" + Entry("a", "F32", "[2,3]", "[0,24]") + "}", data), "m.safetensors");
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(CheckTensors(*file, {{"a", {DType::kF16, DType::kF32}, {2, -1}}}).ok());
  const absl::Status status = CheckTensors(*file, {{"b", {DType::kF32}, {1}}, {"c", {DType::kF32}, {1}}});
  EXPECT_THAT(std::string(status.message()), HasSubstr("missing b F32[1]"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("missing c"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("unexpected a F32[2,3]"));
  EXPECT_THAT(std::string(CheckTensors(*file, {{"a", {DType::kF32}, {3, 2}}}).message()),
              HasSubstr("a is F32[2,3], must be F32[3,2]"));
  EXPECT_THAT(std::string(CheckTensors(*file, {{"a", {DType::kF16}, {2, 3}}}).message()), HasSubstr("must be F16"));
  EXPECT_FALSE(file->Get("a", DType::kF32, {2, 2}).ok());
  EXPECT_TRUE(file->Get("a", DType::kF32, {-1, 3}).ok());
}

TEST(Safetensors, CopiesAndMovesKeepViewsValid) {
  absl::StatusOr<TensorView> view;
  std::optional<SafetensorsFile> copy;
  {
    auto file = SafetensorsFile::Parse(FileOf("{" + Entry("a", "U8", "[4]", "[0,4]") + "}", "abcd"), "m");
    ASSERT_TRUE(file.ok());
    copy = *file;
    view = file->Get("a");
  }
  EXPECT_EQ(view->as<uint8_t>()[3], 'd');
}

TEST(Safetensors, HalfPrecisionIsExact) {
  EXPECT_EQ(HalfToFloat(0x3c00), 1.0f);
  EXPECT_EQ(HalfToFloat(0xc000), -2.0f);
  EXPECT_EQ(HalfToFloat(0x7bff), 65504.0f);
  EXPECT_EQ(HalfToFloat(0x0001), std::ldexp(1.0f, -24));
  EXPECT_EQ(HalfToFloat(0x83ff), -std::ldexp(1023.0f, -24));
  EXPECT_EQ(HalfToFloat(0x0400), std::ldexp(1.0f, -14));
  EXPECT_TRUE(std::signbit(HalfToFloat(0x8000)));
  EXPECT_TRUE(std::isinf(HalfToFloat(0x7c00)));
  EXPECT_TRUE(std::isnan(HalfToFloat(0x7e00)));
  EXPECT_EQ(BFloat16ToFloat(0x3f80), 1.0f);
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(0x7fc0)));
}

TEST(Safetensors, FloatMatrixWidensAndRefusesNonFinite) {
  const uint16_t halves[4] = {0x3c00, 0x4000, 0x4200, 0x4400};
  const std::string bytes(reinterpret_cast<const char*>(halves), 8);
  const auto file = SafetensorsFile::Parse(FileOf("{" + Entry("v", "F16", "[2,2]", "[0,8]") + "}", bytes), "m");
  ASSERT_TRUE(file.ok());
  const auto matrix = file->GetFloatMatrix("v");
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_THAT(matrix->values, ::testing::ElementsAre(1, 2, 3, 4));

  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity(), 1e300}) {
    const double values[2] = {1, bad};
    const std::string raw(reinterpret_cast<const char*>(values), 16);
    const auto other = SafetensorsFile::Parse(FileOf("{" + Entry("v", "F64", "[1,2]", "[0,16]") + "}", raw), "m");
    ASSERT_TRUE(other.ok());
    EXPECT_THAT(std::string(other->GetFloatMatrix("v").status().message()), HasSubstr("row 0 column 1"));
    EXPECT_EQ(CountNonFinite(*other->Get("v")), std::isfinite(bad) ? 0 : 1);
  }
}

}  // namespace
}  // namespace beamline
