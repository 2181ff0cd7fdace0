// SPDX-License-Identifier: Apache-2.0
#include "catalogue/section_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "beamline/status.h"

namespace beamline::catalogue {
namespace {

constexpr char kMagic[8] = {'B', 'E', 'A', 'M', 'C', 'A', 'T', '\n'};
constexpr uint64_t kAlignment = 64;
constexpr size_t kNameBytes = 24;
constexpr size_t kDigestBytes = 32;
constexpr uint64_t kChunk = 16 << 20;  // written or read between two looks at the interrupt flag

// The bytes on disk.
struct FileHeader {
  char magic[8];
  uint32_t format;
  uint32_t sections;
  uint64_t file_bytes;
};
struct SectionEntry {
  char name[kNameBytes];
  uint64_t offset;
  uint64_t bytes;
  char sha256[kDigestBytes];
};
static_assert(sizeof(FileHeader) == 24 && sizeof(SectionEntry) == 72, "no padding inside what is written");

uint64_t HeaderBytes(uint64_t sections) { return sizeof(FileHeader) + sections * sizeof(SectionEntry) + kDigestBytes; }

uint64_t AlignUp(uint64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

template <typename T>
absl::string_view BytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

// base speaks std::string_view, which is a type of its own beside absl::string_view in Debian's abseil.
std::string_view ToStd(absl::string_view bytes) { return {bytes.data(), bytes.size()}; }

std::string BinarySha256(absl::string_view bytes) { return absl::HexStringToBytes(Sha256Hex(ToStd(bytes))); }

absl::Status WriteChunks(AtomicFile& file, absl::string_view bytes, Progress* progress) {
  while (!bytes.empty()) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    BEAMLINE_RETURN_IF_ERROR(file.Write(ToStd(bytes.substr(0, kChunk))));
    bytes.remove_prefix(std::min<uint64_t>(kChunk, bytes.size()));
    UpdateProgress(progress, static_cast<int64_t>(file.size() >> 20));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteSectionFile(const std::filesystem::path& path, absl::Span<const Section> sections,
                              Progress* progress) {
  if (sections.size() > kMaxSections) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": ", sections.size(), " sections, at most ", kMaxSections, " are allowed"));
  }
  std::string header;
  uint64_t end = HeaderBytes(sections.size());
  for (const Section& section : sections) {
    if (section.name.empty() || section.name.size() >= kNameBytes) {
      return absl::InvalidArgumentError(absl::StrCat(path.string(), ": section name '", section.name,
                                                     "' must have 1 to ", kNameBytes - 1, " characters"));
    }
    SectionEntry entry{};
    section.name.copy(entry.name, kNameBytes);
    entry.offset = AlignUp(end);
    entry.bytes = section.bytes.size();
    BinarySha256(section.bytes).copy(entry.sha256, kDigestBytes);
    end = entry.offset + entry.bytes;
    absl::StrAppend(&header, BytesOf(entry));
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  }
  FileHeader first{{}, kSectionFileFormat, static_cast<uint32_t>(sections.size()), end};
  std::copy(std::begin(kMagic), std::end(kMagic), first.magic);
  header = absl::StrCat(BytesOf(first), header);
  header += BinarySha256(header);

  StartProgress(progress, absl::StrCat("write ", path.filename().string()), static_cast<int64_t>(end >> 20), "MiB");
  BEAMLINE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  BEAMLINE_RETURN_IF_ERROR(file.Write(header));
  for (const Section& section : sections) {
    BEAMLINE_RETURN_IF_ERROR(file.Write(std::string(AlignUp(file.size()) - file.size(), '\0')));
    BEAMLINE_RETURN_IF_ERROR(WriteChunks(file, section.bytes, progress));
  }
  BEAMLINE_RETURN_IF_ERROR(file.Commit());
  FinishProgress(progress);
  return absl::OkStatus();
}

SectionReader::SectionReader(SectionReader&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      file_bytes_(other.file_bytes_),
      header_bytes_(other.header_bytes_),
      sections_(std::move(other.sections_)) {}

SectionReader::~SectionReader() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

absl::Status SectionReader::Error(absl::string_view section, absl::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(path_.string(), ": section '", section, "': ", what));
}

absl::Status SectionReader::Damaged(absl::string_view section, absl::string_view what) const {
  return absl::DataLossError(
      absl::StrCat(path_.string(), ": section '", section, "': ", what, "; the file is damaged"));
}

absl::StatusOr<SectionReader> SectionReader::Open(const std::filesystem::path& path, uint64_t max_bytes) {
  // Not blocking, so that a pipe is refused instead of waited for.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return StatusOfErrno(errno, absl::StrCat(path.string(), ": cannot open"));
  SectionReader reader(path, descriptor);
  BEAMLINE_RETURN_IF_ERROR(reader.ReadHeader(max_bytes));
  BEAMLINE_RETURN_IF_ERROR(reader.CheckLayout());
  return reader;
}

absl::Status SectionReader::ReadAt(uint64_t offset, char* out, uint64_t bytes) const {
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, out, std::min(bytes, kChunk), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return StatusOfErrno(errno, absl::StrCat(path_.string(), ": cannot read at byte ", offset));
    if (got == 0) return absl::DataLossError(absl::StrCat(path_.string(), ": ends at byte ", offset));
    out += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

absl::Status SectionReader::ReadHeader(uint64_t max_bytes) {
  struct stat info;
  if (::fstat(descriptor_, &info) != 0) {
    return StatusOfErrno(errno, absl::StrCat(path_.string(), ": cannot stat"));
  }
  if (!S_ISREG(info.st_mode))
    return absl::InvalidArgumentError(absl::StrCat(path_.string(), ": is not a regular file"));
  file_bytes_ = static_cast<uint64_t>(info.st_size);
  if (file_bytes_ > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_.string(), ": is ", file_bytes_, " bytes long, at most ", max_bytes, " are allowed"));
  }
  FileHeader first;
  if (file_bytes_ < HeaderBytes(0)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_.string(), ": is ", file_bytes_, " bytes long, too short for the header of a catalogue"));
  }
  BEAMLINE_RETURN_IF_ERROR(ReadAt(0, reinterpret_cast<char*>(&first), sizeof(first)));
  if (std::memcmp(first.magic, kMagic, sizeof(kMagic)) != 0) {
    return Error("header", "is not that of a catalogue; make one with `beamline pack` or `beamline generate-data`");
  }
  if (first.format != kSectionFileFormat) {
    return Error("header", absl::StrCat("format ", first.format, " is not ", kSectionFileFormat,
                                        "; the file is damaged or from another version"));
  }
  if (first.sections > kMaxSections) return Error("header", absl::StrCat("says ", first.sections, " sections"));
  if (first.file_bytes != file_bytes_) {
    return Damaged("header", absl::StrCat("says the file has ", first.file_bytes, " bytes, it has ", file_bytes_));
  }
  header_bytes_ = HeaderBytes(first.sections);
  if (header_bytes_ > file_bytes_) return Error("header", "is cut off");
  std::string header(header_bytes_, '\0');
  BEAMLINE_RETURN_IF_ERROR(ReadAt(0, header.data(), header.size()));
  const absl::string_view hashed = absl::string_view(header).substr(0, header_bytes_ - kDigestBytes);
  if (BinarySha256(hashed) != absl::string_view(header).substr(hashed.size())) {
    return Damaged("header", "checksum does not match");
  }
  for (uint32_t i = 0; i < first.sections; ++i) {
    SectionEntry entry;
    std::memcpy(&entry, header.data() + sizeof(FileHeader) + i * sizeof(SectionEntry), sizeof(entry));
    const size_t length = strnlen(entry.name, kNameBytes);
    sections_.push_back({std::string(entry.name, length), entry.offset, entry.bytes,
                         absl::BytesToHexString(absl::string_view(entry.sha256, kDigestBytes))});
  }
  return absl::OkStatus();
}

