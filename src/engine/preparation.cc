// SPDX-License-Identifier: Apache-2.0
#include "engine/preparation.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/wait_until.h"
#include "beamline/retry.h"

namespace beamline::engine {

void PreparationWake::Now() {
  std::lock_guard lock(mu_);
  look_ = true;
  changed_.notify_one();
}

Preparation::Preparation(const Options& options, Hooks hooks, const Clock* clock)
    : options_(options),
      hooks_(std::move(hooks)),
      clock_(clock),
      threads_(options.threads),
      store_threads_(options.threads == 0 ? 0 : options.store_threads) {
  if (options_.threads > 0) watch_ = std::thread([this] { WatchLoop(); });
}

Preparation::~Preparation() {
  if (!watch_.joinable()) return;
  {
    std::lock_guard lock(wake_->mu_);
    wake_->joining_ = true;
    wake_->changed_.notify_one();
  }
  watch_.join();
}

absl::Status Preparation::Enter(const CallPtr& call, Place place) {
  std::lock_guard lock(mu_);
  if (draining_) return absl::UnavailableError("the engine is stopping; ask another replica");
  int64_t& working = working_[static_cast<size_t>(place)];
  if (working >= options_.capacity) {
    return Refusal(kQueueFull,
                   absl::StrCat("the queue is full: ", working,
                                place == Place::kStoreThread ? " requests ask for a history from the store"
                                                             : " requests are being prepared",
                                ", its capacity is ", options_.capacity, "; retry later or send less"),
                   options_.retry_after);
  }
  ++working;
  calls_.insert(call);
  return absl::OkStatus();
}

void Preparation::Run(const CallPtr& call, Place place) {
  if (place == Place::kHere || options_.threads == 0) {
    Prepare(call, place);
    return;
  }
  call->wake = wake_;
  {
    std::lock_guard lock(wake_->mu_);
    if (call->deadline < wake_->next_) {
      wake_->next_ = call->deadline;
      wake_->changed_.notify_one();
    }
  }
  (place == Place::kThread ? threads_ : store_threads_).Schedule([this, call, place] { Prepare(call, place); });
}

void Preparation::Prepare(const CallPtr& call, Place place) {
  hooks_.prepare(call);
  std::lock_guard lock(mu_);
  --working_[static_cast<size_t>(place)];
  calls_.erase(call);
  left_.notify_all();
}

void Preparation::WatchLoop() {
  std::unique_lock lock(wake_->mu_);
  while (!wake_->joining_) {
    if (wake_->look_ || wake_->next_ <= clock_->Now()) {
      wake_->look_ = false;
      wake_->next_ = absl::InfiniteFuture();
      lock.unlock();
      const absl::Time next = EndUnwanted();
      lock.lock();
      wake_->next_ = std::min(wake_->next_, next);
      continue;
    }
    WaitUntil(wake_->changed_, lock, *clock_, wake_->next_);
  }
}

absl::Time Preparation::EndUnwanted() {
  std::vector<CallPtr> calls, ended;
  {
    std::lock_guard lock(mu_);
    calls.assign(calls_.begin(), calls_.end());
    ++ending_;
  }
  absl::Time next = absl::InfiniteFuture();
  const absl::Time now = clock_->Now();
  for (CallPtr& call : calls) {
    if (call->Queued()) continue;  // the scheduler's own sweeper has it
    if (absl::Status status = call->StillWanted(now); status.ok()) {
      next = std::min(next, call->deadline);
    } else if (hooks_.end(call, std::move(status))) {
      ended.push_back(std::move(call));
    }
  }
  Forget(ended);
  return next;
}

void Preparation::Forget(const std::vector<CallPtr>& ended) {
  std::lock_guard lock(mu_);
  for (const CallPtr& call : ended) calls_.erase(call);
  --ending_;
  left_.notify_all();
}

bool Preparation::Drain(absl::Time deadline) {
  absl::flat_hash_set<CallPtr> late;
  {
    std::unique_lock lock(mu_);
    draining_ = true;
    while (!calls_.empty() && clock_->Now() < deadline) WaitUntil(left_, lock, *clock_, deadline);
    late = calls_;
    ++ending_;
  }
  std::vector<CallPtr> ended;
  for (const CallPtr& call : late) {
    const absl::Status status =
        absl::UnavailableError("the engine stopped before the request was prepared; ask another replica");
    if (hooks_.end(call, status)) ended.push_back(call);
  }
  Forget(ended);
  // Others had ended, or are with the scheduler: whoever ended them waits for nothing but their callback.
  std::unique_lock lock(mu_);
  left_.wait(lock, [this] { return calls_.empty() && ending_ == 0; });
  return ended.empty();
}

bool Preparation::draining() const {
  std::lock_guard lock(mu_);
  return draining_;
}

int64_t Preparation::size() const {
  std::lock_guard lock(mu_);
  return static_cast<int64_t>(calls_.size());
}

}  // namespace beamline::engine
