// SPDX-License-Identifier: Apache-2.0
#include "server/grpc_log.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "base/metrics.h"
#include "grpc/support/log.h"

namespace beamline::server {
namespace {

Counter& FailedHandshakes() {
  static Counter failed;
  return failed;
}

std::atomic<bool> wanted{false};  // by the operator: all that comes is written

void Take(gpr_log_func_args* line) {
  absl::string_view message(line->message);
  if (wanted.load(std::memory_order_relaxed)) {
    std::fprintf(stderr, "%s %s:%d] %s\n", gpr_log_severity_string(line->severity), line->file, line->line,
                 line->message);
  }
  if (absl::ConsumePrefix(&message, "assertion failed")) {
    LogEvent(spdlog::level::critical, "gRPC gives up",
             {{"assertion", line->message},
              {"file", line->file},
              {"line", line->line},
              {"hint", "is there too little memory, or a limit (ulimit -v, -u, the cgroup's)?"}});
    Log().flush();
  } else if (absl::ConsumePrefix(&message, "Handshake failed with fatal error ")) {
    LogEvent(spdlog::level::warn, "TLS handshake failed", {{"error", message}});  // OpenSSL's words, not the client's
    FailedHandshakes().Add();
  }
}

}  // namespace

void TakeGrpcLog() {
  wanted.store(std::getenv("GRPC_VERBOSITY") != nullptr);
  setenv("GRPC_VERBOSITY", "ERROR", 0);
  gpr_set_log_function(Take);
}

uint64_t FailedTlsHandshakes() { return FailedHandshakes().value(); }

}  // namespace beamline::server