// Sections follow each other in order at aligned offsets, with zeros between them, and the last ends the file.
absl::Status SectionReader::CheckLayout() const {
  uint64_t end = header_bytes_;
  for (size_t i = 0; i < sections_.size(); ++i) {
    const SectionInfo& section = sections_[i];
    const auto same_name = [&section](const SectionInfo& other) { return other.name == section.name; };
    if (section.name.empty() || std::any_of(sections_.begin(), sections_.begin() + i, same_name)) {
      return Error("header", absl::StrCat("section ", i, " has no name or that of another one: '", section.name, "'"));
    }
    if (section.offset != AlignUp(end) || section.offset > file_bytes_ ||
        section.bytes > file_bytes_ - section.offset) {
      return Error(section.name, absl::StrCat("lies at ", section.offset, " with ", section.bytes,
                                              " bytes, which does not follow on or exceeds the file"));
    }
    char padding[kAlignment];
    BEAMLINE_RETURN_IF_ERROR(ReadAt(end, padding, section.offset - end));
    if (std::any_of(padding, padding + (section.offset - end), [](char byte) { return byte != 0; })) {
      return Damaged(section.name, "the padding before it is not zero");
    }
    end = section.offset + section.bytes;
  }
  if (end != file_bytes_)
    return Error("header", absl::StrCat("the sections end at ", end, " of ", file_bytes_, " bytes"));
  return absl::OkStatus();
}

absl::StatusOr<SectionInfo> SectionReader::Find(absl::string_view name) const {
  for (const SectionInfo& section : sections_) {
    if (section.name == name) return section;
  }
  return Error(name, "is missing");
}

absl::StatusOr<SectionInfo> SectionReader::FindSized(absl::string_view name, uint64_t count, size_t size) const {
  BEAMLINE_ASSIGN_OR_RETURN(const SectionInfo section, Find(name));
  if (count > std::numeric_limits<uint64_t>::max() / size || section.bytes != count * size) {
    return Error(name, absl::StrCat("has ", section.bytes, " bytes, must hold ", count, " values of ", size, " bytes"));
  }
  return section;
}

absl::Status SectionReader::Read(const SectionInfo& section, char* out) const {
  Sha256 digest;
  for (uint64_t done = 0; done < section.bytes;) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    const uint64_t chunk = std::min(kChunk, section.bytes - done);
    BEAMLINE_RETURN_IF_ERROR(ReadAt(section.offset + done, out + done, chunk));
    digest.Update({out + done, chunk});
    done += chunk;
  }
  if (digest.HexDigest() != section.sha256) return Damaged(section.name, "checksum does not match");
  return absl::OkStatus();
}

absl::StatusOr<std::string> SectionReader::ReadString(absl::string_view name, uint64_t max_bytes) const {
  BEAMLINE_ASSIGN_OR_RETURN(const SectionInfo section, Find(name));
  if (section.bytes > max_bytes) {
    return Error(name, absl::StrCat("has ", section.bytes, " bytes, at most ", max_bytes, " are allowed"));
  }
  std::string bytes(section.bytes, '\0');
  BEAMLINE_RETURN_IF_ERROR(Read(section, bytes.data()));
  return bytes;
}

}  // namespace beamline::catalogue
