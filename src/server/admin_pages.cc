// SPDX-License-Identifier: Apache-2.0
#include "server/admin_pages.h"

#include <limits>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/program.h"
#include "server/flight_recorder.h"
#include "server/live_request.h"
#include "server/metrics.h"
#include "server/page.h"

namespace beamline::server {
namespace {

// Each occupies a thread of the pages: enough are left for supervisors and scrapers.
constexpr int kMaxLive = 2;
// Of each kind: what / shows, and asks for every other second.
constexpr size_t kNewestRequests = 50;

nlohmann::json VersionsJson(const EngineStatus& status) {
  nlohmann::json versions = nlohmann::json::array();
  for (const ModelVersion& version : status.versions) {
    versions.push_back({{"id", version.id},
                        {"bundle", version.bundle},
                        {"model_version", version.model_version},
                        {"catalogue_version", version.catalogue_version},
                        {"state", version.state},
                        {"error", version.error},
                        {"since_ms", absl::ToUnixMillis(OnTheWall(version.since))}});
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
      {"/debug/requests", [this] { return Requests(std::numeric_limits<size_t>::max()); }},
      {"/debug/requests/newest", [this] { return Requests(kNewestRequests); }},
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
  let_go_.wait(lock, [this] { return held_ == 0; });
}

// Keeps engine and server for a page, unlocked: pages wait neither for each other nor for what one of them asks, and a
// stop for none.
class AdminPages::Held {
 public:
  explicit Held(AdminPages* pages) : pages_(*pages) {
    std::lock_guard lock(pages_.mu_);
    engine = pages_.engine_;
    server = pages_.server_;
    draining = pages_.draining_;
    ++pages_.held_;
  }
  ~Held() {
    std::lock_guard lock(pages_.mu_);
    --pages_.held_;
    pages_.let_go_.notify_all();
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  const char* why_absent() const { return draining ? "draining" : "loading"; }
  // Empty: ready.
  std::string WhyNotReady() const {
    if (draining || engine == nullptr) return why_absent();
    const EngineStatus status = engine->GetStatus();
    return status.ready ? "" : status.not_ready;
  }

  Engine* engine;  // null with server: none
  const Server* server;
  bool draining;

 private:
  AdminPages& pages_;
};

namespace {

HttpPage NotServing(const char* why) { return {.status = 503, .body = absl::StrCat(why, "\n")}; }

}  // namespace

HttpPage AdminPages::Ready() {
  const Held held(this);
  const std::string why = held.WhyNotReady();
  return why.empty() ? HttpPage{.body = "ready\n"} : NotServing(why.c_str());
}

HttpPage AdminPages::Scrape() {
  const Held held(this);
  if (held.engine == nullptr && held.draining) return NotServing(held.why_absent());
  // A scrape that fails would look like a process that is gone.
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = held.engine == nullptr ? Metrics::RenderLoading()
                                         : held.server->RenderMetrics(held.WhyNotReady().empty())};
}

HttpPage AdminPages::Status() {
  const Held held(this);
  nlohmann::json json = {{"server_version", ProgramVersion()},
                         {"server_commit", ProgramCommit()},
                         {"live_requests", options_.live_requests},
                         {"not_ready", held.WhyNotReady()}};
  if (held.engine != nullptr) {
    const EngineStatus status = held.engine->GetStatus();
    json.update({{"model_version", status.model_version},
                 {"catalogue_version", status.catalogue_version},
                 {"family", status.family},
                 {"device", status.device},
                 {"dtype", status.dtype},
                 {"backend", status.backend},
                 {"ranker", status.ranker},
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

HttpPage AdminPages::Requests(size_t most) {
  const Held held(this);
  if (held.server == nullptr) return NotServing(held.why_absent());
  return {.content_type = "application/json", .body = held.server->recorder().ToJson(most)};
}

HttpPage AdminPages::Recommend(const HttpPost& post) {
  const auto refuse = [](int status, const char* why) {
    return HttpPage{status, "application/json", absl::StrCat("{\"error\":\"", why, "\"}\n")};
  };
  if (!options_.live_requests) return refuse(403, "admin.live_requests is off in the server's configuration");
  const Held held(this);
  if (held.engine == nullptr || held.draining) return refuse(503, held.why_absent());
  {
    std::lock_guard lock(mu_);
    if (live_ >= kMaxLive) return refuse(429, "other live requests are running; try again");
    ++live_;
  }
  const absl::Cleanup ended = [this] {
    std::lock_guard lock(mu_);
    --live_;
  };
  return RunLiveRequest(post, held.server->request_limits(), *held.engine);
}

}  // namespace beamline::server
