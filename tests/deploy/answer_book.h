// SPDX-License-Identifier: Apache-2.0
//
// What each model answered first to each of FixedRequests, by its version: it must answer that ever after. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "deploy/real_server.h"

namespace beamline::deploy {

class AnswerBook {
 public:
  // `request`: which of FixedRequests.
  void Check(size_t request, const v1::RecommendResponse& response) {
    std::lock_guard lock(mu_);
    const auto [known, first] = answers_[response.model_version()].emplace(request, Essence(response));
    if (first) {
      EXPECT_GT(response.items_size(), 0);
    }
    EXPECT_EQ(Essence(response), known->second) << "request " << request << ", " << response.model_version();
    ++compared_;
  }
  // All of them, once.
  void AskAll(const RealServer& server) {
    const auto stub = v1::RecommendService::NewStub(Connect(server.target()));
    const std::vector<v1::RecommendRequest> requests = FixedRequests();
    for (size_t i = 0; i < requests.size(); ++i) {
      v1::RecommendResponse response;
      const grpc::Status status = Ask(*stub, requests[i], &response);
      ASSERT_TRUE(status.ok()) << status.error_message() << "\n" << server.log();
      Check(i, response);
    }
  }
  size_t models() const {
    std::lock_guard lock(mu_);
    return answers_.size();
  }
  int compared() const {
    std::lock_guard lock(mu_);
    return compared_;
  }

 private:
  mutable std::mutex mu_;
  std::map<std::string, std::map<size_t, std::string>> answers_;
  int compared_ = 0;
};

}  // namespace beamline::deploy
