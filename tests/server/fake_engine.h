// SPDX-License-Identifier: Apache-2.0
//
// An engine and a catalogue without a model, for tests of the server. Answers come from a function the test sets, on a
// thread of the fake's own (as a real engine's do), inside Submit, or only when the test says so. Thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/thread_pool.h"
#include "beamline/engine.h"
#include "testing/eventually.h"

namespace beamline::server {

// Items 1..8; item i has SID <i/4, i/2 mod 2, 0>, so that two items share each.
class FakeCatalogue final : public Catalogue {
 public:
  const std::string& version() const override { return version_; }
  const std::string& codebook_fingerprint() const override { return fingerprint_; }
  int levels() const override { return 3; }
  std::vector<uint32_t> level_sizes() const override { return {4, 2, 1}; }
  uint64_t num_items() const override { return 8; }
  uint64_t num_sids() const override { return 5; }
  std::optional<Sid> Encode(ItemId item) const override {
    if (item < 1 || item > 8) return std::nullopt;
    return Sid{static_cast<Code>(item / 4), static_cast<Code>(item / 2 % 2), 0};
  }
  std::vector<ItemId> Resolve(const Sid& sid) const override {
    std::vector<ItemId> items;
    for (ItemId item = 1; item <= 8; ++item) {
      if (Encode(item) == sid) items.push_back(item);
    }
    return items;
  }
  std::optional<CatalogueItem> GetItem(ItemId item) const override {
    if (!Encode(item)) return std::nullopt;
    ItemAttributes attributes{70 + item, 9000, 1650000000000, 0.5f, "title " + std::to_string(item), {{"tag", "39"}}};
    return CatalogueItem{item, *Encode(item), attributes};
  }

 private:
  const std::string version_ = "catalogue-1";
  const std::string fingerprint_ = "abc123";
};

// One item per request, with everything an answer can carry.
inline RecommendResult FakeResult() {
  RecommendResult result;
  result.items.push_back({5, Sid{1, 0, 0}, {-0.5f, -0.25f, -0.125f}, -0.875f});
  result.items.push_back({2, Sid{0, 1, 0}, {-1.0f, -0.5f, 0.0f}, -1.5f});
  result.short_reason = ShortReason::kBeamExhausted;
  result.beam_widths = {2, 4, 4};
  result.narrowing = 2;
  result.seen_events = 5;
  result.unknown_items = 3;
  result.dropped_events = 7;
  result.context_cached = true;
  result.model_version = "model-1";
  result.catalogue_version = "catalogue-1";
  result.timings = {absl::Microseconds(11), absl::Microseconds(22),  absl::Microseconds(33),
                    absl::Microseconds(44), absl::Microseconds(110), absl::Microseconds(9)};
  result.timings.encode_requests = 2;
  result.timings.decode_requests = 3;
  return result;
}

class FakeEngine final : public Engine {
 public:
  using Answer = std::function<absl::StatusOr<RecommendResult>(const RecommendRequest&)>;
  enum class Mode {
    kThread,  // answers on the fake's thread
    kInline,  // answers inside Submit
    kHold,    // answers on Release or cancellation
    kStuck,   // answers only on Release: cancellation is ignored
  };

  ~FakeEngine() override { Release(absl::UnavailableError("stopping")); }

