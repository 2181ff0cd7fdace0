// SPDX-License-Identifier: Apache-2.0
#include "server/admin_http.h"

#include <utility>

#include <sys/socket.h>

#include "absl/strings/str_cat.h"
#include "httplib.h"
#include "server/server.h"

namespace beamline::server {
namespace {

constexpr int kThreads = 8;
constexpr int kTimeoutSeconds = 5;
constexpr size_t kMaxBodyBytes = 1024;

void Configure(httplib::Server* server) {
  // The library would share the port with another process silently.
  server->set_socket_options([](socket_t socket) {
    const int on = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  });
  server->new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  server->set_read_timeout(kTimeoutSeconds);
  server->set_write_timeout(kTimeoutSeconds);
  server->set_keep_alive_timeout(kTimeoutSeconds);
  server->set_payload_max_length(kMaxBodyBytes);
}

}  // namespace

AdminHttp::AdminHttp() : server_(std::make_unique<httplib::Server>()) {}

absl::StatusOr<std::unique_ptr<AdminHttp>> AdminHttp::Start(const std::string& address, int port, Pages pages) {
  std::unique_ptr<AdminHttp> http(new AdminHttp());
  Configure(http->server_.get());
  for (auto& [path, make] : pages) {
    http->server_->Get(path, [make = std::move(make)](const httplib::Request&, httplib::Response& response) {
      const HttpPage page = make();
      response.status = page.status;
      response.set_content(page.body, page.content_type.c_str());
    });
  }
  const int bound =
      port == 0 ? http->server_->bind_to_any_port(address) : (http->server_->bind_to_port(address, port) ? port : -1);
  if (bound <= 0) {
    return absl::FailedPreconditionError(absl::StrCat("cannot listen on ", HostPort(address, port),
                                                      " (admin.http_port): does another process listen there, or is it "
                                                      "not an address of this machine?"));
  }
  http->address_ = HostPort(address, bound);
  http->thread_ = std::thread([http = http.get()] {
    http->server_->listen_after_bind();
    http->ended_.store(true);
  });
  return http;
}

AdminHttp::~AdminHttp() {
  if (!thread_.joinable()) return;
  // stop() is lost on a server that has not begun to listen.
  while (!server_->is_running() && !ended_.load()) std::this_thread::yield();
  server_->stop();
  thread_.join();
}

}  // namespace beamline::server
