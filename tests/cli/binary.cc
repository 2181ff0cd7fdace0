// SPDX-License-Identifier: Apache-2.0
#include "cli/binary.h"

#include <array>
#include <cstdio>

#include <wordexp.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include "absl/strings/match.h"
#include "cli/run.h"

namespace beamline::cli {
namespace {

std::string ReadToEnd(int file) {
  std::string text;
  std::array<char, 4096> buffer;
  for (ssize_t count; (count = read(file, buffer.data(), buffer.size())) > 0;) text.append(buffer.data(), count);
  return text;
}

bool HasOneThread() { return absl::StrContains(Slurp("/proc/self/status"), "\nThreads:\t1\n"); }

// Of a copy of this process, which leaves what is done at the end, such as removing the test's folder, to the original.
[[noreturn]] void End(int exit_code) {
  std::fflush(nullptr);
#ifdef __SANITIZE_ADDRESS__
  __lsan_do_leak_check();
#endif
  _exit(exit_code);
}

}  // namespace

Outcome Shell(const std::string& command) {
  std::FILE* pipe = popen(absl::StrCat(command, " 2>&1").c_str(), "r");
  Outcome outcome{-1, ReadToEnd(fileno(pipe))};
  const int status = pclose(pipe);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

Outcome Beamline(const std::string& arguments) {
  const std::string command = absl::StrCat(BEAMLINE_BINARY, " ", arguments);
  wordexp_t words{};
  // Only a shell knows pipes and redirections, and only exec gives a process with threads a copy of its own.
  if (!HasOneThread() || wordexp(command.c_str(), &words, WRDE_NOCMD) != 0) return Shell(command);
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return {-1, "pipe failed"};
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    End(RunCommandLine(static_cast<int>(words.we_wordc), words.we_wordv));
  }
  close(ends[1]);
  Outcome outcome{-1, ReadToEnd(ends[0])};
  close(ends[0]);
  wordfree(&words);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

}  // namespace beamline::cli
