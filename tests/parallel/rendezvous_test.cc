// SPDX-License-Identifier: Apache-2.0
//
// What may happen while ranks find each other: ranks that die, hang, are cut off or come again, strangers that say
// nothing, the wrong thing, or the right thing with other settings.
#include "parallel/rendezvous.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <functional>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "parallel/group_fixture.h"
#include "parallel/lobby.h"

namespace beamline::parallel {
namespace {

using ::testing::AllOf;
using testing::CutOff;
using testing::FreePort;
using ::testing::HasSubstr;
using testing::Message;
using testing::OnRanks;
using testing::OptionsOf;
using ::testing::StartsWith;

constexpr absl::Duration kPatience = absl::Seconds(20);

Settings SettingsOf(const ParallelOptions& options) {
  return {{"parallel.lost_after_ms", absl::StrCat(absl::ToInt64Milliseconds(options.lost_after))}};
}

Socket ConnectTo(int port) {
  for (const absl::Time end = SteadyNow() + kPatience; SteadyNow() < end; absl::SleepFor(absl::Milliseconds(10))) {
    auto socket = Connect({"127.0.0.1", port}, end);
    if (socket.ok()) return *std::move(socket);
  }
  ADD_FAILURE() << "nobody listens";
  return Socket();
}

// Somebody by hand who says it is that rank, and does nothing on its own.
Socket Greet(const ParallelOptions& options, const Settings& settings) {
  Socket socket = ConnectTo(options.port);
  const Greeting greeting{.rank = options.rank, .size = options.size, .port = 1, .settings = settings};
  EXPECT_TRUE(socket.SendMessage(FormatGreeting(greeting), SteadyNow() + kPatience).ok());
  return socket;
}
Socket Greet(const ParallelOptions& options) { return Greet(options, SettingsOf(options)); }

std::string AnswerTo(Socket socket) {
  const auto answer = socket.ReceiveMessage(kMaxGreeting, SteadyNow() + kPatience);
  return answer.ok() ? *answer : "";
}

// Of what must not wait for a guest's kGreetingTime: where it does, it does every time; a machine is not busy every
// time.
absl::Duration ShortestOf(const std::function<absl::Duration()>& attempt) {
  absl::Duration shortest = absl::InfiniteDuration();
  for (int i = 0; i < 5 && shortest >= kGreetingTime; ++i) shortest = std::min(shortest, attempt());
  return shortest;
}

TEST(Rendezvous, AKilledRankFreesItsPlaceForTheNext) {
  const int port = FreePort();
  int come[2];
  ASSERT_EQ(pipe(come), 0);
  const pid_t child = fork();
  if (child == 0) {
    const Socket socket = Greet(OptionsOf(1, 3, port));
    (void)!write(come[1], "x", 1);
    for (;;) pause();
  }
  close(come[1]);  // a child that dies is an end of the file
  std::thread rank0([&] { EXPECT_TRUE(Meet(OptionsOf(0, 3, port), {}).status().ok()); });
  char byte = 0;
  ASSERT_EQ(read(come[0], &byte, 1), 1);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(come[0]);
  OnRanks(3, [&](int rank) {
    if (rank == 0) return;
    if (rank == 2) absl::SleepFor(absl::Milliseconds(300));  // or the group would meet before the loss is seen
    const absl::Status status = Meet(OptionsOf(rank, 3, port), {}).status();
    EXPECT_TRUE(status.ok()) << status;
  });
  rank0.join();
}

// Its machine is gone: nothing closes the connection.
TEST(Rendezvous, ARankThatIsCutOffFreesItsPlaceInTime) {
  ParallelOptions options[3];
  const int port = FreePort();
  for (int rank = 0; rank < 3; ++rank) {
    options[rank] = OptionsOf(rank, 3, port);
    options[rank].lost_after = absl::Seconds(2);
  }
  std::thread rank0([&] { EXPECT_TRUE(Meet(options[0], {}).status().ok()); });
  const Socket gone = Greet(options[1]);
  CutOff(gone.descriptor());
  const absl::Time start = SteadyNow();
  std::thread again([&] {
    absl::Status status;
    do {
      absl::SleepFor(absl::Milliseconds(50));
      status = Meet(options[1], {}).status();  // refused while rank 0 does not know
    } while (Message(status).find("is taken by another process") != std::string::npos);
    EXPECT_TRUE(status.ok()) << status;
  });
  absl::SleepFor(absl::Seconds(4));
  EXPECT_TRUE(Meet(options[2], {}).status().ok());
  EXPECT_LT(SteadyNow() - start, absl::Seconds(8));
  again.join();
  rank0.join();
}

// One that came and went before all had met keeps nobody waiting for the rest of the time to start.
TEST(Rendezvous, ARankLostWhileAllMeetIsNamedToAll) {
  const int port = FreePort();
  const absl::Time start = SteadyNow();
  OnRanks(3, [&](int rank) {
    if (rank < 2) {
      EXPECT_THAT(Message(Meet(OptionsOf(rank, 3, port), {}).status()),
                  HasSubstr("rank 2 was lost while the group started: the connection was closed"));
      return;
    }
    EXPECT_THAT(AnswerTo(Greet(OptionsOf(2, 3, port))), StartsWith("welcome"));
  });
  EXPECT_LT(SteadyNow() - start, kMeetingTime) << "of 30 s to start";
}

// As one that is stopped: its system takes connections, and it says nothing.
TEST(Rendezvous, ARankThatHangsWhileAllMeetIsNamedToAllInTime) {
  OnRanks(2, [](int group) {
    const int port = FreePort(), hanging = 1 + group;
    const absl::Time start = SteadyNow();
    std::atomic<bool> ended{false};
    OnRanks(4, [&](int rank) {
      const ParallelOptions options = OptionsOf(rank, 4, port);
      if (rank != hanging) {
        EXPECT_THAT(Message(Meet(options, {}).status()),
                    HasSubstr(absl::StrCat("rank ", hanging, " was lost while the group started: no answer within 5s")))
            << "rank " << rank;
        if (rank == 0) ended = true;
        return;
      }
      const auto listener = Listen({"127.0.0.1", 0}, "test");
      const Greeting greeting{
          .rank = rank, .size = 4, .port = LocalEndpoint(*listener).port, .settings = SettingsOf(options)};
      Socket silent = ConnectTo(port);
      EXPECT_TRUE(silent.SendMessage(FormatGreeting(greeting), SteadyNow() + kPatience).ok());
      while (!ended && SteadyNow() - start < kPatience) absl::SleepFor(absl::Milliseconds(10));
    });
    EXPECT_LT(SteadyNow() - start, absl::Seconds(9)) << "of 30 s to start";
  });
}

// More than are let in, before the ranks and between them. How long it took.
absl::Duration MeetBesideStrangers() {
  const int port = FreePort();
  std::thread rank0([&] { EXPECT_TRUE(Meet(OptionsOf(0, 2, port), {}).status().ok()); });
  std::vector<Socket> strangers;
  const absl::Time start = SteadyNow();
  for (size_t i = 0; i < kMaxGuests + 20; ++i) strangers.push_back(ConnectTo(port));
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(AnswerTo(std::move(strangers[i])), "") << "dropped";
  const absl::Status status = Meet(OptionsOf(1, 2, port), {}).status();
  EXPECT_TRUE(status.ok()) << status;
  rank0.join();
  return SteadyNow() - start;
}

TEST(Rendezvous, StrangersWhoSayNothingHoldUpNobody) {
  EXPECT_LT(ShortestOf(&MeetBesideStrangers), kGreetingTime) << "of which each of them has one";
}

TEST(Rendezvous, StrangersThatDoNotFitAreToldAndEndNothing) {
  const int port = FreePort();
  std::thread rank0([&] { EXPECT_TRUE(Meet(OptionsOf(0, 2, port), {{"engine.dtype", "fp32"}}).status().ok()); });
  const ParallelOptions own = OptionsOf(1, 2, port);
  EXPECT_THAT(AnswerTo(Greet(OptionsOf(1, 9, port))),
              AllOf(StartsWith("refused\n"), HasSubstr("parallel.size: rank 1 has 9, rank 0 has 2")));
  EXPECT_THAT(AnswerTo(Greet(OptionsOf(7, 2, port))), HasSubstr("parallel.rank: 7 joined, the others are 1..1"));
  EXPECT_THAT(AnswerTo(Greet(own, {})), HasSubstr("parallel.lost_after_ms: rank 1 has nothing, rank 0 has 5000"));
  EXPECT_THAT(AnswerTo(Greet(own, {{"parallel.lost_after_ms", "\x1b" + std::string(10000, 'y')}})),
              AllOf(HasSubstr("parallel.lost_after_ms: rank 1 has "), HasSubstr("yyy"),
                    ::testing::SizeIs(::testing::Lt(1000))));
  EXPECT_THAT(AnswerTo(Greet(own, {{"a setting of another version", "7"}})),
              HasSubstr("parallel.lost_after_ms: rank 1 has nothing, rank 0 has 5000"));
  const auto drop = [&] {
    const absl::Time start = SteadyNow();
    Socket long_winded = ConnectTo(port);
    const uint32_t length = kMaxGreeting + 1;
    EXPECT_TRUE(long_winded.SendAll({reinterpret_cast<const char*>(&length), 4}, SteadyNow() + kPatience).ok());
    EXPECT_EQ(AnswerTo(std::move(long_winded)), "") << "dropped";
    return SteadyNow() - start;
  };
  EXPECT_LT(ShortestOf(drop), kGreetingTime) << "at once";
  EXPECT_THAT(Message(Meet(own, {{"engine.dtype", "bf16"}}).status()), HasSubstr("engine.dtype: rank 1 has bf16"));
  const absl::Status status = Meet(own, {{"engine.dtype", "fp32"}}).status();
  EXPECT_TRUE(status.ok()) << status;
  rank0.join();
}

}  // namespace
}  // namespace beamline::parallel
