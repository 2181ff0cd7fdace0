// SPDX-License-Identifier: Apache-2.0
//
// An engine without threads over a fake runner and a clock that the test moves.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine_core.h"
#include "engine/fake_runner.h"
#include "gtest/gtest.h"

namespace beamline::engine {

inline constexpr int kItems = 150;
inline constexpr absl::Duration kMs = absl::Milliseconds(1);

class EngineCoreTest : public ::testing::Test {
 protected:
  EngineCoreTest() { Start({}); }

  void Start(EngineOptions options) {
    engine_.reset();
    options.cost_measurement = absl::ZeroDuration();  // costs are learnt from the requests of the test
    auto runner = std::make_unique<FakeRunner>(MakeCatalogue(kItems), clock_.get(), clock_.get());
    runner_ = runner.get();
    auto engine = EngineCore::Create({.options = std::move(options),
                                      .source = SourceOf(std::move(runner)),
                                      .clock = clock_,
                                      .preparation_threads = 0,
                                      .inline_execution = true});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  void RunAll() {
    while (true) {
      const absl::Time again = engine_->Step();
      if (again == absl::InfiniteFuture()) return;
      if (again > clock_->Now()) clock_->Set(again);
    }
  }
  absl::StatusOr<RecommendResult> Ask(RecommendRequest request) {
    absl::StatusOr<RecommendResult> answer = absl::UnknownError("no callback");
    int calls = 0;
    engine_->Submit(std::move(request), [&](absl::StatusOr<RecommendResult> result) {
      answer = std::move(result);
      ++calls;
    });
    RunAll();
    EXPECT_EQ(calls, 1);
    return answer;
  }
  static RecommendRequest EverythingOfTwentyBeams() {
    RecommendRequest request = User("ranked");
    request.items_per_sid = 2;
    request.beam_widths = {20};
    request.top_k = 1000;
    return request;
  }
  static RecommendRequest User(const std::string& user) {
    RecommendRequest request;
    request.user_id = user;
    return request;
  }

  std::shared_ptr<FakeClock> clock_ = std::make_shared<FakeClock>();
  FakeRunner* runner_ = nullptr;
  std::unique_ptr<EngineCore> engine_;
};

}  // namespace beamline::engine
