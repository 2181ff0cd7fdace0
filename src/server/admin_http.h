// SPDX-License-Identifier: Apache-2.0
//
// A few pages over HTTP for supervisors, scrapers and operators, on a port and threads of their own, so that a busy
// server still says it is alive. Pages are made anew for every request; everything else is 404. Requests are small and
// short, and connections end with their answer (bounded_http.h): whatever a client sends or does not read costs a
// thread for fifteen seconds at most, much less where others wait, and nothing else. No page may be framed, cached, or
// use anything from elsewhere. The pages must be thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace beamline::server {

class BoundedHttpServer;

struct HttpPage {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

struct HttpPost {
  std::string body;
  std::string content_type;
  std::string host;    // as the client names us: "127.0.0.1:50053"
  std::string origin;  // of the page that sent it; empty: none did
};

class AdminHttp {
 public:
  using Pages = std::map<std::string, std::function<HttpPage()>>;                 // by path, for GET
  using Posts = std::map<std::string, std::function<HttpPage(const HttpPost&)>>;  // by path

  static constexpr size_t kMaxBodyBytes = 256 << 10;
  static constexpr size_t kMaxHeaderBytes = 64 << 10;

  // Port 0: the system chooses, see address(). FAILED_PRECONDITION: the address cannot be listened on.
  static absl::StatusOr<std::unique_ptr<AdminHttp>> Start(const std::string& address, int port, Pages pages,
                                                          Posts posts = {});
  ~AdminHttp();  // waits for pages being made

  const std::string& address() const { return address_; }  // "127.0.0.1:50053", with the real port

 private:
  AdminHttp();

  std::unique_ptr<BoundedHttpServer> server_;
  std::string address_;
  std::atomic<bool> ended_{false};  // the thread's work is over
  std::thread thread_;
};

}  // namespace beamline::server
