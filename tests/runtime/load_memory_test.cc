// SPDX-License-Identifier: Apache-2.0
//
// Memory of the host that runs out at any place of a load or of its warm-up: each place's own error, as the C library
// makes the allocators and libtorch throw it, is RESOURCE_EXHAUSTED with what was estimated. Of this binary alone: it
// decides what malloc gives.
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/runner.h"
#include "runtime/tiny_bundle.h"

namespace {

// Smaller ones are made where nothing may throw, too: by the destructor of nlohmann's JSON.
constexpr size_t kLargeBytes = 4096;

constexpr int64_t kNone = -1;
std::atomic<int64_t> allowed{kNone};  // large allocations until one is refused; kNone: none is
std::atomic<int64_t> refused{0};
thread_local bool loads = false;  // GoogleTest, and the pools' threads, have what they want

bool Refuse(size_t bytes) {
  if (!loads || bytes < kLargeBytes || allowed == kNone) return false;
  if (allowed > 0) {
    --allowed;
    return false;
  }
  allowed = kNone;  // what unwinds gives memory back, so that there is some again
  ++refused;
  return true;
}

}  // namespace

// NOLINTBEGIN(readability-identifier-naming): the C library's names
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);

void* malloc(size_t bytes) {
  if (!Refuse(bytes)) return __libc_malloc(bytes);
  errno = ENOMEM;
  return nullptr;
}
int posix_memalign(void** out, size_t alignment, size_t bytes) {
  *out = Refuse(bytes) ? nullptr : __libc_memalign(alignment, bytes);
  return *out == nullptr ? ENOMEM : 0;
}
void* aligned_alloc(size_t alignment, size_t bytes) {
  return Refuse(bytes) ? nullptr : __libc_memalign(alignment, bytes);
}
}
// NOLINTEND(readability-identifier-naming)

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class LoadMemory : public ::testing::TestWithParam<std::string> {
 protected:
  LoadMemory() : folder_(fs::path(::testing::TempDir()) / absl::StrCat("load_memory_", ::getpid())) {
    EXPECT_TRUE(testing::WriteTinyBundle(folder_).ok());
  }
  ~LoadMemory() override { fs::remove_all(folder_); }

  // With room for so many large allocations.
  absl::Status LoadAndWarmUp(int64_t large) const {
    const RunnerOptions options{.bundle = folder_.string(), .backend = GetParam(), .threads = 1};
    loads = true;
    allowed = large;
    auto runner = LoadRunner(options);
    absl::Status status = runner.ok() ? (*runner)->WarmUp({}, ScoreRule::kFull) : runner.status();
    allowed = kNone;
    loads = false;
    return status;
  }

  const fs::path folder_;
};

TEST_P(LoadMemory, ThatRunsOutAnywhereIsToldBesideTheEstimate) {
  ASSERT_TRUE(LoadAndWarmUp(kNone).ok());  // what a process does once is done
  int before = 0;                          // it was estimated
  bool loading = false, warming = false, of_torch = false;
  for (int64_t large = 0;; ++large) {
    refused = 0;
    const absl::Status status = LoadAndWarmUp(large);
    if (refused == 0) {
      EXPECT_TRUE(status.ok()) << status;
      break;
    }
    if (status.ok()) continue;  // somebody could do without
    SCOPED_TRACE(absl::StrCat(large, " large allocations"));
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    const std::string message(status.message());
    of_torch = of_torch || absl::StrContains(message, "DefaultCPUAllocator: can't allocate memory");
    loading = loading || absl::StrContains(message, "; estimated before: ");
    warming = warming || absl::StrContains(message, "; estimated before, without batches: ");
    if (!loading) {
      ++before;
      continue;
    }
    EXPECT_THAT(message,
                AllOf(HasSubstr("; estimated before"), HasSubstr("weights 0."), HasSubstr("context cache 67.1 MB")));
  }
  EXPECT_LE(before, 4) << "the manifest and the configuration alone are read before";
  EXPECT_TRUE(loading && warming);
  EXPECT_TRUE(of_torch) << "none of its own errors was met";
}

INSTANTIATE_TEST_SUITE_P(Backends, LoadMemory, ::testing::Values("cpu", "aten"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace beamline::runtime
