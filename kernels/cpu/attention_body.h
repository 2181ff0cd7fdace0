// SPDX-License-Identifier: Apache-2.0
//
// The attention kernels of attention.h. Scores are kept transposed, [keys][16 queries], so that softmax needs no
// horizontal step and both products run on the GEMM's tiles without packing keys or values.
#pragma once

#include <algorithm>
#include <limits>

#include "beamline/kernels/attention.h"
#include "cpu/fp32_tile.h"
#include "cpu/lanes.h"

namespace beamline::kernels {
namespace {

constexpr float kNoScore = -std::numeric_limits<float>::infinity();

// scores[j][lane], running over j: mask and maximum; exponentials and their sum. Returns 1 / sum (0 of nothing).
struct SoftmaxArgs {
  float* scores;
  int64_t tokens;
  const int32_t* order;
  const int32_t* limits;  // [kLanes]
  const float* bias;      // of query lane 0 and key 0, or null
};

void HideAndMax(const SoftmaxArgs& args, float* max) {
  Lanes largest = Lanes::All(kNoScore);
  IntVector limits[kVectors];
  std::memcpy(limits, args.limits, sizeof(limits));
  for (int64_t j = 0; j < args.tokens; ++j) {
    Lanes score = Lanes::Load(args.scores + j * kLanes);
    if (args.bias != nullptr) score = score + Lanes::Load(args.bias - j);
    const int32_t order = args.order[j];
    score = Lanes::Make([&](size_t i) { return order <= limits[i] ? score.v[i] : Broadcast(kNoScore); });
    score.Store(args.scores + j * kLanes);
    largest = Max(largest, score);
  }
  largest.Store(max);
}

void ExpAndSum(const SoftmaxArgs& args, float* max, float* inverse_sum) {
  for (int lane = 0; lane < kLanes; ++lane) max[lane] = max[lane] == kNoScore ? 0 : max[lane];
  const Lanes largest = Lanes::Load(max);
  Lanes sum = Lanes::All(0);
  for (int64_t j = 0; j < args.tokens; ++j) {
    const Lanes p = ExpNonPositive(Lanes::Load(args.scores + j * kLanes) - largest);
    p.Store(args.scores + j * kLanes);
    sum = sum + p;
  }
  sum.Store(inverse_sum);
  for (int lane = 0; lane < kLanes; ++lane) inverse_sum[lane] = inverse_sum[lane] > 0 ? 1 / inverse_sum[lane] : 0;
}

// out [m, n panels * kPanel] = a b by tiles of one panel.
void SmallProduct(TileArgs args, int64_t m, int64_t panels, int64_t panel_step) {
  const int64_t tiles = (m + kTileRows - 1) / kTileRows;
  const float* const a = args.a;
  float* const out = args.out;
  for (int64_t panel = 0; panel < panels; ++panel) {
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = t * m / tiles;
      args.a = a + row * args.row_step;
      args.out = out + row * args.out_step + panel * kPanel;
      kNarrowTiles[(t + 1) * m / tiles - row - 1](args);
    }
    args.b += panel_step;
  }
}

// Up to kLanes queries of one head, from `first` of the rows on.
struct HeadTask {
  int head = 0;
  const float* values = nullptr;  // [tokens, value_step], head_dim rounded up to whole panels may be read
  int64_t value_step = 0;
  int64_t first = 0;
  int64_t lanes = 0;
};

void AttendHead(const ContextAttentionArgs& args, const HeadTask& task) {
  const int64_t dim = args.shape.head_dim, head_offset = task.head * dim;
  float* scores = args.scratch;                  // [tokens, kLanes]
  float* query = scores + args.tokens * kLanes;  // [dim, kLanes], scaled
  float* max = query + dim * kLanes;
  float* inverse_sum = max + kLanes;
  int32_t limits[kLanes];
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const int64_t row = task.first + std::min(lane, task.lanes - 1);  // lanes without a query repeat the last one
    limits[lane] = args.limit[(args.first_row + row) / args.repeat];
    const float* from = args.query + row * args.query_step + head_offset;
    for (int64_t i = 0; i < dim; ++i) query[i * kLanes + lane] = from[i] * args.shape.scale;
  }
  SmallProduct({.a = args.key_value + head_offset,
                .row_step = args.key_value_step,
                .k_step = 1,
                .b = query,
                .b_step = kLanes,
                .panel_step = 0,
                .k = dim,
                .out = scores,
                .out_step = kLanes},
               args.tokens, 1, 0);
  SoftmaxArgs softmax{scores, args.tokens, args.order, limits, nullptr};
  if (args.bias != nullptr) softmax.bias = args.bias + task.head * args.bias_step + args.first_row + task.first;
  HideAndMax(softmax, max);
  ExpAndSum(softmax, max, inverse_sum);

