// SPDX-License-Identifier: Apache-2.0
//
// A safetensors file. A refusal names it; of what is read, every tensor lies in the file, aligned, in the size its
// shape says, and writing it gives a file that reads the same.
#include <map>
#include <string>

#include "base/safetensors.h"
#include "fuzz/fuzz_target.h"

namespace beamline {
namespace {

using fuzz::Require;

std::string Bytes(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

void CheckTensor(const SafetensorsFile& file, const std::string& name, const TensorView& tensor) {
  Require(static_cast<int64_t>(tensor.bytes.size()) == tensor.elements() * DTypeBytes(tensor.dtype), "shape x dtype");
  Require(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % DTypeBytes(tensor.dtype) == 0, "alignment");
  const int64_t bad = CountNonFinite(tensor);
  Require(bad >= 0 && bad <= tensor.elements(), "counts are counts");
  fuzz::RequireOk(file.Get(name, tensor.dtype, tensor.shape).status(), "what is listed is there");
  const absl::StatusOr<FloatMatrix> matrix = file.GetFloatMatrix(name);
  if (!matrix.ok()) return fuzz::RequireNames(matrix.status(), file.source());
  Require(matrix->rows * matrix->cols == tensor.elements() && bad == 0, "a finite matrix of all elements");
}

void CheckRoundTrip(const SafetensorsFile& file, const SafetensorsLimits& limits) {
  SafetensorsWriter writer;
  for (const auto& [key, value] : file.metadata()) writer.SetMetadata(key, value);
  for (const auto& [name, tensor] : file.tensors()) {
    fuzz::RequireOk(writer.Add(name, tensor.dtype, tensor.shape, tensor.bytes), "what was read can be written");
  }
  std::string written;
  fuzz::RequireOk(writer.WriteTo([&](absl::string_view part) {
    written.append(part.data(), part.size());
    return absl::OkStatus();
  }),
                  "what was read can be written");
  const auto again = SafetensorsFile::Parse(written, "again", limits);
  fuzz::RequireOk(again.status(), "what was written can be read");
  std::map<std::string, std::string> metadata = file.metadata();
  metadata[kSafetensorsDigest] = again->GetMetadata(kSafetensorsDigest).value();
  Require(again->metadata() == metadata && again->tensors().size() == file.tensors().size(), "the same");
  for (const auto& [name, tensor] : file.tensors()) {
    Require(Bytes(again->tensors().at(name)) == Bytes(tensor), "the same bytes");
  }
}

}  // namespace
}  // namespace beamline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace beamline;  // NOLINT(google-build-using-namespace)
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto strict = SafetensorsFile::Parse(bytes, "m.safetensors");
  SafetensorsLimits limits;
  limits.allow_empty = limits.allow_scalars = true;
  const auto lenient = SafetensorsFile::Parse(bytes, "m.safetensors", limits);
  fuzz::Require(lenient.ok() || !strict.ok(), "what the strict reader takes the lenient one takes");
  if (!strict.ok()) fuzz::RequireNames(strict.status(), "m.safetensors");
  if (!lenient.ok()) return fuzz::RequireNames(lenient.status(), "m.safetensors"), 0;
  for (const auto& [name, tensor] : lenient->tensors()) CheckTensor(*lenient, name, tensor);
  CheckRoundTrip(*lenient, limits);
  return 0;
}
