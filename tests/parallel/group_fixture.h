// SPDX-License-Identifier: Apache-2.0
//
// Groups for tests: a free port, and ranks as threads of this process.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

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

// A whole group, member r in entry r. Destroy all but the first after it, or in threads.
inline std::vector<std::unique_ptr<ProcessGroup>> JoinAll(int size,
                                                          const std::function<void(ParallelOptions&)>& adjust = {},
                                                          const ProcessGroup::NoteHandler& on_note = {}) {
  std::vector<std::unique_ptr<ProcessGroup>> members(size);
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
