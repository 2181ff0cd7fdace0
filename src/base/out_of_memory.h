// SPDX-License-Identifier: Apache-2.0
//
// Memory that the standard allocator does not hand out, a device's, has run out: std::bad_alloc with words of its own,
// so that whoever catches that (base/run_catching.h) needs to know no device.
#pragma once

#include <new>
#include <string>
#include <utility>

namespace beamline {

class OutOfMemory final : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  const std::string what_;
};

}  // namespace beamline
