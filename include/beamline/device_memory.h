// SPDX-License-Identifier: Apache-2.0
//
// Memory of the device that a model is on, in bytes, as its driver tells it: of all processes that use it. Plain
// values.
#pragma once

#include <cstdint>

namespace beamline {

struct DeviceMemory {
  int64_t total = 0;
  int64_t free = 0;
};

}  // namespace beamline
