// SPDX-License-Identifier: Apache-2.0
//
// Groups of ranks, as threads where all live and as processes where one is killed.
#include "parallel/process_group.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <mutex>
#include <system_error>

#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "parallel/check_options.h"
#include "parallel/group_fixture.h"
#include "testing/eventually.h"

namespace beamline::parallel {
namespace {

using beamline::testing::Eventually;
using ::testing::AllOf;
using testing::FreePort;
using ::testing::HasSubstr;
using testing::JoinAll;
using testing::Message;
using testing::OnRanks;
using testing::OptionsOf;

TEST(Shard, SharesAreConsecutiveAndComplete) {
  for (const int size : {1, 2, 3, 4, 7}) {
    for (const int64_t n : {0, 1, 6, 7, 100}) {
      int64_t next = 0;
      for (int rank = 0; rank < size; ++rank) {
        const Shard shard{rank, size};
        EXPECT_EQ(shard.begin(n), next);
        next = shard.end(n);
        EXPECT_LE(std::abs(shard.count(n) * size - n), size) << "differ by at most one";
        EXPECT_GE(shard.count(n), n >= size ? 1 : 0);
      }
      EXPECT_EQ(next, n);
    }
  }
}

TEST(ParallelOptions, ErrorsNameFieldLimitAndValue) {
  const auto refused = [](const std::function<void(ParallelOptions&)>& spoil) {
    ParallelOptions options = OptionsOf(1, 2, 29500);
    spoil(options);
    return Message(CheckOptions(options));
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& o) { o.size = 0; }), "parallel.size: 0 is outside 1..64");
  EXPECT_EQ(refused([](auto& o) { o.size = 65; }), "parallel.size: 65 is outside 1..64");
  EXPECT_EQ(refused([](auto& o) { o.rank = 2; }), "parallel.rank: 2 is outside 0..1, the ranks of parallel.size 2");
  EXPECT_EQ(refused([](auto& o) { o.rank = -1; }), "parallel.rank: -1 is outside 0..1, the ranks of parallel.size 2");
  EXPECT_THAT(refused([](auto& o) { o.address.clear(); }), HasSubstr("parallel.address: is empty"));
  EXPECT_EQ(refused([](auto& o) { o.port = 65536; }), "parallel.port: 65536 is outside 1..65535");
  EXPECT_EQ(refused([](auto& o) { o.lost_after = absl::Seconds(9); }),
            "parallel.lost_after_ms: 9000 is outside 200..8000");
  EXPECT_THAT(refused([](auto& o) { o.start_timeout = absl::ZeroDuration(); }), HasSubstr("parallel.start_timeout_ms"));
  EXPECT_EQ(refused([](auto& o) { o.stalled_after = absl::Milliseconds(999); }),
            "parallel.stalled_after_ms: 999 is outside 1000..3600000");
}

// Every rank sends each other a block of its own length, large enough that nobody's buffers hold it.
TEST(ProcessGroup, ExchangesInAllDirectionsAtOnce) {
  constexpr int kSize = 4;
  auto group = JoinAll(kSize);
  OnRanks(kSize, [&](int rank) {
    const auto length = [](int from, int to) { return size_t{3'000'000} + 1000 * from + to; };
    const auto byte = [](int from, int to) { return static_cast<char>(10 * from + to + 1); };
    std::vector<std::string> out(kSize), in(kSize);
    std::vector<ProcessGroup::Transfer> transfers;
    for (int other = 0; other < kSize; ++other) {
      if (other == rank) continue;
      out[other].assign(length(rank, other), byte(rank, other));
      in[other].assign(length(other, rank), 0);
      transfers.push_back({.peer = other, .send = out[other], .receive = absl::MakeSpan(in[other])});
    }
    ASSERT_TRUE(group[rank]->Exchange(transfers).ok()) << group[rank]->status();
    for (int other = 0; other < kSize; ++other) {
      if (other == rank) continue;
      EXPECT_EQ(in[other], std::string(length(other, rank), byte(other, rank)));
    }
  });
}

