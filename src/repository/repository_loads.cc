// SPDX-License-Identifier: Apache-2.0
//
// The part of ModelRepository that loads, serves and lets go, on the repository's thread.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "beamline/status.h"
#include "repository/model_repository.h"

namespace beamline::repository {
namespace {

constexpr size_t kRememberedVersions = 32;
constexpr size_t kRememberedBefore = 16;
constexpr size_t kRememberedPaths = 4;  // of one version, besides its own

bool Gone(const VersionStatus& version) {
  return version.state == VersionState::kUnloaded || version.state == VersionState::kRefused;
}

}  // namespace

absl::StatusOr<VersionStatus> ModelRepository::ReloadNow(const std::string& path) {
  std::string bundle = path.empty() ? options_.bundle : path;
  const auto there = ListNow();
  if (path.empty() && !options_.folder.empty()) {
    BEAMLINE_RETURN_IF_ERROR(there.status());
    if (there->empty()) return absl::NotFoundError(absl::StrCat(options_.folder, ": holds no version"));
    bundle = there->back().path;
  }
  absl::StatusOr<VersionStatus> result = ServeBundle(bundle);
  if (result.ok()) HoldUntilNewer(there);
  return result;
}

absl::StatusOr<VersionStatus> ModelRepository::RollbackNow(const ModelHandle& leaves) {
  if (before_.empty()) return absl::FailedPreconditionError("no version served before this one: nothing to go back to");
  if (leaves != serving_->model) {
    return absl::AbortedError(absl::StrCat(
        serving_->path, ": began to serve while the rollback waited; roll back again if you mean to leave that one"));
  }
  const auto there = ListNow();
  Loaded target = before_.back();
  if (standby_ && standby_->id == target.id) {
    target = *std::exchange(standby_, std::nullopt);
  } else {
    BEAMLINE_ASSIGN_OR_RETURN(const std::string path, Find(target));
    Retire(standby_);
    BEAMLINE_ASSIGN_OR_RETURN(target, Load(path, target.digest));
  }
  before_.pop_back();
  HoldUntilNewer(there);
  LogEvent(spdlog::level::warn, "model rolled back", {{"from", serving_->path}, {"to", target.path}});
  if (!options_.folder.empty()) {
    LogEvent(spdlog::level::warn, "the next start serves the folder's newest version again: remove what must not serve",
             {{"folder", options_.folder}});
  }
  {
    std::lock_guard lock(mu_);
    ++stats_.rollbacks;
  }
  return Serve(std::move(target), /*keep_old=*/false);
}

absl::StatusOr<VersionStatus> ModelRepository::ServeBundle(const std::string& path) {
  const absl::StatusOr<std::string> digest = loader_->Identify(path);
  if (!digest.ok()) return Refuse(AddVersion(path, ""), digest.status());
  const bool serves = serving_ && serving_->digest == *digest;
  const bool stands_by = standby_ && standby_->digest == *digest;
  if (serves || stands_by) {  // already in memory, but whoever asked means these files
    if (absl::Status status = loader_->Verify(path); !status.ok()) return Refuse(AddVersion(path, *digest), status);
  }
  if (serves || stands_by) IsAt(*digest, path);
  if (serves) {
    std::lock_guard lock(mu_);
    ++stats_.unchanged;
    return StatusOf(serving_->id);
  }
  Loaded next;
  if (stands_by) {
    next = *std::exchange(standby_, std::nullopt);
  } else {
    // A bundle that is damaged does not cost the version to go back to.
    if (standby_) {
      if (absl::Status status = loader_->Verify(path); !status.ok()) return Refuse(AddVersion(path, *digest), status);
    }
    Retire(standby_);  // room for the next
    BEAMLINE_ASSIGN_OR_RETURN(next, Load(path, *digest));
    IsAt(*digest, path);
  }
  if (serving_) {
    before_.push_back({serving_->id, serving_->path, serving_->digest, serving_->also, nullptr});
    if (before_.size() > kRememberedBefore) before_.erase(before_.begin());
  }
  {
    std::lock_guard lock(mu_);
    ++stats_.served;
  }
  return Serve(std::move(next), options_.keep_previous);
}

void ModelRepository::IsAt(const std::string& digest, const std::string& path) {
  const auto move = [&](Loaded& version) {
    if (version.digest != digest || version.path == path) return;
    std::erase(version.also, path);
    version.also.push_back(std::exchange(version.path, path));
    if (version.also.size() > kRememberedPaths) version.also.erase(version.also.begin());
    std::lock_guard lock(mu_);
    const auto known = std::find_if(versions_.begin(), versions_.end(),
                                    [&](const VersionStatus& status) { return status.id == version.id; });
    if (known != versions_.end()) known->path = path;
  };
  if (serving_ && serving_->digest == digest && serving_->path != path) {
    LogEvent(spdlog::level::info, "model unchanged",
             {{"id", serving_->id}, {"path", path}, {"before", serving_->path}});
  }
  if (serving_) move(*serving_);
  if (standby_) move(*standby_);
  for (Loaded& version : before_) move(version);
}

absl::StatusOr<std::string> ModelRepository::Find(const Loaded& version) const {
  absl::Status why;
  std::vector<std::string> paths = version.also;
  paths.push_back(version.path);
  for (auto path = paths.rbegin(); path != paths.rend(); ++path) {
    const absl::StatusOr<std::string> digest = loader_->Identify(*path);
    if (digest.ok() && *digest == version.digest) return *path;
    why.Update(digest.status());
  }
  return absl::FailedPreconditionError(absl::StrCat(
      version.path,
      ": is no longer what served before: the bundle, or the catalogue that was served with it, has changed",
      why.ok() ? "" : absl::StrCat(" (", why.message(), ")"), "; reload the one you want by path"));
}

absl::StatusOr<ModelRepository::Loaded> ModelRepository::Load(const std::string& path, const std::string& digest) {
  const int64_t id = AddVersion(path, digest);
  LogEvent(spdlog::level::info, "model loading", {{"id", id}, {"path", path}});
  const absl::Time start = clock_->Now();
  absl::StatusOr<std::unique_ptr<Model>> model = loader_->Load(path, digest);
  if (!model.ok()) return Refuse(id, model.status());
  if (absl::Status status = CheckInterrupted(); !status.ok()) return Refuse(id, status);  // the process ends
  const absl::Time loaded = clock_->Now();
  SetState(id, VersionState::kWarming);
  {
    std::lock_guard lock(mu_);
    StatusOf(id).model_version = (*model)->version();
    StatusOf(id).catalogue_version = (*model)->catalogue_version();
    StatusOf(id).load_time = loaded - start;
  }
  if (absl::Status status = loader_->WarmUp(**model, current_.Get().get()); !status.ok()) {
    return Refuse(id, absl::Status(status.code(), absl::StrCat(path, ": failed in the warm-up: ", status.message())));
  }
  std::lock_guard lock(mu_);
  StatusOf(id).warm_up_time = clock_->Now() - loaded;
  ++stats_.loaded;
  return Loaded{id, path, digest, {}, Share(id, *std::move(model))};
}

// The last user, whoever it is, only leaves the model in the inbox: freeing gigabytes is no request's work.
ModelHandle ModelRepository::Share(int64_t id, std::unique_ptr<Model> model) {
  return ModelHandle(model.release(), [id, inbox = inbox_](const Model* last) {
    std::unique_ptr<const Model> dead(last);
    std::lock_guard lock(inbox->mu);
    if (inbox->stopping) return;  // nobody empties it any more; `dead` is destroyed after the lock
    inbox->dead.push_back({id, std::move(dead)});
    inbox->changed.notify_one();
  });
}

VersionStatus ModelRepository::Serve(Loaded next, bool keep_old) {
  current_.Swap(next.model);
  std::optional<Loaded> old = std::exchange(serving_, std::move(next));
  const VersionStatus status = SetState(serving_->id, VersionState::kServing);
  if (keep_old && old) {
    SetState(old->id, VersionState::kStandby);
    standby_ = std::move(old);
  } else {
    Retire(old);
  }
  {
    std::lock_guard lock(mu_);
    stats_.last_swap = status.changed;
  }
  LogEvent(spdlog::level::info, "model serving",
           {{"id", status.id},
            {"model_version", status.model_version},
            {"catalogue_version", status.catalogue_version},
            {"path", status.path},
            {"load_ms", absl::ToInt64Milliseconds(status.load_time)},
            {"warm_up_ms", absl::ToInt64Milliseconds(status.warm_up_time)}});
  return status;
}

void ModelRepository::Retire(std::optional<Loaded>& version) {
  if (!version) return;
  SetState(version->id, VersionState::kDraining);
  version.reset();
  Bury();  // where nobody uses it, the memory is free before the next load
}

void ModelRepository::Bury() {
  std::vector<Dead> dead;
  {
    std::lock_guard lock(inbox_->mu);
    dead.swap(inbox_->dead);
  }
  for (Dead& version : dead) {
    version.model.reset();
    SetState(version.id, VersionState::kUnloaded);
    std::lock_guard lock(mu_);
    --stats_.loaded;
  }
}

VersionStatus& ModelRepository::StatusOf(int64_t id) {
  return *std::find_if(versions_.begin(), versions_.end(), [&](const VersionStatus& v) { return v.id == id; });
}

int64_t ModelRepository::AddVersion(const std::string& path, const std::string& digest) {
  std::lock_guard lock(mu_);
  if (versions_.size() >= kRememberedVersions) {
    const auto gone = std::find_if(versions_.begin(), versions_.end(), Gone);
    if (gone != versions_.end()) versions_.erase(gone);
  }
  VersionStatus& status = versions_.emplace_back();
  status.id = ++last_id_;
  status.path = path;
  status.digest = digest;
  status.changed = clock_->Now();
  return status.id;
}

VersionStatus ModelRepository::SetState(int64_t id, VersionState state) {
  std::lock_guard lock(mu_);
  VersionStatus& status = StatusOf(id);
  status.state = state;
  status.changed = clock_->Now();
  return status;
}

absl::Status ModelRepository::Refuse(int64_t id, absl::Status error) {
  if (serving_ && Interrupted()) {  // the process ends: the bundle is not to blame
    SetState(id, VersionState::kUnloaded);
    LogEvent(spdlog::level::info, "load given up, the engine is stopping", {{"id", id}});
    return absl::UnavailableError("the engine is stopping");
  }
  SetState(id, VersionState::kRefused);
  std::string path;
  {
    std::lock_guard lock(mu_);
    StatusOf(id).error = error;
    path = StatusOf(id).path;
    ++stats_.refused;
  }
  LogEvent(spdlog::level::err, "model refused", {{"id", id}, {"path", path}, {"error", LogText(error)}});
  return error;
}

}  // namespace beamline::repository
