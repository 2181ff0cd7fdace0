// SPDX-License-Identifier: Apache-2.0
//
// What a batch costs: (rows as they are computed, context tokens) -> duration, per kind of work. Steps are fixed
// in number, so a batch's size predicts its time; sizes are bucketed, four buckets to a factor of two. Two layers: the
// baseline, measured at warm-up, and the observations of the batches that ran, of which each bucket
// keeps an exponential average (beginning, where there is a baseline, with what was expected). One disturbed batch says
// little: it counts as at most eight times what was known, so that a process that stood still for seconds does not
// refuse for as many, and what has become slower for good is known after a few. A value: SetBaseline and Observe change
// it, Estimate is a pure function of it. Not thread-safe; the scheduler guards its own.
//
// Observations are forgotten when nothing refreshed any for `max_age`, and a bucket's when nothing refreshed it for ten
// times as long (where sizes take turns, each is seldom), so that one slow batch (a cold start, a stall) can never make
// the engine refuse its like for good; the baseline then speaks alone. It may have been measured beside the traffic of
// another version, and of few sizes: whatever runs in less than it expects bounds it. Zero means unknown.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace beamline::scheduler {

enum class WorkKind : uint8_t { kEncode = 0, kDecode = 1 };

// The size of a batch or of several: sums over its jobs, and the largest of them. A decode step computes [requests,
// widest]; an encoder runs over tokens alone, but what it leaves takes the memory of [requests, longest].
struct BatchSize {
  int64_t requests = 0;
  int64_t rows = 0;            // beam rows of one decode step
  int64_t context_tokens = 0;  // encoder tokens
  int64_t widest = 0, longest = 0;

  void Add(int64_t job_rows, int64_t job_tokens) {
    ++requests;
    rows += job_rows;
    context_tokens += job_tokens;
    widest = std::max(widest, job_rows);
    longest = std::max(longest, job_tokens);
  }
  // Of one batch; the sums, where no job was added.
  int64_t computed_rows() const { return std::max(rows, requests * widest); }
  int64_t padded_tokens() const { return std::max(context_tokens, requests * longest); }
  friend bool operator==(const BatchSize&, const BatchSize&) = default;
};

// One measured batch.
struct BatchCost {
  WorkKind kind = WorkKind::kEncode;
  BatchSize size;
  absl::Duration duration;  // > 0
};

class CostTable {
 public:
  // `weight` of a new observation in its bucket's average, in (0, 1].
  explicit CostTable(absl::Duration max_age = absl::Seconds(1), double weight = 0.2)
      : max_age_(max_age), weight_(weight) {}

  // A batch ran to its end at `now` and took `duration`.
  void Observe(WorkKind kind, const BatchSize& size, absl::Duration duration, absl::Time now);
  // A batch stopped early after `duration`, because nobody waited for it any more or it failed: its cost is at least
  // that. It never lowers the estimate of its own size.
  void ObserveAtLeast(WorkKind kind, const BatchSize& size, absl::Duration duration, absl::Time now);

  // In the place of an earlier one; observations stay.
  void SetBaseline(absl::Span<const BatchCost> measured);
  // A batch of what the baseline is of took `duration`: neither it nor what it holds takes longer undisturbed.
  void BoundBaseline(WorkKind kind, const BatchSize& size, absl::Duration duration);

  // Of the size's own bucket if it was observed; else of the nearest one observed, scaled as the baseline has it. Is
  // that one much smaller, what it lacked or took too much is added, not multiplied: one stall of a small batch must
  // not make a large one look hopeless. Where nothing was observed lately, the baseline's own word. Between the sizes
  // of a baseline, and without one: proportional to the growth where the size is larger, half-way between fixed and
  // proportional (a square root) where it is smaller.
  absl::Duration Estimate(WorkKind kind, const BatchSize& size, absl::Time now) const;

  // The lesser of Estimate and the baseline: what the work takes where nothing disturbs it.
  absl::Duration Least(WorkKind kind, const BatchSize& size, absl::Time now) const;

  // True where some kind of work was not observed within `max_age`: somebody should try.
  bool Stale(absl::Time now) const;

  // Names all sizes that have the same estimate.
  static int64_t Bucket(WorkKind kind, const BatchSize& size);

 private:
  struct Cell {
    int width_bucket;   // of requests (encode) or rows (decode)
    int tokens_bucket;  // of context tokens
    absl::Duration duration;
    absl::Time refreshed = absl::InfinitePast();
  };
  struct Kind {
    std::vector<Cell> cells;     // those observed lately; a handful
    std::vector<Cell> baseline;  // likewise
    absl::Time refreshed = absl::InfinitePast();
  };
  void Forget(Kind& kind, absl::Time now) const;
  static Cell At(WorkKind kind, const BatchSize& size);
  // Buckets by which `at` is larger than `cell`.
  static int Growth(const Cell& cell, const Cell& at);
  static const Cell& Nearest(const std::vector<Cell>& cells, const Cell& at);
  static absl::Duration Scaled(const std::vector<Cell>& cells, const Cell& at);
  Cell* Find(WorkKind kind, const BatchSize& size);
  bool Stale(const Kind& kind, absl::Time now) const { return now - kind.refreshed > max_age_; }

  absl::Duration max_age_;
  double weight_;
  std::array<Kind, 2> kinds_;
};

// What a table estimates at one moment, every bucket once: for whoever asks about each of a thousand jobs. The table
// must outlive it, unchanged. Not thread-safe.
class CostsAt {
 public:
  CostsAt(const CostTable& table, absl::Time now) : table_(table), now_(now) {}

  absl::Time now() const { return now_; }
  absl::Duration Estimate(WorkKind kind, const BatchSize& size) const;

 private:
  const CostTable& table_;
  const absl::Time now_;
  mutable absl::flat_hash_map<int64_t, absl::Duration> known_;
};

}  // namespace beamline::scheduler
