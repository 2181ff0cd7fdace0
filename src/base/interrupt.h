// SPDX-License-Identifier: Apache-2.0
//
// Ctrl-C (SIGINT), SIGTERM and, but under `nohup`, SIGHUP (a terminal that is gone) as a flag that long loops poll, so
// that they end with absl::CancelledError and destructors remove temporary files. A second signal ends the process at
// once, but for one within half a second, which is the same wish (`timeout` signals a process and then its group). The
// flag is process-wide, as signals are. All functions are thread-safe.
#pragma once

#include "absl/status/status.h"

namespace beamline {

void InstallInterruptHandler();
bool Interrupted();

// CancelledError("interrupted") once a signal came, else OK. Cheap enough for every thousandth row or every batch.
absl::Status CheckInterrupted();

// Sets or clears the flag as a signal would: for tests, and for programs with a signal handler of their own.
void SetInterrupted(bool value);

}  // namespace beamline