TEST(ProcessGroup, RankZeroBroadcastsOthersPostAndItsEndIsInOrder) {
  std::mutex mu;
  std::vector<std::string> notes;
  auto group = JoinAll(3, {}, [&](int rank, std::string note) {
    const std::lock_guard lock(mu);
    notes.push_back(absl::StrCat(rank, ":", note));
  });
  OnRanks(3, [&](int rank) {
    if (rank == 0) {
      EXPECT_TRUE(group[0]->Broadcast("first").ok());
      EXPECT_TRUE(group[0]->Broadcast(std::string(1 << 20, 'x')).ok());
      EXPECT_TRUE(Eventually([&] {
        const std::lock_guard lock(mu);
        return notes.size() == 2;
      }));
      group[0].reset();
      return;
    }
    EXPECT_EQ(*group[rank]->Receive(), "first");
    EXPECT_EQ(*group[rank]->Receive(), std::string(1 << 20, 'x'));
    group[rank]->Post("done");
    EXPECT_EQ(group[rank]->Receive().status().code(), absl::StatusCode::kCancelled) << "rank 0 left in order";
    group[rank].reset();  // rank 0 waits for that
  });
  EXPECT_THAT(notes, ::testing::UnorderedElementsAre("1:done", "2:done"));
}

TEST(ProcessGroup, AFailureAnywhereEndsAllWithItsReason) {
  std::atomic<int> lost{0};
  auto group = JoinAll(3, [&](ParallelOptions& options) { options.on_lost = [&](const absl::Status&) { ++lost; }; });
  OnRanks(3, [&](int rank) {
    if (rank == 2) {
      group[2]->Fail(absl::InternalError("the device is on fire"));
    } else {
      char byte;
      const ProcessGroup::Transfer wait{.peer = 1 - rank, .receive = {&byte, 1}};  // for what nobody sends
      const absl::Status status = group[rank]->Exchange({&wait, 1});
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
      EXPECT_THAT(Message(status), HasSubstr("the device is on fire"));
    }
    EXPECT_EQ(group[rank]->Broadcast("too late").code(), absl::StatusCode::kUnavailable);
    group[rank].reset();  // its thread, which may be the one to call on_lost, has ended
  });
  EXPECT_EQ(lost, 3);
}

TEST(ProcessGroup, WhatRanksDisagreeOnIsNamedToEverybody) {
  const int port = FreePort();
  // Rank 0 waits for one that fits, and says at its end why this one did not.
  const auto expect_named = [&](const ParallelOptions& other, const std::string& dtype, const std::string& what) {
    OnRanks(2, [&](int rank) {
      ParallelOptions options = rank == 0 ? OptionsOf(0, 2, port) : other;
      if (rank == 0) options.start_timeout = absl::Seconds(2);
      const absl::Time start = SteadyNow();
      const auto joined = ProcessGroup::Join(options, {{"engine.dtype", rank == 0 ? "fp32" : dtype}});
      EXPECT_THAT(Message(joined.status()), HasSubstr(what)) << "rank " << rank;
      EXPECT_LT(SteadyNow() - start, absl::Seconds(10)) << "of 30 to start";
      if (rank == 0) {
        EXPECT_THAT(Message(joined.status()), HasSubstr("did not come"));
      }
    });
  };
  expect_named(OptionsOf(1, 2, port), "bf16",
               "engine.dtype: rank 1 has bf16, rank 0 has fp32; all ranks of a group need the same");
  expect_named(OptionsOf(1, 3, port), "fp32", "parallel.size: rank 1 has 3, rank 0 has 2");
  ParallelOptions patient = OptionsOf(1, 2, port);
  patient.lost_after = absl::Seconds(8);
  expect_named(patient, "fp32", "parallel.lost_after_ms: rank 1 has 8000, rank 0 has 5000; all ranks");
}

