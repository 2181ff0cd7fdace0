// SPDX-License-Identifier: Apache-2.0
//
// That the tests beside this one run what they are there for, and that the emulated AMX refuses what a CPU refuses.
#include <string>
#include <vector>

#include "beamline/kernels/packed_gemm.h"
#include "beamline/kernels/vector_ops.h"
#include "cpu/cpu_features.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::kernels {
namespace {

using testing::ElementsAre;

template <typename Ops>
std::vector<std::string> Names(const Ops* versions, int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.emplace_back(versions[i].name);
  return names;
}
std::vector<std::string> Gemms(Precision precision) {
  int count = 0;
  const PackedGemm* versions = AvailableGemms(precision, &count);
  return Names(versions, count);
}

class EmulatedX86 : public testing::Test {
 protected:
  void SetUp() override {
    if (!CpuHas(InstructionSet::kAvx2)) GTEST_SKIP() << "this CPU has no AVX2, on which the emulation runs";
  }
};

TEST_F(EmulatedX86, HasEveryVersion) {
  EXPECT_THAT(Gemms(Precision::kFp32), ElementsAre("generic", "avx2", "avx512"));
  EXPECT_THAT(Gemms(Precision::kBf16), ElementsAre("generic", "avx2", "avx512", "avx512_bf16", "amx"));
  EXPECT_THAT(Gemms(Precision::kInt8), ElementsAre("generic", "avx2", "avx_vnni", "avx512", "avx512_vnni", "amx"));
  int count = 0;
  const VectorOps* versions = AvailableVectorOps(&count);
  EXPECT_THAT(Names(versions, count), ElementsAre("generic", "avx2", "avx512"));
}

TEST_F(EmulatedX86, RefusesWhatAmxRefuses) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(asm volatile("tilezero %tmm0"), "not configured");
  EXPECT_DEATH(asm volatile("ud2"), "illegal instruction");
}

}  // namespace
}  // namespace beamline::kernels
