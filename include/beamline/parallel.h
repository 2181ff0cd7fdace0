// SPDX-License-Identifier: Apache-2.0
//
// A model too large or too slow for one device is split over several processes, its ranks: tensor parallelism as in
// Megatron-LM (1909.08053). Rank 0 is the engine; the others follow it (FollowEngine, engine.h). The group lives and
// ends as one: when a rank is lost, all end, and whoever supervises them starts the whole group again.
//
// The ranks talk over TCP in the clear and without authentication: keep `address` inside a network that is closed to
// everybody else.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "beamline/dtype.h"

namespace beamline {

struct ParallelOptions {
  int size = 1;                                      // ranks; 1: one process holds the whole model
  int rank = 0;                                      // of this process, below `size`
  std::string address = "127.0.0.1";                 // where rank 0 waits for the others: a name or an address of it
  int port = 29500;                                  // of `address`
  absl::Duration start_timeout = absl::Minutes(1);   // for all ranks to come
  absl::Duration lost_after = absl::Seconds(5);      // a rank that says nothing for so long is lost
  absl::Duration stalled_after = absl::Minutes(1);   // so is one that lives, and keeps an exchange waiting for so long
  std::function<void(const absl::Status&)> on_lost;  // called once, in a thread of the group, when it ends by a loss

  bool enabled() const { return size > 1; }
};

inline constexpr int kMaxRanks = 64;
inline constexpr absl::Duration kMinLostAfter = absl::Milliseconds(200), kMaxLostAfter = absl::Seconds(8);

// Whether ranks share it: in int8 and fp8 each would scale its share of a row by itself. In fp32 they give the lists of
// one process but for near ties; in bf16 and fp16 each rank's sums are rounded before they are added, so that scores
// differ as those of two machines may, and near places with them.
inline bool IsGroupDtype(absl::string_view dtype) { return dtype != "int8" && !IsFp8(dtype); }

}  // namespace beamline
