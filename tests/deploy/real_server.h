// SPDX-License-Identifier: Apache-2.0
//
// `beamline serve` as a process with a small bundle, on a loopback address of its own and the usual ports, and what
// tests ask it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "beamline/v1/model.grpc.pb.h"
#include "beamline/v1/recommend.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "runtime/tiny_bundle.h"
#include "testing/process.h"

namespace beamline::deploy {

// 127.x.y.n: tests that run side by side have other addresses, so that everybody can use the same ports.
inline std::string LoopbackAddress(int n) {
  return absl::StrCat("127.", 100 + getpid() % 100, ".", 1 + getpid() / 100 % 250, ".", n);
}

inline std::shared_ptr<grpc::Channel> Connect(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

// Requests of every kind that a bundle of the default options answers.
inline std::vector<v1::RecommendRequest> FixedRequests() {
  std::vector<v1::RecommendRequest> requests;
  for (int i = 0; i < 8; ++i) {
    v1::RecommendRequest& request = requests.emplace_back();
    request.set_user_id(absl::StrCat("user ", i));
    request.set_top_k(5 + i);
    request.add_beam_widths(16);
    for (const Event& event : runtime::testing::TinyHistory(i, 3 * i)) request.add_history()->set_item_id(event.item);
  }
  return requests;
}

// What must be the same whenever the same request meets the same model, as bytes.
inline std::string Essence(const v1::RecommendResponse& response) {
  v1::RecommendResponse same;
  *same.mutable_items() = response.items();
  same.set_short_reason(response.short_reason());
  *same.mutable_beam_widths() = response.beam_widths();
  same.set_model_version(response.model_version());
  same.set_catalogue_version(response.catalogue_version());
  return same.SerializeAsString();
}

inline grpc::Status Ask(v1::RecommendService::Stub& stub, const v1::RecommendRequest& request,
                        v1::RecommendResponse* response, absl::Duration timeout = absl::Seconds(20)) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  return stub.Recommend(&context, request, response);
}

// Text for the sections of that name; `more` for the whole.
struct RealServerConfig {
  std::string engine;
  std::string admin;
  std::string lifecycle = "drain_delay_ms: 3000 grace_ms: 10000";
  std::string more;
};

class RealServer {
 public:
  RealServer(const std::string& address, const RealServerConfig& config) : address_(address) {
    config_ = absl::StrCat(::testing::TempDir(), "/", address, ".textproto");
    const std::string text = absl::StrCat("listen { address: '", address, "' }\nadmin { address: '", address, "' ",
                                          config.admin, " }\nengine { threads: 1 ", config.engine, " }\nlifecycle { ",
                                          config.lifecycle, " }\n", config.more, "\n");
    EXPECT_TRUE(WriteFileAtomically(config_, text).ok());
  }

  void Start() { StartBy({}); }
  // By a program that ends in becoming the one whose arguments follow its own.
  void StartBy(std::vector<std::string> arguments) {
    process_.reset();
    arguments.insert(arguments.end(), {BEAMLINE_BINARY, "serve", "--config", config_});
    process_ = std::make_unique<testing::Process>(arguments);
  }
  bool AwaitReady() const {
    const bool started = !process_->AwaitLog("server started: ").empty();
    EXPECT_TRUE(started) << process_->Log();
    return started;
  }
  // The exit code, or minus the signal.
  int Stop(int signal_number) {
    process_->Signal(signal_number);
    return process_->Wait();
  }
  std::string target() const { return absl::StrCat(address_, ":50051"); }
  std::string log() const { return process_->Log(); }
  pid_t pid() const { return process_->pid(); }
  const testing::Process& process() const { return *process_; }
  // Recommendations it has answered since it started.
  int64_t completed() const {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
    v1::GetStatusResponse status;
    const auto stub = v1::ModelService::NewStub(Connect(target()));
    return stub->GetStatus(&context, {}, &status).ok() ? static_cast<int64_t>(status.engine().completed()) : -1;
  }

 private:
  const std::string address_;
  std::string config_;
  std::unique_ptr<testing::Process> process_;
};

}  // namespace beamline::deploy
