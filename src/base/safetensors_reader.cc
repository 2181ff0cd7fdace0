// SPDX-License-Identifier: Apache-2.0
//
// The reading side of base/safetensors.h.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "base/safetensors_format.h"
#include "beamline/status.h"

namespace beamline {

// Where bytes come from: a file or memory. Read fills all of out or fails.
class SafetensorsSource {
 public:
  virtual ~SafetensorsSource() = default;
  virtual uint64_t size() const = 0;
  virtual absl::Status Read(char* out, uint64_t count) = 0;
  virtual absl::Status CheckEnd() { return absl::OkStatus(); }
};

namespace {

constexpr uint64_t kPrefixBytes = 8;
constexpr size_t kAlignment = 64;
constexpr uint64_t kPieceBytes = 1 << 20;
constexpr uint64_t kFitsAlways = 1 << 20;

class MemorySource final : public SafetensorsSource {
 public:
  explicit MemorySource(absl::string_view bytes) : bytes_(bytes) {}
  uint64_t size() const override { return bytes_.size(); }
  absl::Status Read(char* out, uint64_t count) override {
    std::memcpy(out, bytes_.data() + position_, count);
    position_ += count;
    return absl::OkStatus();
  }

 private:
  absl::string_view bytes_;
  uint64_t position_ = 0;
};

class FileSource final : public SafetensorsSource {
 public:
  static absl::StatusOr<std::unique_ptr<FileSource>> Open(const std::string& path) {
    // O_NONBLOCK: opening a pipe must not wait for its writer; regular files do not notice.
    const int descriptor = open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0 && errno == ELOOP) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": is a symbolic link; give the file it points to"));
    }
    if (descriptor < 0) return StatusOfErrno(errno, absl::StrCat("cannot open ", path));
    std::unique_ptr<FileSource> source(new FileSource(path, descriptor));
    struct stat info;
    if (fstat(descriptor, &info) != 0) return StatusOfErrno(errno, absl::StrCat("cannot stat ", path));
    if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
    source->size_ = static_cast<uint64_t>(info.st_size);
    return source;
  }
  ~FileSource() override { close(descriptor_); }
  uint64_t size() const override { return size_; }
  absl::Status Read(char* out, uint64_t count) override {
    while (count > 0) {
      const ssize_t done = read(descriptor_, out, std::min<uint64_t>(count, 1 << 30));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) return StatusOfErrno(errno, absl::StrCat("cannot read ", path_));
      if (done == 0) return absl::DataLossError(absl::StrCat(path_, ": shrank while it was read"));
      out += done;
      count -= static_cast<uint64_t>(done);
    }
    return absl::OkStatus();
  }
  absl::Status CheckEnd() override {
    char byte;
    if (read(descriptor_, &byte, 1) > 0) return absl::DataLossError(absl::StrCat(path_, ": grew while it was read"));
    return absl::OkStatus();
  }

 private:
  FileSource(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  std::string path_;
  int descriptor_;
  uint64_t size_ = 0;
};

// Of what is read from another source, the digest.
class DigestSource final : public SafetensorsSource {
 public:
  explicit DigestSource(SafetensorsSource& source) : source_(source) {}
  uint64_t size() const override { return source_.size(); }
  absl::Status Read(char* out, uint64_t count) override {
    while (count > 0) {  // in pieces that are still in the cache when they are hashed
      const uint64_t some = std::min(count, kPieceBytes);
      BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
      BEAMLINE_RETURN_IF_ERROR(source_.Read(out, some));
      digest_.Update({out, some});
      out += some;
      count -= some;
    }
    return absl::OkStatus();
  }
  absl::Status CheckEnd() override { return source_.CheckEnd(); }
  std::string HexDigest() { return digest_.HexDigest(); }

 private:
  SafetensorsSource& source_;
  Sha256 digest_;
};

absl::string_view OtherFormat(absl::string_view start) {
  if (absl::StartsWith(start, "\x93NUMPY")) return "a NumPy file; use it as .npy";
  if (absl::StartsWith(start, "GGUF")) return "a GGUF file";
  if (absl::StartsWith(start, "PK\x03\x04")) return "a zip archive, perhaps a PyTorch checkpoint";
  if (start.size() > 1 && start[0] == '\x80' && start[1] >= 2 && start[1] <= 5) return "a pickle (.pt, .bin)";
  if (absl::StartsWith(start, "\x89HDF")) return "an HDF5 file";
  return "";
}

uint64_t LittleEndian64(const char* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

std::shared_ptr<std::byte[]> AllocateAligned(uint64_t bytes) {
  auto* memory = static_cast<std::byte*>(
      ::operator new (std::max<uint64_t>(bytes, 1), std::align_val_t{kAlignment}, std::nothrow));
  return {memory, [](std::byte* pointer) { ::operator delete (pointer, std::align_val_t{kAlignment}); }};
}

}  // namespace

