// SPDX-License-Identifier: Apache-2.0
#include "server/admin_http.h"

#include <map>
#include <string>
#include <utility>

#include <sys/socket.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/bounded_http.h"
#include "server/server.h"

namespace beamline::server {
namespace {

BoundedHttpServer::Limits LimitsOfPages() {
  BoundedHttpServer::Limits limits;
  limits.max_request_bytes = AdminHttp::kMaxBodyBytes + AdminHttp::kMaxHeaderBytes;
  limits.read = absl::Seconds(5);
  limits.write = absl::Seconds(10);
  limits.read_in_a_crowd = absl::Milliseconds(15);
  limits.write_in_a_crowd = absl::Milliseconds(250);
  return limits;
}

void Configure(httplib::Server* server) {
  // The library would share the port with another process silently.
  server->set_socket_options([](socket_t socket) {
    const int on = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  });
  server->set_payload_max_length(AdminHttp::kMaxBodyBytes);
  server->set_default_headers({
      {"Content-Security-Policy",
       "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
       "form-action 'none'; frame-ancestors 'none'"},
      {"X-Content-Type-Options", "nosniff"},
      {"X-Frame-Options", "DENY"},
      {"Referrer-Policy", "no-referrer"},
      {"Cross-Origin-Resource-Policy", "same-origin"},
      {"Cache-Control", "no-store"},
  });
}

void Send(const HttpPage& page, httplib::Response* response) {
  response->status = page.status;
  response->set_content(page.body, page.content_type.c_str());
}

}  // namespace

AdminHttp::AdminHttp() : server_(std::make_unique<BoundedHttpServer>(LimitsOfPages())) {}

absl::StatusOr<std::unique_ptr<AdminHttp>> AdminHttp::Start(const std::string& address, int port, Pages pages,
                                                            Posts posts) {
  std::unique_ptr<AdminHttp> http(new AdminHttp());
  Configure(http->server_.get());
  std::map<std::string, std::string> allowed;  // methods by path, for whoever comes with another
  for (auto& [path, make] : pages) {
    allowed[path] = "GET, HEAD";
    http->server_->Get(path, [make = std::move(make)](const httplib::Request&, httplib::Response& response) {
      Send(make(), &response);
    });
  }
  for (auto& [path, make] : posts) {
    allowed[path] = allowed.contains(path) ? "GET, HEAD, POST" : "POST";
    http->server_->Post(path, [make = std::move(make)](const httplib::Request& request, httplib::Response& response) {
      Send(make({request.body, request.get_header_value("Content-Type"), request.get_header_value("Host"),
                 request.get_header_value("Origin")}),
           &response);
    });
  }
  http->server_->set_error_handler(
      [allowed = std::move(allowed)](const httplib::Request& request, httplib::Response& response) {
        const auto found = allowed.find(request.path);
        if (response.status != 404 || found == allowed.end() || absl::StrContains(found->second, request.method))
          return;
        response.status = 405;
        response.set_header("Allow", found->second);
      });
  const int bound = http->server_->Bind(address, port);
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
