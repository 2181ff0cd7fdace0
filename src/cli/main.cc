// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include <unistd.h>

#include "cli/run.h"

namespace {

constexpr std::array<std::string_view, 5> kVerbsWithModels = {"train", "train-ranker", "evaluate", "serve", "bench"};

// Threads of libtorch's OpenMP that wait for each other spin by default, and where the machine does other work too, a
// training by two of them takes ten times as long as by one. The policy is read when the library is loaded, before
// main, so the program starts once more.
void LetWaitingThreadsSleep(char** argv) {
  constexpr char kPolicy[] = "OMP_WAIT_POLICY";
  if (std::getenv(kPolicy) != nullptr || setenv(kPolicy, "passive", 0) != 0) return;
  std::error_code error;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (!error) execv(program.c_str(), argv);  // else it goes on as it is
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view verb = argc > 1 ? argv[1] : "";
  if (std::find(kVerbsWithModels.begin(), kVerbsWithModels.end(), verb) != kVerbsWithModels.end()) {
    LetWaitingThreadsSleep(argv);
  }
  return beamline::cli::RunCommandLine(argc, argv);
}
