// SPDX-License-Identifier: Apache-2.0
//
// How the ranks of a group find each other. Rank 0 listens; every other rank connects, says who it is and where it
// listens itself, and hears where the others do. Then each pair shares a connection for data, and each rank has one
// more with rank 0 for signs of life.
//
// While rank 0 waits for ranks, nobody who comes can end it: a stray connection is dropped, a process that does not fit
// is told why and may come again with what does, and of a rank that leaves before the others are there the place is
// free again. Once all have come, who does not meet the others in time is lost, and with it the group, which has not
// started: every rank says which one it was.
//
// What all ranks must agree on, the `settings` and the options' size and lost_after, is compared here: an error says
// which rank has what.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "beamline/parallel.h"
#include "parallel/greeting.h"
#include "parallel/socket.h"

namespace beamline::parallel {

// From the coming of the last rank on, for all to meet.
inline constexpr absl::Duration kMeetingTime = absl::Seconds(5);

// By rank; this rank's own are not open.
struct Connections {
  std::vector<Socket> data;
  std::vector<Socket> control;  // rank 0: with every other; another: with rank 0 alone
};

// REQUIRES: options that pass CheckOptions, and more ranks than one. Takes at most about options.start_timeout and
// kMeetingTime. DEADLINE_EXCEEDED names the ranks that did not come, and why the last one that was refused was;
// FAILED_PRECONDITION what rank 0 has against this one; UNAVAILABLE the rank that was lost.
absl::StatusOr<Connections> Meet(const ParallelOptions& options, const Settings& settings);

}  // namespace beamline::parallel
