// SPDX-License-Identifier: Apache-2.0
#include "base/progress.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/interrupt.h"

namespace beamline {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ProgressTest : public ::testing::Test {
 protected:
  ProgressTest() : out_(std::tmpfile(), std::fclose) {}

  Progress::Options Options(Progress::Options::Style style) {
    Progress::Options options;
    options.out = out_.get();
    options.style = style;
    options.now = [this] { return now_; };
    return options;
  }
  std::string Written() {
    std::string text(static_cast<size_t>(std::ftell(out_.get())), '\0');
    EXPECT_EQ(std::fseek(out_.get(), 0, SEEK_SET), 0);
    EXPECT_EQ(std::fread(text.data(), 1, text.size(), out_.get()), text.size());
    return text;
  }

  std::unique_ptr<std::FILE, int (*)(std::FILE*)> out_;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(ProgressTest, ALineEveryFewSecondsInALog) {
  Progress progress(Options(Progress::Options::Style::kLines));
  progress.Start("training", 200, "batches");
  for (int batch = 1; batch <= 20; ++batch) {
    now_ += absl::Seconds(1);
    progress.Update(batch, "loss 3.2");
  }
  progress.Finish("loss 3.1");
  EXPECT_EQ(Written(),
            "training   2% 5/200 batches, 1.0/s, 3:15 left, loss 3.2\n"
            "training   5% 10/200 batches, 1.0/s, 3:10 left, loss 3.2\n"
            "training   8% 15/200 batches, 1.0/s, 3:05 left, loss 3.2\n"
            "training  10% 20/200 batches, 1.0/s, 3:00 left, loss 3.2\n"
            "training  10% 20/200 batches, 1.0/s, 20.0 s, loss 3.1\n");
}

// A phase shorter than the interval, or one whose last note came right after a drawn one.
TEST_F(ProgressTest, TheLastLineHasTheNewestNote) {
  Progress progress(Options(Progress::Options::Style::kLines));
  progress.Start("epoch 1/1", 3, "batches");
  now_ += absl::Seconds(6);
  progress.Update(1, "loss 3.2");
  now_ += absl::Seconds(1);
  progress.Update(2, "loss 2.1");
  progress.Update(3, "loss 1.7");  // too soon to draw
  progress.Finish();
  const std::string written = Written();
  EXPECT_THAT(written, Not(HasSubstr("loss 2.1")));
  EXPECT_THAT(written, HasSubstr("3/3 batches, 0.4/s, 7.0 s, loss 1.7\n"));
}

TEST_F(ProgressTest, ABarThatRedrawsOnATerminal) {
  Progress progress(Options(Progress::Options::Style::kBar));
  progress.Start("reading", 4, "rows");
  now_ += absl::Seconds(1);
  progress.Update(2);
  progress.Update(3);  // too soon to draw
  now_ += absl::Seconds(1);
  progress.Update(4);
  progress.Finish();
  const std::string written = Written();
  EXPECT_THAT(written, HasSubstr("\rreading [############............]  50% 2/4 rows"));
  EXPECT_THAT(written, Not(HasSubstr("3/4")));
  EXPECT_EQ(std::count(written.begin(), written.end(), '\n'), 1);
  EXPECT_EQ(written.back(), '\n');
}

// What reaches the next line of a terminal stays there, and every redraw would leave another.
TEST_F(ProgressTest, ABarFitsItsTerminal) {
  const auto drawn = [this](int columns) {
    EXPECT_EQ(std::fseek(out_.get(), 0, SEEK_SET), 0);
    Progress::Options options = Options(Progress::Options::Style::kBar);
    options.columns = columns;
    Progress progress(options);
    progress.Start("epoch 12/16", 129, "batches");
    now_ += absl::Seconds(1);
    progress.Update(64, "loss 10.1391, 10485 targets/s");
    const std::string line = Written();
    return line.substr(line.rfind('\r') + 1);
  };
  const std::string numbers = " 50% 64/129 batches, 64/s, 0:01 left, loss 10.1391, 10485 targets/s";
  EXPECT_EQ(drawn(200), "epoch 12/16 [###########.............] " + numbers);
  EXPECT_EQ(drawn(90), "epoch 12/16 [###....] " + numbers);
  EXPECT_EQ(drawn(81), "epoch 12/16 " + numbers) << "the numbers tell more";
  EXPECT_EQ(drawn(40), ("epoch 12/16 " + numbers).substr(0, 39));
}

TEST_F(ProgressTest, ABarFitsAWindowThatHasBecomeSmaller) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_TRUE(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
  out_.reset(std::fopen(ptsname(terminal), "w"));
  ASSERT_NE(out_, nullptr);
  {
    Progress progress(Options(Progress::Options::Style::kBar));
    progress.Start("rows", 100, "rows");
    for (const unsigned short columns : {100, 40}) {
      const winsize size = {.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
      ASSERT_EQ(ioctl(terminal, TIOCSWINSZ, &size), 0);
      now_ += absl::Seconds(1);
      progress.Update(50, columns == 100 ? std::string(50, 'x') : "");
    }
    // What was written comes through a thread of the kernel's, in any portions: until there is no more.
    std::string drawn;
    pollfd more = {.fd = terminal, .events = POLLIN, .revents = 0};
    while (poll(&more, 1, std::count(drawn.begin(), drawn.end(), '\r') < 3 ? 10'000 : 200) == 1) {
      char portion[4096];
      const ssize_t bytes = read(terminal, portion, sizeof(portion));
      ASSERT_GT(bytes, 0);
      drawn.append(portion, static_cast<size_t>(bytes));
    }
    EXPECT_THAT(drawn, HasSubstr("xxx"));
    EXPECT_EQ(std::count(drawn.begin(), drawn.end(), '\r'), 3) << drawn;
    EXPECT_LE(drawn.size() - drawn.rfind('\r') - 1, 39u) << drawn;
  }
  out_.reset(std::tmpfile());
  close(terminal);
}

TEST_F(ProgressTest, UnknownTotalsAndNullAreFine) {
  {
    Progress progress(Options(Progress::Options::Style::kLines));
    progress.Update(7);  // no phase open
    progress.Start("scanning", 0, "files");
    now_ += absl::Seconds(2);
    progress.Update(123456);  // drawn by the destructor at the latest
  }
  EXPECT_EQ(Written(), "scanning 123.5 k files, 61.7 k/s, 2.0 s\n");
  StartProgress(nullptr, "nothing", 1, "x");
  UpdateProgress(nullptr, 1);
  FinishProgress(nullptr);
}

TEST_F(ProgressTest, APhaseOfTimeHasNoRate) {
  Progress progress(Options(Progress::Options::Style::kLines));
  progress.Start("8 at once", 4000, Progress::kTimeUnit);
  now_ += absl::Seconds(2);
  progress.Update(2000);
  progress.Finish();
  EXPECT_THAT(Written(),
              ::testing::AllOf(::testing::HasSubstr("2000/4000 ms"), ::testing::Not(::testing::HasSubstr("/s"))));
}

TEST_F(ProgressTest, NotesAreLinesOfTheirOwn) {
  Progress progress(Options(Progress::Options::Style::kLines));
  progress.Start("reading", 0, "rows");
  progress.Note("events.tsv: 3 of 1000 rows skipped");
  progress.Update(4);
  progress.Finish();
  progress.Note("after");
  EXPECT_EQ(Written(), "events.tsv: 3 of 1000 rows skipped\nreading 4 rows, 0.0 s\nafter\n");
  NoteProgress(nullptr, "nothing");
}

TEST(InterruptTest, ASignalSetsTheFlag) {
  SetInterrupted(false);
  EXPECT_TRUE(CheckInterrupted().ok());
  InstallInterruptHandler();
  std::raise(SIGINT);
  EXPECT_TRUE(Interrupted());
  EXPECT_TRUE(absl::IsCancelled(CheckInterrupted()));
  SetInterrupted(false);
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGHUP, SIG_DFL);
}

// A connection that breaks is no reason to lose an epoch, nor one to stop what `nohup` started.
TEST(InterruptTest, ATerminalThatIsGoneInterruptsUnlessItWasIgnored) {
  const auto interrupted = [](auto before) {
    const pid_t child = fork();
    if (child == 0) {
      SetInterrupted(false);
      std::signal(SIGHUP, before);
      InstallInterruptHandler();
      std::raise(SIGHUP);
      _exit(Interrupted() ? 1 : 0);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status)) << status;
    return WEXITSTATUS(status) == 1;
  };
  EXPECT_TRUE(interrupted(SIG_DFL));
  EXPECT_FALSE(interrupted(SIG_IGN));
}

// `timeout` signals a process and then its group. Where the machine stands still between the two they are two.
TEST(InterruptTest, TwoSignalsAtOnceAreOneWish) {
  const auto survives = [] {
    const pid_t child = fork();
    if (child == 0) {
      InstallInterruptHandler();
      std::raise(SIGINT);
      std::raise(SIGINT);
      _exit(Interrupted() ? 0 : 1);
    }
    int status = 0;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  };
  EXPECT_TRUE(survives() || survives() || survives());
}

TEST(InterruptDeathTest, ASecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        InstallInterruptHandler();
        std::raise(SIGTERM);
        absl::SleepFor(absl::Milliseconds(600));
        std::raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace beamline
