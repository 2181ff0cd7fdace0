// SPDX-License-Identifier: Apache-2.0
#include "base/thread_role.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace beamline {
namespace {

// The kernel's struct sched_attr in its first version: Debian 12's C library has no name for it.
struct Attributes {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;  // ns
};

constexpr uint64_t kAnsweringSlice = 200'000, kComputingSlice = 3'000'000;  // ns
constexpr int32_t kComputingNice = 7;

// Set once, before the threads it concerns are started.
std::atomic<bool> this_process_answers{false};

}  // namespace

void TakeRole(ThreadRole role) {
  if (role == ThreadRole::kAnswers) this_process_answers.store(true, std::memory_order_relaxed);
  Attributes attributes{};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0) return;
  if (attributes.policy != SCHED_OTHER && attributes.policy != SCHED_BATCH) return;
  attributes.size = sizeof(attributes);
  attributes.runtime = role == ThreadRole::kAnswers ? kAnsweringSlice : kComputingSlice;
  if (role == ThreadRole::kComputes && this_process_answers.load(std::memory_order_relaxed)) {
    attributes.nice = std::max(attributes.nice, kComputingNice);
  }
  syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace beamline
