// SPDX-License-Identifier: Apache-2.0
#include "parallel/process_group.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <poll.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/run_catching.h"
#include "beamline/status.h"
#include "parallel/check_options.h"

namespace beamline::parallel {
namespace {

constexpr size_t kMaxMessage = size_t{1} << 30;
constexpr size_t kSignHeader = 5;  // kind, length of the text
constexpr int kPollMs = 20;
constexpr absl::Duration kVerdictTime = absl::Milliseconds(500);

std::string LossOf(int rank, absl::string_view how) { return absl::StrCat("rank ", rank, " was lost: ", how); }

}  // namespace

enum class ProcessGroup::Sign : char { kAlive = 'a', kNote = 'n', kLost = 'l', kLeaving = 'b' };

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Join(const ParallelOptions& options,
                                                                 const Settings& settings, NoteHandler on_note) {
  BEAMLINE_RETURN_IF_ERROR(CheckOptions(options));
  if (!options.enabled()) {
    return absl::InvalidArgumentError(absl::StrCat("parallel.size: ", options.size, ", a group has at least 2 ranks"));
  }
  BEAMLINE_ASSIGN_OR_RETURN(Connections connections, Meet(options, settings));
  std::unique_ptr<ProcessGroup> group;
  BEAMLINE_RETURN_IF_ERROR(RunCatching(
      "a group's thread", [&] { group.reset(new ProcessGroup(options, std::move(connections), std::move(on_note))); },
      absl::StatusCode::kResourceExhausted));
  return group;
}

ProcessGroup::ProcessGroup(const ParallelOptions& options, Connections connections, NoteHandler on_note)
    : options_(options),
      on_note_(std::move(on_note)),
      connections_(std::move(connections)),
      unread_(options.size),
      last_sign_(options.size, SteadyNow()),
      unheard_(options.size, absl::InfiniteFuture()) {
  for (int rank = 0; rank < options_.size; ++rank) {
    if (connections_.control[rank].open()) peers_.push_back(rank);
  }
  watcher_ = std::thread([this] { Watch(); });
}

ProcessGroup::~ProcessGroup() {
  if (rank() == 0 && whole_) Leave();
  stop_watching_ = true;
  watcher_.join();
}

void ProcessGroup::Leave() {
  leaving_ = true;
  SayToAll(Sign::kLeaving);
  for (Socket& socket : connections_.data) socket.EndSending();
  for (const absl::Time end = SteadyNow() + options_.lost_after; gone_ < size() - 1 && SteadyNow() < end;) {
    absl::SleepFor(absl::Milliseconds(1));
  }
}

absl::Status ProcessGroup::status() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return status_;
}

void ProcessGroup::End(absl::Status status) {
  const bool lost = absl::IsUnavailable(status);
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!status_.ok()) return;
    status_ = status;
    whole_ = false;
  }
  ended_.notify_all();
  for (Socket& socket : connections_.data) socket.Shutdown();
  if (lost && options_.on_lost) options_.on_lost(status);
}

void ProcessGroup::Fail(const absl::Status& reason) {
  if (!whole_) return;
  SayToAll(Sign::kLost, reason.message());
  End(absl::UnavailableError(absl::StrCat("the group of ", size(), " ranks has ended: ", reason.message())));
}

void ProcessGroup::Post(absl::string_view note) { Say(0, Sign::kNote, note.substr(0, kMaxNote)); }

void ProcessGroup::Say(int peer, Sign sign, absl::string_view text) {
  const uint32_t size = static_cast<uint32_t>(text.size());
  std::string framed(1, static_cast<char>(sign));
  framed.append(reinterpret_cast<const char*>(&size), sizeof(size));
  absl::StrAppend(&framed, text);
  const std::lock_guard<std::mutex> lock(saying_);
  // Signs are small: a peer that does not even take these is lost, and the watcher will notice.
  (void)connections_.control[peer].SendAll(framed, SteadyNow() + options_.lost_after / 4);
}

void ProcessGroup::SayToAll(Sign sign, absl::string_view text) {
  for (const int peer : peers_) Say(peer, sign, text.substr(0, kMaxNote));
}

