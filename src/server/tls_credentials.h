// SPDX-License-Identifier: Apache-2.0
//
// gRPC credentials from files that may change beneath a running server. A thread reads them every `poll_ms`; what is
// new and fits together is handed to gRPC with the next handshake, what does not is refused, and the last good files
// stay in use. (gRPC's own file watcher, still experimental, would take a key that does not fit its certificate and
// then fail every handshake.) Thread-safe.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "beamline/config/v1/server_config.pb.h"
#include "server/tls_files.h"

namespace grpc {
class ServerCredentials;
}

namespace beamline::server {

struct TlsStatus {
  absl::Time expiry;               // of the certificate in use
  uint64_t reloads = 0;            // changes taken over
  uint64_t refused = 0;            // changes refused
  uint64_t failed_handshakes = 0;  // see grpc_log.h
};

class TlsCredentials {
 public:
  // INVALID_ARGUMENT: what ReadTlsFiles found.
  static absl::StatusOr<std::unique_ptr<TlsCredentials>> Create(const config::v1::Tls& tls);
  ~TlsCredentials();  // after the server that uses grpc()

  std::shared_ptr<grpc::ServerCredentials> grpc() const { return grpc_; }
  TlsStatus status() const;

  // The files, where they are others than this asked for last; called by gRPC before every handshake.
  std::shared_ptr<const TlsFiles> TakeNew();

 private:
  TlsCredentials(const config::v1::Tls& tls, TlsFiles files);
  void Loop();
  void Poll();
  // With mu_ held, or before the thread: what is in use, whose clients it lets in above all.
  void LogFiles(absl::string_view event) const;

  const config::v1::Tls tls_;
  std::shared_ptr<grpc::ServerCredentials> grpc_;
  mutable std::mutex mu_;
  std::condition_variable stop_;
  bool stopping_ = false;                  // guarded by mu_
  bool taken_ = false;                     // guarded by mu_: gRPC has `files_`
  std::shared_ptr<const TlsFiles> files_;  // guarded by mu_
  TlsStatus status_;                       // guarded by mu_
  std::string refusal_;                    // of the thread alone: the last one
  int looks_ = 0;                          // of the thread alone: how often it was seen, one after another
  std::thread thread_;
};

}  // namespace beamline::server
