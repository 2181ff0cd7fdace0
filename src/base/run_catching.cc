// SPDX-License-Identifier: Apache-2.0
#include "base/run_catching.h"

#include <array>
#include <exception>
#include <filesystem>
#include <new>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/out_of_memory.h"

namespace beamline {
namespace {

// Of c10's alloc_cpu.cpp, of its CUDA allocator, of the runtime's error, and of cuBLAS's.
constexpr std::array<absl::string_view, 5> kWords = {"DefaultCPUAllocator: can't allocate memory",
                                                     "DefaultCPUAllocator: not enough memory", "CUDA out of memory",
                                                     "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"};

// The first line says what happened; the rest is a stack trace.
absl::string_view FirstLine(const std::exception& error) {
  const absl::string_view message = error.what();
  return message.substr(0, message.find('\n'));
}

// A thread's stack is memory, too; the system gives the same error where it has threads enough.
bool MeansNoThread(const std::exception& error) {
  const auto* system = dynamic_cast<const std::system_error*>(&error);
  return system != nullptr && dynamic_cast<const std::filesystem::filesystem_error*>(&error) == nullptr &&
         system->code() == std::errc::resource_unavailable_try_again;
}

}  // namespace

bool MeansOutOfMemory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return true;
  const absl::string_view line = FirstLine(error);
  for (const absl::string_view words : kWords) {
    if (absl::StrContains(line, words)) return true;
  }
  return false;
}

absl::Status StatusOfCaught(absl::string_view what, absl::StatusCode out_of_memory) {
  try {
    throw;
  } catch (const std::exception& error) {
    if (MeansOutOfMemory(error)) {
      const bool says_more = dynamic_cast<const OutOfMemory*>(&error) || !dynamic_cast<const std::bad_alloc*>(&error);
      return absl::Status(out_of_memory, says_more ? absl::StrCat(what, ": out of memory: ", FirstLine(error))
                                                   : absl::StrCat(what, ": out of memory"));
    }
    // Elsewhere it may be anybody's error, a socket's that timed out.
    if (out_of_memory != absl::StatusCode::kInternal && MeansNoThread(error)) {
      return absl::Status(out_of_memory, absl::StrCat(what, ": out of memory or of threads: ", FirstLine(error)));
    }
    return absl::InternalError(absl::StrCat(what, " failed: ", FirstLine(error)));
  } catch (...) {
    return absl::InternalError(absl::StrCat(what, " failed: it threw what is no std::exception"));
  }
}

}  // namespace beamline