  Canceller Submit(RecommendRequest request, Callback done) override {
    auto call = std::make_shared<Pending>(std::move(done), &in_flight_);
    in_flight_.fetch_add(1);
    Mode mode;
    Answer answer;
    {
      std::lock_guard lock(mu_);
      requests_.push_back(request);
      mode = mode_;
      answer = answer_;
      if (mode == Mode::kHold || mode == Mode::kStuck) held_.push_back(call);
    }
    if (mode == Mode::kInline) call->Run(answer(request));
    if (mode == Mode::kThread) pool_.Schedule([call, answer, request] { call->Run(answer(request)); });
    return [this, call, mode] {
      cancelled_.fetch_add(1);
      if (mode != Mode::kStuck) call->Run(absl::CancelledError("cancelled"));
    };
  }
  absl::Time Now() const override { return ProcessClock().Now(); }
  std::shared_ptr<const Catalogue> catalogue() const override { return catalogue_; }
  // "bad" and "large" are refused, and so is a rollback before the first reload.
  void Reload(std::string bundle, ReloadCallback done) override {
    if (bundle == "bad") return done(absl::DataLossError("bad/model.safetensors: was damaged"));
    if (!reload_error_.ok()) return done(reload_error_);
    if (bundle == "none") return done(absl::NotFoundError("none: no such folder"));
    if (bundle == "large") return done(absl::ResourceExhaustedError("large: needs 900.00 GB of memory"));
    const int number = reloads_.fetch_add(1) + 2;
    done(ModelVersion{.id = number,
                      .bundle = std::move(bundle),
                      .model_version = "model-" + std::to_string(number),
                      .state = "serving"});
  }
  void Rollback(ReloadCallback done) override {
    if (reloads_.load() == 0) return done(absl::FailedPreconditionError("nothing to go back to"));
    done(ModelVersion{.id = 1, .bundle = "bundle", .model_version = "model-1", .state = "serving"});
  }
  EngineStatus GetStatus() const override {
    EngineStatus status;
    status.versions = {{.id = 1, .bundle = "bundle", .model_version = "model-1", .state = "serving"},
                       {.id = 2, .bundle = "broken", .state = "refused", .error = "broken/items: was damaged"}};
    status.models_served = 1;
    status.models_refused = 1;
    status.model_folder_unreadable = true;
    status.ready = ready_.load();
    if (!status.ready) status.not_ready = "the last 3 batches failed";
    status.device = "fake";
    status.dtype = "bf16";
    status.backend = "none";
    status.model_version = "model-1";
    status.catalogue_version = "catalogue-1";
    status.family = "fake";
    status.ranker = true;
    status.levels = 3;
    status.level_sizes = {4, 2, 1};
    status.short_term_events = 20;
    status.positive_events = 256;
    status.parameters = 1234;
    status.codebook_fingerprint = "abc123-of-the-status";  // not the catalogue's: a swap may lie between the two
    status.num_items = 8;
    status.num_sids = 6;
    status.completed = 17;
    status.in_flight = in_flight_.load();
    std::lock_guard lock(mu_);
    status.fault = fault_;
    status.last_success = last_success_ == absl::InfinitePast() ? ProcessClock().Now() : last_success_;
    return status;
  }
  std::optional<DeviceMemory> GetDeviceMemory() const override { return device_memory_; }
  std::optional<DevicePasses> GetDevicePasses() const override { return device_passes_; }
  void set_reload_error(absl::Status error) { reload_error_ = std::move(error); }
  void set_device_memory(DeviceMemory memory) { device_memory_ = memory; }
  void set_device_passes(DevicePasses passes) { device_passes_ = passes; }
  bool Drain(absl::Time) override {
    drained_.store(true);
    if (mode() == Mode::kHold) Release(absl::UnavailableError("the engine stopped"));
    return true;
  }

  void set_mode(Mode mode) {
    std::lock_guard lock(mu_);
    mode_ = mode;
  }
  void set_answer(Answer answer) {
    std::lock_guard lock(mu_);
    answer_ = std::move(answer);
  }
  void set_last_success(absl::Time time) {
    std::lock_guard lock(mu_);
    last_success_ = time;
  }
  void set_fault(absl::Status fault) {
    std::lock_guard lock(mu_);
    fault_ = std::move(fault);
  }
  void set_ready(bool ready) { ready_.store(ready); }
  // Answers everything held.
  void Release(absl::StatusOr<RecommendResult> result) {
    std::vector<std::shared_ptr<Pending>> held;
    {
      std::lock_guard lock(mu_);
      held.swap(held_);
    }
    for (const auto& call : held) call->Run(result);
  }
  // Waits until `count` requests have arrived since the start; false where they do not come.
  bool AwaitRequests(size_t count) {
    return testing::Eventually([&] { return requests().size() >= count; });
  }
  std::vector<RecommendRequest> requests() const {
    std::lock_guard lock(mu_);
    return requests_;
  }
  int cancelled() const { return cancelled_.load(); }
  bool drained() const { return drained_.load(); }

 private:
  Mode mode() const {
    std::lock_guard lock(mu_);
    return mode_;
  }
  struct Pending {
    Pending(Callback done, std::atomic<int64_t>* in_flight) : done(std::move(done)), in_flight(*in_flight) {}
    void Run(absl::StatusOr<RecommendResult> result) {
      if (ran.exchange(true)) return;
      in_flight.fetch_sub(1);
      done(std::move(result));
    }
    Callback done;
    std::atomic<int64_t>& in_flight;
    std::atomic<bool> ran{false};
  };

  mutable std::mutex mu_;
  Mode mode_ = Mode::kThread;                                             // guarded by mu_
  Answer answer_ = [](const RecommendRequest&) { return FakeResult(); };  // guarded by mu_
  std::vector<RecommendRequest> requests_;                                // guarded by mu_
  absl::Time last_success_ = absl::InfinitePast();                        // guarded by mu_; InfinitePast: always now
  absl::Status fault_;                                                    // guarded by mu_
  std::vector<std::shared_ptr<Pending>> held_;                            // guarded by mu_
  absl::Status reload_error_;                                             // set before anybody asks
  std::optional<DeviceMemory> device_memory_;                             // set before anybody asks
  std::optional<DevicePasses> device_passes_;                             // likewise
  std::atomic<int64_t> in_flight_{0};
  std::atomic<int> cancelled_{0};
  std::atomic<int> reloads_{0};
  std::atomic<bool> ready_{true};
  std::atomic<bool> drained_{false};
  const std::shared_ptr<const Catalogue> catalogue_ = std::make_shared<FakeCatalogue>();
  ThreadPool pool_{1};
};

}  // namespace beamline::server
