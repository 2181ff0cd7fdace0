// SPDX-License-Identifier: Apache-2.0
//
// TCP sockets with deadlines, which are times of SteadyNow. All are non-blocking beneath; the calls here wait with
// poll. An error is UNAVAILABLE (the other side is gone, or cannot be reached), DEADLINE_EXCEEDED, or what the system
// says. One thread sends and one receives at a time; Shutdown may come from any.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace beamline::parallel {

// A step of the system's clock must neither lose a rank nor keep one: see RealClock.
absl::Time SteadyNow();

class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();

  bool open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }

  absl::Status SendAll(absl::string_view bytes, absl::Time deadline);
  absl::Status ReceiveAll(absl::Span<char> bytes, absl::Time deadline);
  // A 32-bit length, then the bytes. Longer ones than `max_bytes` are refused before anything is allocated.
  absl::Status SendMessage(absl::string_view message, absl::Time deadline);
  absl::StatusOr<std::string> ReceiveMessage(size_t max_bytes, absl::Time deadline);
  // As many bytes as can be had at once, 0 if none; UNAVAILABLE at the end of the stream.
  absl::StatusOr<size_t> SendSome(absl::string_view bytes);
  absl::StatusOr<size_t> ReceiveSome(absl::Span<char> bytes);

  // Ends the connection: who waits on it wakes up. The descriptor stays until destruction.
  void Shutdown();
  // Of this side's sending alone: the other side reads what was sent, then the end.
  void EndSending();

 private:
  int descriptor_ = -1;
};

// Where somebody is, as numbers.
struct Endpoint {
  std::string address;
  int port = 0;
};

// Port 0: the system chooses. UNAVAILABLE names address, port and reason; `field` is what set them.
absl::StatusOr<Socket> Listen(const Endpoint& endpoint, absl::string_view field);
// What has connected; not open where nobody has yet.
absl::StatusOr<Socket> AcceptSome(Socket& listener);
// One try; names are resolved.
absl::StatusOr<Socket> Connect(const Endpoint& endpoint, absl::Time deadline);

// Something to read, or the end.
bool HasNews(const Socket& socket);

// A connection on which nothing is sent fails, too, when its other side can no longer be reached: about `after` later,
// in whole seconds, at least two. (TCP_USER_TIMEOUT would also end one whose other side is there, and reads nothing for
// so long because it is at work.)
void NoticeLoss(Socket& socket, absl::Duration after);
// When the other side last acknowledged something: in the far future where nothing sent is left to be acknowledged. A
// process that reads nothing has a system that acknowledges; one that is cut off has not.
absl::Time LastAcknowledged(const Socket& socket);

Endpoint LocalEndpoint(const Socket& socket);
Endpoint PeerEndpoint(const Socket& socket);

}  // namespace beamline::parallel
