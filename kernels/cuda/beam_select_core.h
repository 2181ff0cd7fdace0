// SPDX-License-Identifier: Apache-2.0
//
// The kernels of BeamSelectCuda as functions over a `Block`: what one thread block does for one row. CudaBlock
// (block.cuh) runs them on the device; the tests run them on the host, block by block in any order, and compare every
// beam with BeamSelectCpu. A Block offers
//   ForEach(n, f)         f(0) ... f(n - 1), spread over the threads; a barrier after
//   LoadEach(n, load, f)  f(i, load(i)) for the same; a thread's loads, which change nothing, come several at a time
//   Once(f)               f() in one thread; a barrier after
//   Scan(n, at)           the largest at(i), and whether one is NaN or +inf; the same in every thread
//   SumExp(n, at, max)    sum of exp(at(i) - max) in the order of RowOps::sum_exp; the same in every thread
//   Sum(n, at)            sum of at(i) in double, in an order of n alone; the same in every thread
//   IsLast(counter, n)    whether this is the last of n blocks to come here; then all they wrote is visible
//   Load(p)               *p as other blocks wrote it
//   Add, Max              atomics on integers: exact, so their order leaves no trace; Add returns the value before
//   Append(counter)       Add(counter, 1), for counters to which many threads come at once
//   ForEachOfWarp(n, f)   ForEach where f(i) touches only what f(j) of the same warp, j / 32 = i / 32, touches; between
//                         calls of it only a warp's threads wait for each other: a barrier must end the series
//   Barrier()             that barrier
//   shared()              the block's Shared
//   kCandidatesPerSlot, kSpareCandidates   the size of a request's candidate buffer
// Between two calls all threads of a block stand at the same place; f touches what other threads touch by atomics only.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "beamline/kernels/beam_select_cuda.h"
#include "beamline/kernels/candidate_order.h"
#include "beamline/kernels/constraint.h"
#include "beamline/kernels/exp_non_positive.h"

#if defined(__CUDACC__)
#define BEAMLINE_BLOCK_FN __device__ inline
#else
#define BEAMLINE_BLOCK_FN inline
#endif

namespace beamline::kernels::select {

inline constexpr int kBins = 2048;
inline constexpr int kGapDigits = 2;  // 11 + 11 bits, Gap below
inline constexpr int kKeyDigits = 6;  // of an order key: score 11 + 11 + 10 bits, node 11 + 11 + 10
inline constexpr int kGroups = 32;    // of bins, walked by one thread
inline constexpr int kGroupBins = kBins / kGroups;
inline constexpr int kSortShared = 2560;  // candidates sorted in shared memory; more are sorted where they are

struct Candidate {
  uint64_t key;  // OrderKey
  float log_prob;
  int32_t parent;
};

struct Scale {
  float max;
  float log_sum;
};

// A request's selection between kernels. All zero means ready for the next step.
struct State {
  // The decided leading bits of the last candidate taken, shifted down: first its gap's, then its key's.
  uint64_t key;
  uint32_t gap;
  uint16_t digits;       // of both, decided
  uint16_t collectable;  // 1: those up to the decided bits fit the buffer
  uint32_t below;        // candidates whose leading bits are smaller: all taken
  uint32_t collected;
  uint32_t blocks_done;
  uint32_t first_error;  // ~(row * 4 + SelectError) of the first row that failed, 0: none
};
static_assert(sizeof(State) % 16 == 0, "candidates behind it are read 16 bytes at a time");

// Of one block.
struct Shared {
  uint32_t histogram[kBins];
  uint32_t group[kGroups];
};

struct Workspace {
  uint32_t* histogram;    // [requests][kBins]
  State* state;           // [requests]
  Scale* scale;           // [rows], at level 0 [requests]
  Candidate* candidates;  // request b: capacity(slots) entries from capacity(row_begin[b]) on
};

// How a workspace is cut. The candidate buffers' sizes are the Block's choice.
template <class Block>
struct Layout {
  int32_t requests, rows;

