// SPDX-License-Identifier: Apache-2.0
//
// An executor without a model: batches cost what the test says, every call is recorded, and every promise the scheduler
// makes to executors is checked as it runs. With a FakeClock it moves the time by the cost; without one it sleeps.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "gtest/gtest.h"
#include "scheduler/executor.h"

namespace beamline::scheduler {

struct FakeJob : Job {
  std::string name;
  bool cached = false;         // TryAttachContext says yes
  absl::Status encode_status;  // what the executor returns for it
  absl::Status decode_status;
  int encoded = 0, decoded = 0, steps = 0;
};

struct FakeBatch {
  bool encode = false;
  absl::Time start;
  std::vector<std::string> names;
  int64_t rows = 0, tokens = 0;
};

class FakeExecutor : public BatchExecutor {
 public:
  using Cost = std::function<absl::Duration(int64_t requests, int64_t rows, int64_t tokens)>;

  FakeExecutor(const Clock* clock, FakeClock* mover) : clock_(clock), mover_(mover) {}

  Cost encode_cost = [](int64_t, int64_t, int64_t) { return absl::Milliseconds(4); };
  Cost step_cost = [](int64_t, int64_t, int64_t) { return absl::Milliseconds(2); };
  int steps = 3;
  int concurrency = 1;
  bool on_host = true;
  bool chain = false;
  std::function<void(int step)> before_step;  // runs on the worker
  std::function<void(absl::Duration)> spend;  // in the place of moving the clock or sleeping

  int max_concurrency() const override { return concurrency; }
  bool computes_on_host() const override { return on_host; }

  bool TryAttachContext(Job& job) override { return static_cast<FakeJob&>(job).cached; }

  std::vector<absl::Status> Encode(absl::Span<Job* const> jobs) override {
    const Running running(*this);
    FakeBatch batch = Describe(jobs, true);
    std::vector<absl::Status> statuses;
    for (Job* job : jobs) {
      auto& fake = static_cast<FakeJob&>(*job);
      EXPECT_FALSE(fake.cached);
      EXPECT_EQ(fake.encoded++, 0) << fake.name << " encoded twice";
      if (batch.start >= job->deadline) executed_late.fetch_add(1);
      statuses.push_back(fake.encode_status);
    }
    Spend(encode_cost(jobs.size(), batch.rows, batch.tokens));
    Record(std::move(batch));
    return statuses;
  }

  std::vector<absl::Status> Decode(absl::Span<Job* const> jobs, StepGate gate) override {
    const Running running(*this);
    FakeBatch batch = Describe(jobs, false);
    const int64_t requests = jobs.size();
    const int64_t rows = batch.rows, tokens = batch.tokens;
    std::vector<absl::Status> statuses(jobs.size());
    for (Job* job : jobs) {
      auto& fake = static_cast<FakeJob&>(*job);
      EXPECT_EQ(fake.encoded + fake.cached, 1) << fake.name;
      EXPECT_EQ(fake.decoded++, 0) << fake.name << " decoded twice";
    }
    Record(std::move(batch));
    for (int step = 0; step < steps; ++step) {
      if (before_step) before_step(step);
      bool alive = false;
      for (size_t i = 0; i < jobs.size(); ++i) {
        auto& fake = static_cast<FakeJob&>(*jobs[i]);
        if (statuses[i].ok() && step > 0) statuses[i] = gate(*jobs[i]);
        if (!statuses[i].ok()) continue;
        // A real clock may pass the deadline between the gate and this line.
        if (mover_ != nullptr && clock_->Now() >= jobs[i]->deadline) executed_late.fetch_add(1);
        ++fake.steps;
        alive = true;
      }
      if (!alive) break;
      Spend(step_cost(requests, rows, tokens));
    }
    for (size_t i = 0; i < jobs.size(); ++i) {
      if (statuses[i].ok()) statuses[i] = static_cast<FakeJob&>(*jobs[i]).decode_status;
    }
    return statuses;
  }

  bool chains() const override { return chain; }
  Chained EncodeAndDecode(absl::Span<Job* const> jobs, StepGate gate) override {
    ++chained;
    std::vector<Job*> to_encode, to_decode;
    for (Job* job : jobs) {
      if (!static_cast<FakeJob&>(*job).cached) to_encode.push_back(job);
    }
    EXPECT_FALSE(to_encode.empty()) << "a decode would have done";
    Encode(to_encode);
    for (Job* job : jobs) {
      if (static_cast<FakeJob&>(*job).encode_status.ok()) to_decode.push_back(job);
    }
    const absl::Time encoded = clock_->Now();
    const std::vector<absl::Status> decoded = Decode(to_decode, gate);
    Chained all{.statuses = {}, .decode = clock_->Now() - encoded};
    for (Job* job : jobs) {
      const auto at = std::find(to_decode.begin(), to_decode.end(), job) - to_decode.begin();
      all.statuses.push_back(at < std::ssize(to_decode) ? decoded[at] : static_cast<FakeJob&>(*job).encode_status);
    }
    return all;
  }

  std::vector<FakeBatch> batches() const {
    std::lock_guard lock(mu_);
    return batches_;
  }

  std::atomic<int> chained{0};            // calls of EncodeAndDecode
  std::atomic<int64_t> executed_late{0};  // stages or steps begun for a job whose deadline had passed

 private:
  struct Running {
    explicit Running(FakeExecutor& executor) : executor(executor) {
      EXPECT_LE(executor.running_.fetch_add(1) + 1, executor.concurrency);
    }
    ~Running() { executor.running_.fetch_sub(1); }
    FakeExecutor& executor;
  };

  FakeBatch Describe(absl::Span<Job* const> jobs, bool encode) const {
    FakeBatch batch{.encode = encode, .start = clock_->Now()};
    for (Job* job : jobs) {
      batch.names.push_back(static_cast<FakeJob&>(*job).name);
      batch.rows += job->beam_rows;
      batch.tokens += job->context_tokens;
    }
    return batch;
  }
  void Record(FakeBatch batch) {
    std::lock_guard lock(mu_);
    batches_.push_back(std::move(batch));
  }
  void Spend(absl::Duration cost) {
    if (spend) {
      spend(cost);
    } else if (mover_ != nullptr) {
      mover_->Advance(cost);
    } else if (cost > absl::ZeroDuration()) {
      std::this_thread::sleep_for(absl::ToChronoNanoseconds(cost));
    }
  }

  const Clock* clock_;
  FakeClock* mover_;
  std::atomic<int> running_{0};
  mutable std::mutex mu_;
  std::vector<FakeBatch> batches_;
};

}  // namespace beamline::scheduler
