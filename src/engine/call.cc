// SPDX-License-Identifier: Apache-2.0
#include "engine/call.h"

#include "absl/status/status.h"
#include "engine/preparation.h"

namespace beamline::engine {

void Call::Cancel() {
  std::shared_ptr<PreparationWake> preparing;
  {
    std::lock_guard lock(mu);
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
  if (cancelled || ended) return absl::CancelledError("cancelled by the caller");
  if (now >= deadline) return absl::DeadlineExceededError("the deadline passed before the request was queued");
  return absl::OkStatus();
}

}  // namespace beamline::engine
