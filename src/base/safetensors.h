// SPDX-License-Identifier: Apache-2.0
//
// The safetensors format (https://github.com/huggingface/safetensors): an 8-byte header length, a JSON header, raw
// little-endian tensors. The reader checks everything before it hands out a byte: lengths before allocation, header
// JSON (depth, duplicates, types), names, dtypes, shape x dtype = bytes, offsets contiguous, aligned, without hole or
// overlap, no trailing bytes, BOOL values. Pickle, zip, npy and GGUF are refused with a hint. Files are regular files,
// opened without following a link, and read once into private memory, so a file changed on disk later cannot hurt.
// The writer is deterministic: the same tensors and metadata give the same bytes, under the final name only when whole.
// It adds a SHA-256 of metadata and tensors as metadata of its own, and a reader of the whole file refuses one that
// does not fit. Files of others have none, and a flipped bit in them is not noticed. Objects are immutable after
// construction, and then thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/float_matrix.h"

namespace beamline {

enum class DType : uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU64, kU32, kU16, kU8, kBool };

absl::string_view DTypeName(DType dtype);  // "F32"
std::optional<DType> DTypeFromName(absl::string_view name);
int64_t DTypeBytes(DType dtype);

template <typename T>
struct DTypeOf;  // DTypeOf<float>::value == DType::kF32; BF16 and F16 are read as uint16_t bit patterns through `bytes`

inline constexpr char kSafetensorsDigest[] = "beamline-sha256";  // the metadata's key, of 64 hexadecimal digits

struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  absl::Span<const std::byte> bytes;  // aligned to the dtype; into the file's memory or the caller's

  int64_t elements() const;
  std::string ToString() const;  // "F32[2,3]"
  // REQUIRES: dtype is T's. (Check it first: SafetensorsFile::Get, CheckTensors.)
  template <typename T>
  absl::Span<const T> as() const {
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
};

struct SafetensorsLimits {
  uint64_t max_file_bytes = uint64_t{64} << 30;  // and never more than the memory that is free
  uint64_t max_header_bytes = 16 << 20;          // the format's own limit is 100 MB
  uint64_t max_tensors = 100'000;
  int max_rank = 8;
  bool allow_scalars = false;  // rank 0
  bool allow_empty = false;    // a dimension of 0, or a file without tensors
};

// What to keep of a tensor: elements [first, first + count) of the whole in row-major order, runs ascending and apart,
// which together make a tensor of `shape`.
struct TensorPart {
  struct Run {
    int64_t first = 0;
    int64_t count = 0;
  };
  std::vector<int64_t> shape;
  std::vector<Run> runs;
};
// Asked for every tensor, whose bytes are not there yet. An error ends the reading.
using PartChooser = std::function<absl::StatusOr<TensorPart>(const std::string& name, const TensorView& whole)>;

class SafetensorsFile {
 public:
  static absl::StatusOr<SafetensorsFile> Read(const std::string& path, const SafetensorsLimits& limits = {});
  // Of bytes in memory (tests, fuzzing); source_name stands for the path in errors.
  static absl::StatusOr<SafetensorsFile> Parse(absl::string_view contents, const std::string& source_name,
                                               const SafetensorsLimits& limits = {});

  // All of the file goes by once, in order; memory is taken for the parts alone. `sha256` is of the whole file, for the
  // caller to compare: its own digest is not checked, nor the elements of a BOOL. A null chooser takes all, as Read
  // does.
  struct Parts;
  static absl::StatusOr<Parts> ReadParts(const std::string& path, const PartChooser& choose,
                                         const SafetensorsLimits& limits = {});

  const std::string& source() const { return source_; }
  bool parts() const { return parts_; }                                          // tensors are parts of the file's
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }  // by name; views into this file
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return tensors_.contains(name); }

  absl::StatusOr<TensorView> Get(const std::string& name) const;  // NOT_FOUND lists the names there are
  // Of exactly this dtype; a shape given must match, -1 in it matches any size.
  absl::StatusOr<TensorView> Get(const std::string& name, DType dtype, absl::Span<const int64_t> shape) const;
  // A 2-D tensor of F64, F32, F16 or BF16 as fp32; every value must be finite.
  absl::StatusOr<FloatMatrix> GetFloatMatrix(const std::string& name) const;
  // INVALID_ARGUMENT where it lacks the key: NOT_FOUND would say that there is no file, which may come later.
  absl::StatusOr<std::string> GetMetadata(const std::string& key) const;

 private:
  absl::Status CheckDigest() const;  // DATA_LOSS: there is one, and it does not fit

  std::string source_;
  bool parts_ = false;
  std::shared_ptr<std::byte[]> data_;  // 64-byte aligned; shared so that copies of this object keep views valid
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
  friend class SafetensorsParser;
};

struct SafetensorsFile::Parts {
  SafetensorsFile file;
  std::string sha256;
};

// What a loader expects of a file. All differences (missing, extra, other dtype, other shape) come in one error.
struct ExpectedTensor {
  std::string name;
  std::vector<DType> dtypes;   // any of these
  std::vector<int64_t> shape;  // -1 matches any size
};
absl::Status CheckTensors(const SafetensorsFile& file, absl::Span<const ExpectedTensor> expected);

// Values that are NaN or infinite; 0 for integer dtypes.
int64_t CountNonFinite(const TensorView& tensor);

// IEEE binary16 and bfloat16 bit patterns to fp32.
float HalfToFloat(uint16_t bits);
float BFloat16ToFloat(uint16_t bits);

// Collects tensors and writes them in one go. Tensor bytes are not copied: they must live until Write returns.
class SafetensorsWriter {
 public:
  // kSafetensorsDigest is the writer's own: a value set for it is replaced.
  void SetMetadata(std::string key, std::string value) { metadata_[std::move(key)] = std::move(value); }
  // Errors: a name the reader would refuse or a second time, bytes that do not fit dtype and shape.
  absl::Status Add(std::string name, DType dtype, std::vector<int64_t> shape, absl::Span<const std::byte> bytes);
  template <typename T>
  absl::Status Add(std::string name, std::vector<int64_t> shape, absl::Span<const T> values) {
    return Add(std::move(name), DTypeOf<T>::value, std::move(shape),
               {reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(T)});
  }
  // Through a temporary file beside path, fsync and rename. Tensors stand by falling alignment, then by name.
  absl::Status Write(const std::string& path) const;
  // Hands the file's bytes to sink in order: what Write does with a file.
  absl::Status WriteTo(const std::function<absl::Status(absl::string_view)>& sink) const;

 private:
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// clang-format off
template <> struct DTypeOf<double> { static constexpr DType value = DType::kF64; };
template <> struct DTypeOf<float> { static constexpr DType value = DType::kF32; };
template <> struct DTypeOf<int64_t> { static constexpr DType value = DType::kI64; };
template <> struct DTypeOf<int32_t> { static constexpr DType value = DType::kI32; };
template <> struct DTypeOf<int16_t> { static constexpr DType value = DType::kI16; };
template <> struct DTypeOf<int8_t> { static constexpr DType value = DType::kI8; };
template <> struct DTypeOf<uint64_t> { static constexpr DType value = DType::kU64; };
template <> struct DTypeOf<uint32_t> { static constexpr DType value = DType::kU32; };
template <> struct DTypeOf<uint16_t> { static constexpr DType value = DType::kU16; };
template <> struct DTypeOf<uint8_t> { static constexpr DType value = DType::kU8; };
// clang-format on

}  // namespace beamline
