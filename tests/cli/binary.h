// SPDX-License-Identifier: Apache-2.0
//
// Runs the `beamline` binary as a shell would, or in the background to be interrupted. BEAMLINE_BINARY, its path, is
// defined for the sources that include this.
#pragma once

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace beamline::cli {

struct Outcome {
  int exit_code;
  std::string text;  // standard output and error
};

Outcome Shell(const std::string& command);

// The binary with these arguments, split as a shell would. Where this process has one thread, a copy of it runs the
// same code: the binary's start, nearly all of it libtorch's, takes as long as a hundred of the answers asked for here.
Outcome Beamline(const std::string& arguments);

inline std::string Slurp(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// The binary in the background; killed when it goes out of scope. Its output goes to a file.
class Background {
 public:
  Background(const std::string& arguments, std::filesystem::path log) : log_(std::move(log)) {
    const std::string command = absl::StrCat("exec ", BEAMLINE_BINARY, " ", arguments);
    pid_ = fork();
    if (pid_ != 0) return;
    const int out = open(log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  ~Background() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Wait();
    }
  }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  std::string text() const { return Slurp(log_); }
  // Polls until `condition` holds; false when the process has ended before or a minute has passed.
  bool Await(const std::function<bool()>& condition) {
    for (const absl::Time end = absl::Now() + absl::Minutes(1); absl::Now() < end;
         absl::SleepFor(absl::Milliseconds(5))) {
      if (condition()) return true;
      siginfo_t ended{};
      if (waitid(P_PID, pid_, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == pid_) return false;
    }
    return false;
  }
  // Until the binary handles SIGINT itself: before that Ctrl-C simply ends it. What runs before the binary may have
  // this process's handlers, which say nothing.
  bool AwaitInterruptible() {
    return Await([&] {
      std::error_code error;
      const auto program = std::filesystem::read_symlink(absl::StrCat("/proc/", pid_, "/exe"), error);
      if (error || program != std::filesystem::canonical(BEAMLINE_BINARY, error)) return false;
      const std::string status = Slurp(absl::StrCat("/proc/", pid_, "/status"));
      const size_t caught = status.find("SigCgt:");
      return caught != std::string::npos &&
             (std::strtoull(status.c_str() + caught + 7, nullptr, 16) & (1ull << (SIGINT - 1))) != 0;
    });
  }
  void Signal(int number) { kill(pid_, number); }
  // The exit code, or minus the signal that killed it.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  const std::filesystem::path log_;
  pid_t pid_ = 0;
};

}  // namespace beamline::cli
