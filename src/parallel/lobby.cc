// SPDX-License-Identifier: Apache-2.0
#include "parallel/lobby.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include <poll.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "beamline/status.h"

namespace beamline::parallel {
namespace {

constexpr int64_t kMaxPollMs = 1000;

void LogDropped(const Socket& guest, const absl::Status& why) {
  LogEvent(spdlog::level::warn, "parallel: a connection was dropped",
           {{"address", PeerEndpoint(guest).address}, {"reason", why.message()}});
}

}  // namespace

absl::Status Lobby::Admit() {
  for (;;) {
    BEAMLINE_ASSIGN_OR_RETURN(Socket accepted, AcceptSome(listener_));
    if (!accepted.open()) return absl::OkStatus();
    if (waiting_.size() >= kMaxGuests) {
      LogDropped(waiting_.front().socket, absl::ResourceExhaustedError(absl::StrCat("it said nothing, and more than ",
                                                                                    kMaxGuests, " are waiting")));
      waiting_.pop_front();
    }
    waiting_.push_back({.socket = std::move(accepted), .until = SteadyNow() + kGreetingTime, .bytes = {}});
  }
}

absl::StatusOr<bool> Lobby::ReadMessage(Waiting& guest) {
  uint32_t size = 0;
  for (;;) {
    const size_t have = guest.bytes.size();
    if (have >= sizeof(size)) {
      std::memcpy(&size, guest.bytes.data(), sizeof(size));
      if (size > kMaxGreeting) {
        return absl::InvalidArgumentError(absl::StrCat("a message of ", size, " bytes, at most ", kMaxGreeting));
      }
    }
    const size_t wanted = sizeof(size) + size;
    if (have == wanted) return true;
    guest.bytes.resize(wanted);  // not beyond: what comes after the message is for whoever takes the connection
    const auto received = guest.socket.ReceiveSome({guest.bytes.data() + have, wanted - have});
    guest.bytes.resize(have + (received.ok() ? *received : 0));
    BEAMLINE_RETURN_IF_ERROR(received.status());
    if (*received == 0) return false;
  }
}

absl::StatusOr<std::optional<Lobby::Guest>> Lobby::Next(absl::Time deadline, absl::Span<const Socket> watched) {
  for (;;) {
    for (auto guest = waiting_.begin(); guest != waiting_.end();) {
      const absl::StatusOr<bool> whole = ReadMessage(*guest);
      if (whole.ok() && *whole) {
        Guest next{std::move(guest->socket), guest->bytes.substr(sizeof(uint32_t))};
        waiting_.erase(guest);
        return next;
      }
      const bool late = SteadyNow() >= guest->until;
      if (!whole.ok() || late) {
        LogDropped(guest->socket,
                   whole.ok() ? absl::DeadlineExceededError("it did not say who it is") : whole.status());
        guest = waiting_.erase(guest);
      } else {
        ++guest;
      }
    }
    const absl::Time now = SteadyNow();
    if (now >= deadline) return std::nullopt;
    absl::Time wake = deadline;
    std::vector<pollfd> entries;
    for (const Socket& socket : watched) entries.push_back({socket.descriptor(), POLLIN | POLLRDHUP, 0});
    entries.push_back({listener_.descriptor(), POLLIN, 0});
    for (const Waiting& guest : waiting_) {
      entries.push_back({guest.socket.descriptor(), POLLIN, 0});
      wake = std::min(wake, guest.until);
    }
    const int64_t wait_ms = std::clamp<int64_t>(absl::ToInt64Milliseconds(wake - now) + 1, 0, kMaxPollMs);
    if (poll(entries.data(), entries.size(), static_cast<int>(wait_ms)) <= 0) continue;
    for (size_t i = 0; i < watched.size(); ++i) {
      if (entries[i].revents != 0) return std::nullopt;
    }
    if (entries[watched.size()].revents != 0) BEAMLINE_RETURN_IF_ERROR(Admit());
  }
}

}  // namespace beamline::parallel
