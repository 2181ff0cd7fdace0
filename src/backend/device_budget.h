// SPDX-License-Identifier: Apache-2.0
//
// What the cuda backend takes of a device's memory whatever the model: for whoever estimates before anything is
// allocated.
#pragma once

#include <cstdint>

namespace beamline::backend {

// Of every batch that runs at once, for cuBLASLt: what cuBLAS advises for Hopper.
inline constexpr int64_t kLtWorkspaceBytes = int64_t{32} << 20;

}  // namespace beamline::backend
