// SPDX-License-Identifier: Apache-2.0
//
// Load on real servers while they are restarted and killed, every answer compared with the server's own.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "deploy/real_server.h"

namespace beamline::deploy {

// Calls without pause but for two milliseconds, each caller over a channel of its own, until it goes.
class Load {
 public:
  // `connect` makes a caller's channel; `expected`: the answers' essence, one per request. Both outlive the load.
  Load(const std::function<std::shared_ptr<grpc::Channel>()>& connect,
       const std::vector<v1::RecommendRequest>& requests, const std::vector<std::string>& expected) {
    for (int i = 0; i < kCallers; ++i) {
      callers_.emplace_back([=, this, channel = connect(), &requests, &expected] {
        const auto stub = v1::RecommendService::NewStub(channel);
        for (size_t n = i; !stop_.load(); ++n) {
          v1::RecommendResponse response;
          const absl::Time start = absl::Now();
          const grpc::Status status = Ask(*stub, requests[n % requests.size()], &response);
          ++calls_;
          Lasted(absl::Now() - start);
          if (!status.ok()) {
            Note(absl::StrCat(status.error_code(), ": ", status.error_message()));
          } else if (Essence(response) != expected[n % requests.size()]) {
            Note("another answer");
          }
          absl::SleepFor(absl::Milliseconds(2));
        }
      });
    }
  }
  ~Load() { Stop(); }
  void Stop() {
    stop_.store(true);
    for (std::thread& caller : callers_) caller.join();
    callers_.clear();
  }
  int calls() const { return calls_.load(); }
  std::vector<std::string> failures() const {
    std::lock_guard lock(mu_);
    return failures_;
  }
  // The longest call since it was last asked.
  absl::Duration TakeLongest() {
    std::lock_guard lock(mu_);
    return std::exchange(longest_, absl::ZeroDuration());
  }

 private:
  static constexpr int kCallers = 4;

  void Lasted(absl::Duration call) {
    std::lock_guard lock(mu_);
    longest_ = std::max(longest_, call);
  }
  void Note(std::string failure) {
    std::lock_guard lock(mu_);
    failures_.push_back(std::move(failure));
  }

  std::atomic<bool> stop_{false};
  std::atomic<int> calls_{0};
  mutable std::mutex mu_;
  std::vector<std::string> failures_;  // guarded by mu_
  absl::Duration longest_;             // likewise
  std::vector<std::thread> callers_;
};

// Until the load's calls reach this server.
inline bool GetsTraffic(const RealServer& server) {
  const int64_t before = server.completed();
  if (before < 0) return false;
  for (int i = 0; i < 200; ++i) {
    if (server.completed() >= before + 5) return true;
    absl::SleepFor(absl::Milliseconds(50));
  }
  return false;
}

// The answers' essence, one per request; empty where one fails.
inline std::vector<std::string> Answers(const RealServer& server, const std::vector<v1::RecommendRequest>& requests) {
  std::vector<std::string> answers;
  const auto stub = v1::RecommendService::NewStub(Connect(server.target()));
  for (const v1::RecommendRequest& request : requests) {
    v1::RecommendResponse response;
    if (!Ask(*stub, request, &response).ok() || response.items().empty()) return {};
    answers.push_back(Essence(response));
  }
  return answers;
}

}  // namespace beamline::deploy
