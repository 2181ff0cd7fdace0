// SPDX-License-Identifier: Apache-2.0
//
// Runs CUDA kernels on the host, thread for thread, so that every kernel and its tests run where there is no GPU. Each
// thread of a block is a fiber; barriers and shuffles are where fibers wait for each other, which one runs next is
// random, and now and then a warp stays behind, so that a missing barrier changes results. Blocks run one after the
// other in random order. Copies by cp.async arrive at the last legal moment, or at the first one as well, and wgmma
// reads shared memory and writes registers at its last. Work of a stream is queued and runs when somebody waits for it,
// so that reading too early shows. What this cannot show: races between blocks, memory ordering, and speed.
//
// Not thread-safe: one kernel at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

// NOLINTBEGIN(readability-identifier-naming): CUDA's names
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}  // NOLINT: as CUDA's
};

struct CUstream_st {
  std::vector<std::function<void()>> queue;
  std::vector<std::function<void()>>* capture = nullptr;  // a graph that is being recorded
  bool capture_broken = false;
  size_t captured_copies = 0, captured_memsets = 0;  // of what was recorded
};
// NOLINTEND(readability-identifier-naming)

namespace emulator {

// Aborts with a message.
[[noreturn]] void Die(const char* why);

// Where the running fiber stands.
extern uint3 thread_index, block_index;

// Runs `kernel` for every thread of every block. REQUIRES: a shape that a device accepts; aborts with a message if not,
// and where fibers wait for each other forever.
void Run(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()>& kernel);

// Does `work` when its turn comes: now on the null stream, never while the stream is captured, else when waited for.
// `early`: before what was enqueued last.
void Enqueue(CUstream_st* stream, std::function<void()> work, bool early = false);
void WaitFor(CUstream_st* stream);
// Whether a stream is captured: a call that allocates or waits then breaks the capture.
bool InvalidatesCapture();
void WaitForAll();
CUstream_st* NewStream();
void DeleteStream(CUstream_st* stream);

// Every thread of a kernel calls it before all else that is seen here, or the kernel dies.
void AwaitPredecessors();
// Dies where a thread has not waited itself: what is older would then be complete for nobody behind it. Or where it is
// said twice.
void AdmitSuccessors();
// Of the last kernel: whether every thread did, before its end, and whether one copied (cp.async) after it had.
extern bool all_admitted, copied_after_admitting;
// Only that may come before; dies where it is misaligned, or comes later, when it is of no use. Reads the bytes, for
// AddressSanitizer to see.
void PrefetchToCache(const void* from, size_t bytes);
struct Prefetched {
  const char* from;
  size_t bytes;
};
extern std::vector<Prefetched> prefetched;  // by the last kernel

unsigned char* DynamicSharedMemory();
// An address in shared memory as instructions take it, aligned no better than the language promises, and back: dies
// where a block's shared memory does not hold `bytes` there.
uint32_t SharedAddress(const void* p);
const unsigned char* SharedBytes(uint32_t address, size_t bytes);

// All threads of the block that have not returned; returns whether any passed true.
bool SyncBlock(bool value);

// Exchanges up to 32 bytes among the lanes of `mask`: afterwards Lane(l) is what lane l passed, until the next
// exchange.
void Exchange(unsigned mask, const void* value, size_t bytes);
const void* Lane(unsigned lane);

// cp.async: queued, committed as a group, and done when waited for.
void QueueCopy(void* to, const void* from, size_t bytes = 16);
void CommitCopies();
void WaitForCopies(int pending);

// wgmma, likewise. Dies where registers are given to it that no WarpgroupArrive() came before, or where a thread of the
// block has copied to shared memory and not announced it.
inline bool broken_wgmma = false;  // reads its right operand in another order; a test sets it
inline int nan_wgmmas = 0;         // so many of the next, each in one thread, give NaNs; a test sets it
void WarpgroupArrive();
void AnnounceToWarpgroups();
void QueueMultiply(std::function<void()> multiply);
void CommitMultiplies();
void WaitForMultiplies(int pending);

template <class T>
T Shuffle(unsigned mask, T value, unsigned from) {
  Exchange(mask, &value, sizeof(value));
  if (from < 32 && (mask >> from & 1u) != 0) __builtin_memcpy(&value, Lane(from), sizeof(value));
  return value;
}

}  // namespace emulator