// Reads prefix, header and data in this order; the data is allocated only when the header accounts for every byte.
class SafetensorsParser {
 public:
  SafetensorsParser(SafetensorsSource& source, const std::string& name, const SafetensorsLimits& limits)
      : source_(source), limits_(limits) {
    file_.source_ = name;
  }

  absl::StatusOr<SafetensorsFile> Run() {
    BEAMLINE_RETURN_IF_ERROR(ReadHeader());
    BEAMLINE_RETURN_IF_ERROR(CheckLayout());
    BEAMLINE_RETURN_IF_ERROR(Allocate(data_bytes_));
    BEAMLINE_RETURN_IF_ERROR(source_.Read(reinterpret_cast<char*>(file_.data_.get()), data_bytes_));
    BEAMLINE_RETURN_IF_ERROR(source_.CheckEnd());
    return Finish();
  }

  absl::StatusOr<SafetensorsFile> RunParts(const PartChooser& choose) {
    BEAMLINE_RETURN_IF_ERROR(ReadHeader());
    BEAMLINE_RETURN_IF_ERROR(CheckLayout());
    std::vector<Kept> kept(spans_.size());
    uint64_t bytes = 0;
    for (size_t i = 0; i < spans_.size(); ++i) {
      BEAMLINE_RETURN_IF_ERROR(Choose(choose, spans_[i].name, kept[i]));
      kept[i].begin = bytes;
      bytes += (kept[i].bytes + kAlignment - 1) / kAlignment * kAlignment;
    }
    BEAMLINE_RETURN_IF_ERROR(Allocate(bytes));
    for (size_t i = 0; i < spans_.size(); ++i) BEAMLINE_RETURN_IF_ERROR(ReadRuns(spans_[i], kept[i]));
    BEAMLINE_RETURN_IF_ERROR(source_.CheckEnd());
    file_.parts_ = true;
    return std::move(file_);
  }

 private:
  struct Span {
    uint64_t begin;
    uint64_t end;
    std::string name;
    bool operator<(const Span& other) const {
      return std::tie(begin, end, name) < std::tie(other.begin, other.end, other.name);
    }
  };
  // Of one tensor, where its part goes to.
  struct Kept {
    TensorPart part;
    uint64_t begin = 0;
    uint64_t bytes = 0;
  };

