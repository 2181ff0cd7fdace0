// SPDX-License-Identifier: Apache-2.0
//
// Programmatic dependent launch (CUDA C++ Programming Guide): a kernel's blocks come to the multiprocessors while the
// one before still works, wait there for its end, and so hide the launch and the drain between two kernels of a stream
// or a graph. Every kernel here reads and writes nothing before that wait (products ask the cache for their weights),
// so what it computes is the same.
#pragma once

namespace beamline::kernels {

// Of the environment: 0 goes without. Read once.
inline constexpr char kProgrammaticSwitch[] = "BEAMLINE_PROGRAMMATIC_LAUNCH";

// Whether this process's launches ask for it: where the device of the thread that asked first has it and there is code
// for it that waits (capability 9), unless kProgrammaticSwitch is off or somebody has left it. Thread-safe.
bool ProgrammaticLaunch();
// Later launches go without: where a trial shows that it does not work. Thread-safe.
void LeaveProgrammaticLaunch();

}  // namespace beamline::kernels