  const int64_t panels = (dim + kPanel - 1) / kPanel, padded_dim = panels * kPanel, inner = args.shape.heads * dim;
  float* out = args.out + task.first * inner + head_offset;
  float* weighted = inverse_sum + kLanes;  // [kLanes, padded_dim]
  SmallProduct({.a = scores,
                .row_step = 1,
                .k_step = kLanes,
                .b = task.values,
                .b_step = task.value_step,
                .panel_step = 0,
                .k = args.tokens,
                .out = weighted,
                .out_step = padded_dim},
               task.lanes, panels, kPanel);
  for (int64_t lane = 0; lane < task.lanes; ++lane) {
    for (int64_t i = 0; i < dim; ++i) out[lane * inner + i] = weighted[lane * padded_dim + i] * inverse_sum[lane];
  }
}

void ContextAttention(const ContextAttentionArgs& args) {
  const int64_t dim = args.shape.head_dim, padded_dim = (dim + kPanel - 1) / kPanel * kPanel;
  for (int head = 0; head < args.shape.heads; ++head) {
    HeadTask task{
        .head = head, .values = args.key_value + (args.shape.heads + head) * dim, .value_step = args.key_value_step};
    if (dim != padded_dim) {  // whole panels would read past the head: copied
      float* copy = args.scratch + kLanes * (args.tokens + dim + 2) + kLanes * padded_dim;
      for (int64_t j = 0; j < args.tokens; ++j) {
        for (int64_t i = 0; i < padded_dim; ++i) {
          copy[j * padded_dim + i] = i < dim ? task.values[j * task.value_step + i] : 0.0f;
        }
      }
      task.values = copy;
      task.value_step = padded_dim;
    }
    for (task.first = 0; task.first < args.rows; task.first += kLanes) {
      task.lanes = std::min<int64_t>(kLanes, args.rows - task.first);
      AttendHead(args, task);
    }
  }
}

// Sum over i of a[i] b[i], always in the same order: sixteen lanes, then pairwise.
inline float Dot(const float* a, const float* b, int64_t count) {
  Lanes sum = Lanes::All(0);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sum = sum + Lanes::Load(a + i) * Lanes::Load(b + i);
  if (i < count) sum = sum + Lanes::LoadPart(a + i, count - i, 0) * Lanes::LoadPart(b + i, count - i, 0);
  return Sum(sum);
}

void LineageAttention(const LineageAttentionArgs& args) {
  const int64_t dim = args.shape.head_dim, inner = args.shape.heads * dim;
  const int keys = args.steps + 1;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* query = args.query + row * inner;
    const float* key_value[kMaxLineageSteps + 1];
    for (int step = 0; step < args.steps; ++step) {
      key_value[step] = args.past[step] + args.lineage[row * args.steps + step] * 2 * inner;
    }
    key_value[args.steps] = args.own + row * 2 * inner;
    for (int head = 0; head < args.shape.heads; ++head) {
      float scores[kLanes];
      for (int j = 0; j < kLanes; ++j) scores[j] = kNoScore;
      for (int j = 0; j < keys; ++j) {
        scores[j] = Dot(query + head * dim, key_value[j] + head * dim, dim) * args.shape.scale;
        if (args.bias != nullptr) scores[j] += args.bias[head * keys + j];
      }
      const Lanes all = Lanes::Load(scores);
      const Lanes p = ExpNonPositive(all - Lanes::All(Largest(all)));
      (p / Lanes::All(Sum(p))).Store(scores);
      float* out = args.out + row * inner + head * dim;
      for (int64_t i = 0; i < dim; i += kLanes) {
        const int64_t count = std::min<int64_t>(kLanes, dim - i);
        Lanes sum = Lanes::All(0);
        for (int j = 0; j < keys; ++j) {
          const float* value = key_value[j] + inner + head * dim + i;
          sum = sum + (count == kLanes ? Lanes::Load(value) : Lanes::LoadPart(value, count, 0)) * Lanes::All(scores[j]);
        }
        if (count == kLanes) {
          sum.Store(out + i);
        } else {
          sum.StorePart(out + i, count);
        }
      }
    }
  }
}

}  // namespace
}  // namespace beamline::kernels