TEST(ProcessGroup, StartNamesWhoIsMissingWhatIsTakenAndPortsInUse) {
  const int port = FreePort();
  ParallelOptions lonely = OptionsOf(0, 3, port);
  lonely.start_timeout = absl::Milliseconds(200);
  EXPECT_THAT(Message(ProcessGroup::Join(lonely, {}).status()),
              AllOf(HasSubstr("these did not come"), HasSubstr("(200): 1, 2")));
  lonely.rank = 1;
  EXPECT_THAT(Message(ProcessGroup::Join(lonely, {}).status()),
              AllOf(HasSubstr("parallel.address: rank 1 found no rank 0"), HasSubstr("refused")));

  const auto taken = Listen({"127.0.0.1", port}, "test");
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_THAT(Message(ProcessGroup::Join(OptionsOf(0, 2, port), {}).status()),
              AllOf(HasSubstr("parallel.port: cannot listen on 127.0.0.1"), HasSubstr("in use")));
  EXPECT_THAT(Message(ProcessGroup::Join(OptionsOf(0, 1, port), {}).status()), HasSubstr("at least 2 ranks"));
}

// Neither a scanner nor a second process of the same rank keeps the right ones from meeting.
TEST(ProcessGroup, StrangersAreDropped) {
  const int port = FreePort();
  testing::Group group(3);
  std::atomic<int> joined_as_one{0}, refused{0};
  OnRanks(4, [&](int thread) {
    if (thread == 3) absl::SleepFor(absl::Milliseconds(100));
    if (thread == 3) {  // speaks, but not our language
      for (;;) {
        auto stranger = Connect({"127.0.0.1", port}, SteadyNow() + absl::Seconds(1));
        if (!stranger.ok()) continue;
        EXPECT_TRUE(stranger->SendMessage("GET / HTTP/1.1", SteadyNow() + absl::Seconds(1)).ok());
        break;
      }
      EXPECT_TRUE(Eventually([&] { return refused.load() == 1; })) << "while rank 1 is there and rank 2 is not";
      auto last = ProcessGroup::Join(OptionsOf(2, 3, port), {});
      EXPECT_TRUE(last.ok()) << last.status();
      if (last.ok()) group[2] = *std::move(last);
      return;
    }
    auto joined = ProcessGroup::Join(OptionsOf(thread == 0 ? 0 : 1, 3, port), {});  // 1 and 2 both say they are 1
    if (thread == 0) {
      ASSERT_TRUE(joined.ok()) << joined.status();
      group[0] = *std::move(joined);
    } else if (joined.ok()) {
      ++joined_as_one;
      group[1] = *std::move(joined);
    } else {
      ++refused;
      EXPECT_THAT(Message(joined.status()), HasSubstr("parallel.rank: 1 is taken"));
    }
  });
  EXPECT_EQ(joined_as_one, 1);
  EXPECT_EQ(refused, 1);
}

// Ranks 1 and 2 as processes; `signal` meets rank 2 while rank 0 waits for it.
void ExpectLossOfRankTwo(int signal, absl::Duration lost_after, const std::string& reason) {
  const int port = FreePort();
  pid_t children[2];
  for (int rank = 1; rank <= 2; ++rank) {
    children[rank - 1] = fork();
    if (children[rank - 1] != 0) continue;
    ParallelOptions options = OptionsOf(rank, 3, port);
    options.lost_after = lost_after;
    const auto group = ProcessGroup::Join(options, {});
    if (!group.ok()) _exit(3);
    const absl::Status status = (*group)->Receive().status();  // nothing comes
    _exit(status.code() == absl::StatusCode::kUnavailable &&
                  Message(status).find("rank 2 was lost") != std::string::npos
              ? 1
              : 2);
  }
  ParallelOptions options = OptionsOf(0, 3, port);
  options.lost_after = lost_after;
  auto group = ProcessGroup::Join(options, {});
  ASSERT_TRUE(group.ok()) << group.status();
  kill(children[1], signal);
  const absl::Time start = absl::Now();
  char byte;
  const ProcessGroup::Transfer wait{.peer = 2, .receive = {&byte, 1}};
  const absl::Status status = (*group)->Exchange({&wait, 1});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("rank 2 was lost"), HasSubstr(reason)));
  int exit_status = 0;
  waitpid(children[0], &exit_status, 0);
  EXPECT_TRUE(WIFEXITED(exit_status) && WEXITSTATUS(exit_status) == 1) << exit_status;
  EXPECT_LT(absl::Now() - start, lost_after + absl::Seconds(4));
  kill(children[1], SIGKILL);
  waitpid(children[1], &exit_status, 0);
}

