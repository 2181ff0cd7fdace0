// SPDX-License-Identifier: Apache-2.0
//
// httplib's server for clients who cannot be trusted. As Debian has it (0.11) it reads headers, chunks and compressed
// bodies without an end, answers a request for a thousand ranges with a thousand copies, and gives a thread to whoever
// sends a byte now and then. Here a request has a size and a time, both of all of it; ranges and compressed bodies are
// passed over; where threads are short the patience is, the newest connection comes first, and beyond max_waiting the
// oldest one is closed. So a supervisor hears an answer whatever others send.
#pragma once

#include <atomic>
#include <cstddef>

#include "absl/time/time.h"
#include "httplib.h"

namespace beamline::server {

class BoundedHttpServer final : public httplib::Server {
 public:
  struct Limits {
    int threads = 16;
    size_t max_waiting = 256;      // connections that no thread serves yet
    size_t max_request_bytes = 0;  // request line, headers and body
    absl::Duration read, write;    // of a whole request, of a whole answer
    // The same while more wait than threads are free, and at the end. Whoever means well sends a request in one piece
    // as it connects: threads / read_in_a_crowd is how many a second may not before those who do wait.
    absl::Duration read_in_a_crowd, write_in_a_crowd;
  };
  explicit BoundedHttpServer(const Limits& limits);

  // The port that was bound (0: any), or -1. Before listen_after_bind.
  int Bind(const std::string& address, int port);

 private:
  bool process_and_close_socket(socket_t socket) override;

  const Limits limits_;
  std::atomic<bool> hurry_{false};
};

}  // namespace beamline::server
