// SPDX-License-Identifier: Apache-2.0
#include "base/npy.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "testing/paths.h"
#include "testing/write_npy.h"

namespace beamline {
namespace {

using ::testing::HasSubstr;

std::string Npy(std::string dictionary, const std::string& data, char version = 1) {
  dictionary += '\n';
  std::string bytes = std::string("\x93NUMPY") + version + '\0';
  const size_t length_bytes = version == 1 ? 2 : 4;
  for (size_t i = 0; i < length_bytes; ++i) bytes += static_cast<char>(dictionary.size() >> (8 * i) & 0xff);
  return bytes + dictionary + data;
}

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

std::string Dictionary(const std::string& descr, const std::string& order, const std::string& shape) {
  return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }";
}

TEST(Npy, ReadsFloatAndDoubleInEveryVersion) {
  for (const char version : {1, 2, 3}) {
    const auto single =
        ParseNpy(Npy(Dictionary("'<f4'", "False", "(2, 3)"), Bytes<float>({1, 2, 3, 4, 5, 6.5}), version), "v.npy");
    ASSERT_TRUE(single.ok()) << single.status();
    EXPECT_EQ(single->rows, 2);
    EXPECT_EQ(single->cols, 3);
    EXPECT_THAT(single->values, ::testing::ElementsAre(1, 2, 3, 4, 5, 6.5));
    const auto wide =
        ParseNpy(Npy(Dictionary("'<f8'", "False", "(3,1)"), Bytes<double>({1, -2, 0.5}), version), "v.npy");
    ASSERT_TRUE(wide.ok()) << wide.status();
    EXPECT_THAT(wide->values, ::testing::ElementsAre(1, -2, 0.5));
  }
}

TEST(Npy, ReadsAFile) {
  FloatMatrix matrix(5, 7);
  for (size_t i = 0; i < matrix.values.size(); ++i) matrix.values[i] = static_cast<float>(i) / 3;
  const std::string path =
      (std::filesystem::temp_directory_path() / ("beamline_npy_" + std::to_string(getpid()) + ".npy")).string();
  ASSERT_TRUE(beamline::testing::WriteNpy(path, matrix));
  const auto read = ReadNpy(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->rows, 5);
  EXPECT_EQ(read->values, matrix.values);
}

TEST(Npy, TellsByItsStartThatAFileIsNone) {
  const std::string path = ::testing::TempDir() + absl::StrCat("not_npy_", ::getpid());
  { std::ofstream(path) << "x"; }
  std::filesystem::resize_file(path, uint64_t{1} << 43);
  const absl::Status status = ReadNpy(path).status();
  std::filesystem::remove(path);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("not an npy file"));
}

TEST(Npy, RefusesEverythingElse) {
  const std::string six = Bytes<float>({1, 2, 3, 4, 5, 6});
  const std::string good = Dictionary("'<f4'", "False", "(2, 3)");
  struct Case {
    std::string contents;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"", "not an npy"},
      {"\x93NUMPY", "not an npy"},
      {std::string(64, 'x'), "not an npy"},
      {Npy(good, six, 4), "version 4"},
      {Npy(good, six, 0), "version 0"},
      {Npy(good, six.substr(1)), "does not fit"},
      {Npy(good, six + "x"), "does not fit"},
      {Npy(good, six + six), "does not fit"},
      {Npy(good, six).substr(0, 20), "header length"},
      {std::string("\x93NUMPY\x02\0\xff\xff\xff\xff", 12) + good + six, "header length 4294967295"},
      {Npy(Dictionary("'>f4'", "False", "(2, 3)"), six), "'>f4'"},
      {Npy(Dictionary("'<i4'", "False", "(2, 3)"), six), "'<i4'"},
      {Npy(Dictionary("'|O'", "False", "(2, 3)"), six), "'|O'"},
      {Npy(Dictionary("[('a', '<f4')]", "False", "(2, 3)"), six), "dtype"},
      {Npy(Dictionary("'<f4'", "True", "(2, 3)"), six), "C order"},
      {Npy(Dictionary("'<f4'", "False", "(6,)"), six), "(rows, columns)"},
      {Npy(Dictionary("'<f4'", "False", "()"), six), "(rows, columns)"},
      {Npy(Dictionary("'<f4'", "False", "(1, 2, 3)"), six), "(rows, columns)"},
      {Npy(Dictionary("'<f4'", "False", "(-2, 3)"), six), "within"},
      {Npy(Dictionary("'<f4'", "False", "(0, 3)"), ""), "within"},
      {Npy(Dictionary("'<f4'", "False", "(4294967296, 65536)"), six), "does not fit"},
      {Npy(Dictionary("'<f4'", "False", "(99999999999999999999, 3)"), six), "(rows, columns)"},
      {Npy("no dictionary", six), "dictionary"},
      {Npy(Dictionary("'<f4'", "False", "(1, 2)"), Bytes<float>({1, std::numeric_limits<float>::quiet_NaN()})),
       "row 0 column 1"},
      {Npy(Dictionary("'<f8'", "False", "(2, 1)"), Bytes<double>({1, 1e300})), "row 1 column 0"},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto matrix = ParseNpy(cases[i].contents, "v.npy");
    ASSERT_FALSE(matrix.ok()) << i;
    EXPECT_THAT(std::string(matrix.status().message()), HasSubstr("v.npy")) << i;
    EXPECT_THAT(std::string(matrix.status().message()), HasSubstr(cases[i].message)) << i;
  }
}

TEST(Npy, ReadsAFileNumPyWrote) {
  const std::string path = BEAMLINE_SHARED_DIR + "/data/kuairand-pure/twotower_item_vectors.npy";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "missing " << path;
  const auto matrix = ReadNpy(path);
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ(matrix->rows, 7583);
  EXPECT_EQ(matrix->cols, 64);
}

}  // namespace
}  // namespace beamline
