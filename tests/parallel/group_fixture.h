// SPDX-License-Identifier: Apache-2.0
//
// Groups for tests: a free port, and ranks as threads of this process.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <linux/filter.h>
#include <sys/socket.h>

#include "gtest/gtest.h"
#include "parallel/process_group.h"
#include "parallel/socket.h"

namespace beamline::parallel::testing {

// Nobody listens on it; the system hands it to nobody else for a while.
inline int FreePort() {
  const auto socket = Listen({"127.0.0.1", 0}, "test");
  EXPECT_TRUE(socket.ok()) << socket.status();
  return LocalEndpoint(*socket).port;
}

inline std::string Message(const absl::Status& status) { return std::string(status.message()); }

// As if a cable was cut: what arrives is lost, acknowledgements too.
inline void CutOff(int descriptor) {
  sock_filter nothing{BPF_RET | BPF_K, 0, 0, 0};
  const sock_fprog program{1, &nothing};
  EXPECT_EQ(setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
}

inline ParallelOptions OptionsOf(int rank, int size, int port) {
  ParallelOptions options;
  options.rank = rank;
  options.size = size;
  options.port = port;
  options.start_timeout = absl::Seconds(30);
  return options;
}

// Runs `body` on every rank, each in a thread.
inline void OnRanks(int size, const std::function<void(int rank)>& body) {
  std::vector<std::thread> threads;
  threads.reserve(size);
  for (int rank = 0; rank < size; ++rank) threads.emplace_back([&body, rank] { body(rank); });
  for (std::thread& thread : threads) thread.join();
}

// The members of a group by rank. They end side by side: rank 0 waits for the others to leave.
class Group {
 public:
  explicit Group(int size) : members_(size) {}
  Group(Group&&) = default;
  ~Group() {
    OnRanks(static_cast<int>(members_.size()), [this](int rank) { members_[rank].reset(); });
  }
  std::unique_ptr<ProcessGroup>& operator[](int rank) { return members_[rank]; }

 private:
  std::vector<std::unique_ptr<ProcessGroup>> members_;
};

inline Group JoinAll(int size, const std::function<void(ParallelOptions&)>& adjust = {},
                     const ProcessGroup::NoteHandler& on_note = {}) {
  Group members(size);
  const int port = FreePort();
  OnRanks(size, [&](int rank) {
    ParallelOptions options = OptionsOf(rank, size, port);
    if (adjust) adjust(options);
    auto joined = ProcessGroup::Join(options, {{"engine.dtype", "fp32"}}, on_note);
    EXPECT_TRUE(joined.ok()) << "rank " << rank << ": " << joined.status();
    if (joined.ok()) members[rank] = *std::move(joined);
  });
  return members;
}

}  // namespace beamline::parallel::testing
