// SPDX-License-Identifier: Apache-2.0
//
// A child process whose output goes to a file. Killed at the end of its life if nobody waited for it.
#pragma once

#include <csignal>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace beamline::testing {

class Process {
 public:
  // `arguments` begin with the program's path; `environment` ("NAME=VALUE") is added to ours.
  explicit Process(std::vector<std::string> arguments, const std::vector<std::string>& environment = {})
      : log_path_(NewLog()) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log_path_.c_str(), O_WRONLY | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    std::vector<std::string> variables = environment;  // the first of a name counts
    for (char** entry = environ; *entry != nullptr; ++entry) variables.emplace_back(*entry);
    EXPECT_EQ(posix_spawn(&pid_, arguments[0].c_str(), &actions, nullptr, Pointers(arguments).data(),
                          Pointers(variables).data()),
              0)
        << arguments[0];
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Process() {
    if (pid_ <= 0) return;
    Signal(SIGKILL);
    Wait();
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  void Signal(int number) const { kill(pid_, number); }
  // The exit code, or minus the signal that killed it.
  int Wait() {
    int status = 0;
    waitpid(std::exchange(pid_, 0), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::string Log() const {
    std::ostringstream all;
    all << std::ifstream(log_path_).rdbuf();
    return all.str();
  }
  // The first whole line with `text`; empty when the process ends, or the time is over, without one.
  std::string AwaitLog(const std::string& text, absl::Duration timeout = absl::Seconds(60)) const {
    for (const absl::Time end = absl::Now() + timeout;;) {
      const bool last = absl::Now() > end || Ended();
      const std::string log = Log();
      const size_t at = log.find(text);
      const size_t line_end = at == std::string::npos ? at : log.find('\n', at);
      if (line_end != std::string::npos) {
        const size_t before = log.rfind('\n', at);
        const size_t begin = before == std::string::npos ? 0 : before + 1;
        return log.substr(begin, line_end - begin);
      }
      if (last) return "";
      absl::SleepFor(absl::Milliseconds(2));
    }
  }

 private:
  static std::string NewLog() {
    std::string path = ::testing::TempDir() + "/process_log_XXXXXX";
    close(mkstemp(path.data()));
    return path;
  }
  static std::vector<char*> Pointers(std::vector<std::string>& strings) {
    std::vector<char*> pointers;
    pointers.reserve(strings.size() + 1);
    for (std::string& text : strings) pointers.push_back(text.data());
    pointers.push_back(nullptr);
    return pointers;
  }
  // Leaves the exit code to Wait.
  bool Ended() const {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
  }

  const std::string log_path_;
  pid_t pid_ = 0;
};

}  // namespace beamline::testing
