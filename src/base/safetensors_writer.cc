// SPDX-License-Identifier: Apache-2.0
//
// The writing side of base/safetensors.h.
#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/safetensors.h"
#include "base/safetensors_format.h"
#include "beamline/status.h"

namespace beamline {

absl::Status CheckTensorName(absl::string_view name, absl::string_view source_name) {
  constexpr size_t kMaxNameBytes = 512;
  bool printable = true;
  for (const char c : name) printable &= c > 0x20 && c < 0x7f;
  if (!name.empty() && name.size() <= kMaxNameBytes && printable && !absl::StrContains(name, "..")) {
    return absl::OkStatus();
  }
  std::string shown;
  for (const char c : name.substr(0, 64)) shown += (c > 0x20 && c < 0x7f) ? c : '?';
  return absl::InvalidArgumentError(
      absl::StrCat(source_name, ": tensor name '", shown, "' (", name.size(),
                   " bytes) must be 1 to 512 printable ASCII characters without blanks and without '..'"));
}

std::string SafetensorsDigest(const std::map<std::string, std::string>& metadata,
                              const std::map<std::string, TensorView>& tensors) {
  Sha256 digest;
  // Lengths in front, so that no two contents make the same stream of bytes.
  const auto text = [&digest](std::string_view bytes) {
    digest.Update(absl::StrCat(bytes.size(), " "));
    digest.Update(bytes);
  };
  for (const auto& [key, value] : metadata) {
    if (key == kSafetensorsDigest) continue;
    text(key);
    text(value);
  }
  for (const auto& [name, tensor] : tensors) {
    text(name);
    text(tensor.ToString());
    text({reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()});
  }
  return digest.HexDigest();
}

absl::Status SafetensorsWriter::Add(std::string name, DType dtype, std::vector<int64_t> shape,
                                    absl::Span<const std::byte> bytes) {
  BEAMLINE_RETURN_IF_ERROR(CheckTensorName(name, "safetensors"));
  int64_t expected = DTypeBytes(dtype);
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(expected, size, &expected)) expected = -1;
    if (expected < 0) break;
  }
  TensorView tensor{dtype, std::move(shape), bytes};
  if (expected != static_cast<int64_t>(bytes.size())) {
    return absl::InvalidArgumentError(absl::StrCat("safetensors: tensor '", name, "' ", tensor.ToString(), " needs ",
                                                   expected, " bytes, got ", bytes.size()));
  }
  if (name == "__metadata__" || tensors_.contains(name)) {
    return absl::AlreadyExistsError(absl::StrCat("safetensors: tensor name '", name, "' is taken"));
  }
  tensors_.emplace(std::move(name), std::move(tensor));
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::WriteTo(const std::function<absl::Status(absl::string_view)>& sink) const {
  std::vector<const std::pair<const std::string, TensorView>*> order;
  order.reserve(tensors_.size());
  for (const auto& entry : tensors_) order.push_back(&entry);
  // Falling element size keeps every tensor aligned to its element without padding, which the format forbids.
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return DTypeBytes(a->second.dtype) > DTypeBytes(b->second.dtype);
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::map<std::string, std::string> metadata = metadata_;
  metadata[kSafetensorsDigest] = SafetensorsDigest(metadata_, tensors_);
  header["__metadata__"] = std::move(metadata);
  uint64_t position = 0;
  for (const auto* entry : order) {
    const uint64_t end = position + entry->second.bytes.size();
    header[entry->first] = {{"dtype", std::string(DTypeName(entry->second.dtype))},
                            {"shape", entry->second.shape},
                            {"data_offsets", {position, end}}};
    position = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError("safetensors: metadata must be valid UTF-8");
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string prefix(8, '\0');
  for (int i = 0; i < 8; ++i) prefix[i] = static_cast<char>(text.size() >> (8 * i) & 0xff);
  BEAMLINE_RETURN_IF_ERROR(sink(prefix));
  BEAMLINE_RETURN_IF_ERROR(sink(text));
  for (const auto* entry : order) {
    const absl::Span<const std::byte> bytes = entry->second.bytes;
    BEAMLINE_RETURN_IF_ERROR(sink({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Write(const std::string& path) const {
  BEAMLINE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  BEAMLINE_RETURN_IF_ERROR(WriteTo([&file](absl::string_view bytes) {
    return file.Write({bytes.data(), bytes.size()});
  }));
  return file.Commit();
}

}  // namespace beamline
