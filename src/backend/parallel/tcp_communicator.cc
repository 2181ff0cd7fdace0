// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "backend/communicator.h"
#include "backend/parallel/rank_order.h"

namespace beamline::backend {
namespace {

class TcpCommunicator final : public Communicator {
 public:
  explicit TcpCommunicator(parallel::ProcessGroup* group) : group_(*group) {}

  parallel::Shard shard() const override { return group_.shard(); }
  void AllReduce(const at::Tensor& x) override {
    ReduceInRankOrder(x, shard(), [this](const auto& sent, const auto& received) { Move(sent, received); });
  }
  void AllGather(const at::Tensor& own, const at::Tensor& all) override {
    GatherColumns(own, all, shard(), [this](const auto& sent, const auto& received) { Move(sent, received); });
  }

 private:
  void Move(const std::vector<at::Tensor>& sent, const std::vector<at::Tensor>& received) {
    std::vector<parallel::ProcessGroup::Transfer> transfers;
    for (int rank = 0; rank < group_.size(); ++rank) {
      if (rank == group_.rank()) continue;
      const at::Tensor& out = sent[rank];
      const at::Tensor& in = received[rank];
      TORCH_CHECK(out.is_cpu() && in.is_cpu(), "the group's own connections carry tensors of the CPU");
      transfers.push_back({.peer = rank,
                           .send = {static_cast<const char*>(out.const_data_ptr()), out.nbytes()},
                           .receive = {static_cast<char*>(in.mutable_data_ptr()), in.nbytes()}});
    }
    const absl::Status status = group_.Exchange(transfers);
    TORCH_CHECK(status.ok(), std::string(status.message()));
  }

  parallel::ProcessGroup& group_;
};

}  // namespace

std::unique_ptr<Communicator> MakeTcpCommunicator(parallel::ProcessGroup* group) {
  return std::make_unique<TcpCommunicator>(group);
}

absl::StatusOr<std::unique_ptr<Communicator>> MakeCommunicator(parallel::ProcessGroup* group, c10::Device device) {
  if (device.is_cpu()) return MakeTcpCommunicator(group);
  return MakeNcclCommunicator(group, device);
}

#ifndef BEAMLINE_WITH_NCCL
absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(parallel::ProcessGroup*, c10::Device) {
  return absl::UnimplementedError(
      "parallel.size: ranks on CUDA devices need NCCL, and this program was built without (BEAMLINE_WITH_CUDA); use "
      "device cpu or one rank");
}
#endif

}  // namespace beamline::backend