void ProcessGroup::Watch() {
  absl::Time next_beat = absl::InfinitePast();
  for (absl::Time looked = SteadyNow(); !stop_watching_ && whole_;) {
    const absl::Time now = SteadyNow();
    if (now >= next_beat) {
      SayToAll(Sign::kAlive);
      next_beat = now + Beat();
    }
    // That may have taken long for want of peers that take anything, which is silence, too.
    looked += std::min(SteadyNow() - now, std::ssize(peers_) * options_.lost_after / 4);
    std::vector<pollfd> waiting;
    for (const int peer : peers_) {
      const bool gone = last_sign_[peer] == absl::InfiniteFuture();
      waiting.push_back({gone ? -1 : connections_.control[peer].descriptor(), POLLIN, 0});
    }
    poll(waiting.data(), waiting.size(), kPollMs);
    const absl::Time after = SteadyNow();
    if (after - looked > Beat()) ForgiveSilence(after - looked - Beat());
    looked = after;
    for (size_t i = 0; i < peers_.size() && whole_; ++i) {
      if (waiting[i].revents != 0) ReadSigns(peers_[i], after);
      const absl::Duration silence = after - last_sign_[peers_[i]];
      if (whole_ && !leaving_ && silence > options_.lost_after) {
        Fail(absl::UnavailableError(LossOf(peers_[i], absl::StrCat("silent for ", absl::ToInt64Milliseconds(silence),
                                                                   " ms, parallel.lost_after_ms is ",
                                                                   absl::ToInt64Milliseconds(options_.lost_after)))));
      }
    }
    for (int peer = 0; peer < size() && whole_ && !leaving_; ++peer) {
      if (peer != rank()) WatchData(peer, after);
    }
  }
}

// Whoever did not run, as on a machine that stood still, cannot say of another that it was silent meanwhile: all may
// have stood still together. No more than a beat counts between two looks, and as much does, however slow they are.
void ProcessGroup::ForgiveSilence(absl::Duration time) {
  for (absl::Time& sign : last_sign_) sign += time;  // those that are gone stay in the infinite future
  for (absl::Time& since : unheard_) since += time;
}

void ProcessGroup::WatchData(int peer, absl::Time now) {
  const absl::Time acknowledged = LastAcknowledged(connections_.data[peer]);
  absl::Time& since = unheard_[peer];
  // Counted from when we saw it wait: between two looks the connection, or we, may have slept.
  since = acknowledged == absl::InfiniteFuture() ? acknowledged : std::max(std::min(since, now), acknowledged);
  if (now - since <= options_.lost_after) return;
  Fail(absl::UnavailableError(
      LossOf(peer, absl::StrCat("its data connection to rank ", rank(), " is cut: nothing was acknowledged for ",
                                absl::ToInt64Milliseconds(now - since), " ms, parallel.lost_after_ms is ",
                                absl::ToInt64Milliseconds(options_.lost_after)))));
}

void ProcessGroup::ReadSigns(int peer, absl::Time now) {
  char bytes[4096];
  const absl::StatusOr<size_t> received = connections_.control[peer].ReceiveSome(absl::MakeSpan(bytes));
  if (!received.ok() && leaving_) {
    last_sign_[peer] = absl::InfiniteFuture();
    ++gone_;
    return;
  }
  if (!received.ok()) {
    Fail(absl::UnavailableError(LossOf(peer, "its connection closed; the process has ended")));
    return;
  }
  last_sign_[peer] = now;
  std::string& unread = unread_[peer];
  unread.append(bytes, *received);
  while (unread.size() >= kSignHeader && whole_) {
    uint32_t size = 0;
    std::memcpy(&size, unread.data() + 1, sizeof(size));
    if (size > kMaxNote) {
      Fail(absl::UnavailableError(LossOf(peer, absl::StrCat("it sent a note of ", size, " bytes"))));
      return;
    }
    if (unread.size() < kSignHeader + size) return;
    const Sign sign{unread[0]};
    std::string text = unread.substr(kSignHeader, size);
    unread.erase(0, kSignHeader + size);
    Understand(peer, sign, std::move(text));
  }
}

void ProcessGroup::Understand(int peer, Sign sign, std::string text) {
  switch (sign) {
    case Sign::kAlive:
      return;
    case Sign::kNote:
      if (on_note_) on_note_(peer, std::move(text));
      return;
    case Sign::kLost:  // rank 0 tells the others
      return Fail(absl::UnavailableError(text));
    case Sign::kLeaving:  // which Receive will notice, after all that was sent before
      leaving_ = true;
      ended_.notify_all();
  }
}

absl::Status ProcessGroup::Broken(int peer, const absl::Status& error) {
  {
    std::unique_lock<std::mutex> lock(mu_);
    ended_.wait_for(lock, absl::ToChronoMilliseconds(kVerdictTime), [&] { return !status_.ok() || leaving_; });
  }
  if (leaving_ && peer == 0) End(absl::CancelledError("rank 0 has ended the group"));
  Fail(absl::UnavailableError(LossOf(peer, error.message())));
  return status();
}

