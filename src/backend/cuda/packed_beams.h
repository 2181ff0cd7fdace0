// SPDX-License-Identifier: Apache-2.0
//
// Beams of a batch in one array of 4-byte words, so that one copy brings them to the host: node, score, parent and
// log-probability of every slot, the count of every request, then the 2-byte codes.
#pragma once

#include <cstdint>

#include "beamline/kernels/beam_select_cuda.h"

namespace beamline::backend::cuda {

class PackedBeams {
 public:
  PackedBeams(int64_t requests, int64_t slots) : requests_(requests), slots_(slots) {}

  int64_t words() const { return 4 * slots_ + requests_ + (slots_ + 1) / 2; }
  kernels::DeviceBeams At(void* memory) const {
    char* bytes = static_cast<char*>(memory);
    return {reinterpret_cast<uint32_t*>(bytes),
            reinterpret_cast<float*>(bytes + 4 * slots_),
            reinterpret_cast<int32_t*>(bytes + 8 * slots_),
            reinterpret_cast<uint16_t*>(bytes + 16 * slots_ + 4 * requests_),
            reinterpret_cast<float*>(bytes + 12 * slots_),
            reinterpret_cast<int32_t*>(bytes + 16 * slots_)};
  }

 private:
  const int64_t requests_, slots_;
};

}  // namespace beamline::backend::cuda
