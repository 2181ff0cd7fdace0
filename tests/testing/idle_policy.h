// SPDX-License-Identifier: Apache-2.0
//
// Whether this machine lets a thread take SCHED_IDLE at all: some containers do not.
#pragma once

#include <thread>

#include <sched.h>

namespace beamline::testing {

inline bool MayBeIdle() {
  int policy = -1;
  std::thread([&] {
    const sched_param none{};
    sched_setscheduler(0, SCHED_IDLE, &none);
    policy = sched_getscheduler(0);
  }).join();
  return policy == SCHED_IDLE;
}

}  // namespace beamline::testing
