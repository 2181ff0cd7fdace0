// SPDX-License-Identifier: Apache-2.0
#include "kernels/emulator/emulator.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include <setjmp.h>
#include <ucontext.h>

namespace emulator {

uint3 thread_index, block_index;
std::vector<Prefetched> prefetched;
bool all_admitted = true, copied_after_admitting = false;

void Die(const char* why) {
  std::fprintf(stderr, "emulated kernel: %s\n", why);
  std::abort();
}

namespace {

constexpr size_t kStackBytes = 64 * 1024;
constexpr size_t kMaxExchange = 32;

constexpr uint32_t kSharedBase = 0x410;

struct Copy {
  void* to;
  const void* from;  // null: zeros
  size_t bytes;

  void Do() const {
    if (from != nullptr) {
      std::memcpy(to, from, bytes);
    } else {
      std::memset(to, 0, bytes);
    }
  }
};

// Runs the kernels for one thread of each block, one block after the other. What Enter() has on its stack outlives them
// all, and `fibers` may be moved meanwhile.
struct Fiber {
  std::unique_ptr<char[]> stack;  // null: it has not begun
  jmp_buf place;
  bool done = false;
  bool awaited = false;  // the kernels before this one
  bool admitted = false;
  uint64_t exchanges = 0;
  unsigned char slot[2][kMaxExchange];  // of even and odd exchanges: a neighbour may be one ahead
  bool alone = false;                   // the last exchange was with nobody, of
  unsigned char own[kMaxExchange];
  std::vector<Copy> open_copies;
  std::vector<std::vector<Copy>> groups;
  bool arrived = false;      // the registers of wgmma
  bool unannounced = false;  // copies that wgmma may not see
  std::vector<std::function<void()>> open_multiplies;
  std::vector<std::vector<std::function<void()>>> multiplies;
};

jmp_buf scheduler;
std::vector<Fiber> fibers;
size_t running = 0;
size_t live = 0;
size_t block_threads = 0;
uint64_t barrier_generation = 0;
size_t barrier_arrived = 0;
bool barrier_any = false, barrier_result = false;
uint64_t progress = 0;  // changes whenever a fiber does more than wait
const std::function<void()>* kernel = nullptr;
std::vector<unsigned char> shared_memory;
std::mt19937 order(1);
std::vector<std::unique_ptr<CUstream_st>> streams;

void RequireAwaited() {
  if (!fibers[running].awaited) Die("a thread that does not begin with AwaitPredecessors()");
}

// By _setjmp: swapcontext would ask the kernel for signal masks at every switch.
void Yield() {
  if (_setjmp(fibers[running].place) == 0) _longjmp(scheduler, 1);
}

void ReleaseBarrier() {
  barrier_result = barrier_any;
  barrier_any = false;
  barrier_arrived = 0;
  ++barrier_generation;
  ++progress;
}

void RunThread() {
  (*kernel)();
  RequireAwaited();
  all_admitted &= fibers[running].admitted;
  if (!fibers[running].open_multiplies.empty() || !fibers[running].multiplies.empty()) Die("a wgmma nobody waits for");
  fibers[running].done = true;
  --live;
  ++progress;
  if (live > 0 && barrier_arrived == live) ReleaseBarrier();
}

void Enter() {
  for (;;) {
    RunThread();
    Yield();
  }
}

// Until it yields.
void Resume(Fiber& fiber) {
  if (_setjmp(scheduler) != 0) return;
  if (fiber.stack != nullptr) _longjmp(fiber.place, 1);
  fiber.stack = std::make_unique<char[]>(kStackBytes);
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack.get();
  context.uc_stack.ss_size = kStackBytes;
  makecontext(&context, Enter, 0);
  setcontext(&context);
}

void RunBlock(unsigned threads) {
  for (size_t i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.done = fiber.awaited = fiber.admitted = false;
    fiber.exchanges = 0;
    fiber.open_copies.clear();
    fiber.groups.clear();
    fiber.arrived = fiber.unannounced = false;
  }
  live = block_threads = threads;
  barrier_arrived = 0;
  std::vector<size_t> turns(threads);
  std::iota(turns.begin(), turns.end(), 0);
  std::shuffle(turns.begin(), turns.end(), order);
  // Some warp, or none, sleeps for some rounds: others get as far ahead of it as barriers let them.
  const size_t warps = (threads + 31) / 32;
  size_t asleep = warps, rounds = 0;
  while (live > 0) {
    const uint64_t before = progress;
    if (order() % 4 == 0) std::shuffle(turns.begin(), turns.end(), order);
    if (rounds-- == 0) {
      asleep = order() % (warps + 1);
      rounds = order() % 64;
    }
    for (size_t turn : turns) {
      if (fibers[turn].done || turn / 32 == asleep) continue;
      running = turn;
      thread_index.x = static_cast<unsigned>(turn);
      Resume(fibers[turn]);
    }
    if (progress != before) continue;
    if (asleep == warps) Die("threads wait for each other at different places");
    asleep = warps;
    rounds = 1;
  }
}

}  // namespace

void Run(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()>& run) {
  if (threads < 1 || threads > 1024 || shared_bytes > 227 * 1024) Die("a block no device accepts");
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    Die("a grid no device accepts");
  }
  kernel = &run;
  prefetched.clear();
  all_admitted = true;
  copied_after_admitting = false;
  if (fibers.size() < threads) fibers.resize(threads);
  std::vector<unsigned> blocks(size_t{grid.x} * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), 0u);
  std::shuffle(blocks.begin(), blocks.end(), order);
  for (unsigned block : blocks) {
    block_index.x = block % grid.x;
    block_index.y = block / grid.x % grid.y;
    block_index.z = block / grid.x / grid.y;
    shared_memory.assign(shared_bytes + 16, 0xee);
    RunBlock(threads);
  }
}

