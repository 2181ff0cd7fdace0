// SPDX-License-Identifier: Apache-2.0
//
// Connections to a listener whose other side has not said yet who it is. Their first messages are read side by side, so
// that strangers who connect and say nothing hold up nobody: each has kGreetingTime, and where kMaxGuests are waiting,
// the next comes in for the one that has waited longest. (Ours speak as soon as they are connected.)
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "parallel/socket.h"

namespace beamline::parallel {

inline constexpr size_t kMaxGreeting = 64 << 10;
inline constexpr size_t kMaxGuests = 128;
inline constexpr absl::Duration kGreetingTime = absl::Seconds(2);

class Lobby {
 public:
  struct Guest {
    Socket socket;
    std::string message;
  };

  explicit Lobby(Socket listener) : listener_(std::move(listener)) {}

  // The next one that has spoken; nobody once the deadline has passed, or one of the `watched` that are open has
  // something to read or is closed by its other side.
  absl::StatusOr<std::optional<Guest>> Next(absl::Time deadline, absl::Span<const Socket> watched);
  int port() const { return LocalEndpoint(listener_).port; }

 private:
  struct Waiting {
    Socket socket;
    absl::Time until;
    std::string bytes;  // so far, with their length before them
  };
  absl::Status Admit();
  // OK: whole, or not yet.
  static absl::StatusOr<bool> ReadMessage(Waiting& guest);

  Socket listener_;
  std::deque<Waiting> waiting_;  // in the order they came
};

}  // namespace beamline::parallel
