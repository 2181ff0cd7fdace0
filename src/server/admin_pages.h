// SPDX-License-Identifier: Apache-2.0
//
// What the admin port tells over HTTP: /livez while the process runs, /readyz where it should get traffic (a model is
// loaded and warmed up, the last work succeeded, it is not draining), /metrics. It is there before the model is, and
// until the end. Thread-safe.
#pragma once

#include <mutex>

#include "beamline/engine.h"
#include "server/admin_http.h"
#include "server/server.h"

namespace beamline::server {

class AdminPages {
 public:
  AdminHttp::Pages Pages();  // `this` outlives them

  // From now on there is a server; until Draining, then Gone.
  void Serving(const Engine* engine, const Server* server);
  void Draining();
  // REQUIRES: before engine or server are destroyed. Returns when no page looks at them any more.
  void Gone();

 private:
  HttpPage Ready() const;
  HttpPage Metrics() const;
  // Empty: ready. With mu_ held.
  std::string WhyNotReady() const;

  mutable std::mutex mu_;
  const Engine* engine_ = nullptr;  // guarded by mu_, as all below
  const Server* server_ = nullptr;
  bool draining_ = false;
};

}  // namespace beamline::server
