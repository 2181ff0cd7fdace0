// SPDX-License-Identifier: Apache-2.0
#include "sid/item_vectors.h"

#include <cstdint>
#include <numeric>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/line_reader.h"
#include "base/npy.h"
#include "base/safetensors.h"
#include "beamline/status.h"
#include "sid/codebook.h"

namespace beamline::sid {
namespace {

constexpr char kVectors[] = "vectors";
constexpr char kItemIds[] = "item_ids";

bool IsFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kF16 || dtype == DType::kBF16;
}

absl::StatusOr<std::string> FindTensor(const SafetensorsFile& file) {
  if (file.contains(kVectors)) return std::string(kVectors);
  std::vector<std::string> candidates;
  for (const auto& [name, tensor] : file.tensors()) {
    if (tensor.shape.size() == 2 && IsFloat(tensor.dtype)) candidates.push_back(name);
  }
  if (candidates.size() == 1) return candidates[0];
  return absl::InvalidArgumentError(absl::StrCat(file.source(), ": no tensor 'vectors' and ", candidates.size(),
                                                 " other 2-D float tensors; name one of them"));
}

absl::StatusOr<std::vector<ItemId>> IdsOfTensor(const SafetensorsFile& file) {
  BEAMLINE_ASSIGN_OR_RETURN(const TensorView tensor, file.Get(kItemIds));
  if (tensor.shape.size() != 1 || (tensor.dtype != DType::kU64 && tensor.dtype != DType::kI64)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.source(), ": tensor 'item_ids' is ", tensor.ToString(), ", must be U64 or I64 of rank 1"));
  }
  std::vector<ItemId> ids(tensor.elements());
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = tensor.as<uint64_t>()[i];
    if (tensor.dtype == DType::kI64 && tensor.as<int64_t>()[i] < 0) {
      return absl::InvalidArgumentError(absl::StrCat(file.source(), ": tensor 'item_ids' element ", i, " is ",
                                                     tensor.as<int64_t>()[i], ", must be at least 0"));
    }
  }
  return ids;
}

absl::StatusOr<std::vector<ItemId>> ReadIds(const std::string& path, int64_t rows) {
  BEAMLINE_ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(path, 64));
  std::vector<ItemId> ids;
  std::string_view line;
  while (true) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
    if (!more) return ids;
    bool digits = !line.empty();
    for (const char c : line) digits &= c >= '0' && c <= '9';
    ItemId id = 0;
    if (!digits || !absl::SimpleAtoi(absl::string_view(line.data(), line.size()), &id)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", lines.line_number(), ": must be an item id of 0 to 2^64-1, alone on its line"));
    }
    if (static_cast<int64_t>(ids.size()) == rows) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", lines.line_number(), ": more ids than the ", rows, " vectors"));
    }
    ids.push_back(id);
  }
}

absl::Status CheckIds(const std::string& source, const ItemVectors& vectors) {
  if (static_cast<int64_t>(vectors.items.size()) != vectors.vectors.rows) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": ", vectors.items.size(), " item ids for ", vectors.vectors.rows, " vectors"));
  }
  absl::flat_hash_set<ItemId> seen;
  for (const ItemId id : vectors.items) {
    if (!seen.insert(id).second)
      return absl::InvalidArgumentError(absl::StrCat(source, ": item ", id, " is there twice"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ItemVectors> ReadItemVectors(const ItemVectorsFile& file) {
  ItemVectors result;
  if (absl::EndsWith(file.path, ".npy")) {
    BEAMLINE_ASSIGN_OR_RETURN(result.vectors, ReadNpy(file.path));
  } else {
    BEAMLINE_ASSIGN_OR_RETURN(const SafetensorsFile tensors, SafetensorsFile::Read(file.path));
    std::string name = file.tensor;
    if (name.empty()) {
      BEAMLINE_ASSIGN_OR_RETURN(name, FindTensor(tensors));
    }
    BEAMLINE_ASSIGN_OR_RETURN(result.vectors, tensors.GetFloatMatrix(name));
    if (tensors.contains(kItemIds)) {
      BEAMLINE_ASSIGN_OR_RETURN(result.items, IdsOfTensor(tensors));
    }
  }
  if (const absl::Status status = CheckVectors(result.vectors); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(file.path, ": ", status.message()));
  }
  if (!file.ids_path.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(result.items, ReadIds(file.ids_path, result.vectors.rows));
  } else if (result.items.empty()) {
    result.items.resize(result.vectors.rows);
    std::iota(result.items.begin(), result.items.end(), ItemId{0});
  }
  BEAMLINE_RETURN_IF_ERROR(CheckIds(file.ids_path.empty() ? file.path : file.ids_path, result));
  return result;
}

absl::Status WriteItemVectors(const std::string& path, const ItemVectors& vectors) {
  BEAMLINE_RETURN_IF_ERROR(CheckIds(path, vectors));
  SafetensorsWriter writer;
  BEAMLINE_RETURN_IF_ERROR(
      writer.Add<float>(kVectors, {vectors.vectors.rows, vectors.vectors.cols}, vectors.vectors.values));
  BEAMLINE_RETURN_IF_ERROR(writer.Add<uint64_t>(kItemIds, {vectors.vectors.rows}, vectors.items));
  return writer.Write(path);
}

}  // namespace beamline::sid
