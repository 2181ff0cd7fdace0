// SPDX-License-Identifier: Apache-2.0
//
// NCCL between the devices of a group. Calls go onto the device's current stream and return at once; only the start
// waits. The communicator is non-blocking, so that a start that waits for a lost rank can be given up. Aborting it ends
// kernels that wait for a rank, and with them whoever waits for their stream: a thread does it as soon as the group is
// lost, a call that fails, and destruction always.
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>

#include <c10/core/DeviceGuard.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "backend/communicator.h"
#include "backend/parallel/nccl_api.h"
#include "backend/parallel/rank_order.h"
#include "base/run_catching.h"
#include "beamline/status.h"

namespace beamline::backend {
namespace {

class NcclCommunicator final : public Communicator {
 public:
  // `group` may be null: one rank by itself.
  NcclCommunicator(const NcclApi* api, parallel::ProcessGroup* group, c10::Device device)
      : api_(*api), group_(group), device_(device) {}
  ~NcclCommunicator() override {
    if (watch_.joinable()) {
      {
        const std::lock_guard<std::mutex> lock(mu_);
        ending_ = true;
        changed_.notify_all();
      }
      watch_.join();
    }
    const std::lock_guard<std::mutex> lock(mu_);
    Abort();
  }

  absl::Status Start() {
    ncclUniqueId id{};
    if (shard().rank == 0) BEAMLINE_RETURN_IF_ERROR(Check(api_.get_unique_id(&id)));
    if (group_ != nullptr && shard().rank == 0) {
      BEAMLINE_RETURN_IF_ERROR(group_->Broadcast({id.internal, sizeof(id.internal)}));
    } else if (group_ != nullptr) {
      BEAMLINE_ASSIGN_OR_RETURN(const std::string received, group_->Receive());
      if (received.size() != sizeof(id.internal)) return absl::InternalError("NCCL: rank 0 sent no id");
      std::memcpy(id.internal, received.data(), sizeof(id.internal));
    }
    const c10::DeviceGuard guard(device_);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    {
      const std::lock_guard<std::mutex> lock(mu_);
      BEAMLINE_RETURN_IF_ERROR(Check(api_.comm_init_rank_config(&comm_, shard().size, id, shard().rank, &config)));
      BEAMLINE_RETURN_IF_ERROR(Await());
    }
    if (group_ == nullptr) return absl::OkStatus();
    return RunCatching(
        "NCCL's watch", [this] { watch_ = std::thread([this] { Watch(); }); }, absl::StatusCode::kResourceExhausted);
  }

  parallel::Shard shard() const override { return group_ == nullptr ? parallel::Shard{} : group_->shard(); }
  void AllReduce(const at::Tensor& x) override {
    ReduceInRankOrder(x, shard(), [this](const auto& sent, const auto& received) { Move(sent, received); });
  }
  void AllGather(const at::Tensor& own, const at::Tensor& all) override {
    GatherColumns(own, all, shard(), [this](const auto& sent, const auto& received) { Move(sent, received); });
  }

 private:
  // Until the group is lost. With a period, for the group calls nobody.
  void Watch() {
    std::unique_lock<std::mutex> lock(mu_);
    while (!ending_ && group_->status().ok()) changed_.wait_for(lock, std::chrono::milliseconds(50));
    Abort();
  }
  // With mu_ held, as all below.
  void Abort() {
    if (comm_ != nullptr) api_.comm_abort(comm_);
    comm_ = nullptr;
  }
  absl::Status Check(ncclResult_t result) const {
    if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
    const char* last = comm_ == nullptr ? "" : api_.get_last_error(comm_);
    return absl::FailedPreconditionError(
        absl::StrCat("NCCL on ", device_.str(), ": ", api_.get_error_string(result), last == nullptr ? "" : " ", last));
  }
  // Until NCCL has taken what was asked of it: after the first time of its kind within microseconds, so that a sleep,
  // which takes 50 more than it is told, would be most of a collective. Setting up takes milliseconds.
  absl::Status Await() const {
    constexpr absl::Duration kSpin = absl::Microseconds(200);
    const absl::Time begun = absl::Now();
    for (;;) {
      if (group_ != nullptr) BEAMLINE_RETURN_IF_ERROR(group_->status());
      ncclResult_t state = ncclSuccess;
      BEAMLINE_RETURN_IF_ERROR(Check(api_.comm_get_async_error(comm_, &state)));
      BEAMLINE_RETURN_IF_ERROR(Check(state));
      if (state == ncclSuccess) return absl::OkStatus();
      if (absl::AbsDuration(absl::Now() - begun) > kSpin) absl::SleepFor(absl::Microseconds(50));
    }
  }

  void Move(const std::vector<at::Tensor>& sent, const std::vector<at::Tensor>& received) {
    const std::lock_guard<std::mutex> lock(mu_);
    const absl::Status status = Enqueue(sent, received);
    if (status.ok()) return;
    Abort();
    if (group_ != nullptr) group_->Fail(status);
    TORCH_CHECK(false, std::string(status.message()));
  }
  absl::Status Enqueue(const std::vector<at::Tensor>& sent, const std::vector<at::Tensor>& received) const {
    if (comm_ == nullptr) return absl::FailedPreconditionError("NCCL: the communicator was aborted");
    const c10::DeviceGuard guard(device_);
    auto* const stream =
        static_cast<cudaStream_t>(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_).native_handle());
    BEAMLINE_RETURN_IF_ERROR(Check(api_.group_start()));
    for (int rank = 0; rank < shard().size; ++rank) {
      const at::Tensor& out = sent[rank];
      const at::Tensor& in = received[rank];
      if (out.const_data_ptr() == in.const_data_ptr()) continue;
      if (out.nbytes() > 0) {
        BEAMLINE_RETURN_IF_ERROR(Check(api_.send(out.const_data_ptr(), out.nbytes(), ncclInt8, rank, comm_, stream)));
      }
      if (in.nbytes() > 0) {
        BEAMLINE_RETURN_IF_ERROR(Check(api_.recv(in.mutable_data_ptr(), in.nbytes(), ncclInt8, rank, comm_, stream)));
      }
    }
    BEAMLINE_RETURN_IF_ERROR(Check(api_.group_end()));
    return Await();
  }

  const NcclApi& api_;
  parallel::ProcessGroup* const group_;
  const c10::Device device_;
  std::mutex mu_;
  std::condition_variable changed_;
  ncclComm_t comm_ = nullptr;  // guarded by mu_; null once it was aborted
  bool ending_ = false;        // guarded by mu_
  std::thread watch_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(parallel::ProcessGroup* group, c10::Device device) {
  BEAMLINE_ASSIGN_OR_RETURN(const NcclApi* api, LoadNccl());
  auto communicator = std::make_unique<NcclCommunicator>(api, group, device);
  BEAMLINE_RETURN_IF_ERROR(communicator->Start());
  return communicator;
}

}  // namespace beamline::backend
