// SPDX-License-Identifier: Apache-2.0
#include "server/tls_credentials.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "beamline/status.h"
#include "grpc/grpc_security.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/version_info.h"
#include "server/grpc_log.h"

namespace beamline::server {
namespace {

grpc_ssl_certificate_config_reload_status Fetch(void* self, grpc_ssl_server_certificate_config** config) {
  const std::shared_ptr<const TlsFiles> files = static_cast<TlsCredentials*>(self)->TakeNew();
  if (files == nullptr) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const grpc_ssl_pem_key_cert_pair pair = {files->key.c_str(), files->certificate.c_str()};
  // gRPC 1.51 insists on authorities even where no client is asked for a certificate.
  const std::string& authorities = files->client_ca.empty() ? files->certificate : files->client_ca;
  *config = grpc_ssl_server_certificate_config_create(authorities.c_str(), &pair, 1);
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

grpc_server_credentials* MakeCredentials(TlsCredentials* source, bool mutual) {
  return grpc_ssl_server_credentials_create_with_options(
      grpc_ssl_server_credentials_create_options_using_config_fetcher(
          mutual ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                 : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
          Fetch, source));
}

// gRPC's core asks for certificates with a function, its C++ layer offers no way to say so.
#if GRPC_CPP_VERSION_MAJOR == 1 && GRPC_CPP_VERSION_MINOR < 54
class ServerCredentials final : public grpc::ServerCredentials {
 public:
  explicit ServerCredentials(grpc_server_credentials* credentials) : credentials_(credentials) {}
  ~ServerCredentials() override { grpc_server_credentials_release(credentials_); }
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }
  grpc_server_credentials* const credentials_;
};
#else
class ServerCredentials final : public grpc::ServerCredentials {
 public:
  explicit ServerCredentials(grpc_server_credentials* credentials) : grpc::ServerCredentials(credentials) {}
};
#endif

void LogWarnings(const TlsReport& report) {
  for (const auto& [field, text] : report.warnings)
    LogEvent(spdlog::level::warn, "TLS warning", {{"field", "tls." + field}, {"text", text}});
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsCredentials>> TlsCredentials::Create(const config::v1::Tls& tls) {
  TlsReport report = ReadTlsFiles(tls, absl::Now());
  BEAMLINE_RETURN_IF_ERROR(report.ToStatus());
  LogWarnings(report);
  return std::unique_ptr<TlsCredentials>(new TlsCredentials(tls, std::move(report.files)));
}

TlsCredentials::TlsCredentials(const config::v1::Tls& tls, TlsFiles files)
    : tls_(tls),
      grpc_(std::make_shared<ServerCredentials>(MakeCredentials(this, !tls.client_ca().empty()))),
      files_(std::make_shared<const TlsFiles>(std::move(files))) {
  status_.expiry = files_->expiry;
  LogFiles("TLS files in use");
  thread_ = std::thread([this] { Loop(); });
}

TlsCredentials::~TlsCredentials() {
  {
    std::lock_guard lock(mu_);
    stopping_ = true;
    stop_.notify_all();
  }
  thread_.join();
}

TlsStatus TlsCredentials::status() const {
  std::lock_guard lock(mu_);
  TlsStatus status = status_;
  status.failed_handshakes = FailedTlsHandshakes();
  return status;
}

std::shared_ptr<const TlsFiles> TlsCredentials::TakeNew() {
  std::lock_guard lock(mu_);
  return std::exchange(taken_, true) ? nullptr : files_;
}

void TlsCredentials::LogFiles(absl::string_view event) const {
  LogEvent(spdlog::level::info, event,
           {{"certificate", tls_.certificate()},
            {"expires", absl::FormatTime(files_->expiry)},
            {"client_ca", tls_.client_ca()},
            {"client_authorities", files_->DescribeAuthorities()}});
}

void TlsCredentials::Loop() {
  std::unique_lock lock(mu_);
  while (!stop_.wait_for(lock, std::chrono::milliseconds(tls_.poll_ms()), [this] { return stopping_; })) {
    lock.unlock();
    Poll();
    lock.lock();
  }
}

void TlsCredentials::Poll() {
  const absl::Time now = absl::Now();
  TlsReport report = ReadTlsFiles(tls_, now);
  std::string refusal(report.ToStatus().message());
  std::lock_guard lock(mu_);
  if (refusal.empty() && !report.files.ValidAt(now) && files_->ValidAt(now)) {
    refusal = absl::StrCat("tls.", report.warnings.front().field, ": ", report.warnings.front().text);
  }
  if (!refusal.empty()) {
    // Of a pair that is being replaced we may see one half: the second look settles it.
    looks_ = std::exchange(refusal_, refusal) == refusal ? looks_ + 1 : 1;
    if (looks_ != 2) return;
    ++status_.refused;
    LogEvent(spdlog::level::err, "TLS files not taken over, the old ones stay in use",
             {{"expires", absl::FormatTime(status_.expiry)}, {"error", refusal}});
    return;
  }
  refusal_.clear();
  if (report.files == *files_) return;
  LogWarnings(report);
  status_.expiry = report.files.expiry;
  ++status_.reloads;
  files_ = std::make_shared<const TlsFiles>(std::move(report.files));
  taken_ = false;
  LogFiles("TLS files taken over");
}

}  // namespace beamline::server
