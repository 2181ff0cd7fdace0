// SPDX-License-Identifier: Apache-2.0
//
// What fuzz targets share. A target defines LLVMFuzzerTestOneInput, the interface of LLVM's libFuzzer, and links either
// with that or with standalone_driver.cc. It calls product code with hostile bytes and states with Require what must
// hold of whatever comes back; a violation ends the process as a crash does, so that the driver keeps the input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// Where a target has one, it runs once before everything else.
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int* argc, char*** argv);

namespace beamline::fuzz {

inline std::string_view AsText(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

inline void Require(bool holds, std::string_view what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: does not hold: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

inline void RequireOk(const absl::Status& status, std::string_view what) {
  if (!status.ok()) Require(false, absl::StrCat(std::string(what), ": ", status.ToString()));
}

// An error says of which file it speaks, in a text that a log can hold.
inline void RequireNames(const absl::Status& status, std::string_view file) {
  const std::string message(status.message());
  Require(message.find(file) != std::string::npos, absl::StrCat("the error names the file: ", message));
  Require(message.size() < 16'384, absl::StrCat("the error is short: ", message.size(), " bytes"));
}

// A regular file for code that reads paths: in memory where the system has a place for that, and rewritten for every
// input.
class ScratchFile {
 public:
  explicit ScratchFile(const std::string& name) {
    const std::filesystem::path shared = "/dev/shm";
    std::error_code ignored;
    const bool in_memory = std::filesystem::is_directory(shared, ignored) && access(shared.c_str(), W_OK) == 0;
    std::string pattern =
        ((in_memory ? shared : std::filesystem::temp_directory_path()) / "beamline_fuzz_XXXXXX").string();
    Require(mkdtemp(pattern.data()) != nullptr, "a temporary folder can be made");
    folder_ = pattern;
    path_ = (folder_ / name).string();
  }
  ~ScratchFile() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  const std::string& path() const { return path_; }
  void Write(std::string_view bytes) const {
    const int file = open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    Require(file >= 0, "the scratch file can be opened");
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t count = write(file, bytes.data() + done, bytes.size() - done);
      Require(count > 0, "the scratch file can be written");
      done += static_cast<size_t>(count);
    }
    close(file);
  }

 private:
  std::filesystem::path folder_;
  std::string path_;
};

}  // namespace beamline::fuzz
