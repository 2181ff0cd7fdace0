// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/ranker.h"

#include <cmath>

namespace beamline::kernels {
namespace {

constexpr int32_t kLanes = 8;  // sums side by side: one order, and a vector where the machine has them

float Sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

float Dot(const float* a, const float* b, int32_t width) {
  float sums[kLanes] = {};
  for (int32_t i = 0; i < width; i += kLanes) {
    for (int32_t lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (int32_t half = kLanes / 2; half > 0; half /= 2) {
    for (int32_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

}  // namespace

void RankCandidatesCpu(const RankCandidatesArgs& args) {
  float hidden[kMaxRankerWidth];
  for (int32_t i = 0; i < args.count; ++i) {
    const float* state = args.states + int64_t{args.parents[i]} * args.width;
    const float* code = args.code_table + int64_t{args.codes[i]} * args.width;
    for (int32_t j = 0; j < args.width; ++j) {
      const float x = state[j] + code[j];
      hidden[j] = x * Sigmoid(x);
    }
    float value = args.score_weight * args.scores[i];
    for (int32_t h = 0; h < args.heads; ++h) {
      value += args.weight[h] * Sigmoid(Dot(args.head + int64_t{h} * args.width, hidden, args.width) + args.bias[h]);
    }
    args.values[i] = value;
  }
}

}  // namespace beamline::kernels
