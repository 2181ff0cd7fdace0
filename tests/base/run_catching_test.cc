// SPDX-License-Identifier: Apache-2.0
//
// What is thrown becomes a status: too little memory, in whoever's words, or a fault.
#include "base/run_catching.h"

#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "absl/status/statusor.h"
#include "base/out_of_memory.h"
#include "gtest/gtest.h"

namespace beamline {
namespace {

using Code = absl::StatusCode;

absl::Status Loading(absl::FunctionRef<void()> work) { return RunCatching("loading", work, Code::kResourceExhausted); }

TEST(RunCatching, WhatReturnsIsReturned) {
  EXPECT_TRUE(Loading([] {}).ok());
  EXPECT_EQ(*ReturnCatching("x", []() -> absl::StatusOr<int> { return 3; }), 3);
  EXPECT_EQ(ReturnCatching("x", [] { return absl::NotFoundError("y"); }), absl::NotFoundError("y"));
}

TEST(RunCatching, TooLittleMemoryIsTheCodeThatWasAskedFor) {
  EXPECT_EQ(Loading([] { throw std::bad_alloc(); }), absl::ResourceExhaustedError("loading: out of memory"));
  EXPECT_EQ(Loading([] { throw std::bad_array_new_length(); }), absl::ResourceExhaustedError("loading: out of memory"));
  EXPECT_EQ(Loading([] { throw OutOfMemory("cuda: 5 bytes"); }),
            absl::ResourceExhaustedError("loading: out of memory: cuda: 5 bytes"));
  EXPECT_EQ(RunCatching("encode", [] { throw std::bad_alloc(); }), absl::InternalError("encode: out of memory"));
}

// The first lines of libtorch's exceptions, which have no type that tells.
TEST(RunCatching, LibtorchSaysItInWords) {
  for (const std::string words :
       {"[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 "
        "bytes. Error code 12 (Cannot allocate memory)",
        "[enforce fail at alloc_cpu.cpp:83] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 "
        "bytes.",
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139 GiB",
        "CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"}) {
    EXPECT_EQ(Loading([&] { throw std::runtime_error(words + "\nframe #0"); }),
              absl::ResourceExhaustedError("loading: out of memory: " + words));
  }
  EXPECT_EQ(Loading([] { throw std::runtime_error("CUDA error: an illegal memory access\nCUDA out of memory"); }),
            absl::InternalError("loading failed: CUDA error: an illegal memory access"));
}

TEST(RunCatching, AThreadsStackIsMemoryToo) {
  const auto no_thread = [] {
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  };
  EXPECT_EQ(Loading(no_thread).code(), Code::kResourceExhausted);
  EXPECT_EQ(RunCatching("x", no_thread).code(), Code::kInternal);
  EXPECT_EQ(Loading([] { throw std::system_error(std::make_error_code(std::errc::permission_denied)); }).code(),
            Code::kInternal);
}

TEST(RunCatching, TheRestIsInternalWithItsFirstLine) {
  EXPECT_EQ(Loading([] { throw std::length_error("cut off\nframe #0"); }),
            absl::InternalError("loading failed: cut off"));
  const auto odd = [] { throw 3; };  // NOLINT(bugprone-std-exception-baseclass): what is shown here
  EXPECT_EQ(Loading(odd), absl::InternalError("loading failed: it threw what is no std::exception"));
}

}  // namespace
}  // namespace beamline
