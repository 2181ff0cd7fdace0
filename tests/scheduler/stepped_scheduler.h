// SPDX-License-Identifier: Apache-2.0
//
// A scheduler without threads over an executor without a model: every decision is one Step, batches move the clock.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/fake_executor.h"
#include "scheduler/scheduler.h"

namespace beamline::scheduler {

using Code = absl::StatusCode;

class SteppedScheduler : public ::testing::Test {
 protected:
  void Start(int64_t capacity = 100, int64_t max_requests = 4, bool admission = true) {
    SchedulerOptions options{.workers = 0, .queue_capacity = capacity, .admission = admission};
    options.limits.max_requests = max_requests;
    scheduler_ = std::make_unique<Scheduler>(options, &executor_, &clock_);
  }

  std::unique_ptr<FakeJob> Make(const std::string& name, absl::Duration deadline = absl::InfiniteDuration()) {
    auto job = std::make_unique<FakeJob>();
    job->name = name;
    job->deadline = clock_.Now() + deadline;
    job->beam_rows = 8;
    job->context_tokens = 100;
    job->done = [this, name](absl::Status status, Job& done) {
      auto& fake = static_cast<FakeJob&>(done);
      EXPECT_TRUE(ended_.emplace(name, status).second) << name << " ended twice";
      steps_[name] = fake.steps;
      shared_[name] = {done.encode_requests, done.decode_requests, done.decode_rows};
      if (status.ok()) {
        EXPECT_LE(done.submitted, done.encode_started);
        EXPECT_LE(done.encode_started, done.encode_ended);
        EXPECT_LE(done.encode_ended, done.decode_started);
        EXPECT_LT(done.decode_started, done.decode_ended);
        EXPECT_LT(done.decode_ended, done.deadline);
        EXPECT_EQ(fake.steps, executor_.steps);
      }
    };
    return job;
  }
  Scheduler::JobId Submit(const std::string& name, absl::Duration deadline = absl::InfiniteDuration()) {
    return scheduler_->Submit(Make(name, deadline));
  }
  void SubmitOf(const std::shared_ptr<Company>& company, const std::string& name,
                absl::Duration deadline = absl::InfiniteDuration()) {
    auto job = Make(name, deadline);
    job->company = company;
    scheduler_->Submit(std::move(job));
  }

  // Steps until nothing is left, moving the clock over the waits.
  void RunAll() {
    for (int i = 0; i < 10'000; ++i) {
      const absl::Time again = scheduler_->Step();
      if (again == absl::InfiniteFuture()) return;
      if (again > clock_.Now()) clock_.Set(again);
    }
    FAIL() << "never idle";
  }
  std::vector<std::vector<std::string>> Batches(bool encode) const {
    std::vector<std::vector<std::string>> names;
    for (const FakeBatch& batch : executor_.batches()) {
      if (batch.encode == encode) names.push_back(batch.names);
    }
    return names;
  }
  Code Ended(const std::string& name) { return ended_.contains(name) ? ended_[name].code() : Code::kUnknown; }

  // How a job ends on another executor.
  Code EndedOn(FakeExecutor& executor) {
    scheduler_ = std::make_unique<Scheduler>(SchedulerOptions{.workers = 0}, &executor, &clock_);
    Submit("a");
    RunAll();
    scheduler_.reset();
    return Ended("a");
  }

  FakeClock clock_;
  FakeExecutor executor_{&clock_, &clock_};
  std::map<std::string, absl::Status> ended_;
  std::map<std::string, int> steps_;
  std::map<std::string, std::vector<int>> shared_;  // requests of its encode and decode batch, rows of the latter
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace beamline::scheduler
