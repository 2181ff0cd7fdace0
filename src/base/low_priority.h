// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace beamline {

// Of the calling thread, from now on, and of threads that it starts: it has the time that nobody else wants
// (SCHED_IDLE), for work that nobody waits for beside threads that serve. There is no way back.
void LowerPriority();

}  // namespace beamline