  // What must be zero before the first selection comes first.
  BEAMLINE_HD size_t state_bytes() const {
    return static_cast<size_t>(requests) * (kBins * sizeof(uint32_t) + sizeof(State));
  }
  BEAMLINE_HD size_t scale_bytes() const { return (static_cast<size_t>(rows) + (rows & 1)) * sizeof(Scale); }
  BEAMLINE_HD static int64_t Capacity(int32_t slots, int32_t requests) {
    return int64_t{Block::kCandidatesPerSlot} * slots + int64_t{Block::kSpareCandidates} * requests;
  }
  BEAMLINE_HD size_t bytes() const {
    return state_bytes() + scale_bytes() + static_cast<size_t>(Capacity(rows, requests)) * sizeof(Candidate);
  }
  BEAMLINE_HD Workspace At(void* memory) const {
    char* bytes = static_cast<char*>(memory);
    uint32_t* histogram = reinterpret_cast<uint32_t*>(bytes);
    return {histogram, reinterpret_cast<State*>(histogram + int64_t{requests} * kBins),
            reinterpret_cast<Scale*>(bytes + state_bytes()),
            reinterpret_cast<Candidate*>(bytes + state_bytes() + scale_bytes())};
  }
};

// How far a score lies below the best parent's, in 22 bits: the distance's own floating-point bits, from 1/16 to 4,096
// nats. It never falls as order keys rise, so that a selection by gap first and key then is one by key. Eleven bits of
// it tell scores around ten nats apart by a sixteenth, where a key's leading eleven have four values up to sixteen: one
// look at all candidates is nearly always enough, and counters meet few candidates each.
BEAMLINE_HD inline uint32_t Gap(float best, float score) {
  constexpr uint32_t kNearest = 0x3d800000u, kBits = 27;  // of 1/16; of 16 binades
  const float distance = best - score;
  if (!(distance > 0.0625f)) return 0;
  const uint32_t above = FloatBits(distance) - kNearest;
  return (above < (1u << kBits) ? above : (1u << kBits) - 1) >> (kBits - 22);
}

// Low bits of a key that are undecided after `digits` of its digits.
BEAMLINE_HD inline uint32_t UndecidedBits(uint32_t digits) {
  constexpr uint8_t kBits[kKeyDigits + 1] = {64, 53, 42, 32, 21, 10, 0};
  return kBits[digits];
}

// Where a candidate stands, by as many leading digits of gap and key as are asked for.
struct Standing {
  uint32_t gap;
  uint64_t key;