TEST(ProcessGroup, AKilledRankEndsTheGroupAtOnce) {
  ExpectLossOfRankTwo(SIGKILL, absl::Seconds(5), "the process has ended");
}
TEST(ProcessGroup, ASilentRankEndsTheGroupInTime) { ExpectLossOfRankTwo(SIGSTOP, absl::Seconds(2), "silent for "); }

// A process of its own that says over a pipe when it is ready, and may be stopped and go on.
class Machine {
 public:
  explicit Machine(const std::function<void(const std::function<void()>& ready)>& run) {
    int said[2];
    EXPECT_EQ(pipe(said), 0);
    pid_ = fork();
    if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      run([&] { (void)!write(said[1], "x", 1); });
      std::fflush(nullptr);
      _exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    close(said[1]);
    said_ = said[0];
  }
  ~Machine() {
    if (!Ended()) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(said_);
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  bool AwaitReady() const {
    char byte = 0;
    return read(said_, &byte, 1) == 1;  // else it has ended
  }
  void Stop() const { kill(pid_, SIGSTOP); }
  void StandStill(absl::Duration time) const {
    Stop();
    absl::SleepFor(time);
    kill(pid_, SIGCONT);
  }
  bool Ended() {
    if (!ended_) ended_ = waitpid(pid_, &status_, WNOHANG) == pid_;
    return ended_;
  }
  int status() const { return status_; }  // of waitpid, once it has ended

 private:
  pid_t pid_ = 0;
  int said_ = 0;
  int status_ = -1;
  bool ended_ = false;
};

// As a machine that is suspended, or frozen by its hypervisor: nobody spoke meanwhile, and nobody was to listen.
TEST(ProcessGroup, AMachineThatStoodStillLosesNobody) {
  Machine machine([](const std::function<void()>& ready) {
    auto group = JoinAll(2, [](ParallelOptions& options) {
      options.lost_after = absl::Seconds(1);
      options.stalled_after = absl::Seconds(4);
    });
    ready();
    char byte;
    OnRanks(2, [&](int rank) {
      if (rank == 0) absl::SleepFor(absl::Seconds(5));  // of which both run for two
      const ProcessGroup::Transfer transfers[] = {{.peer = 1, .send = "x"}, {.peer = 0, .receive = {&byte, 1}}};
      EXPECT_TRUE(group[rank]->Exchange({&transfers[rank], 1}).ok()) << group[rank]->status();
    });
  });
  ASSERT_TRUE(machine.AwaitReady());
  for (int i = 0; i < 2; ++i) {
    machine.StandStill(absl::Milliseconds(1500));
    absl::SleepFor(absl::Milliseconds(500));
  }
  EXPECT_TRUE(Eventually([&] { return machine.Ended(); }));
  EXPECT_EQ(machine.status(), 0);
}

// Not even one that hardly ever runs forgives for ever.
TEST(ProcessGroup, WhoStandsStillOverAndOverStillFindsOutWhoIsSilent) {
  const int port = FreePort();
  const auto join = [port](int rank, const std::function<void()>& ready) {
    ParallelOptions options = OptionsOf(rank, 2, port);
    options.lost_after = absl::Seconds(1);
    auto group = ProcessGroup::Join(options, {});
    if (!group.ok()) _exit(3);
    ready();
    return *std::move(group);
  };
  Machine other([&](const std::function<void()>& ready) { (void)join(1, ready)->Receive(); });
  Machine own([&](const std::function<void()>& ready) {
    const auto group = join(0, ready);
    char byte;
    const ProcessGroup::Transfer wait{.peer = 1, .receive = {&byte, 1}};
    EXPECT_THAT(Message(group->Exchange({&wait, 1})), HasSubstr("rank 1 was lost: silent for"));
  });
  ASSERT_TRUE(own.AwaitReady() && other.AwaitReady());
  other.Stop();
  EXPECT_TRUE(Eventually([&] {
    if (own.Ended()) return true;
    own.StandStill(absl::Milliseconds(300));  // more than a beat
    absl::SleepFor(absl::Milliseconds(10));
    return false;
  }));
  EXPECT_EQ(own.status(), 0);
}

// Of this process's sockets, those of the connection that does not touch rank 0's port: data between ranks 1 and 2.
std::vector<int> DataSocketsBeyondRankZero(int port) {
  std::vector<int> found;
  for (int descriptor = 0; descriptor < 1024; ++descriptor) {
    sockaddr_in own{}, other{};
    socklen_t size = sizeof(own), other_size = sizeof(other);
    if (getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &size) != 0 || own.sin_family != AF_INET) continue;
    if (getpeername(descriptor, reinterpret_cast<sockaddr*>(&other), &other_size) != 0) continue;
    if (ntohs(own.sin_port) != port && ntohs(other.sin_port) != port) found.push_back(descriptor);
  }
  return found;
}

