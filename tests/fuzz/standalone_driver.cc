// SPDX-License-Identifier: Apache-2.0
//
// A main for fuzz targets where there is no libFuzzer (gcc, and the tests of every build): runs the inputs it is given,
// then deterministic mutations of them, and takes the flags of libFuzzer that tests/fuzz/run.sh uses:
//
//   TARGET [-runs=N] [-max_total_time=SECONDS] [-seed=N] [-max_len=BYTES] [-timeout=SECONDS] [-artifact_prefix=P]
//   PATH...
//
// PATHs are inputs or folders of them. An input that crashes, aborts or takes longer than the timeout is kept under
// P + "crash-..." or "timeout-...". It sees no coverage: libFuzzer digs deeper, this one runs everywhere.
#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/mutate.h"

extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*)());  // NOLINT: the sanitizers' name

namespace beamline::fuzz {
namespace {

// For the handlers, which may touch little: the input that runs, and what its file would be called.
const uint8_t* running_data = nullptr;
size_t running_size = 0;
char artifact[4096] = "";
size_t prefix_length = 0;
std::atomic_flag kept = ATOMIC_FLAG_INIT;

void KeepInput(const char* kind) {
  if (running_data == nullptr || kept.test_and_set()) return;
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (size_t i = 0; i < running_size; ++i) hash = (hash ^ running_data[i]) * 1099511628211u;
  char* out = artifact + prefix_length;
  for (const char* c = kind; *c != 0; ++c) *out++ = *c;
  for (int shift = 60; shift >= 0; shift -= 4) *out++ = "0123456789abcdef"[hash >> shift & 15];
  *out = 0;
  const int file = open(artifact, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const bool whole = file >= 0 && write(file, running_data, running_size) == static_cast<ssize_t>(running_size);
  const char* const say = whole ? "fuzz: the input is kept in " : "fuzz: the input could not be kept in ";
  for (const char* text : {say, static_cast<const char*>(artifact), "\n"}) {
    if (write(STDERR_FILENO, text, std::strlen(text)) < 0) break;
  }
}

void OnSignal(int number) {
  KeepInput(number == SIGALRM ? "timeout-" : "crash-");
  std::signal(number, SIG_DFL);
  std::raise(number);
}

struct Options {
  int64_t runs = -1;  // < 0: no limit
  int64_t seconds = 0;
  int64_t seed = 1;
  int64_t max_bytes = 4096;
  int64_t timeout = 20;
  std::string prefix;
  std::vector<std::filesystem::path> paths;
};

Options ParseFlags(int argc, char** argv) {
  Options options;
  const std::pair<const char*, int64_t*> numbers[] = {{"-runs=", &options.runs},
                                                      {"-max_total_time=", &options.seconds},
                                                      {"-seed=", &options.seed},
                                                      {"-max_len=", &options.max_bytes},
                                                      {"-timeout=", &options.timeout}};
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    bool known = !absl::StartsWith(word, "-");
    if (known) options.paths.emplace_back(word);
    if (absl::StartsWith(word, "-artifact_prefix=")) options.prefix = word.substr(17), known = true;
    for (const auto& [name, value] : numbers) {
      if (absl::StartsWith(word, name)) known = absl::SimpleAtoi(word.substr(std::strlen(name)), value);
    }
    if (known) continue;
    std::fprintf(stderr, "fuzz: %s: no flag of this driver, or no number\n", word.c_str());
    std::exit(2);
  }
  return options;
}

std::vector<std::string> ReadInputs(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::filesystem::path> files;
  for (const auto& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> inputs;
  for (const auto& file : files) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
      std::fprintf(stderr, "fuzz: %s: cannot be read\n", file.c_str());
      std::exit(2);
    }
    inputs.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  }
  return inputs;
}

void RunOne(const std::string& input, int64_t timeout) {
  // A copy of exactly its size: AddressSanitizer sees a byte read behind it.
  const auto copy = std::make_unique<uint8_t[]>(input.size());
  std::copy(input.begin(), input.end(), copy.get());
  running_size = input.size();
  running_data = copy.get();
  alarm(static_cast<unsigned>(timeout));
  LLVMFuzzerTestOneInput(copy.get(), input.size());
  alarm(0);
  running_data = nullptr;
}

int Main(int argc, char** argv) {
  if (LLVMFuzzerInitialize != nullptr) LLVMFuzzerInitialize(&argc, &argv);
  const Options options = ParseFlags(argc, argv);
  prefix_length = std::min(options.prefix.size(), sizeof(artifact) - 64);
  options.prefix.copy(artifact, prefix_length);
  for (int number : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGALRM}) std::signal(number, OnSignal);
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback([] { KeepInput("crash-"); });
  }
  const std::vector<std::string> inputs = ReadInputs(options.paths);
  size_t longest = 0;
  for (const std::string& input : inputs) {
    longest = std::max(longest, input.size());
    RunOne(input, options.timeout);
  }
  if (inputs.empty()) {
    std::fprintf(stderr, "fuzz: no input was given\n");
    return 2;
  }
  const size_t max_bytes = std::max(longest, static_cast<size_t>(options.max_bytes));
  const int64_t runs = options.runs >= 0      ? options.runs
                       : options.seconds == 0 ? 0
                                              : std::numeric_limits<int64_t>::max();
  const absl::Time start = absl::Now();
  const absl::Time end = options.seconds > 0 ? start + absl::Seconds(options.seconds) : absl::InfiniteFuture();
  absl::Time next_line = start + absl::Seconds(10);
  std::mt19937_64 random(static_cast<uint64_t>(options.seed));
  int64_t done = 0;
  for (; done < runs; ++done) {
    if (done % 64 == 0) {
      const absl::Time now = absl::Now();
      if (now >= end) break;
      if (now >= next_line) {
        std::fprintf(stderr, "#%lld pulse: %lld s, %.0f inputs/s\n", static_cast<long long>(done),
                     static_cast<long long>(absl::ToInt64Seconds(now - start)),
                     static_cast<double>(done) / absl::ToDoubleSeconds(now - start));
        next_line = now + absl::Seconds(10);
      }
    }
    RunOne(Mutate(inputs[random() % inputs.size()], inputs, max_bytes, random), options.timeout);
  }
  std::fprintf(stderr, "Done %lld runs after %zu inputs in %.1f s\n", static_cast<long long>(done), inputs.size(),
               absl::ToDoubleSeconds(absl::Now() - start));
  return 0;
}

}  // namespace
}  // namespace beamline::fuzz

int main(int argc, char** argv) { return beamline::fuzz::Main(argc, argv); }
