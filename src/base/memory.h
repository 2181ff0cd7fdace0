// SPDX-License-Identifier: Apache-2.0
//
// How much memory this machine has to give, asked before something large is allocated: work that cannot fit is refused
// with its estimate instead of being killed half way. Thread-safe.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace beamline {

// Bytes that can be had without swapping; the largest int64 where the system does not say.
int64_t AvailableMemory();

// RESOURCE_EXHAUSTED where `needed_bytes`, an estimate, is more: "WHAT need(s) about X GB, Y GB are free".
absl::Status CheckAvailableMemory(absl::string_view what, int64_t needed_bytes);

}  // namespace beamline