// Everybody lives and says so to rank 0, but what ranks 1 and 2 send each other is lost.
TEST(ProcessGroup, ACutDataConnectionEndsTheGroupInTime) {
  std::atomic<int> port{0};
  auto group = JoinAll(3, [&](ParallelOptions& options) {
    port = options.port;
    options.lost_after = absl::Seconds(1);
  });
  const std::vector<int> sockets = DataSocketsBeyondRankZero(port);
  ASSERT_EQ(sockets.size(), 2);
  for (const int socket : sockets) testing::CutOff(socket);
  const absl::Time start = SteadyNow();
  OnRanks(3, [&](int rank) {
    char in = 0;
    const char out = 'x';
    const ProcessGroup::Transfer transfers[] = {{.peer = 1, .receive = {&in, 1}},  // it has nothing to do with the cut
                                                {.peer = 2, .send = {&out, 1}, .receive = {&in, 1}},
                                                {.peer = 1, .receive = {&in, 1}}};
    const absl::Status status = group[rank]->Exchange({&transfers[rank], 1});
    EXPECT_THAT(Message(status), AllOf(HasSubstr("rank 2 was lost: its data connection to rank 1 is cut"),
                                       HasSubstr("parallel.lost_after_ms is 1000")))
        << "rank " << rank;
  });
  EXPECT_LT(SteadyNow() - start, absl::Seconds(3));
}

TEST(ProcessGroup, ARankThatHangsInItsWorkEndsTheGroupAndIsNamed) {
  auto group = JoinAll(3, [](ParallelOptions& options) { options.stalled_after = absl::Seconds(1); });
  const absl::Time start = SteadyNow();
  OnRanks(3, [&](int rank) {
    if (rank == 2) return;  // alive, and does not come
    char in[2], out = 'x';
    const ProcessGroup::Transfer transfers[] = {
        {.peer = 1 - rank, .send = {&out, 1}, .receive = {&in[0], 1}},
        {.peer = 2, .send = {&out, 1}, .receive = {&in[1], 1}},
    };
    EXPECT_THAT(Message(group[rank]->Exchange(transfers)),
                HasSubstr("has waited for rank 2 in an exchange for more than parallel.stalled_after_ms (1000)"));
  });
  EXPECT_LT(SteadyNow() - start, absl::Seconds(4));
}

// A rank that is at work reads nothing for longer than lost_after; what the others send fills all buffers meanwhile.
TEST(ProcessGroup, ASlowReaderIsNotLost) {
  auto group = JoinAll(2, [](ParallelOptions& options) { options.lost_after = absl::Seconds(1); });
  const std::string sent(64 << 20, 'x');
  std::string received(sent.size(), 0);
  OnRanks(2, [&](int rank) {
    if (rank == 1) absl::SleepFor(absl::Seconds(3));
    const ProcessGroup::Transfer transfers[] = {{.peer = 1, .send = sent},
                                                {.peer = 0, .receive = absl::MakeSpan(received)}};
    const absl::Status status = group[rank]->Exchange({&transfers[rank], 1});
    EXPECT_TRUE(status.ok()) << status;
  });
  EXPECT_TRUE(received == sent);
}

}  // namespace
}  // namespace beamline::parallel
