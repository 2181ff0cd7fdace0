// SPDX-License-Identifier: Apache-2.0
#include "server/server.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/ext/health_check_service_server_builder_option.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "server/admin_service.h"
#include "server/call.h"
#include "server/listener.h"
#include "server/lookup_services.h"
#include "server/recommend_service.h"
#include "server/tls_credentials.h"

namespace beamline::server {
namespace {

constexpr int kMaxAdminConnections = 100;
constexpr int kMaxBlockingCalls = 64;

// Linking the reflection library switches reflection on in every server of the process; this makes it a choice.
class ReflectionOption final : public grpc::ServerBuilderOption {
 public:
  explicit ReflectionOption(bool enabled) : enabled_(enabled) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    using grpc::reflection::ProtoServerReflectionPlugin;
    std::erase_if(*plugins, [](const auto& plugin) {
      return dynamic_cast<const ProtoServerReflectionPlugin*>(plugin.get()) != nullptr;
    });
    if (enabled_) plugins->push_back(std::make_unique<ProtoServerReflectionPlugin>());
  }

 private:
  const bool enabled_;
};

CallLimits CallLimitsOf(const config::v1::Limits& limits) {
  CallLimits result;
  result.max_unknown_field_bytes = limits.max_unknown_field_bytes();
  result.max_metadata_bytes = limits.max_metadata_bytes();
  result.max_send_bytes = limits.max_send_bytes();
  result.max_batch_users = limits.max_batch_users();
  result.max_lookup_items = limits.max_lookup_items();
  result.default_deadline = absl::Milliseconds(limits.default_deadline_ms());
  result.max_deadline = absl::Milliseconds(limits.max_deadline_ms());
  result.retry_after_ms = limits.retry_after_ms();
  return result;
}

RequestLimits RequestLimitsOf(const config::v1::ServerConfig& config) {
  RequestLimits result;
  result.max_history = config.engine().max_history();
  result.max_top_k = config.engine().max_top_k();
  result.max_beam_width = config.engine().max_beam_width();
  result.max_eligibility_items = config.engine().max_eligibility_items();
  result.accept_critical = config.limits().accept_critical();
  return result;
}

// What an idle, silent or dead peer may hold, and for how long.
void SetConnectionLimits(const config::v1::ServerConfig& config, grpc::ServerBuilder* builder) {
  const config::v1::Limits& limits = config.limits();
  const auto set = [builder](const char* name, int64_t ms) {
    builder->AddChannelArgument(name, static_cast<int>(ms));  // the schema's ranges are within int
  };
  set(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, limits.handshake_timeout_ms());
  set(GRPC_ARG_KEEPALIVE_TIME_MS, limits.keepalive_time_ms());
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, limits.keepalive_timeout_ms());
  // gRPC's default takes a client's ping every five minutes, and of an idle one every two hours. Idle clients are
  // pinged by us, too, then.
  set(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, limits.min_client_ping_ms());
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  if (limits.max_connection_idle_ms() > 0) set(GRPC_ARG_MAX_CONNECTION_IDLE_MS, limits.max_connection_idle_ms());
  if (limits.max_connection_age_ms() == 0) return;
  set(GRPC_ARG_MAX_CONNECTION_AGE_MS, limits.max_connection_age_ms());
  set(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, config.lifecycle().grace_ms());
}

void Configure(const config::v1::ServerConfig& config, grpc::ServerBuilder* builder) {
  const config::v1::Limits& limits = config.limits();
  builder->SetMaxReceiveMessageSize(limits.max_receive_bytes());
  builder->SetMaxSendMessageSize(limits.max_send_bytes());
  // gRPC ends the whole connection over too many headers; ReadCallContext ends the one call. So gRPC's limit is the
  // last resort, well above ours.
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 4 * limits.max_metadata_bytes() + (256 << 10));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams());
  // Messages are gathered whole before a call begins: a thousand streams of four megabytes on every connection.
  grpc::ResourceQuota quota("network");
  quota.Resize(static_cast<size_t>(limits.max_network_bytes()));
  // Our methods hold no thread while they wait; a stream of reflection holds one for as long as its client likes.
  quota.SetMaxThreads(kMaxBlockingCalls);
  builder->SetResourceQuota(quota);
  SetConnectionLimits(config, builder);
  // A compressed message is inflated before its size is checked: take none.
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder->SetOption(std::make_unique<ReflectionOption>(config.reflection()));
}

void WithoutHealth(grpc::ServerBuilder* builder) {
  builder->SetOption(std::make_unique<grpc::HealthCheckServiceServerBuilderOption>(nullptr));
}

void Register(const std::vector<std::unique_ptr<grpc::Service>>& services, grpc::ServerBuilder* builder) {
  for (const auto& service : services) builder->RegisterService(service.get());
}

// Serves what comes to `listener`, from now on.
absl::StatusOr<std::unique_ptr<grpc::Server>> StartServer(grpc::ServerBuilder* builder,
                                                          std::shared_ptr<grpc::ServerCredentials> credentials,
                                                          Listener* listener, Counter* refused) {
  using Connections = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
  auto acceptor = builder->experimental().AddExternalConnectionAcceptor(Connections::FROM_FD, std::move(credentials));
  std::unique_ptr<grpc::Server> server = builder->BuildAndStart();
  if (server == nullptr) return absl::InternalError("gRPC cannot start a server");
  BEAMLINE_RETURN_IF_ERROR(listener->Start(std::move(acceptor), refused));
  return server;
}

Listener::Options ListenerOptions(const std::string& address, int port, const config::v1::Limits& limits) {
  return {.address = address,
          .port = port,
          .max_connections = limits.max_connections(),
          .dead_after = absl::Milliseconds(limits.keepalive_timeout_ms())};
}

}  // namespace

