// SPDX-License-Identifier: Apache-2.0
#include "base/program.h"
#include "beamline/v1/model.grpc.pb.h"
#include "server/lookup_services.h"

namespace beamline::server {
namespace {

void FillModel(const EngineStatus& status, bool inside, v1::GetStatusResponse* response) {
  response->set_ready(status.ready);
  response->set_model_version(status.model_version);
  response->set_catalogue_version(status.catalogue_version);
  response->set_codebook_fingerprint(status.codebook_fingerprint);
  response->set_family(status.family);
  response->set_ranker(status.ranker);
  response->set_levels(status.levels);
  response->mutable_level_sizes()->Assign(status.level_sizes.begin(), status.level_sizes.end());
  response->set_short_term_events(status.short_term_events);
  response->set_positive_events(status.positive_events);
  response->set_parameters(status.parameters);
  response->set_items(status.num_items);
  response->set_sids(status.num_sids);
  v1::EngineCounts& counts = *response->mutable_engine();
  counts.set_queued(status.queued);
  counts.set_in_flight(status.in_flight);
  counts.set_completed(status.completed);
  counts.set_failed(status.failed);
  counts.set_rejected(status.rejected);
  counts.set_context_hits(status.context_hits);
  counts.set_context_misses(status.context_misses);
  for (const ModelVersion& version : status.versions) {
    v1::ModelVersion& told = *response->add_versions() = ToProto(version);
    if (inside) continue;
    told.clear_bundle();
    told.clear_error();
  }
}

void FillServer(const ServiceContext& service, v1::GetStatusResponse* response) {
  response->set_server_version(ProgramVersion());
  response->set_server_commit(ProgramCommit());
  response->set_uptime_ms(absl::ToInt64Milliseconds(service.clock->Now() - service.started));
  v1::ServerCounts& counts = *response->mutable_server();
  counts.set_calls(service.counters.calls.value());
  counts.set_malformed(service.counters.malformed.value());
  counts.set_invalid(service.counters.invalid.value());
  counts.set_refused(service.counters.refused.value());
  counts.set_cancelled(service.counters.cancelled.value());
  counts.set_expired(service.counters.expired.value());
  counts.set_stopping(service.counters.stopping.value());
  counts.set_failed(service.counters.failed.value());
  counts.set_in_flight(service.counters.in_flight.value());
}

class ModelHandlers final : public v1::ModelService::WithRawCallbackMethod_GetStatus<v1::ModelService::Service> {
 public:
  ModelHandlers(ServiceContext* service, bool inside) : service_(*service), inside_(inside) {}

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                      grpc::ByteBuffer* response) override {
    return Serve<v1::GetStatusRequest>(service_, *context, {*bytes, response},
                                       [this](const auto& call, const CallContext&, const v1::GetStatusRequest&) {
                                         v1::GetStatusResponse answer;
                                         FillModel(service_.engine->GetStatus(), inside_, &answer);
                                         FillServer(service_, &answer);
                                         answer.set_ready(answer.ready() && !service_.leaving.load());
                                         call->Finish(answer);
                                         return absl::OkStatus();
                                       });
  }

 private:
  ServiceContext& service_;
  const bool inside_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeModelService(ServiceContext* service, bool inside) {
  return std::make_unique<ModelHandlers>(service, inside);
}

}  // namespace beamline::server
