// SPDX-License-Identifier: Apache-2.0
//
// A server on 127.0.0.1 and a free port with a fake engine, and what tests call it with.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "beamline/status.h"
#include "beamline/v1/catalogue.grpc.pb.h"
#include "beamline/v1/model.grpc.pb.h"
#include "beamline/v1/recommend.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/fake_engine.h"
#include "server/listener.h"
#include "server/server.h"
#include "testing/eventually.h"
#include "testing/raw_call.h"

namespace beamline::server {

inline config::v1::ServerConfig LoopbackConfig() {
  config::v1::ServerConfig config;
  config.mutable_listen()->set_port(0);
  return config;
}

inline absl::StatusOr<std::unique_ptr<Server>> StartServer(const config::v1::ServerConfig& config, Engine* engine,
                                                           const Clock* clock) {
  BEAMLINE_ASSIGN_OR_RETURN(Listeners listeners, Server::ClaimPorts(config));
  return Server::Start(config, std::move(listeners), engine, clock);
}

inline std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

inline void SetTimeout(grpc::ClientContext& context, absl::Duration timeout = absl::Seconds(10)) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

using testing::Eventually;
using testing::RawCall;

class LoopbackTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(LoopbackConfig()); }

  void Start(const config::v1::ServerConfig& config) {
    server_.reset();
    absl::StatusOr<std::unique_ptr<Server>> server = StartServer(config, &engine_, &clock_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = Connect(server_->address());
    recommend_ = v1::RecommendService::NewStub(channel_);
    catalogue_ = v1::CatalogueService::NewStub(channel_);
    model_ = v1::ModelService::NewStub(channel_);
  }

  grpc::Status Recommend(const v1::RecommendRequest& request, v1::RecommendResponse* response) {
    grpc::ClientContext context;
    SetTimeout(context);
    return recommend_->Recommend(&context, request, response);
  }
  static v1::RecommendRequest ValidRequest() {
    v1::RecommendRequest request;
    request.set_user_id("u");
    return request;
  }

  const RealClock clock_;
  FakeEngine engine_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::RecommendService::Stub> recommend_;
  std::unique_ptr<v1::CatalogueService::Stub> catalogue_;
  std::unique_ptr<v1::ModelService::Stub> model_;
};

}  // namespace beamline::server
