// SPDX-License-Identifier: Apache-2.0
//
// A file of named sections, each with its size and SHA-256, after a header with its own: a flipped byte anywhere, in
// header, section or padding, is refused with its place named. Layout, little-endian:
//
//   magic[8] "BEAMCAT\n" | u32 format | u32 sections | u64 file bytes
//   per section: name[24], zero-padded | u64 offset | u64 bytes | sha256[32]
//   sha256[32] of everything before
//   sections, each at the next multiple of 64, gaps filled with zeros, the last one ends the file
//
// The reader takes a section's size from the checked header before anything is allocated for it, and reads into the
// caller's private memory. Neither class is thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/progress.h"

namespace beamline::catalogue {

inline constexpr uint32_t kSectionFileFormat = 1;
inline constexpr int kMaxSections = 256;

struct SectionInfo {
  std::string name;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::string sha256;  // hexadecimal
};

struct Section {
  std::string name;  // 1..23 characters
  absl::string_view bytes;
};

// Writes all sections through an AtomicFile; the views must stay valid during the call.
absl::Status WriteSectionFile(const std::filesystem::path& path, absl::Span<const Section> sections,
                              Progress* progress = nullptr);

class SectionReader {
 public:
  // Reads and checks the header and all padding. INVALID_ARGUMENT: not such a file, another format, or larger than
  // `max_bytes`; DATA_LOSS: damaged; NOT_FOUND and PERMISSION_DENIED as the system says.
  static absl::StatusOr<SectionReader> Open(const std::filesystem::path& path, uint64_t max_bytes);
  SectionReader(SectionReader&& other) noexcept;
  SectionReader& operator=(SectionReader&&) = delete;
  ~SectionReader();

  const std::vector<SectionInfo>& sections() const { return sections_; }
  uint64_t file_bytes() const { return file_bytes_; }
  absl::StatusOr<SectionInfo> Find(absl::string_view name) const;

  // Reads the section `name` into `out`, which has its size, and checks its digest.
  absl::Status Read(const SectionInfo& section, char* out) const;
  absl::StatusOr<std::string> ReadString(absl::string_view name, uint64_t max_bytes) const;

  // A section as an array; its size must be a multiple of T's and hold exactly `count` entries.
  template <typename T>
  absl::StatusOr<std::vector<T>> ReadArray(absl::string_view name, uint64_t count) const {
    absl::StatusOr<SectionInfo> section = FindSized(name, count, sizeof(T));
    if (!section.ok()) return section.status();
    std::vector<T> values(count);
    if (absl::Status status = Read(*section, reinterpret_cast<char*>(values.data())); !status.ok()) return status;
    return values;
  }

  absl::Status Error(absl::string_view section, absl::string_view what) const;    // "<file>: section 'x': what"
  absl::Status Damaged(absl::string_view section, absl::string_view what) const;  // the same as DATA_LOSS

 private:
  SectionReader(std::filesystem::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  absl::StatusOr<SectionInfo> FindSized(absl::string_view name, uint64_t count, size_t size) const;
  absl::Status ReadHeader(uint64_t max_bytes);
  absl::Status CheckLayout() const;
  absl::Status ReadAt(uint64_t offset, char* out, uint64_t bytes) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t file_bytes_ = 0;
  uint64_t header_bytes_ = 0;
  std::vector<SectionInfo> sections_;
};

}  // namespace beamline::catalogue
