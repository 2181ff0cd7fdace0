// SPDX-License-Identifier: Apache-2.0
//
// `beamline serve` with a fake engine, for process_test.cc: fake_serve MODE GRACE_MS. The log goes to standard output.
#include <atomic>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "server/fake_engine.h"
#include "server/lifecycle.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace beamline::server {
namespace {

// Ends only by force, like one whose device hangs.
class HangingEngine final : public Engine {
 public:
  explicit HangingEngine(bool hang_in_status) : hang_in_status_(hang_in_status) {}
  ~HangingEngine() override {
    for (;;) absl::SleepFor(absl::Seconds(1));
  }
  Canceller Submit(RecommendRequest, Callback) override {
    in_flight_.fetch_add(1);
    return [] {};
  }
  std::shared_ptr<const Catalogue> catalogue() const override { return fake_.catalogue(); }
  void Reload(std::string bundle, ReloadCallback done) override { fake_.Reload(std::move(bundle), std::move(done)); }
  void Rollback(ReloadCallback done) override { fake_.Rollback(std::move(done)); }
  EngineStatus GetStatus() const override {
    if (hang_in_status_ && asked_.fetch_add(1) > 0) {  // the first is for the log
      for (;;) absl::SleepFor(absl::Seconds(1));
    }
    EngineStatus status = fake_.GetStatus();
    status.in_flight = in_flight_.load();
    return status;
  }
  bool Drain(absl::Time) override { return false; }
  absl::Time Now() const override { return fake_.Now(); }

 private:
  const bool hang_in_status_;
  mutable std::atomic<int> asked_{0};
  std::atomic<int64_t> in_flight_{0};
  FakeEngine fake_;
};

absl::StatusOr<std::unique_ptr<Engine>> Make(const std::string& mode) {
  if (mode == "hang" || mode == "hang-in-status") return std::make_unique<HangingEngine>(mode != "hang");
  if (mode == "slow-load") absl::SleepFor(absl::Seconds(60));
  if (mode == "bad-bundle") return absl::InvalidArgumentError("bundle.json: missing");
  auto engine = std::make_unique<FakeEngine>();
  if (mode == "fault") {
    engine->set_answer([fake = engine.get()](const RecommendRequest&) {
      fake->set_fault(absl::UnavailableError("cuda: a batch: an illegal memory access"));
      return fake->GetStatus().fault;
    });
  }
  if (mode == "slow-answer" || mode == "slower-answer") {
    engine->set_answer([mode](const RecommendRequest&) {
      absl::SleepFor(absl::Milliseconds(mode == "slow-answer" ? 500 : 2500));
      return FakeResult();
    });
  }
  return engine;
}

}  // namespace
}  // namespace beamline::server

int main(int, char** argv) {
  spdlog::stdout_logger_mt("beamline");  // in the place of our own, see base/log.h
  spdlog::flush_on(spdlog::level::info);
  beamline::config::v1::ServerConfig config;
  config.mutable_listen()->set_port(0);
  config.mutable_admin()->set_port(0);
  config.mutable_admin()->set_http_port(0);
  int grace_ms = 0;
  if (!absl::SimpleAtoi(argv[2], &grace_ms)) return 2;
  config.mutable_lifecycle()->set_grace_ms(grace_ms);
  const absl::Status status = beamline::server::RunServer(
      config, [&](const beamline::EngineOptions&) { return beamline::server::Make(argv[1]); });
  return status.ok() ? 0 : 7;
}
