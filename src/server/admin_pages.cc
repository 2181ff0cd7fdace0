// SPDX-License-Identifier: Apache-2.0
#include "server/admin_pages.h"

#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "server/flight_recorder.h"
#include "server/live_request.h"
#include "server/metrics.h"
#include "server/page.h"

namespace beamline::server {
namespace {

// Each occupies a thread of the pages: enough are left for supervisors and scrapers.
constexpr int kMaxLive = 2;

nlohmann::json VersionsJson(const EngineStatus& status) {
  nlohmann::json versions = nlohmann::json::array();
  for (const ModelVersion& version : status.versions) {
    versions.push_back({{"id", version.id},
                        {"bundle", version.bundle},
                        {"model_version", version.model_version},
                        {"state", version.state},
                        {"error", version.error},
                        {"since_ms", absl::ToUnixMillis(version.since)}});
  }
  return versions;
}

}  // namespace

AdminHttp::Pages AdminPages::Pages() {
  return {
      {"/livez", [] { return HttpPage{.body = "alive\n"}; }},
      {"/readyz", [this] { return Ready(); }},
      {"/metrics", [this] { return Scrape(); }},
      {"/debug/status", [this] { return Status(); }},
      {"/debug/requests", [this] { return Requests(); }},
      {"/", [] { return HttpPage{.content_type = "text/html; charset=utf-8", .body = page::kHtml}; }},
      {"/page[.]svg", [] { return HttpPage{.content_type = "image/svg+xml", .body = page::kIcon}; }},
      {"/page[.]css", [] { return HttpPage{.content_type = "text/css; charset=utf-8", .body = page::kCss}; }},
      {"/page[.]js", [] { return HttpPage{.content_type = "text/javascript; charset=utf-8", .body = page::kScript}; }}};
}

AdminHttp::Posts AdminPages::Posts() {
  return {{"/debug/recommend", [this](const HttpPost& post) { return Recommend(post); }}};
}

void AdminPages::Serving(Engine* engine, const Server* server) {
  std::lock_guard lock(mu_);
  engine_ = engine;
  server_ = server;
}

void AdminPages::Draining() {
  std::lock_guard lock(mu_);
  draining_ = true;
}

void AdminPages::Gone() {
  std::unique_lock lock(mu_);
  engine_ = nullptr;
  server_ = nullptr;
  draining_ = true;
  live_ended_.wait(lock, [this] { return live_ == 0; });
}

std::string AdminPages::WhyNotReady() const {
  if (draining_) return "draining";
  if (engine_ == nullptr) return "loading";
  const EngineStatus status = engine_->GetStatus();
  return status.ready ? "" : status.not_ready;
}

HttpPage AdminPages::NotServing() const { return {.status = 503, .body = draining_ ? "draining\n" : "loading\n"}; }

HttpPage AdminPages::Ready() const {
  std::lock_guard lock(mu_);
  const std::string why = WhyNotReady();
  if (why.empty()) return {.body = "ready\n"};
  return {.status = 503, .body = absl::StrCat(why, "\n")};
}

HttpPage AdminPages::Scrape() const {
  std::lock_guard lock(mu_);
  if (engine_ == nullptr && draining_) return NotServing();
  // A scrape that fails would look like a process that is gone.
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = engine_ == nullptr ? Metrics::RenderLoading() : server_->RenderMetrics(WhyNotReady().empty())};
}

HttpPage AdminPages::Status() const {
  std::lock_guard lock(mu_);
  nlohmann::json json = {
      {"server_version", BEAMLINE_VERSION}, {"live_requests", options_.live_requests}, {"not_ready", WhyNotReady()}};
  if (engine_ != nullptr) {
    const EngineStatus status = engine_->GetStatus();
    json.update({{"model_version", status.model_version},
                 {"catalogue_version", status.catalogue_version},
                 {"family", status.family},
                 {"parameters", status.parameters},
                 {"items", status.num_items},
                 {"sids", status.num_sids},
                 {"level_sizes", status.level_sizes},
                 {"queued", status.queued},
                 {"in_flight", status.in_flight},
                 {"completed", status.completed},
                 {"failed", status.failed},
                 {"rejected", status.rejected},
                 {"versions", VersionsJson(status)}});
  }
  return {.content_type = "application/json",
          .body = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)};
}

HttpPage AdminPages::Requests() const {
  std::lock_guard lock(mu_);
  if (server_ == nullptr) return NotServing();
  return {.content_type = "application/json", .body = server_->recorder().ToJson()};
}

HttpPage AdminPages::Recommend(const HttpPost& post) {
  Engine* engine = nullptr;
  RequestLimits limits;
  {
    std::lock_guard lock(mu_);
    const auto refuse = [](int status, const char* why) {
      return HttpPage{status, "application/json", absl::StrCat("{\"error\":\"", why, "\"}\n")};
    };
    if (!options_.live_requests) return refuse(403, "admin.live_requests is off in the server's configuration");
    if (engine_ == nullptr || draining_) return refuse(503, draining_ ? "draining" : "loading");
    if (live_ >= kMaxLive) return refuse(429, "other live requests are running; try again");
    engine = engine_;
    limits = server_->request_limits();
    ++live_;
  }
  const absl::Cleanup ended = [this] {
    std::lock_guard lock(mu_);
    --live_;
    live_ended_.notify_all();
  };
  // Unlocked: the pages of supervisors do not wait for the engine.
  return RunLiveRequest(post, limits, *engine);
}

}  // namespace beamline::server
