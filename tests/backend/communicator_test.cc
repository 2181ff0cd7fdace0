// SPDX-License-Identifier: Apache-2.0
//
// Collectives of ranks that are threads: what comes out, to the last bit, and what does not change it.
#include "backend/communicator.h"

#include <cstdlib>
#include <cstring>
#include <random>

#include <ATen/ATen.h>

#include "backend/backend.h"
#include "backend/ops.h"
#include "gmock/gmock.h"
#include "parallel/group_fixture.h"
#ifdef BEAMLINE_WITH_NCCL
#include "backend/context.h"
#include "backend/parallel/nccl_api.h"
#endif

namespace beamline::backend {
namespace {

using parallel::testing::JoinAll;
using parallel::testing::OnRanks;
using ::testing::HasSubstr;

// Of magnitudes that make the order of a sum visible.
at::Tensor RandomRows(int64_t rows, int64_t columns, int rank) {
  std::mt19937_64 random(rank + 1);
  std::normal_distribution<float> noise;
  at::Tensor x = at::empty({rows, columns}, at::kFloat);
  float* to = x.mutable_data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) to[i] = noise(random) * std::exp(4 * noise(random));
  return x;
}

bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

// In rank order, in fp32, rounded once.
at::Tensor SumInRankOrder(int size, int64_t rows, int64_t columns, at::ScalarType dtype) {
  at::Tensor sum = RandomRows(rows, columns, 0).to(dtype).to(at::kFloat, false, true);
  for (int rank = 1; rank < size; ++rank) sum.add_(RandomRows(rows, columns, rank).to(dtype).to(at::kFloat));
  return sum.to(dtype);
}

class CommunicatorTest : public ::testing::TestWithParam<int> {};

TEST_P(CommunicatorTest, AllReduceAddsInRankOrderWhateverTheRows) {
  const int size = GetParam();
  auto group = JoinAll(size);
  OnRanks(size, [&](int rank) {
    const auto communicator = MakeTcpCommunicator(group[rank].get());
    EXPECT_EQ(communicator->shard().rank, rank);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      // 1 x 1: fewer elements than ranks. The last is larger than what sockets hold.
      for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{1, 1}, {1, 7}, {3, 33}, {700, 1024}}) {
        at::Tensor x = RandomRows(rows, columns, rank).to(dtype);
        communicator->AllReduce(x);
        EXPECT_TRUE(SameBits(x, SumInRankOrder(size, rows, columns, dtype))) << size << " " << rows << " " << dtype;
      }
    }
  });
}

TEST_P(CommunicatorTest, AllGatherPutsUnequalSharesOfColumnsSideBySide) {
  const int size = GetParam();
  auto group = JoinAll(size);
  OnRanks(size, [&](int rank) {
    const auto communicator = MakeTcpCommunicator(group[rank].get());
    for (const int64_t columns : {5, 8, 257}) {
      const at::Tensor whole = RandomRows(6, columns, 9);
      const parallel::Shard shard{rank, size};
      const at::Tensor own = whole.narrow(1, shard.begin(columns), shard.count(columns));  // with strides
      const at::Tensor all = at::full({6, columns}, NAN, at::kFloat);
      communicator->AllGather(own, all);
      EXPECT_TRUE(SameBits(all, whole)) << columns;
    }
    EXPECT_THROW(communicator->AllGather(at::zeros({1, 99}), at::zeros({1, 10})), c10::Error);
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, CommunicatorTest, ::testing::Values(2, 3, 4));

TEST(Communicator, ALostGroupEndsWhatWaitsInIt) {
  auto group = JoinAll(3);
  OnRanks(3, [&](int rank) {
    const auto communicator = MakeTcpCommunicator(group[rank].get());
    if (rank == 1) return group[1].reset();
    try {
      communicator->AllReduce(at::zeros({100}));
      ADD_FAILURE() << "rank " << rank << " went on without rank 1";
    } catch (const c10::Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("rank 1 was lost"));
    }
  });
}

#ifdef BEAMLINE_WITH_NCCL
TEST(Nccl, TheLibraryHasWhatWeCall) {
  const auto api = LoadNccl();
  if (!api.ok()) GTEST_SKIP() << api.status();
  int version = 0;
  (*api)->get_version(&version);
  EXPECT_GE(version, 20000);
}

// One rank sends to itself what it would send to others.
TEST(Nccl, OneRankReducesAndGathers) {
  const auto ctx = MakeContext("cuda", "fp32", "cuda");
  if (!ctx.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << ctx.status();
  ASSERT_TRUE(ctx.ok()) << ctx.status();
  const auto communicator = MakeNcclCommunicator(nullptr, c10::Device(c10::kCUDA, 0));
  ASSERT_TRUE(communicator.ok()) << communicator.status();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = RandomRows(300, 129, 1).to(dtype), on_device = x.to(at::kCUDA);
    (*communicator)->AllReduce(on_device);
    EXPECT_TRUE(SameBits(on_device.to(at::kCPU), x));
    const at::Tensor all = at::zeros_like(on_device);
    (*communicator)->AllGather(on_device, all);
    EXPECT_TRUE(SameBits(all.to(at::kCPU), x));
  }
}

// A batch of the cuda backend computes on a stream that waits for no other: what ranks exchange must wait for it.
TEST(Nccl, ACollectiveComesBetweenTheOpsOfItsBatch) {
  auto ctx = MakeContext("cuda", "fp32");
  if (!ctx.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << ctx.status();
  ASSERT_TRUE(ctx.ok()) << ctx.status();
  const auto communicator = MakeNcclCommunicator(nullptr, c10::Device(c10::kCUDA, 0));
  ASSERT_TRUE(communicator.ok()) << communicator.status();
  // Under compute-sanitizer, which looks at accesses and not at order, small.
  const int64_t rows = std::getenv("BEAMLINE_SMALL_SHAPES") != nullptr ? 64 : 16384, width = 1024;
  const at::Tensor random = RandomRows(rows, width, 1);
  const absl::Span<const float> values(random.const_data_ptr<float>(), rows * width);
  std::vector<float> halves(width * width);
  for (int64_t i = 0; i < width; ++i) halves[i * width + i] = 0.5F;
  DenseWeights weights;
  weights.weight = UploadWeight(*ctx, halves, {{width, width}});
  const auto run = [&](Communicator* ranks) {
    Context batch = BeginBatch(*ctx);
    batch.communicator = ranks;
    EXPECT_TRUE(batch.backend->StreamOf(batch).has_value()) << "else the default one would do";
    at::Tensor x = UploadFloats(batch, values, {{rows, width}});
    for (int i = 0; i < 8; ++i) {
      x = AllGather(batch, AllReduce(batch, Dense(batch, x, weights)).unsqueeze(0), width).squeeze(0);
    }
    std::vector<float> result = DownloadFloats(batch, x);
    EndBatch(batch);
    return result;
  };
  EXPECT_EQ(run(communicator->get()), run(nullptr));
}
#else
TEST(Nccl, IsRefusedWhereTheProgramWasBuiltWithout) {
  const auto communicator = MakeCommunicator(nullptr, c10::Device(c10::kCUDA, 0));
  EXPECT_EQ(communicator.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(communicator.status().message()), HasSubstr("parallel.size"));
}
#endif

}  // namespace
}  // namespace beamline::backend