  absl::Status Allocate(uint64_t bytes) {
    if (bytes > kFitsAlways) {
      BEAMLINE_RETURN_IF_ERROR(CheckMemory(absl::StrCat(file_.source_, ": its tensors"), static_cast<int64_t>(bytes),
                                           "give a smaller file, or more memory"));
    }
    file_.data_ = AllocateAligned(bytes);
    if (file_.data_ == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat(file_.source_, ": cannot allocate ", bytes, " bytes"));
    }
    return absl::OkStatus();
  }

  absl::Status Choose(const PartChooser& choose, const std::string& name, Kept& kept) const {
    const TensorView& whole = file_.tensors_.at(name);
    BEAMLINE_ASSIGN_OR_RETURN(kept.part, choose(name, whole));
    int64_t elements = 1, after = 0, in_part = 1;
    for (const int64_t size : whole.shape) elements *= size;
    for (const int64_t size : kept.part.shape) in_part *= size;
    for (const TensorPart::Run& run : kept.part.runs) {
      if (run.first < after || run.count < 0 || run.count > elements - run.first) {
        return absl::InternalError(absl::StrCat(file_.source_, ": tensor '", name, "': a part outside of it"));
      }
      after = run.first + run.count;
      in_part -= run.count;
      kept.bytes += static_cast<uint64_t>(run.count * DTypeBytes(whole.dtype));
    }
    if (in_part == 0) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(file_.source_, ": tensor '", name, "': runs and shape of a part differ"));
  }

  // The tensor's bytes go by; its runs stay.
  absl::Status ReadRuns(const Span& span, const Kept& kept) {
    TensorView& tensor = file_.tensors_.at(span.name);
    const uint64_t element = static_cast<uint64_t>(DTypeBytes(tensor.dtype));
    std::byte* to = file_.data_.get() + kept.begin;
    tensor.bytes = {to, kept.bytes};
    tensor.shape = kept.part.shape;
    uint64_t position = span.begin;
    for (const TensorPart::Run& run : kept.part.runs) {
      BEAMLINE_RETURN_IF_ERROR(Skip(span.begin + static_cast<uint64_t>(run.first) * element - position));
      const uint64_t bytes = static_cast<uint64_t>(run.count) * element;
      BEAMLINE_RETURN_IF_ERROR(source_.Read(reinterpret_cast<char*>(to), bytes));
      to += bytes;
      position = span.begin + static_cast<uint64_t>(run.first) * element + bytes;
    }
    return Skip(span.end - position);
  }

  absl::Status Skip(uint64_t bytes) {
    skipped_.resize(std::max<size_t>(skipped_.size(), std::min(bytes, kPieceBytes)));
    while (bytes > 0) {
      const uint64_t some = std::min(bytes, kPieceBytes);
      BEAMLINE_RETURN_IF_ERROR(source_.Read(skipped_.data(), some));
      bytes -= some;
    }
    return absl::OkStatus();
  }

  absl::Status Error(absl::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat(file_.source_, ": ", message));
  }
  absl::Status TensorError(absl::string_view name, absl::string_view message) const {
    return Error(absl::StrCat("tensor '", name, "' ", message));
  }

  absl::Status ReadHeader() {
    const uint64_t size = source_.size();
    if (size > limits_.max_file_bytes) {
      return Error(absl::StrCat(size, " bytes are over the limit of ", limits_.max_file_bytes));
    }
    char prefix[kPrefixBytes];
    if (size >= kPrefixBytes) BEAMLINE_RETURN_IF_ERROR(source_.Read(prefix, kPrefixBytes));
    // Asked only of what is no safetensors file: a header of 640 bytes begins as a pickle does.
    const absl::string_view other =
        size < kPrefixBytes ? absl::string_view() : OtherFormat(absl::string_view(prefix, kPrefixBytes));
    const auto foreign = [&] {
      return Error(absl::StrCat("not a safetensors file but ", other, "; convert it first"));
    };
    if (size < kPrefixBytes + 2) {
      if (!other.empty()) return foreign();
      return Error(absl::StrCat("too small for a safetensors file: ", size, " bytes, at least 10 needed"));
    }
    const uint64_t header_bytes = LittleEndian64(prefix);
    if (header_bytes > limits_.max_header_bytes || header_bytes > size - kPrefixBytes || header_bytes < 2) {
      if (!other.empty()) return foreign();
      return Error(absl::StrCat("not a safetensors file: header length ", header_bytes, " must be 2 to ",
                                std::min(limits_.max_header_bytes, size - kPrefixBytes)));
    }
    header_.resize(header_bytes);
    BEAMLINE_RETURN_IF_ERROR(source_.Read(header_.data(), header_bytes));
    data_bytes_ = size - kPrefixBytes - header_bytes;
    if (header_[0] != '{' && !other.empty()) return foreign();
    if (header_[0] != '{') return Error("not a safetensors file: the header must start with '{'");
    return absl::OkStatus();
  }

  absl::Status CheckLayout() {
    JsonLimits json_limits;
    json_limits.max_bytes = limits_.max_header_bytes;
    json_limits.max_elements = 16 * limits_.max_tensors + 1024;
    BEAMLINE_ASSIGN_OR_RETURN(const nlohmann::json header,
                              ParseJson(header_, absl::StrCat("header of ", file_.source_), json_limits));
    for (const auto& [name, entry] : header.items()) {
      BEAMLINE_RETURN_IF_ERROR(name == "__metadata__" ? AddMetadata(entry) : AddTensor(name, entry));
    }
    if (spans_.size() > limits_.max_tensors) {
      return Error(absl::StrCat(spans_.size(), " tensors are over the limit of ", limits_.max_tensors));
    }
    if (spans_.empty() && !limits_.allow_empty) return Error("holds no tensor");
    return CheckSpans();
  }

  absl::Status AddMetadata(const nlohmann::json& entry) {
    if (!entry.is_object()) return Error("__metadata__ must be an object of strings");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) return Error(absl::StrCat("__metadata__ '", key.substr(0, 64), "' must be a string"));
      file_.metadata_[key] = value.get<std::string>();
    }
    return absl::OkStatus();
  }

  absl::Status AddTensor(const std::string& name, const nlohmann::json& entry) {
    BEAMLINE_RETURN_IF_ERROR(CheckTensorName(name, file_.source_));
    if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") || !entry.contains("shape") ||
        !entry.contains("data_offsets")) {
      return TensorError(name, "must have exactly dtype, shape and data_offsets");
    }
    TensorView tensor;
    const nlohmann::json& dtype = entry["dtype"];
    const auto known = dtype.is_string() ? DTypeFromName(dtype.get_ref<const std::string&>()) : std::nullopt;
    if (!known.has_value()) return TensorError(name, absl::StrCat("has unknown dtype ", dtype.dump().substr(0, 64)));
    tensor.dtype = *known;
    BEAMLINE_ASSIGN_OR_RETURN(const uint64_t bytes, ReadShape(name, entry["shape"], tensor));
    const nlohmann::json& offsets = entry["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned()) {
      return TensorError(name, "must have two unsigned integers as data_offsets");
    }
    const uint64_t begin = offsets[0].get<uint64_t>();
    const uint64_t end = offsets[1].get<uint64_t>();
    if (begin > end || end > data_bytes_) {
      return TensorError(
          name, absl::StrCat("has data_offsets [", begin, ",", end, "]; the data has ", data_bytes_, " bytes"));
    }
    if (end - begin != bytes) {
      return TensorError(name,
                         absl::StrCat(tensor.ToString(), " needs ", bytes, " bytes, data_offsets give ", end - begin));
    }
    if (begin % DTypeBytes(tensor.dtype) != 0) {
      return TensorError(name, absl::StrCat("starts at ", begin, ", not a multiple of its element's size"));
    }
    spans_.push_back({begin, end, name});
    file_.tensors_.emplace(name, std::move(tensor));
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> ReadShape(const std::string& name, const nlohmann::json& shape, TensorView& tensor) const {
    if (!shape.is_array()) return TensorError(name, "must have an array as shape");
    if (shape.empty() && !limits_.allow_scalars) return TensorError(name, "has rank 0");
    if (static_cast<int64_t>(shape.size()) > limits_.max_rank) {
      return TensorError(name, absl::StrCat("has rank ", shape.size(), ", over the limit of ", limits_.max_rank));
    }
    uint64_t bytes = static_cast<uint64_t>(DTypeBytes(tensor.dtype));
    for (const nlohmann::json& size : shape) {
      if (!size.is_number_unsigned()) return TensorError(name, "must have unsigned integers as shape");
      const uint64_t value = size.get<uint64_t>();
      if (value == 0 && !limits_.allow_empty) return TensorError(name, "has a dimension of size 0");
      // Bounded by the data, so neither the product nor the int64 shape can overflow.
      if (value > limits_.max_file_bytes || (value != 0 && bytes > limits_.max_file_bytes / value)) {
        return TensorError(name, "has a shape of more bytes than any file may have");
      }
      bytes *= value;
      tensor.shape.push_back(static_cast<int64_t>(value));
    }
    return bytes;
  }

  // Sorted by offset, tensors must cover the data exactly.
  absl::Status CheckSpans() {
    std::sort(spans_.begin(), spans_.end());
    uint64_t position = 0;
    for (const Span& span : spans_) {
      if (span.begin != position) {
        return TensorError(span.name, absl::StrCat("starts at ", span.begin, ", must start at ", position,
                                                   span.begin < position ? " (overlap)" : " (hole)"));
      }
      position = span.end;
    }
    if (position != data_bytes_) {
      return Error(absl::StrCat(data_bytes_ - position, " bytes follow the last tensor; cut them off"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<SafetensorsFile> Finish() {
    for (const Span& span : spans_) {
      TensorView& tensor = file_.tensors_.at(span.name);
      tensor.bytes = {file_.data_.get() + span.begin, span.end - span.begin};
      if (tensor.dtype != DType::kBool) continue;
      for (size_t i = 0; i < tensor.bytes.size(); ++i) {
        if (tensor.bytes[i] > std::byte{1}) {
          return TensorError(
              span.name, absl::StrCat("element ", i, " is ", static_cast<int>(tensor.bytes[i]), "; a BOOL is 0 or 1"));
        }
      }
    }
    BEAMLINE_RETURN_IF_ERROR(file_.CheckDigest());
    return std::move(file_);
  }

  SafetensorsSource& source_;
  const SafetensorsLimits& limits_;
  std::string header_;
  std::string skipped_;
  uint64_t data_bytes_ = 0;
  std::vector<Span> spans_;
  SafetensorsFile file_;
};

absl::StatusOr<SafetensorsFile> SafetensorsFile::Read(const std::string& path, const SafetensorsLimits& limits) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::unique_ptr<FileSource> source, FileSource::Open(path));
  return SafetensorsParser(*source, path, limits).Run();
}

absl::StatusOr<SafetensorsFile::Parts> SafetensorsFile::ReadParts(const std::string& path, const PartChooser& choose,
                                                                  const SafetensorsLimits& limits) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::unique_ptr<FileSource> file, FileSource::Open(path));
  DigestSource source(*file);
  SafetensorsParser parser(source, path, limits);
  BEAMLINE_ASSIGN_OR_RETURN(SafetensorsFile parts, choose == nullptr ? parser.Run() : parser.RunParts(choose));
  return Parts{std::move(parts), source.HexDigest()};
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Parse(absl::string_view contents, const std::string& source_name,
                                                       const SafetensorsLimits& limits) {
  MemorySource source(contents);
  return SafetensorsParser(source, source_name, limits).Run();
}

}  // namespace beamline