std::string HostPort(const std::string& address, int port) {
  const bool v6 = address.find(':') != std::string::npos;
  return v6 ? absl::StrCat("[", address, "]:", port) : absl::StrCat(address, ":", port);
}

Server::Server(std::unique_ptr<ServiceContext> context) : context_(std::move(context)) {}
Server::~Server() { Shutdown(); }

absl::StatusOr<Listeners> Server::ClaimPorts(const config::v1::ServerConfig& config) {
  Listeners listeners;
  const config::v1::Listen& listen = config.listen();
  BEAMLINE_ASSIGN_OR_RETURN(listeners.calls,
                            Listener::Claim(ListenerOptions(listen.address(), listen.port(), config.limits())));
  if (!config.has_admin()) return listeners;
  Listener::Options options = ListenerOptions(config.admin().address(), config.admin().port(), config.limits());
  options.max_connections = kMaxAdminConnections;
  options.reserved_files -= kMaxAdminConnections;  // however many the public one has
  BEAMLINE_ASSIGN_OR_RETURN(listeners.admin, Listener::Claim(options));
  return listeners;
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const config::v1::ServerConfig& config, Listeners listeners,
                                                      Engine* engine, const Clock* clock) {
  auto context = std::make_unique<ServiceContext>();
  context->engine = engine;
  context->clock = clock;
  context->limits = CallLimitsOf(config.limits());
  context->request_limits = RequestLimitsOf(config);
  context->started = clock->Now();
  context->recorder = std::make_shared<FlightRecorder>(FlightRecorder::Options{
      .capacity = config.admin().recorded_requests(), .slow = absl::Milliseconds(config.admin().slow_request_ms())});
  std::unique_ptr<Server> server(new Server(std::move(context)));
  server->listener_ = std::move(listeners.calls);
  server->admin_listener_ = std::move(listeners.admin);
  BEAMLINE_RETURN_IF_ERROR(server->StartPublic(config));
  if (config.has_admin()) BEAMLINE_RETURN_IF_ERROR(server->StartAdmin(config));
  return server;
}

absl::Status Server::StartPublic(const config::v1::ServerConfig& config) {
  grpc::ServerBuilder builder;
  Configure(config, &builder);
  if (config.health()) {
    grpc::EnableDefaultHealthCheckService(true);
  } else {
    WithoutHealth(&builder);
  }
  services_.push_back(MakeRecommendService(context_.get()));
  services_.push_back(MakeCatalogueService(context_.get()));
  services_.push_back(MakeModelService(context_.get(), false));
  if (config.has_tls()) {
    BEAMLINE_ASSIGN_OR_RETURN(tls_, TlsCredentials::Create(config.tls()));
  }
  Register(services_, &builder);
  BEAMLINE_ASSIGN_OR_RETURN(server_,
                            StartServer(&builder, tls_ != nullptr ? tls_->grpc() : grpc::InsecureServerCredentials(),
                                        listener_.get(), &context_->counters.refused_connections));
  port_ = listener_->port();
  address_ = HostPort(config.listen().address(), port_);
  SetServing(false);
  return absl::OkStatus();
}

absl::Status Server::StartAdmin(const config::v1::ServerConfig& config) {
  grpc::ServerBuilder builder;
  Configure(config, &builder);
  WithoutHealth(&builder);
  admin_services_.push_back(MakeAdminService(context_.get()));
  admin_services_.push_back(MakeModelService(context_.get(), true));
  Register(admin_services_, &builder);
  BEAMLINE_ASSIGN_OR_RETURN(admin_server_, StartServer(&builder, grpc::InsecureServerCredentials(),
                                                       admin_listener_.get(), &context_->counters.refused_connections));
  admin_address_ = HostPort(config.admin().address(), admin_listener_->port());
  return absl::OkStatus();
}

const ServerCounters& Server::counters() const { return context_->counters; }
std::string Server::RenderMetrics(bool ready) const {
  return context_->metrics->Render({.engine = context_->engine->GetStatus(),
                                    .server = context_->counters,
                                    .connections = listener_->connections(),
                                    .max_connections = listener_->max_connections(),
                                    .tls = tls_ == nullptr ? std::nullopt : std::optional(tls_->status()),
                                    .device_memory = context_->engine->GetDeviceMemory(),
                                    .device_passes = context_->engine->GetDevicePasses(),
                                    .started = context_->started,
                                    .now = context_->clock->Now(),
                                    .ready = ready});
}
const FlightRecorder& Server::recorder() const { return *context_->recorder; }
RequestLimits Server::request_limits() const { return LimitsNow(*context_); }
int64_t Server::in_flight() const { return context_->counters.in_flight.value(); }
void Server::Leave() {
  context_->leaving.store(true);
  SetServing(false);
}
void Server::Refuse() { context_->stopping.store(true); }

void Server::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* const health = server_->GetHealthCheckService();
  // gRPC tells everybody who watches what they know already.
  if (health == nullptr || serving_.exchange(serving ? 1 : 0) == (serving ? 1 : 0)) return;
  health->SetServingStatus("", serving);
  for (const char* name :
       {"beamline.v1.RecommendService", "beamline.v1.CatalogueService", "beamline.v1.ModelService"}) {
    health->SetServingStatus(name, serving);
  }
}

void Server::Shutdown(absl::Duration late_calls) {
  if (server_ == nullptr) return;
  Refuse();
  listener_->Stop();
  if (admin_listener_ != nullptr) admin_listener_->Stop();
  const auto deadline = std::chrono::system_clock::now() + absl::ToChronoMilliseconds(late_calls);
  server_->Shutdown(deadline);
  if (admin_server_ != nullptr) admin_server_->Shutdown(deadline);
}

}  // namespace beamline::server