absl::Status ProcessGroup::Progress(absl::Span<const Transfer> transfers, std::vector<size_t>& sent,
                                    std::vector<size_t>& received, bool* moved) {
  std::vector<pollfd> waiting;
  for (size_t i = 0; i < transfers.size(); ++i) {
    const Transfer& transfer = transfers[i];
    Socket& socket = connections_.data[transfer.peer];
    if (sent[i] < transfer.send.size()) {
      const auto some = socket.SendSome({transfer.send.data() + sent[i], transfer.send.size() - sent[i]});
      if (!some.ok()) return Broken(transfer.peer, some.status());
      sent[i] += *some;
      *moved |= *some > 0;
    }
    if (received[i] < transfer.receive.size()) {
      const auto some = socket.ReceiveSome(transfer.receive.subspan(received[i]));
      if (!some.ok()) return Broken(transfer.peer, some.status());
      received[i] += *some;
      *moved |= *some > 0;
    }
    const int events =
        (sent[i] < transfer.send.size() ? POLLOUT : 0) | (received[i] < transfer.receive.size() ? POLLIN : 0);
    if (events != 0) waiting.push_back({socket.descriptor(), static_cast<short>(events), 0});
  }
  if (!*moved && !waiting.empty()) poll(waiting.data(), waiting.size(), kPollMs);
  return absl::OkStatus();
}

absl::Status ProcessGroup::Exchange(absl::Span<const Transfer> transfers) {
  std::vector<size_t> sent(transfers.size(), 0), received(transfers.size(), 0);
  const auto finished = [&](size_t i) {
    return sent[i] == transfers[i].send.size() && received[i] == transfers[i].receive.size();
  };
  const auto done = [&] {
    for (size_t i = 0; i < transfers.size(); ++i) {
      if (!finished(i)) return false;
    }
    return true;
  };
  const auto awaited = [&] {
    std::vector<int> peers;
    for (size_t i = 0; i < transfers.size(); ++i) {
      if (!finished(i)) peers.push_back(transfers[i].peer);
    }
    return absl::StrJoin(peers, ", ");
  };
  absl::Duration waited;
  for (absl::Time looked = SteadyNow(); !done();) {
    if (!whole_) return status();
    bool moved = false;
    BEAMLINE_RETURN_IF_ERROR(Progress(transfers, sent, received, &moved));
    const absl::Time now = SteadyNow();
    waited = moved ? absl::ZeroDuration() : waited + std::min(now - looked, Beat());  // see ForgiveSilence
    looked = now;
    if (waited > options_.stalled_after) {
      Fail(absl::UnavailableError(absl::StrCat("rank ", rank(), " has waited for rank ", awaited(),
                                               " in an exchange for more than parallel.stalled_after_ms (",
                                               absl::ToInt64Milliseconds(options_.stalled_after),
                                               ") though all are alive: hung in its work?")));
    }
  }
  return whole_ ? absl::OkStatus() : status();
}

absl::Status ProcessGroup::Broadcast(absl::string_view message) {
  if (message.size() > kMaxMessage) {
    return absl::InvalidArgumentError(
        absl::StrCat("a message of ", message.size(), " bytes to the group, at most ", kMaxMessage));
  }
  const uint64_t size = message.size();
  std::string framed(reinterpret_cast<const char*>(&size), sizeof(size));
  absl::StrAppend(&framed, message);
  std::vector<Transfer> transfers;
  for (int other = 1; other < options_.size; ++other) transfers.push_back({.peer = other, .send = framed});
  return Exchange(transfers);
}

absl::StatusOr<std::string> ProcessGroup::Receive() {
  uint64_t size = 0;
  const Transfer header{.peer = 0, .receive = {reinterpret_cast<char*>(&size), sizeof(size)}};
  std::vector<size_t> sent(1, 0), received(1, 0);
  while (received[0] < sizeof(size)) {  // for as long as rank 0 has nothing to say
    if (!whole_) return status();
    bool moved = false;
    BEAMLINE_RETURN_IF_ERROR(Progress({&header, 1}, sent, received, &moved));
  }
  if (size > kMaxMessage) {
    return absl::InvalidArgumentError(absl::StrCat("rank 0 announces ", size, " bytes, at most ", kMaxMessage));
  }
  std::string message(size, '\0');
  const Transfer body{.peer = 0, .receive = absl::MakeSpan(message)};
  BEAMLINE_RETURN_IF_ERROR(Exchange({&body, 1}));
  return message;
}

}  // namespace beamline::parallel
