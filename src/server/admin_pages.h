// SPDX-License-Identifier: Apache-2.0
//
// What the admin port tells over HTTP: /livez while the process runs, /readyz where it should get traffic (a model is
// loaded and warmed up, the last work succeeded, it is not draining), /metrics, /debug/requests (the flight recorder;
// /debug/requests/newest: a page's length of it), /debug/status; and for people the page at / (page/), which shows
// these and, where live requests are allowed, runs one through POST /debug/recommend (live_request.h). It is there
// before the model is, and until the end. Thread-safe.
#pragma once

#include <condition_variable>
#include <mutex>

#include "beamline/engine.h"
#include "server/admin_http.h"
#include "server/server.h"

namespace beamline::server {

class AdminPages {
 public:
  struct Options {
    bool live_requests = false;
  };
  AdminPages() : AdminPages(Options{}) {}
  explicit AdminPages(const Options& options) : options_(options) {}

  AdminHttp::Pages Pages();  // `this` outlives them
  AdminHttp::Posts Posts();  // the same

  // From now on there is a server; until Draining, then Gone.
  void Serving(Engine* engine, const Server* server);
  void Draining();
  // REQUIRES: before engine or server are destroyed. Returns when no page looks at them any more.
  void Gone();

 private:
  class Held;

  HttpPage Ready();
  HttpPage Scrape();
  HttpPage Status();
  HttpPage Requests(size_t most);
  HttpPage Recommend(const HttpPost& post);

  const Options options_;
  std::mutex mu_;
  std::condition_variable let_go_;
  Engine* engine_ = nullptr;  // guarded by mu_, as all below
  const Server* server_ = nullptr;
  bool draining_ = false;
  int held_ = 0;  // pages that look at engine_ and server_ without mu_
  int live_ = 0;  // live requests
};

}  // namespace beamline::server
