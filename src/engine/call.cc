// SPDX-License-Identifier: Apache-2.0
#include "engine/call.h"

#include "absl/status/status.h"
#include "base/deadline.h"
#include "engine/preparation.h"

namespace beamline::engine {

void Call::Cancel() {
  std::shared_ptr<PreparationWake> preparing;
  {
    std::lock_guard lock(mu);
    if (!cancelled) cancelled_at = clock->Now();
    cancelled = true;
    // `mu` keeps the scheduler alive: the job's end, which the scheduler waits for, needs it.
    if (scheduler != nullptr) {
      scheduler->Cancel(job);
    } else if (!ended) {
      preparing = wake;
    }
  }
  if (preparing != nullptr) preparing->Now();
}

bool Call::Queued() {
  std::lock_guard lock(mu);
  return scheduler != nullptr;
}

absl::Status Call::StillWanted(absl::Time now) {
  std::lock_guard lock(mu);
  const bool too_late = cancelled ? RanOutOfTime(received, deadline, cancelled_at) : now >= deadline;
  if ((cancelled && !too_late) || ended) return absl::CancelledError("cancelled by the caller");
  if (too_late) return absl::DeadlineExceededError("the deadline passed before the request was queued");
  return absl::OkStatus();
}

}  // namespace beamline::engine
