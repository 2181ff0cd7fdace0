// SPDX-License-Identifier: Apache-2.0
//
// The last requests, for whoever asks what just happened: ids, times per stage, sizes, status, batch, model version;
// nothing of the users. Four rings of fixed memory, so that none is washed out by the others: the recent ones, the slow
// ones, those there was too little of us or of time for (UNAVAILABLE included), and the failed ones: everything else
// that was not answered. A caller's mistake is among the recent ones alone. On a fatal signal, and on SIGUSR1, they are
// written to standard error, a JSON object per line. Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "beamline/limits.h"
#include "beamline/request.h"
#include "server/request_id.h"

namespace beamline::server {

// Why a request was not answered.
enum class Blame : uint8_t { kNone, kCaller, kLoad, kServer };
Blame BlameOf(const absl::Status& status);

// Of fixed size and without pointers to anything but constants: what a signal handler may read.
struct FlightRecord {
  static constexpr int kMaxSteps = kMaxLevels + 1;

  int64_t ended_ms = 0;  // Unix time
  char time[25] = {};    // the same as the log writes it
  const char* code = "";
  char request_id[kMaxRequestIdBytes + 1] = {};
  char trace_id[33] = {};
  char span_id[17] = {};
  char reason[48] = {};
  char model_version[65] = {};
  int history_events = 0, top_k = 0, beam_width = 0, items = 0;  // beam_width: the widest level's; 0: not known
  int batch_requests = 0, batch_rows = 0, steps = 0;
  int narrowing = 0;  // step of engine.narrowing that was taken; 0: none
  bool context_cached = false, answered = false;
  Blame blame = Blame::kNone;
  bool timed = false;  // the times of stages are known, as far as the request came
  int64_t prepare_us = 0, queue_us = 0, encode_us = 0, decode_us = 0, resolve_us = 0, total_us = 0;
  std::array<int64_t, kMaxSteps> step_us{};
};

// What is known of a request before it runs.
FlightRecord BeginRecord(const RecommendRequest& request, const TraceParent& trace);
// What is known when it has ended, after `took`.
void EndRecord(const absl::StatusOr<RecommendResult>& result, absl::Duration took, absl::Time now,
               FlightRecord* record);

// One JSON object into `out` of `size` bytes; its length, or 0 where it does not fit. Async-signal-safe.
size_t WriteJson(const FlightRecord& record, char* out, size_t size);
inline constexpr size_t kMaxRecordJson = 2048;

class FlightRecorder {
 public:
  struct Options {
    int capacity = 256;  // of recent ones; the other rings hold a quarter, at least 16. 0: nothing is kept
    absl::Duration slow = absl::Milliseconds(250);
  };
  explicit FlightRecorder(const Options& options);

  void Add(const FlightRecord& record);

  // {"recent": [...], "slow": [...], "refused": [...], "failed": [...]}, newest first, `most` of each.
  std::string ToJson(size_t most = std::numeric_limits<size_t>::max()) const;

  // Writes all rings to `fd`, oldest first, each line with its ring's name, and waits for whoever reads a pipe until
  // `patience` is over, in all. Returns how many records did not go out.
  size_t WriteTo(int fd, absl::Duration patience) const;

  // The same as the process ends: async-signal-safe. Takes no lock, so that a record which is being written may come
  // out mixed, and waits for nobody; one line is never torn.
  void Dump(int fd) const;

 private:
  struct Ring {
    const char* name;
    std::vector<FlightRecord> records;
    uint64_t added = 0;

    void Add(const FlightRecord& record) { records[added++ % records.size()] = record; }
    size_t size() const { return added < records.size() ? added : records.size(); }
    const FlightRecord& newest(size_t i) const { return records[(added - 1 - i) % records.size()]; }
  };

  // What ring `r` held when this began, newest first, `most` of it; without those that were overwritten meanwhile.
  std::vector<FlightRecord> Newest(size_t r, size_t most) const;

  const Options options_;
  mutable std::mutex mu_;
  std::array<Ring, 4> rings_;  // guarded by mu_, but for Dump
};

// While it lives, a fatal signal (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT) dumps the recorder to `fd` before it has
// its usual effect. One at a time in a process. Does not catch an overflow of a thread's stack.
class CrashDump {
 public:
  CrashDump(const FlightRecorder* recorder, int fd);
  ~CrashDump();
  CrashDump(const CrashDump&) = delete;
  CrashDump& operator=(const CrashDump&) = delete;
};

}  // namespace beamline::server
