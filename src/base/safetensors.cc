// SPDX-License-Identifier: Apache-2.0
#include "base/safetensors.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/safetensors_format.h"
#include "beamline/status.h"

namespace beamline {
namespace {

struct DTypeRow {
  DType dtype;
  absl::string_view name;
  int64_t bytes;
};
constexpr std::array<DTypeRow, 13> kDTypes = {{{DType::kF64, "F64", 8},
                                               {DType::kF32, "F32", 4},
                                               {DType::kF16, "F16", 2},
                                               {DType::kBF16, "BF16", 2},
                                               {DType::kI64, "I64", 8},
                                               {DType::kI32, "I32", 4},
                                               {DType::kI16, "I16", 2},
                                               {DType::kI8, "I8", 1},
                                               {DType::kU64, "U64", 8},
                                               {DType::kU32, "U32", 4},
                                               {DType::kU16, "U16", 2},
                                               {DType::kU8, "U8", 1},
                                               {DType::kBool, "BOOL", 1}}};

std::string ShapeString(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ","), "]"); }

bool ShapeMatches(absl::Span<const int64_t> shape, absl::Span<const int64_t> expected) {
  if (shape.size() != expected.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (expected[i] >= 0 && shape[i] != expected[i]) return false;
  }
  return true;
}

std::string DTypeNames(absl::Span<const DType> dtypes) {
  return absl::StrJoin(dtypes, "|", [](std::string* out, DType dtype) { absl::StrAppend(out, DTypeName(dtype)); });
}

// An element of a floating-point tensor as fp32; REQUIRES a floating-point dtype.
double FloatAt(const TensorView& tensor, int64_t index) {
  switch (tensor.dtype) {
    case DType::kF64:
      return tensor.as<double>()[index];
    case DType::kF32:
      return tensor.as<float>()[index];
    case DType::kF16:
      return HalfToFloat(tensor.as<uint16_t>()[index]);
    default:
      return BFloat16ToFloat(tensor.as<uint16_t>()[index]);
  }
}

bool IsFloat(DType dtype) {
  return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

}  // namespace

absl::string_view DTypeName(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].name; }
int64_t DTypeBytes(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].bytes; }
std::optional<DType> DTypeFromName(absl::string_view name) {
  for (const DTypeRow& row : kDTypes) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

int64_t TensorView::elements() const { return static_cast<int64_t>(bytes.size()) / DTypeBytes(dtype); }
std::string TensorView::ToString() const { return absl::StrCat(DTypeName(dtype), ShapeString(shape)); }

float HalfToFloat(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  const uint32_t wide = exponent == 0x1f ? 0xffu : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

float BFloat16ToFloat(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

int64_t CountNonFinite(const TensorView& tensor) {
  if (!IsFloat(tensor.dtype)) return 0;
  int64_t count = 0;
  for (int64_t i = 0; i < tensor.elements(); ++i) count += std::isfinite(FloatAt(tensor, i)) ? 0 : 1;
  return count;
}

absl::StatusOr<TensorView> SafetensorsFile::Get(const std::string& name) const {
  if (const auto it = tensors_.find(name); it != tensors_.end()) return it->second;
  std::vector<std::string> names;
  for (const auto& [known, unused] : tensors_) {
    if (names.size() < 8) names.push_back(known);
  }
  return absl::NotFoundError(absl::StrCat(source_, ": no tensor '", name, "'; the file has ", tensors_.size(), ": ",
                                          absl::StrJoin(names, ", "), tensors_.size() > 8 ? ", ..." : ""));
}

absl::StatusOr<TensorView> SafetensorsFile::Get(const std::string& name, DType dtype,
                                                absl::Span<const int64_t> shape) const {
  BEAMLINE_ASSIGN_OR_RETURN(TensorView tensor, Get(name));
  if (tensor.dtype != dtype || !ShapeMatches(tensor.shape, shape)) {
    return absl::InvalidArgumentError(absl::StrCat(source_, ": tensor '", name, "' is ", tensor.ToString(),
                                                   ", must be ", DTypeName(dtype), ShapeString(shape)));
  }
  return tensor;
}

absl::StatusOr<FloatMatrix> SafetensorsFile::GetFloatMatrix(const std::string& name) const {
  BEAMLINE_ASSIGN_OR_RETURN(const TensorView tensor, Get(name));
  if (!IsFloat(tensor.dtype) || tensor.shape.size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat(source_, ": tensor '", name, "' is ", tensor.ToString(),
                                                   ", must be F64, F32, F16 or BF16 of rank 2"));
  }
  FloatMatrix matrix(tensor.shape[0], tensor.shape[1]);
  for (int64_t i = 0; i < tensor.elements(); ++i) {
    const double value = FloatAt(tensor, i);
    // Written so that a NaN fails too; beyond fp32's range the conversion itself would be undefined.
    if (!(std::fabs(value) <= std::numeric_limits<float>::max())) {
      return absl::InvalidArgumentError(absl::StrCat(source_, ": tensor '", name, "' row ", i / matrix.cols, " column ",
                                                     i % matrix.cols, " is ", value, ", must be a finite fp32 number"));
    }
    matrix.values[i] = static_cast<float>(value);
  }
  return matrix;
}

absl::StatusOr<std::string> SafetensorsFile::GetMetadata(const std::string& key) const {
  if (const auto it = metadata_.find(key); it != metadata_.end()) return it->second;
  return absl::InvalidArgumentError(absl::StrCat(source_, ": no '", key, "' in __metadata__"));
}

absl::Status SafetensorsFile::CheckDigest() const {
  const auto digest = metadata_.find(kSafetensorsDigest);
  if (digest == metadata_.end() || digest->second == SafetensorsDigest(metadata_, tensors_)) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(source_, ": its content does not have the SHA-256 that its metadata '",
                                          kSafetensorsDigest, "' says; it was damaged or edited: make it again"));
}

absl::Status CheckTensors(const SafetensorsFile& file, absl::Span<const ExpectedTensor> expected) {
  std::vector<std::string> differences;
  std::set<std::string> names;
  for (const ExpectedTensor& want : expected) {
    names.insert(want.name);
    const std::string wanted = absl::StrCat(DTypeNames(want.dtypes), ShapeString(want.shape));
    const auto it = file.tensors().find(want.name);
    if (it == file.tensors().end()) {
      differences.push_back(absl::StrCat("missing ", want.name, " ", wanted));
      continue;
    }
    const TensorView& have = it->second;
    bool dtype_ok = false;
    for (DType dtype : want.dtypes) dtype_ok |= dtype == have.dtype;
    if (!dtype_ok || !ShapeMatches(have.shape, want.shape)) {
      differences.push_back(absl::StrCat(want.name, " is ", have.ToString(), ", must be ", wanted));
    }
  }
  for (const auto& [name, have] : file.tensors()) {
    if (!names.contains(name)) differences.push_back(absl::StrCat("unexpected ", name, " ", have.ToString()));
  }
  if (differences.empty()) return absl::OkStatus();
  const size_t count = differences.size();
  constexpr size_t kShown = 50;
  if (count > kShown) differences.resize(kShown);
  return absl::InvalidArgumentError(absl::StrCat(file.source(), ": ", count, " tensors differ from what is expected: ",
                                                 absl::StrJoin(differences, "; "), count > kShown ? "; ..." : ""));
}

}  // namespace beamline
