// SPDX-License-Identifier: Apache-2.0
#include "server/admin_pages.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace beamline::server {

AdminHttp::Pages AdminPages::Pages() {
  return {{"/livez", [] { return HttpPage{.body = "alive\n"}; }},
          {"/readyz", [this] { return Ready(); }},
          {"/metrics", [this] { return Metrics(); }}};
}

void AdminPages::Serving(const Engine* engine, const Server* server) {
  std::lock_guard lock(mu_);
  engine_ = engine;
  server_ = server;
}

void AdminPages::Draining() {
  std::lock_guard lock(mu_);
  draining_ = true;
}

void AdminPages::Gone() {
  std::lock_guard lock(mu_);
  engine_ = nullptr;
  server_ = nullptr;
  draining_ = true;
}

std::string AdminPages::WhyNotReady() const {
  if (draining_) return "draining";
  if (engine_ == nullptr) return "loading";
  const EngineStatus status = engine_->GetStatus();
  return status.ready ? "" : status.not_ready;
}

HttpPage AdminPages::Ready() const {
  std::lock_guard lock(mu_);
  const std::string why = WhyNotReady();
  if (why.empty()) return {.body = "ready\n"};
  return {.status = 503, .body = absl::StrCat(why, "\n")};
}

HttpPage AdminPages::Metrics() const {
  std::lock_guard lock(mu_);
  if (engine_ == nullptr) return {.status = 503, .body = draining_ ? "draining\n" : "loading\n"};
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = server_->RenderMetrics(WhyNotReady().empty())};
}

}  // namespace beamline::server