void Enqueue(CUstream_st* stream, std::function<void()> work, bool early) {
  if (stream == nullptr) return work();
  std::vector<std::function<void()>>& queue = stream->capture != nullptr ? *stream->capture : stream->queue;
  queue.insert(queue.end() - (early && !queue.empty() ? 1 : 0), std::move(work));
}

void WaitFor(CUstream_st* stream) {
  if (stream == nullptr) return;
  if (stream->capture != nullptr) Die("waiting for a stream that is being captured");
  std::vector<std::function<void()>> queue;
  queue.swap(stream->queue);
  for (const auto& work : queue) work();
}

void WaitForAll() {
  for (const auto& stream : streams) {
    if (stream->capture == nullptr) WaitFor(stream.get());
  }
}

bool InvalidatesCapture() {
  bool any = false;
  for (const auto& stream : streams) {
    if (stream->capture == nullptr) continue;
    stream->capture_broken = any = true;
  }
  return any;
}

CUstream_st* NewStream() {
  streams.push_back(std::make_unique<CUstream_st>());
  return streams.back().get();
}

void DeleteStream(CUstream_st* stream) {
  WaitFor(stream);
  std::erase_if(streams, [&](const auto& mine) { return mine.get() == stream; });
}

void AwaitPredecessors() { fibers[running].awaited = true; }

void AdmitSuccessors() {
  RequireAwaited();
  if (std::exchange(fibers[running].admitted, true)) Die("AdmitSuccessors() twice");
}

void PrefetchToCache(const void* from, size_t bytes) {
  if (fibers[running].awaited) Die("a prefetch after the wait for predecessors");
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0 || bytes % 16 != 0) Die("a prefetch of misaligned bytes");
  const auto* const first = static_cast<const char*>(from);
  for (size_t i = 0; i < bytes; ++i) static_cast<void>(*static_cast<const volatile char*>(first + i));
  prefetched.push_back({first, bytes});
}

unsigned char* DynamicSharedMemory() {
  RequireAwaited();
  return shared_memory.data() + (16 - reinterpret_cast<uintptr_t>(shared_memory.data()) % 16) % 16;
}

