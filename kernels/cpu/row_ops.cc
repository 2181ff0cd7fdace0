// SPDX-License-Identifier: Apache-2.0
#include "cpu/row_ops.h"

#include "cpu/cpu_features.h"
#include "cpu/row_ops_body.h"

// One version of every loop: functions that differ in their target attribute and how they multiply and add.
#define BEAMLINE_ROW_OPS(isa, Fused, attribute)                                                        \
  namespace isa {                                                                                      \
  attribute bool Scan(const float* row, int count, float* max) { return body::Scan(row, count, max); } \
  attribute double SumExp(const float* row, int count, float max, const float* ahead) {                \
    return body::SumExp<Fused>(row, count, max, ahead);                                                \
  }                                                                                                    \
  attribute void Gather(const float* row, const uint16_t* codes, int count, float* out) {              \
    body::Gather(row, codes, count, out);                                                              \
  }                                                                                                    \
  attribute bool Score(const ScoreArgs& args) { return body::Score(args); }                            \
  constexpr RowOps kOps = {#isa, Scan, SumExp, Gather, Score};                                         \
  }

namespace beamline::kernels {
namespace {

#if defined(__x86_64__) && !defined(__FMA__)
BEAMLINE_ROW_OPS(generic, FusedInDouble, )
#else
BEAMLINE_ROW_OPS(generic, FusedInstruction, )
#endif
#if defined(__x86_64__)
BEAMLINE_ROW_OPS(avx2, FusedInstruction, __attribute__((target("avx2,fma"))))
BEAMLINE_ROW_OPS(avx512, FusedInstruction,
                 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512"))))
#endif

using RowOpsVersions = Versions<RowOps, 3>;

RowOpsVersions Detect() {
  RowOpsVersions found;
  found.Add(generic::kOps);
#if defined(__x86_64__)
  if (CpuHas(InstructionSet::kAvx2)) found.Add(avx2::kOps);
  if (CpuHas(InstructionSet::kAvx512)) found.Add(avx512::kOps);
#endif
  return found;
}

const RowOpsVersions& Found() {
  static const RowOpsVersions found = Detect();
  return found;
}

}  // namespace

const RowOps* AvailableRowOps(int* count) {
  *count = Found().count;
  return Found().ops;
}

const RowOps& BestRowOps() { return Found().best(); }

}  // namespace beamline::kernels
