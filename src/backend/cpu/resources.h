// SPDX-License-Identifier: Apache-2.0
//
// What one running batch has on the cpu backend: a workspace, and its place among the batches that share the cores.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "backend/context.h"
#include "backend/cpu/worker_team.h"
#include "backend/workspace.h"

namespace beamline::backend {

// Workspaces that no batch uses right now, with what they have allocated. Thread-safe.
class WorkspacePool {
 public:
  std::unique_ptr<Workspace> Take();
  void Give(std::unique_ptr<Workspace> workspace);

 private:
  std::mutex mu_;
  std::vector<std::unique_ptr<Workspace>> free_;  // guarded by mu_; the last one was used last
};

class CpuResources final : public BatchResources {
 public:
  CpuResources(std::shared_ptr<WorkerTeam> team, std::shared_ptr<WorkspacePool> pool)
      : team_(std::move(team)), pool_(std::move(pool)), workspace_(pool_->Take()) {
    team_->Enter();
  }
  ~CpuResources() override {
    team_->Leave();
    pool_->Give(std::move(workspace_));
  }

  Workspace& workspace() { return *workspace_; }
  WorkerTeam& team() { return *team_; }

 private:
  const std::shared_ptr<WorkerTeam> team_;
  std::shared_ptr<WorkspacePool> pool_;
  std::unique_ptr<Workspace> workspace_;
};

// A tensor from the batch's workspace; a fresh one where the context has no batch.
at::Tensor Take(Context& ctx, at::IntArrayRef shape, c10::ScalarType dtype = c10::kFloat);

}  // namespace beamline::backend