bool SyncBlock(bool value) {
  RequireAwaited();
  const uint64_t generation = barrier_generation;
  barrier_any |= value;
  if (++barrier_arrived == live) {
    ReleaseBarrier();
  } else {
    while (barrier_generation == generation) Yield();
  }
  return barrier_result;
}

void Exchange(unsigned mask, const void* value, size_t bytes) {
  if (bytes > kMaxExchange) Die("exchange of too many bytes");
  RequireAwaited();
  Fiber& mine = fibers[running];
  const size_t warp = running / 32 * 32;
  if ((mask >> (running % 32) & 1u) == 0) Die("a lane outside of its own mask");
  mine.alone = mask == 1u << (running % 32);
  if (mine.alone) {
    std::memcpy(mine.own, value, bytes);
    return;
  }
  std::memcpy(mine.slot[mine.exchanges % 2], value, bytes);
  const uint64_t mine_done = ++mine.exchanges;
  ++progress;
  const auto all_here = [&] {
    for (size_t lane = 0; lane < 32; ++lane) {
      if ((mask >> lane & 1u) == 0) continue;
      if (fibers[warp + lane].exchanges >= mine_done) continue;
      if (fibers[warp + lane].done) Die("a lane of the mask has returned");
      return false;
    }
    return true;
  };
  while (!all_here()) Yield();
}

const void* Lane(unsigned lane) {
  if (fibers[running].alone) return fibers[running].own;
  return fibers[running / 32 * 32 + lane].slot[(fibers[running].exchanges - 1) % 2];
}

uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(p) - DynamicSharedMemory()) + kSharedBase;
}

const unsigned char* SharedBytes(uint32_t address, size_t bytes) {
  const size_t held = shared_memory.data() + shared_memory.size() - DynamicSharedMemory();
  if (address < kSharedBase || address - kSharedBase + bytes > held) Die("an address outside of shared memory");
  return DynamicSharedMemory() + (address - kSharedBase);
}

void QueueCopy(void* to, const void* from, size_t bytes) {
  RequireAwaited();
  if (reinterpret_cast<uintptr_t>(to) % bytes != 0 || reinterpret_cast<uintptr_t>(from) % bytes != 0) {
    Die("cp.async of misaligned bytes");
  }
  if (from != nullptr) copied_after_admitting |= fibers[running].admitted;
  const Copy copy{to, from, bytes};
  if (order() % 2 == 0) copy.Do();  // and again when waited for: the source does not change meanwhile
  fibers[running].open_copies.push_back(copy);
}

void CommitCopies() {
  Fiber& mine = fibers[running];
  mine.groups.push_back(std::move(mine.open_copies));
  mine.open_copies.clear();
}

void WaitForCopies(int pending) {
  std::vector<std::vector<Copy>>& groups = fibers[running].groups;
  while (static_cast<int>(groups.size()) > pending) {
    for (const Copy& copy : groups.front()) {
      fibers[running].unannounced = true;
      copy.Do();
    }
    groups.erase(groups.begin());
  }
}

void WarpgroupArrive() { fibers[running].arrived = true; }

void AnnounceToWarpgroups() { fibers[running].unannounced = false; }

void QueueMultiply(std::function<void()> multiply) {
  RequireAwaited();
  if (!fibers[running].arrived) Die("a wgmma without a fence before it");
  for (size_t i = 0; i < block_threads; ++i) {
    if (fibers[i].unannounced) Die("a wgmma beside copies that it may not see");
  }
  fibers[running].open_multiplies.push_back(std::move(multiply));
}

void CommitMultiplies() {
  Fiber& mine = fibers[running];
  mine.multiplies.push_back(std::move(mine.open_multiplies));
  mine.open_multiplies.clear();
}

void WaitForMultiplies(int pending) {
  Fiber& mine = fibers[running];
  mine.arrived = false;  // what is waited for is read or written
  while (static_cast<int>(mine.multiplies.size()) > pending) {
    for (const auto& multiply : mine.multiplies.front()) multiply();
    mine.multiplies.erase(mine.multiplies.begin());
  }
}

}  // namespace emulator
