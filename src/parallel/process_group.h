// SPDX-License-Identifier: Apache-2.0
//
// The processes that hold one model together, as each of them sees the others: bytes exchanged between any two, notes
// to rank 0 beside them, and an eye on who is alive. The group lives and ends as one. It ends in order when rank 0
// leaves; it is lost when a rank's connection closes, a rank is silent for `lost_after` or does not acknowledge data
// for as long, an exchange makes no progress for `stalled_after` though all are alive (one hangs in its work, or ranks
// disagree on what comes next), or somebody calls Fail. Then every call that waits, on every rank, returns UNAVAILABLE
// with the reason, but for the stall within `lost_after` and a moment. Time in which this process did not run, as on a
// machine that was suspended, is nobody's silence.
//
// Thread-safety: one thread exchanges at a time; all else from any thread at any time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "beamline/parallel.h"
#include "parallel/rendezvous.h"
#include "parallel/shard.h"

namespace beamline::parallel {

class ProcessGroup {
 public:
  // On rank 0, in the group's own thread: what another rank posted. It must not wait for the group.
  using NoteHandler = std::function<void(int rank, std::string note)>;

  // Waits until all ranks are there. INVALID_ARGUMENT: CheckOptions; else see Meet.
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Join(const ParallelOptions& options, const Settings& settings,
                                                            NoteHandler on_note = {});
  // Rank 0 of a whole group ends it in order: the others first finish what rank 0 has finished. It waits for them for
  // lost_after. Any other rank's end is a loss to those that are left.
  ~ProcessGroup();

  Shard shard() const { return {options_.rank, options_.size}; }
  int rank() const { return options_.rank; }
  int size() const { return options_.size; }

  // Bytes to and from another rank, whose own transfer mirrors this one; either may be empty.
  struct Transfer {
    int peer = 0;
    absl::Span<const char> send;
    absl::Span<char> receive;
  };
  // All transfers side by side, at most one per peer.
  absl::Status Exchange(absl::Span<const Transfer> transfers);

  // From rank 0 to all others, and its counterpart there, which waits as long as the group lives; CANCELLED once rank 0
  // has left in order.
  absl::Status Broadcast(absl::string_view message);
  absl::StatusOr<std::string> Receive();

  // To rank 0's NoteHandler, at most kMaxNote bytes, cut there. Does not wait for exchanges.
  static constexpr size_t kMaxNote = 32 << 10;
  void Post(absl::string_view note);

  // Ends the group on every rank, as lost for `reason`. The first reason counts.
  void Fail(const absl::Status& reason);
  // OK while the group is whole; CANCELLED once rank 0 left in order; else UNAVAILABLE with why it was lost.
  absl::Status status() const;

 private:
  enum class Sign : char;
  ProcessGroup(const ParallelOptions& options, Connections connections, NoteHandler on_note);
  absl::Status Progress(absl::Span<const Transfer> transfers, std::vector<size_t>& sent, std::vector<size_t>& received,
                        bool* moved);
  // What there is to say when the connection with `peer` broke: perhaps somebody else knows better.
  absl::Status Broken(int peer, const absl::Status& error);
  void Leave();
  void Watch();                                                    // the group's own thread
  absl::Duration Beat() const { return options_.lost_after / 5; }  // between two signs of life
  void ForgiveSilence(absl::Duration time);
  void WatchData(int peer, absl::Time now);
  void ReadSigns(int peer, absl::Time now);
  void Understand(int peer, Sign sign, std::string text);
  void Say(int peer, Sign sign, absl::string_view text = {});
  void SayToAll(Sign sign, absl::string_view text = {});
  void End(absl::Status status);

  const ParallelOptions options_;
  const NoteHandler on_note_;
  Connections connections_;
  std::vector<int> peers_;  // whose signs of life this rank watches

  std::mutex saying_;  // of control connections' sending side
  mutable std::mutex mu_;
  std::condition_variable ended_;
  absl::Status status_;  // guarded by mu_
  std::atomic<bool> whole_{true};
  std::atomic<bool> leaving_{false};  // rank 0 leaves, or has left, in order: connections that close are no loss
  std::atomic<bool> stop_watching_{false};

  std::atomic<int> gone_{0};           // peers whose connection has closed in order
  std::vector<std::string> unread_;    // of the watching thread: bytes of signs that are not whole yet
  std::vector<absl::Time> last_sign_;  // of the watching thread
  std::vector<absl::Time> unheard_;    // of the watching thread: since when data has waited to be acknowledged
  std::thread watcher_;                // last: it uses all of the above
};

}  // namespace beamline::parallel