  BEAMLINE_HD Standing Leading(uint32_t digits) const {
    if (digits < kGapDigits) return {digits == 0 ? 0 : gap >> 11, 0};
    return {gap, digits == kGapDigits ? 0 : key >> UndecidedBits(digits - kGapDigits)};
  }
  BEAMLINE_HD uint32_t Digit(uint32_t digit) const {
    if (digit < kGapDigits) return digit == 0 ? gap >> 11 : gap & 2047;
    const uint32_t low = UndecidedBits(digit - kGapDigits + 1);
    return static_cast<uint32_t>(key >> low) & ((1u << (UndecidedBits(digit - kGapDigits) - low)) - 1);
  }
};

BEAMLINE_HD inline bool operator==(const Standing& a, const Standing& b) { return a.gap == b.gap && a.key == b.key; }
BEAMLINE_HD inline bool operator<=(const Standing& a, const Standing& b) {
  return a.gap != b.gap ? a.gap < b.gap : a.key <= b.key;
}

BEAMLINE_HD inline Standing Decided(const State& state) { return {state.gap, state.key}; }

// The request whose slots hold `row`; `requests` for a row beyond all of them.
BEAMLINE_HD inline int32_t RequestOfRow(const int32_t* row_begin, int32_t requests, int32_t row) {
  int32_t first = 0;
  for (int32_t count = requests; count > 0;) {
    const int32_t half = count / 2;
    if (row_begin[first + half + 1] <= row) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return first;
}

// Where a block works.
struct Place {
  int32_t request = 0;
  int32_t row = 0;    // of the request
  int32_t rows = 0;   // active ones
  int32_t begin = 0;  // the request's first slot
  int32_t slots = 0;
  bool exists = false;
  BEAMLINE_HD bool active() const { return exists && row < rows; }
};

BEAMLINE_HD inline Place PlaceOf(const BeamSelectBatch& batch, int32_t grid_row) {
  Place at;
  at.request = batch.level == 0 ? grid_row : RequestOfRow(batch.row_begin, batch.requests, grid_row);
  if (at.request >= batch.requests) return at;
  at.exists = true;
  at.begin = batch.row_begin[at.request];
  at.slots = batch.row_begin[at.request + 1] - at.begin;
  at.row = batch.level == 0 ? 0 : grid_row - at.begin;
  at.rows = batch.level == 0 ? 1 : batch.in.count[at.request];
  return at;
}

// A parent's child. One that may not be selected has score -inf. Small, since a thread holds several.
struct Child {
  uint32_t node;
  float score;
  float log_prob;

  BEAMLINE_HD bool eligible() const { return score >= -FLT_MAX; }
};

// One parent's children and how they score.
struct Parent {
  const float* logits = nullptr;  // from the column of code 0 on
  const uint16_t* codes = nullptr;
  const EligibilityLevelView* eligibility = nullptr;
  DeadSlice dead;
  NodeRange children;
  Scale scale = {};
  float score = 0;
  float best = 0;  // of the request's parents

  BEAMLINE_HD int32_t count() const { return static_cast<int32_t>(children.end - children.begin); }

  BEAMLINE_HD Standing StandingOf(float sum, uint32_t node) const { return {Gap(best, sum), OrderKey(sum, node)}; }
  BEAMLINE_HD Standing StandingOf(const Child& child) const { return StandingOf(child.score, child.node); }

  BEAMLINE_HD Child At(int32_t i) const {
    const uint32_t node = children.begin + i;
    const float log_prob = (logits[codes[node]] - scale.max) - scale.log_sum;
    return {node, IsAlive(*eligibility, dead, node) ? score + log_prob : -INFINITY, log_prob};
  }
};

BEAMLINE_HD inline int64_t LogitsRow(const BeamSelectBatch& batch, const Place& at) {
  if (batch.level == 0) return at.request;
  return batch.logits_each == 0 ? at.begin + at.row : int64_t{at.request} * batch.logits_each + at.row;
}

// The parent of `at` but for its scale. REQUIRES: a valid parent node.
BEAMLINE_HD inline Parent ParentOf(const BeamSelectBatch& batch, const Place& at) {
  const ConstraintView& constraint = batch.constraint[at.request];
  Parent parent;
  parent.logits = batch.logits + LogitsRow(batch, at) * batch.ld + batch.first_code;
  parent.codes = constraint.trie.level[batch.level].codes;
  parent.eligibility = &constraint.eligibility[batch.level];
  parent.children = Children(constraint.trie, batch.level, batch.level == 0 ? 0 : batch.in.node[at.begin + at.row]);
  if (parent.children.end < parent.children.begin) parent.children.end = parent.children.begin;
  parent.score = batch.level == 0 ? 0.0f : batch.in.score[at.begin + at.row];
  parent.best = batch.level == 0 ? 0.0f : batch.in.score[at.begin];
  parent.dead = DeadAmong(*parent.eligibility, parent.children);
  return parent;
}

// No child of the row scores more: the largest logit is max, and rounding is monotone.
BEAMLINE_HD inline bool MayReach(const Parent& parent, const State& state) {
  const float best = parent.score + (0.0f - parent.scale.log_sum);
  if (!(best >= -FLT_MAX)) return false;
  return parent.StandingOf(best, 0).Leading(state.digits) <= Decided(state);
}

// The checks and the log-sum-exp of BeamSelectCpu for one row, in the same order.
template <class Block>
BEAMLINE_BLOCK_FN SelectError Normalise(Block& block, const BeamSelectBatch& batch, const Place& at, Parent* parent) {
  const ConstraintView& constraint = batch.constraint[at.request];
  const int32_t level = batch.level;
  const int32_t width = batch.width[at.request];
  const int32_t levels = constraint.trie.levels;
  if (levels < 1 || levels > kMaxTrieLevels || level >= levels || width < 0 || width > at.slots ||
      width > kMaxBeamWidth) {
    return SelectError::kInvalidArgument;
  }
  if (width == 0) return SelectError::kOk;
  const uint32_t node = level == 0 ? 0 : batch.in.node[at.begin + at.row];
  if (level > 0 && node >= constraint.trie.level[level - 1].num_nodes) return SelectError::kInvalidArgument;
  Parent found = ParentOf(batch, at);
  const float* logits = found.logits;
  const int32_t first_code = batch.first_code, codes_end = batch.vocab - first_code;
  const auto whole = [logits, first_code](int32_t i) { return logits[i - first_code]; };
  const int32_t part_count = RowParts(batch.vocab);
  const RowPart* parts = batch.parts == nullptr ? nullptr : batch.parts + LogitsRow(batch, at) * part_count;
  const auto largest = [parts](int32_t i) { return parts[i].sum >= 0 ? parts[i].max : NAN; };
  auto scan = parts == nullptr ? block.Scan(batch.vocab, whole) : block.Scan(part_count, largest);
  if (scan.bad) return SelectError::kNonFiniteLogits;
  double sum = 0;
  if (batch.rule[at.request] == ScoreRule::kLegal) {
    const NodeRange summed = SnapshotChildren(constraint, level, node);
    const uint16_t* codes = constraint.snapshot_trie.level[level].codes;
    if (summed.begin >= summed.end || summed.end - summed.begin > static_cast<uint32_t>(codes_end) ||
        codes[summed.end - 1] >= codes_end) {
      return SelectError::kInvalidArgument;
    }
    const auto legal = [logits, codes, summed](int32_t i) { return logits[codes[summed.begin + i]]; };
    const int32_t count = static_cast<int32_t>(summed.end - summed.begin);
    scan = block.Scan(count, legal);
    if (scan.max == -INFINITY) return SelectError::kNonFiniteLogits;
    sum = block.SumExp(count, legal, scan.max);
  } else {
    if (scan.max == -INFINITY) return SelectError::kNonFiniteLogits;
    const float max = scan.max;
    const auto share = [parts, max](int32_t i) { return double{parts[i].sum} * ExpNonPositive(parts[i].max - max); };
    sum = parts == nullptr ? block.SumExp(batch.vocab, whole, max) : block.Sum(part_count, share);
  }
  if (found.count() > 0 && found.codes[found.children.end - 1] >= codes_end) return SelectError::kInvalidArgument;
  found.scale = {scan.max, static_cast<float>(log(sum))};
  *parent = found;
  return SelectError::kOk;
}

// How many leading counts stay below `width` together with `below`, to which they are added. Without an early exit, so
// that no load waits for the sum before it.
BEAMLINE_HD inline int32_t Passed(const uint32_t* counts, int32_t n, uint32_t width, uint32_t* below) {
  uint32_t sum = *below;
  int32_t passed = 0;
#if defined(__CUDACC__)
#pragma unroll 16
#endif
  for (int32_t i = 0; i < n; ++i) {
    sum += counts[i];
    if (sum < width) {
      passed = i + 1;
      *below = sum;
    }
  }
  return passed;
}

// A request's part of the workspace.
struct Mine {
  uint32_t* histogram;
  State* state;
  Scale* scale;  // of row 0
  Candidate* candidates;
  uint32_t capacity;
};

// From a complete histogram of the next digit: which of its values the last candidate taken has, and whether few enough
// candidates are left to collect them all. Zeroes the histogram.
template <class Block>
BEAMLINE_BLOCK_FN void Decide(Block& block, const Mine& mine, uint32_t width) {
  State* const state = mine.state;
  Shared& shared = block.shared();
  block.ForEach(kBins, [&](int32_t bin) {
    shared.histogram[bin] = block.Load(&mine.histogram[bin]);
    mine.histogram[bin] = 0;
  });
  block.ForEach(kGroups, [&](int32_t group) {
    uint32_t sum = 0;
    for (int32_t i = 0; i < kGroupBins; ++i) {  // each group begins in a bank of its own
      sum += shared.histogram[group * kGroupBins + (group + i) % kGroupBins];
    }
    shared.group[group] = sum;
  });
  block.Once([&] {
    uint32_t below = state->below;
    const int32_t group = Passed(shared.group, kGroups, width, &below);
    if (group == kGroups) {  // fewer candidates than beams: only the first digit can find that
      state->collectable = 1;
      return;
    }
    const int32_t first = group * kGroupBins;
    const int32_t bin = first + Passed(shared.histogram + first, kGroupBins, width, &below);
    const uint32_t digit = state->digits;
    if (digit < kGapDigits) {
      state->gap = state->gap << 11 | static_cast<uint32_t>(bin);
    } else {
      const uint32_t bits = UndecidedBits(digit - kGapDigits) - UndecidedBits(digit - kGapDigits + 1);
      state->key = state->key << bits | static_cast<uint32_t>(bin);
    }
    state->digits = static_cast<uint16_t>(digit + 1);
    state->below = below;
    // Keys differ, so with every digit decided one candidate has the decided bits, and below + 1 = width.
    if (below + shared.histogram[bin] <= mine.capacity) state->collectable = 1;
  });
}

template <class Block>
BEAMLINE_HD inline Mine Part(const BeamSelectBatch& batch, const Place& at) {
  using Cut = Layout<Block>;
  const Workspace work = Cut{batch.requests, batch.rows}.At(batch.workspace);
  return {work.histogram + int64_t{at.request} * kBins, work.state + at.request,
          work.scale + (batch.level == 0 ? at.request : at.begin),
          work.candidates + Cut::Capacity(at.begin, at.request), static_cast<uint32_t>(Cut::Capacity(at.slots, 1))};
}

// Adds a row's candidates that share the decided digits to the block's histogram of the next one.
template <class Block>
BEAMLINE_BLOCK_FN void CountDigits(Block& block, const Parent& parent, State state) {
  Shared& shared = block.shared();
  block.LoadEach(
      parent.count(), [&](int32_t i) { return parent.At(i); },
      [&](int32_t, const Child& child) {
        const Standing standing = parent.StandingOf(child);
        if (!child.eligible() || !(standing.Leading(state.digits) == Decided(state))) return;
        block.Add(&shared.histogram[standing.Digit(state.digits)], 1u);
      });
}

template <class Block>
BEAMLINE_BLOCK_FN void ClearHistogram(Block& block) {
  block.ForEach(kBins, [&](int32_t bin) { block.shared().histogram[bin] = 0; });
}

template <class Block>
BEAMLINE_BLOCK_FN void AddHistogram(Block& block, uint32_t* histogram) {
  block.ForEach(kBins, [&](int32_t bin) {
    const uint32_t count = block.shared().histogram[bin];
    if (count != 0) block.Add(&histogram[bin], count);
  });
}

// Kernel 1, one block per row: scale, errors, and the first digit.
template <class Block>
BEAMLINE_BLOCK_FN void NormaliseRow(Block& block, const BeamSelectBatch& batch, int32_t grid_row) {
  const Place at = PlaceOf(batch, grid_row);
  if (!at.active()) return;
  const Mine mine = Part<Block>(batch, at);
  Parent parent;
  const SelectError error = Normalise(block, batch, at, &parent);
  if (error != SelectError::kOk) {
    const uint32_t code = static_cast<uint32_t>(at.row) * 4 + static_cast<uint32_t>(error);
    block.Once([&] { block.Max(&mine.state->first_error, ~code); });
  } else if (parent.count() > 0) {
    block.Once([&] { mine.scale[at.row] = parent.scale; });
    ClearHistogram(block);
    CountDigits(block, parent, State{});
    AddHistogram(block, mine.histogram);
  }
  if (!block.IsLast(&mine.state->blocks_done, at.rows)) return;
  Decide(block, mine, batch.width[at.request]);
}

// A row's parent, as kernel 1 left it.
BEAMLINE_HD inline Parent Resume(const BeamSelectBatch& batch, const Place& at, const Mine& mine) {
  Parent parent = ParentOf(batch, at);
  if (parent.count() > 0) parent.scale = mine.scale[at.row];
  return parent;
}

// Kernel 2, one block per row: the second digit, and in the last block, where scores are so equal that it must be, all
// others.
template <class Block>
BEAMLINE_BLOCK_FN void RefineRow(Block& block, const BeamSelectBatch& batch, int32_t grid_row) {
  const Place at = PlaceOf(batch, grid_row);
  if (!at.active()) return;
  const Mine mine = Part<Block>(batch, at);
  State state = *mine.state;
  if (state.collectable != 0 || state.first_error != 0) return;
  const Parent parent = Resume(batch, at, mine);
  ClearHistogram(block);
  if (MayReach(parent, state)) CountDigits(block, parent, state);
  AddHistogram(block, mine.histogram);
  if (!block.IsLast(&mine.state->blocks_done, at.rows)) return;
  for (;;) {
    Decide(block, mine, batch.width[at.request]);
    state = *mine.state;
    if (state.collectable != 0) return;
    ClearHistogram(block);
    Place other = at;
    for (other.row = 0; other.row < at.rows; ++other.row) {
      const Parent another = Resume(batch, other, mine);
      if (MayReach(another, state)) CountDigits(block, another, state);
    }
    AddHistogram(block, mine.histogram);
  }
}

// Sorts by key: a bitonic network that always moves the smaller key down, so that any count works.
template <class Block>
BEAMLINE_BLOCK_FN void SortCandidates(Block& block, Candidate* candidates, int32_t count) {
  const auto order = [candidates, count](int32_t low, int32_t high) {
    if (high >= count || candidates[low].key <= candidates[high].key) return;
    const Candidate swapped = candidates[low];
    candidates[low] = candidates[high];
    candidates[high] = swapped;
  };
  int32_t log_padded = 0;
  while ((1 << log_padded) < count) ++log_padded;
  const int32_t pairs = (1 << log_padded) / 2;
  // A warp's 32 pairs of neighbours up to 32 apart are 64 candidates that no other warp touches.
  constexpr int32_t kLogOfWarp = 5;
  for (int32_t log_run = 1; log_run <= log_padded; ++log_run) {
    const int32_t half = log_run - 1;
    const auto mirror = [&](int32_t i) {  // the second half of each run
      const int32_t begin = i >> half << log_run, offset = i & ((1 << half) - 1);
      order(begin + offset, begin + (1 << log_run) - 1 - offset);
    };
    if (half <= kLogOfWarp) {
      block.ForEachOfWarp(pairs, mirror);
    } else {
      block.Barrier();
      block.ForEach(pairs, mirror);
    }
    for (int32_t log_step = half - 1; log_step >= 0; --log_step) {
      const auto neighbour = [&](int32_t i) {
        const int32_t low = (i >> log_step << (log_step + 1)) + (i & ((1 << log_step) - 1));
        order(low, low + (1 << log_step));
      };
      if (log_step <= kLogOfWarp) {
        block.ForEachOfWarp(pairs, neighbour);
      } else {
        block.ForEach(pairs, neighbour);
      }
    }
  }
  block.Barrier();
}

struct Best {
  const Candidate* sorted;
  int32_t count;
};

// The best candidates become beams, the other slots are padded.
template <class Block>
BEAMLINE_BLOCK_FN void WriteBeams(Block& block, const BeamSelectBatch& batch, const Place& at, const Best& beams) {
  const uint16_t* codes = batch.constraint[at.request].trie.level[batch.level].codes;
  const DeviceBeams& out = batch.out;
  block.ForEach(at.slots, [&](int32_t i) {
    const int32_t slot = at.begin + i;
    int32_t parent = 0;
    if (i < beams.count) {
      const Candidate& best = beams.sorted[i];
      const uint32_t node = static_cast<uint32_t>(best.key);
      parent = best.parent;
      out.node[slot] = node;
      out.code[slot] = codes[node];
      out.log_prob[slot] = best.log_prob;
      out.score[slot] = (batch.level == 0 ? 0.0f : batch.in.score[at.begin + parent]) + best.log_prob;
    } else {
      out.node[slot] = 0;
      out.code[slot] = 0;
      out.log_prob[slot] = 0.0f;
      out.score[slot] = -INFINITY;
    }
    out.parent[slot] = parent;
    if (batch.lineage_out == nullptr) return;
    const int64_t rows = batch.rows;
    for (int32_t step = 0; step < batch.level; ++step) {
      batch.lineage_out[step * rows + slot] = batch.lineage_in[step * rows + at.begin + parent];
    }
    batch.lineage_out[batch.level * rows + slot] = parent;
  });
  block.Once([&] { out.count[at.request] = beams.count; });
}

// Kernel 3, one block per row: collects the candidates; the last block of a request sorts them, writes the beams and
// leaves the state zero.
template <class Block>
BEAMLINE_BLOCK_FN void CollectRow(Block& block, const BeamSelectBatch& batch, int32_t grid_row, Candidate* sort_space) {
  const Place at = PlaceOf(batch, grid_row);
  if (at.exists && at.rows <= 0 && at.row == 0) WriteBeams(block, batch, at, {sort_space, 0});
  if (!at.active()) return;
  const Mine mine = Part<Block>(batch, at);
  const State state = *mine.state;
  const int32_t width = state.first_error != 0 ? 0 : batch.width[at.request];
  if (width > 0) {  // else the parent may be none
    const Parent parent = Resume(batch, at, mine);
    block.LoadEach(
        MayReach(parent, state) ? parent.count() : 0, [&](int32_t i) { return parent.At(i); },
        [&](int32_t, const Child& child) {
          const Standing standing = parent.StandingOf(child);
          if (!child.eligible() || !(standing.Leading(state.digits) <= Decided(state))) return;
          mine.candidates[block.Append(&mine.state->collected)] = {standing.key, child.log_prob, at.row};
        });
  }
  if (!block.IsLast(&mine.state->blocks_done, at.rows)) return;
  const int32_t found = static_cast<int32_t>(block.Load(&mine.state->collected));
  Candidate* sorted = mine.candidates;
  if (found <= kSortShared) {
    block.ForEach(found, [&](int32_t i) { sort_space[i] = block.Load(&mine.candidates[i]); });
    sorted = sort_space;
  }
  SortCandidates(block, sorted, found);
  WriteBeams(block, batch, at, {sorted, found < width ? found : width});
  block.Once([&] {
    if (state.first_error != 0) {
      batch.error[at.request] = static_cast<int32_t>(~state.first_error & 3u);
    } else if (batch.level == 0) {
      batch.error[at.request] = static_cast<int32_t>(SelectError::kOk);
    }
    *mine.state = State{};
  });
}

// The only kernel of level 0, one block per request: its one row from end to end.
template <class Block>
BEAMLINE_BLOCK_FN void SelectFirst(Block& block, const BeamSelectBatch& batch, int32_t request, Candidate* sort_space) {
  NormaliseRow(block, batch, request);  // ends with a barrier
  RefineRow(block, batch, request);
  block.Barrier();  // threads still copy the state there that CollectRow counts in
  CollectRow(block, batch, request, sort_space);
}

}  // namespace beamline::kernels::select
