// SPDX-License-Identifier: Apache-2.0
//
// How the ranks of a group find each other. Rank 0 listens; every other rank connects, says who it is and where it
// listens itself, and hears where the others do. Then each pair shares a connection for data, and each rank has one
// more with rank 0 for signs of life. A stray connection is dropped; one that shows a token of the group cannot be
// stray.
//
// What all ranks must agree on, the `settings`, is compared here: an error says which rank has what.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "beamline/parallel.h"
#include "parallel/socket.h"

namespace beamline::parallel {

// Field and value.
using Settings = std::vector<std::pair<std::string, std::string>>;

// By rank; this rank's own are not open.
struct Connections {
  std::vector<Socket> data;
  std::vector<Socket> control;  // rank 0: with every other; another: with rank 0 alone
};

// REQUIRES: options that pass CheckOptions, and more ranks than one. Takes at most about options.start_timeout.
// DEADLINE_EXCEEDED names the ranks that did not come; FAILED_PRECONDITION what they disagree on.
absl::StatusOr<Connections> Meet(const ParallelOptions& options, const Settings& settings);

}  // namespace beamline::parallel
