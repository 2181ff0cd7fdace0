// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into a process (LD_PRELOAD), moves the system clock as it sees it by asking by as many seconds as the file
// named by BEAMLINE_CLOCK_STEP_FILE holds now: what NTP or an operator does to a server that runs. The kernel's own
// waits until a time of that clock are not moved.
#include <cerrno>
#include <cstdlib>

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

namespace {

time_t Step() {
  const int kept = errno;  // whoever asks for the time expects it as it was
  const char* const file = getenv("BEAMLINE_CLOCK_STEP_FILE");
  const int fd = file == nullptr ? -1 : open(file, O_RDONLY | O_CLOEXEC);
  errno = kept;
  if (fd < 0) return 0;
  char text[32] = {};
  const ssize_t length = read(fd, text, sizeof(text) - 1);
  close(fd);
  errno = kept;
  return length > 0 ? strtol(text, nullptr, 10) : 0;
}

}  // namespace

// NOLINTBEGIN(readability-identifier-naming): the C library's names
extern "C" {
int clock_gettime(clockid_t clock, timespec* out) noexcept {
  const auto result = static_cast<int>(syscall(SYS_clock_gettime, clock, out));
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) out->tv_sec += Step();
  return result;
}
int gettimeofday(timeval* out, void*) noexcept {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *out = {now.tv_sec, now.tv_nsec / 1000};
  return 0;
}
time_t time(time_t* out) noexcept {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}
}
// NOLINTEND(readability-identifier-naming)
