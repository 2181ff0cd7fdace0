// SPDX-License-Identifier: Apache-2.0
//
// monitoring/: a real Prometheus scrapes a real server, and every query of the dashboard and every recorded series
// finds data there.
#include <fstream>
#include <regex>

#include <nlohmann/json.hpp>

#include "absl/strings/str_replace.h"
#include "deploy/real_server.h"
#include "gmock/gmock.h"
#include "httplib.h"
#include "testing/paths.h"

namespace beamline::deploy {
namespace {

class DashboardTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (access(BEAMLINE_PROMETHEUS, X_OK) != 0) GTEST_SKIP() << "prometheus is not installed (scripts/setup.sh --dev)";
    const std::string bundle = ::testing::TempDir() + "/bundle";
    ASSERT_TRUE(runtime::testing::WriteTinyBundle(bundle).ok());
    server_ = std::make_unique<RealServer>(LoopbackAddress(1),
                                           RealServerConfig{.engine = absl::StrCat("bundle: '", bundle, "'")});
    server_->Start();
    ASSERT_TRUE(server_->AwaitReady());
    const std::string config = ::testing::TempDir() + "/prometheus.yml";
    std::ofstream(config) << "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
                          << "rule_files: [" << BEAMLINE_SOURCE_DIR << "/monitoring/alerts.yml, " << BEAMLINE_SOURCE_DIR
                          << "/monitoring/recording.yml]\n"
                          << "scrape_configs: [{job_name: beamline, static_configs: [{targets: ['" << LoopbackAddress(1)
                          << ":50053']}]}]\n";
    prometheus_ = std::make_unique<testing::Process>(std::vector<std::string>{
        BEAMLINE_PROMETHEUS, "--config.file=" + config, "--storage.tsdb.path=" + ::testing::TempDir() + "/tsdb",
        absl::StrCat("--web.listen-address=", LoopbackAddress(2), ":9090"), "--log.level=error"});
  }

  // The samples a query finds that are numbers.
  size_t Samples(const std::string& query) {
    httplib::Client client(LoopbackAddress(2), 9090);
    const httplib::Result answer = client.Get("/api/v1/query", httplib::Params{{"query", query}}, httplib::Headers{});
    if (!answer) return 0;
    const nlohmann::json json = nlohmann::json::parse(answer->body, nullptr, false);
    EXPECT_EQ(json.value("status", ""), "success") << query << ": " << answer->body;
    size_t samples = 0;
    for (const auto& sample : json["data"]["result"]) samples += sample["value"][1] != "NaN" ? 1 : 0;
    return samples;
  }

  // Until all of them find something, with a request now and then, and the same twice for the cache.
  std::vector<std::string> WithoutData(const std::vector<std::string>& queries) {
    const auto stub = v1::RecommendService::NewStub(Connect(server_->target()));
    const std::vector<v1::RecommendRequest> requests = FixedRequests();
    std::vector<std::string> left = queries;
    for (int i = 0; i < 150 && !left.empty(); ++i) {
      v1::RecommendResponse response;
      EXPECT_TRUE(Ask(*stub, requests[i % requests.size()], &response).ok());
      v1::RecommendRequest bad;
      EXPECT_FALSE(Ask(*stub, bad, &response).ok());
      absl::SleepFor(absl::Milliseconds(200));
      if (i % 5 == 4) std::erase_if(left, [&](const std::string& query) { return Samples(query) > 0; });
    }
    return left;
  }

  std::unique_ptr<RealServer> server_;
  std::unique_ptr<testing::Process> prometheus_;
};

TEST_F(DashboardTest, EveryQueryFindsData) {
  std::vector<std::string> queries = {"beamline:queue_delay_seconds:mean2m", "beamline:shed_requests:ratio2m"};
  const nlohmann::json dashboard =
      nlohmann::json::parse(std::ifstream(BEAMLINE_SOURCE_DIR + "/monitoring/grafana/beamline.json"));
  for (const auto& panel : dashboard.at("panels")) {
    for (const auto& target : panel.at("targets")) {
      queries.push_back(
          absl::StrReplaceAll(target.at("expr").get<std::string>(), {{"$instance", ".*"}, {"$__rate_interval", "1m"}}));
    }
  }
  EXPECT_GE(queries.size(), 15u);
  for (const auto& variable : dashboard.at("templating").at("list")) {
    const std::string query = variable.at("query");
    std::smatch parts;  // what Grafana asks Prometheus for in another way
    ASSERT_TRUE(std::regex_match(query, parts, std::regex(R"(label_values\((\w+), (\w+)\))"))) << query;
    queries.push_back(absl::StrCat(parts.str(1), "{", parts.str(2), "!=\"\"}"));
  }
  EXPECT_THAT(WithoutData(queries), ::testing::IsEmpty()) << prometheus_->Log();
  EXPECT_EQ(Samples("beamline_no_such_metric"), 0u);
}

}  // namespace
}  // namespace beamline::deploy
