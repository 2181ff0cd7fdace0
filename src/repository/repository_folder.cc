// SPDX-License-Identifier: Apache-2.0
//
// The part of ModelRepository that looks at the watched folder, on the repository's thread.
#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "repository/model_repository.h"

namespace beamline::repository {
namespace {

std::set<int64_t> NumbersOf(const std::vector<FolderVersion>& versions) {
  std::set<int64_t> numbers;
  for (const FolderVersion& version : versions) numbers.insert(version.number);
  return numbers;
}

}  // namespace

void ModelRepository::Poll() {
  auto available = ListAbove();
  if (available.ok() && available->empty() && !seen_.empty()) {
    available = absl::UnavailableError(
        absl::StrCat(options_.folder, ": holds no version any more; where it is a mount, its disk may be away"));
  }
  {
    std::lock_guard lock(mu_);
    stats_.folder_unreadable = !available.ok();
  }
  if (!available.ok()) {
    const std::string error(available.status().message());
    if (error != poll_error_) LogEvent(spdlog::level::err, "model folder unreadable", {{"error", error}});
    poll_error_ = error;
    return;
  }
  if (!poll_error_.empty()) LogEvent(spdlog::level::info, "model folder readable again", {{"folder", options_.folder}});
  poll_error_.clear();
  TellPassedOver(*available);
  TellMisnamed();
  ServeNewest(*std::move(available), clock_->Now()).IgnoreError();  // the log and the versions' states have it
}

absl::Status ModelRepository::ServeNewest(std::vector<FolderVersion> available, absl::Time now) {
  absl::Status newest;
  while (const FolderVersion* version = NextVersion(available, floor_, refusals_, now)) {
    const absl::Status status = ServeBundle(version->path).status();
    if (status.ok()) {
      floor_ = version->number;
      std::erase_if(refusals_, [&](const auto& refusal) { return refusal.first <= floor_; });
      return status;
    }
    newest.Update(status);
    if (Stopping()) break;
    Refusal& refusal = refusals_[version->number];
    const int tries = refusal.stamp == version->stamp ? refusal.tries + 1 : 1;
    refusal = {version->stamp, RetryAt(status, clock_->Now(), options_.retry_delay, tries), tries};
    if (serving_ && RequestsWait()) break;                              // the rest at the next look
    available.resize(static_cast<size_t>(version - available.data()));  // now those below it
  }
  return newest;
}

void ModelRepository::TellPassedOver(const std::vector<FolderVersion>& available) {
  for (const FolderVersion& version : available) {
    if (version.number > floor_ || seen_.contains(version.number) || version.path == serving_->path) continue;
    LogEvent(spdlog::level::warn, "version passed over, it is not above the newest there was",
             {{"path", version.path}, {"newest", floor_}});
  }
  seen_ = NumbersOf(available);
}

void ModelRepository::TellMisnamed() {
  std::map<std::string, std::string> now = ListMisnamed(options_.folder, options_.manifest);
  std::erase_if(misnamed_told_, [&](const std::string& path) { return !now.contains(path); });
  for (const auto& [path, stamp] : now) {
    const auto before = misnamed_.find(path);
    if (before == misnamed_.end() || before->second != stamp || !misnamed_told_.insert(path).second) continue;
    LogEvent(spdlog::level::warn, "bundle passed over, its folder has no version's name",
             {{"path", path}, {"rule", "a whole number from 1 on, in digits alone, without leading zeros"}});
  }
  misnamed_ = std::move(now);
}

absl::StatusOr<std::vector<FolderVersion>> ModelRepository::ListAbove() const {
  auto available = ListVersions(options_.folder, options_.manifest, floor_);
  if (!available.ok() || options_.beside.empty()) return available;
  const std::string beside = StampOfFile(options_.beside);
  for (FolderVersion& version : *available) version.stamp += beside;
  return available;
}

absl::StatusOr<std::vector<FolderVersion>> ModelRepository::ListNow() const {
  if (options_.folder.empty()) return std::vector<FolderVersion>();
  return ListVersions(options_.folder, options_.manifest, std::numeric_limits<int64_t>::max());
}

void ModelRepository::HoldUntilNewer(const absl::StatusOr<std::vector<FolderVersion>>& there) {
  if (options_.folder.empty()) return;
  if (there.ok() && !there->empty()) {
    floor_ = there->back().number;
    seen_ = NumbersOf(*there);
  } else if (!seen_.empty()) {
    floor_ = std::max(floor_, *seen_.rbegin());
  }
  LogEvent(spdlog::level::info, "versions up to the newest are passed over until a newer one comes",
           {{"folder", options_.folder}, {"newest", floor_}});
}

}  // namespace beamline::repository
