// SPDX-License-Identifier: Apache-2.0
//
// How long a thread may run before others have their turn. The kernel's fair scheduler lets a thread that wakes up
// interrupt one with a longer slice at once; between equals it waits for the slice's end, some 3 ms. Threads that
// answer the network ask for a short one, threads that compute for a long one: both keep their share of the processor.
// Linux 6.12 and later; elsewhere nothing happens.
#pragma once

#include "absl/time/time.h"

namespace beamline {

inline constexpr absl::Duration kAnsweringSlice = absl::Microseconds(200);
inline constexpr absl::Duration kComputingSlice = absl::Milliseconds(3);

// Of the calling thread, and of those it starts from now on. Threads of other policies than the fair ones keep theirs.
void AskForSlice(absl::Duration slice);

}  // namespace beamline
