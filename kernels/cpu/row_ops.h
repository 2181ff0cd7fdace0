// SPDX-License-Identifier: Apache-2.0
//
// The loops over one row of logits in which beam selection spends its time, one version per instruction set, chosen
// once at run time. All versions compile the same source without contraction and add in the same fixed order, so they
// agree bit for bit (tested): the instruction set changes the speed, never an answer. (Without an instruction that
// multiplies and adds, exponentials are 40 times slower; x86 has had it since 2013.)
#pragma once

#include <cstdint>

namespace beamline::kernels {

// Scores of at most this many children are computed together.
inline constexpr int kScoreBlock = 64;

// What turns a logit of a row into a score.
struct RowScale {
  float max = 0;      // of the logits summed over
  float log_sum = 0;  // log sum exp(x - max)
  float parent_score = 0;
};

struct ScoreArgs {
  const float* row;
  const uint16_t* codes;  // `count`, ascending strictly
  int count = 0;          // at most kScoreBlock
  RowScale scale;
  float threshold = 0;
  float* log_probs;
  float* scores;
};

struct RowOps {
  const char* name;
  // The largest of `count` values in `*max` (-inf for none); false when one is NaN or +inf.
  bool (*scan)(const float* row, int count, float* max);
  // Sum of exp(x - max): pairwise in fp32 inside blocks of 128, the blocks in double. REQUIRES: max finite and >= each
  // x. Meanwhile `count` values from `ahead`, which is what the caller reads next, come into the cache.
  double (*sum_exp)(const float* row, int count, float max, const float* ahead);
  // out[i] = row[codes[i]].
  void (*gather)(const float* row, const uint16_t* codes, int count, float* out);
  // log_probs[i] = (row[codes[i]] - max) - log_sum and scores[i] = parent_score + log_probs[i]; true when some score is
  // at least `threshold`.
  bool (*score)(const ScoreArgs& args);
};

// Versions this machine can run, the plainest first, the fastest last; `count` of them.
const RowOps* AvailableRowOps(int* count);

// The fastest.
const RowOps& BestRowOps();

}  // namespace beamline::kernels
