// SPDX-License-Identifier: Apache-2.0
#include "base/low_priority.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace beamline {

// A thread of SCHED_IDLE gives way at once to whoever wakes up; a nice one is waited for until its slice is over, which
// may be longer than a request. Best effort: where the policy is refused, niceness is left.
void LowerPriority() {
  constexpr int kNice = 19;
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kNice);
  const sched_param none{};
  sched_setscheduler(0, SCHED_IDLE, &none);
}

}  // namespace beamline
