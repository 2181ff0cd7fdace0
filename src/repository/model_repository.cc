// SPDX-License-Identifier: Apache-2.0
#include "repository/model_repository.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "base/low_priority.h"
#include "beamline/retry.h"
#include "beamline/status.h"

namespace beamline::repository {
absl::StatusOr<std::unique_ptr<ModelRepository>> ModelRepository::Start(RepositoryOptions options,
                                                                        std::unique_ptr<Loader> loader,
                                                                        std::shared_ptr<const Clock> clock) {
  std::unique_ptr<ModelRepository> repository(
      new ModelRepository(std::move(options), std::move(loader), std::move(clock)));
  BEAMLINE_RETURN_IF_ERROR(repository->ServeFirst());
  if (!repository->options_.inline_execution) {
    repository->thread_ = std::thread([self = repository.get()] { self->Loop(); });
  }
  return repository;
}

ModelRepository::ModelRepository(RepositoryOptions options, std::unique_ptr<Loader> loader,
                                 std::shared_ptr<const Clock> clock)
    : options_(std::move(options)), loader_(std::move(loader)), clock_(std::move(clock)) {}

ModelRepository::~ModelRepository() { Stop(); }

absl::Status ModelRepository::ServeFirst() {
  if (options_.folder.empty()) return ServeBundle(options_.bundle).status();
  next_poll_ = clock_->Now() + options_.poll_period;
  BEAMLINE_ASSIGN_OR_RETURN(std::vector<FolderVersion> available, ListAbove());
  for (const FolderVersion& version : available) seen_.insert(version.number);
  const absl::Status newest = ServeNewest(std::move(available), clock_->Now());
  if (serving_) return absl::OkStatus();
  if (!options_.bundle.empty()) return ServeBundle(options_.bundle).status();
  if (!newest.ok()) return newest;
  const auto misnamed = ListMisnamed(options_.folder, options_.manifest);
  return absl::NotFoundError(absl::StrCat(options_.folder,
                                          ": holds no version; put bundles into subfolders named 1, 2, "
                                          "... without leading zeros (written elsewhere, then renamed)",
                                          misnamed.empty() ? "" : absl::StrCat("; not so ", misnamed.begin()->first)));
}

void ModelRepository::Reload(std::string path, Done done) {
  Submit({.path = std::move(path), .done = std::move(done)});
}

void ModelRepository::Rollback(Done done) { Submit({.rollback = true, .leaves = current(), .done = std::move(done)}); }

void ModelRepository::Submit(Request request) {
  absl::Status refusal;
  {
    std::lock_guard lock(inbox_->mu);
    if (inbox_->stopping) {
      refusal = absl::UnavailableError("the engine is stopping");
    } else if (inbox_->requests.size() >= options_.max_waiting) {
      refusal = beamline::Refusal(
          kQueueFull,
          absl::StrCat(options_.max_waiting, " reloads are waiting already; versions are loaded one at a time"),
          absl::Seconds(1));
    } else {
      inbox_->requests.push_back(std::move(request));
      inbox_->changed.notify_one();
      return;
    }
  }
  request.done(std::move(refusal));
}

void ModelRepository::Stop() {
  std::deque<Request> waiting;
  {
    std::lock_guard lock(inbox_->mu);
    inbox_->stopping = true;
    waiting.swap(inbox_->requests);
    inbox_->changed.notify_all();
  }
  for (Request& request : waiting) request.done(absl::UnavailableError("the engine is stopping"));
  if (thread_.joinable()) thread_.join();
}

bool ModelRepository::Stopping() const {
  std::lock_guard lock(inbox_->mu);
  return inbox_->stopping || Interrupted();
}

bool ModelRepository::RequestsWait() const {
  std::lock_guard lock(inbox_->mu);
  return !inbox_->requests.empty();
}

void ModelRepository::Loop() {
  LowerPriority();
  while (true) {
    while (Work()) {
    }
    std::unique_lock lock(inbox_->mu);
    if (inbox_->stopping) return;
    const auto awake = [this] { return inbox_->stopping || !inbox_->requests.empty() || !inbox_->dead.empty(); };
    if (next_poll_ == absl::InfiniteFuture()) {
      inbox_->changed.wait(lock, awake);
    } else {
      const absl::Duration left = std::clamp(next_poll_ - clock_->Now(), absl::ZeroDuration(), absl::Hours(1));
      inbox_->changed.wait_for(lock, absl::ToChronoNanoseconds(left), awake);
    }
  }
}

bool ModelRepository::Work() {
  std::optional<Request> request;
  bool buried = false;
  {
    std::lock_guard lock(inbox_->mu);
    if (inbox_->stopping) return false;
    buried = !inbox_->dead.empty();
    if (!inbox_->requests.empty()) {
      request = std::move(inbox_->requests.front());
      inbox_->requests.pop_front();
    }
  }
  Bury();
  if (request) {
    request->done(request->rollback ? RollbackNow(request->leaves.lock()) : ReloadNow(request->path));
    return true;
  }
  if (clock_->Now() < next_poll_) return buried;
  Poll();
  next_poll_ = clock_->Now() + options_.poll_period;
  return true;
}

std::vector<VersionStatus> ModelRepository::versions() const {
  std::lock_guard lock(mu_);
  return versions_;
}

RepositoryStats ModelRepository::stats() const {
  std::lock_guard lock(mu_);
  return stats_;
}

}  // namespace beamline::repository
