// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "beamline/v1/catalogue.grpc.pb.h"
#include "server/lookup_services.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

using RawCatalogueService =
    v1::CatalogueService::WithRawCallbackMethod_Encode<v1::CatalogueService::WithRawCallbackMethod_Resolve<
        v1::CatalogueService::WithRawCallbackMethod_GetItem<v1::CatalogueService::Service>>>;

constexpr uint32_t kDefaultItemsPerSid = 100;

v1::EncodeResponse Encode(const v1::EncodeRequest& request, const Catalogue& catalogue) {
  v1::EncodeResponse response;
  for (const ItemId item : request.item_ids()) {
    v1::EncodeResponse::Encoded& encoded = *response.add_items();
    encoded.set_item_id(item);
    const std::optional<Sid> sid = catalogue.Encode(item);
    encoded.set_known(sid.has_value());
    if (sid) ToProto(*sid, encoded.mutable_sid());
  }
  response.set_catalogue_version(catalogue.version());
  return response;
}

absl::StatusOr<v1::ResolveResponse> Resolve(const v1::ResolveRequest& request, const Catalogue& catalogue,
                                            int max_items) {
  const int64_t per_sid =
      request.has_max_items_per_sid() ? request.max_items_per_sid() : std::min<int64_t>(kDefaultItemsPerSid, max_items);
  BEAMLINE_RETURN_IF_ERROR(CheckValue("max_items_per_sid", per_sid, {1, max_items}));
  v1::ResolveResponse response;
  for (int i = 0; i < request.sids_size(); ++i) {
    BEAMLINE_ASSIGN_OR_RETURN(const Sid sid, SidFromProto(request.sids(i), catalogue, absl::StrCat("sids[", i, "]")));
    const std::vector<ItemId> items = catalogue.Resolve(sid);
    v1::ResolveResponse::Resolved& resolved = *response.add_sids();
    const size_t returned = std::min<size_t>(items.size(), per_sid);
    resolved.mutable_item_ids()->Assign(items.begin(), items.begin() + returned);
    resolved.set_total_items(items.size());
  }
  response.set_catalogue_version(catalogue.version());
  return response;
}

class CatalogueHandlers final : public RawCatalogueService {
 public:
  explicit CatalogueHandlers(ServiceContext* service) : service_(*service) {}

  grpc::ServerUnaryReactor* Encode(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                   grpc::ByteBuffer* response) override {
    return Serve<v1::EncodeRequest>(
        service_, *context, {*bytes, response},
        [this](const auto& call, const CallContext&, const v1::EncodeRequest& request) -> absl::Status {
          BEAMLINE_RETURN_IF_ERROR(
              CheckCount("item_ids", request.item_ids_size(), {1, service_.limits.max_lookup_items, "items"}));
          call->Finish(server::Encode(request, *service_.engine->catalogue()));
          return absl::OkStatus();
        });
  }

  grpc::ServerUnaryReactor* Resolve(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                    grpc::ByteBuffer* response) override {
    return Serve<v1::ResolveRequest>(
        service_, *context, {*bytes, response},
        [this](const auto& call, const CallContext&, const v1::ResolveRequest& request) -> absl::Status {
          const int limit = service_.limits.max_lookup_items;
          BEAMLINE_RETURN_IF_ERROR(CheckCount("sids", request.sids_size(), {1, limit, "semantic IDs"}));
          BEAMLINE_ASSIGN_OR_RETURN(const v1::ResolveResponse answer,
                                    server::Resolve(request, *service_.engine->catalogue(), limit));
          call->Finish(answer);
          return absl::OkStatus();
        });
  }

  grpc::ServerUnaryReactor* GetItem(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                    grpc::ByteBuffer* response) override {
    return Serve<v1::GetItemRequest>(
        service_, *context, {*bytes, response},
        [this](const auto& call, const CallContext&, const v1::GetItemRequest& request) -> absl::Status {
          if (!request.has_item_id()) return InvalidField({kFieldMissing, "item_id", "", "", "missing"});
          const std::shared_ptr<const Catalogue> catalogue = service_.engine->catalogue();
          const std::optional<CatalogueItem> item = catalogue->GetItem(request.item_id());
          if (!item) {
            return WithReason(
                absl::NotFoundError(absl::StrCat("item_id: the catalogue has no item ", request.item_id())),
                "NOT_FOUND", "item_id");
          }
          v1::GetItemResponse answer;
          *answer.mutable_item() = ToProto(*item);
          answer.set_catalogue_version(catalogue->version());
          call->Finish(answer);
          return absl::OkStatus();
        });
  }

 private:
  ServiceContext& service_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeCatalogueService(ServiceContext* service) {
  return std::make_unique<CatalogueHandlers>(service);
}

}  // namespace beamline::server
