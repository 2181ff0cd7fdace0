// SPDX-License-Identifier: Apache-2.0
#include "base/npy.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "beamline/status.h"

namespace beamline {
namespace {

constexpr absl::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaxHeaderBytes = 65535;

absl::Status Error(const std::string& source, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(source, ": ", message));
}

struct NpyHeader {
  int element_bytes = 0;  // 4 or 8
  int64_t rows = 0;
  int64_t cols = 0;
  size_t data_begin = 0;
};

// The text between `key`'s colon and the end mark, without blanks; "" when absent.
absl::string_view Field(absl::string_view dictionary, absl::string_view key, absl::string_view begin_mark,
                        absl::string_view end_mark) {
  const size_t at = dictionary.find(absl::StrCat("'", key, "':"));
  if (at == absl::string_view::npos) return "";
  absl::string_view rest = absl::StripLeadingAsciiWhitespace(dictionary.substr(at + key.size() + 3));
  if (!absl::StartsWith(rest, begin_mark)) return "";
  rest.remove_prefix(begin_mark.size());
  const size_t end = rest.find(end_mark);
  return end == absl::string_view::npos ? "" : absl::StripAsciiWhitespace(rest.substr(0, end));
}

// The header is a Python dictionary literal; NumPy writes its three keys in this form and nothing else is accepted.
absl::Status ParseDictionary(absl::string_view text, const std::string& source, const NpyLimits& limits,
                             NpyHeader& header) {
  text = absl::StripAsciiWhitespace(text);
  if (!absl::StartsWith(text, "{") || !absl::EndsWith(text, "}")) {
    return Error(source, "npy header is not a dictionary with a simple dtype");
  }
  const absl::string_view descr = Field(text, "descr", "'", "'");
  if (descr != "<f4" && descr != "<f8") {
    return Error(source, absl::StrCat("npy dtype is '", descr.substr(0, 32),
                                      "', must be '<f4' or '<f8' (use .astype(numpy.float32))"));
  }
  header.element_bytes = descr == "<f4" ? 4 : 8;
  if (Field(text, "fortran_order", "", ",") != "False") {
    return Error(source, "npy array must be in C order (use numpy.ascontiguousarray)");
  }
  std::vector<absl::string_view> sizes = absl::StrSplit(Field(text, "shape", "(", ")"), ',');
  if (sizes.size() == 3 && absl::StripAsciiWhitespace(sizes[2]).empty()) sizes.pop_back();
  if (sizes.size() != 2 || !absl::SimpleAtoi(sizes[0], &header.rows) || !absl::SimpleAtoi(sizes[1], &header.cols)) {
    return Error(source, "npy shape must be (rows, columns)");
  }
  if (header.rows < 1 || header.rows > limits.max_rows || header.cols < 1 || header.cols > limits.max_cols) {
    return Error(source, absl::StrCat("npy shape (", header.rows, ", ", header.cols, ") must be within (1..",
                                      limits.max_rows, ", 1..", limits.max_cols, ")"));
  }
  return absl::OkStatus();
}

absl::StatusOr<NpyHeader> ParseHeader(absl::string_view contents, const std::string& source, const NpyLimits& limits) {
  if (!absl::StartsWith(contents, kMagic) || contents.size() < 12) return Error(source, "not an npy file");
  const int version = static_cast<uint8_t>(contents[6]);
  if (version < 1 || version > 3) return Error(source, absl::StrCat("npy version ", version, ", must be 1, 2 or 3"));
  const size_t length_bytes = version == 1 ? 2 : 4;
  uint64_t header_bytes = 0;
  for (size_t i = length_bytes; i-- > 0;) header_bytes = header_bytes << 8 | static_cast<uint8_t>(contents[8 + i]);
  NpyHeader header;
  header.data_begin = 8 + length_bytes + header_bytes;
  if (header_bytes > kMaxHeaderBytes || header.data_begin > contents.size()) {
    return Error(source, absl::StrCat("npy header length ", header_bytes, " must be at most ", kMaxHeaderBytes,
                                      " and within the file"));
  }
  BEAMLINE_RETURN_IF_ERROR(ParseDictionary(contents.substr(8 + length_bytes, header_bytes), source, limits, header));
  // Compared by division: rows and cols are bounded, but their product is not.
  const uint64_t data_bytes = contents.size() - header.data_begin;
  const uint64_t row_bytes = static_cast<uint64_t>(header.cols) * header.element_bytes;
  if (data_bytes % row_bytes != 0 || data_bytes / row_bytes != static_cast<uint64_t>(header.rows)) {
    return Error(source, absl::StrCat("npy shape (", header.rows, ", ", header.cols, ") of ", header.element_bytes,
                                      "-byte values does not fit the ", data_bytes, " bytes of data"));
  }
  return header;
}

}  // namespace

absl::StatusOr<FloatMatrix> ParseNpy(absl::string_view contents, const std::string& source, const NpyLimits& limits) {
  BEAMLINE_ASSIGN_OR_RETURN(const NpyHeader header, ParseHeader(contents, source, limits));
  FloatMatrix matrix(header.rows, header.cols);
  const char* data = contents.data() + header.data_begin;
  if (header.element_bytes == 4) std::memcpy(matrix.values.data(), data, matrix.values.size() * sizeof(float));
  for (size_t i = 0; i < matrix.values.size(); ++i) {
    double value = matrix.values[i];
    if (header.element_bytes == 8) std::memcpy(&value, data + i * sizeof(double), sizeof(double));
    // Written so that a NaN fails too; beyond fp32's range the conversion itself would be undefined.
    if (!(std::fabs(value) <= std::numeric_limits<float>::max())) {
      return Error(source, absl::StrCat("row ", i / matrix.cols, " column ", i % matrix.cols, " is ", value,
                                        ", must be a finite fp32 number"));
    }
    matrix.values[i] = static_cast<float>(value);
  }
  return matrix;
}

absl::StatusOr<FloatMatrix> ReadNpy(const std::string& path, const NpyLimits& limits) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::string start, ReadFileStart(path, kMagic.size()));
  if (start != kMagic) return Error(path, "not an npy file");
  BEAMLINE_ASSIGN_OR_RETURN(const std::string contents, ReadFile(path, limits.max_file_bytes));
  return ParseNpy(contents, path, limits);
}

}  // namespace beamline
