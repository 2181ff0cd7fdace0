// SPDX-License-Identifier: Apache-2.0
//
// docker/k8s/client-service-config.json: gRPC clients that use it lose no call when servers behind one name are
// restarted one after the other.
#include <fstream>
#include <iostream>
#include <iterator>

#include "deploy/load.h"
#include "gmock/gmock.h"
#include "testing/paths.h"

namespace beamline::deploy {
namespace {

std::string ServiceConfig() {
  std::ifstream file(BEAMLINE_SOURCE_DIR + "/docker/k8s/client-service-config.json");
  return {std::istreambuf_iterator<char>(file), {}};
}

constexpr int kBackoffMs = 500;

TEST(RolloutTest, CostsNoCallOfClientsWithTheServiceConfig) {
  const std::string bundle = ::testing::TempDir() + "/bundle";
  ASSERT_TRUE(runtime::testing::WriteTinyBundle(bundle).ok());
  std::vector<std::unique_ptr<RealServer>> servers;
  for (int i = 0; i < 2; ++i) {
    servers.push_back(std::make_unique<RealServer>(LoopbackAddress(1 + i),
                                                   RealServerConfig{.engine = absl::StrCat("bundle: '", bundle, "'")}));
    servers.back()->Start();
  }
  for (const auto& server : servers) ASSERT_TRUE(server->AwaitReady());
  const std::vector<v1::RecommendRequest> requests = FixedRequests();
  const std::vector<std::string> expected = Answers(*servers[0], requests);
  ASSERT_FALSE(expected.empty());
  // As a name that stands for both.
  const std::string target = absl::StrCat("ipv4:", servers[0]->target(), ",", servers[1]->target());
  const std::string config = ServiceConfig();
  Load load(
      [&] {
        grpc::ChannelArguments arguments;
        arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
        arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
        arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kBackoffMs);  // a test has no two minutes
        arguments.SetServiceConfigJSON(config);
        return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
      },
      requests, expected);
  for (const auto& server : servers) ASSERT_TRUE(GetsTraffic(*server));
  for (const auto& server : servers) {
    EXPECT_EQ(server->Stop(SIGTERM), 0) << server->log();
    server->Start();
    ASSERT_TRUE(server->AwaitReady());
    ASSERT_TRUE(GetsTraffic(*server));
    // From one caller at least; the others' channels try again after kBackoffMs, give or take a fifth. A rollout that
    // goes on before that leaves them without a server.
    absl::SleepFor(4 * absl::Milliseconds(kBackoffMs));
  }
  load.Stop();
  std::cout << load.calls() << " calls over two restarts, " << load.failures().size() << " failed\n";
  EXPECT_THAT(load.failures(), ::testing::IsEmpty());
}

}  // namespace
}  // namespace beamline::deploy
