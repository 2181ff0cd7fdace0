// SPDX-License-Identifier: Apache-2.0
//
// The bytes of a request, as every message the server takes: parsed, checked and translated. What is refused is refused
// by INVALID_ARGUMENT with a field or a reason and one bounded line; what passes passes the engine's own check too.
#include <string>
#include <vector>

#include "beamline/v1/admin.pb.h"
#include "beamline/v1/catalogue.pb.h"
#include "beamline/v1/recommend.pb.h"
#include "engine/request_check.h"
#include "fuzz/fuzz_target.h"
#include "server/call.h"
#include "server/fake_engine.h"
#include "server/grpc_status.h"
#include "server/status_detail.h"
#include "server/translate.h"
#include "server/wire.h"

namespace beamline::server {
namespace {

using fuzz::Require;

void CheckRefusal(const absl::Status& status, bool of_a_field) {
  Require(status.code() == absl::StatusCode::kInvalidArgument, status.ToString());
  const v1::ErrorDetail detail = DetailOf(status);
  Require(!detail.reason().empty(), "a refusal has a reason");
  const std::string message(status.message());
  if (of_a_field) {
    Require(!detail.field().empty() && message.rfind(detail.field() + ": ", 0) == 0, "the field opens " + message);
    Require(detail.reason() != kFieldOutOfRange || (!detail.limit().empty() && !detail.actual().empty()),
            "limit and value are told: " + message);
  }
  const grpc::Status sent = ToGrpcStatus(status, 50);
  Require(sent.error_message().size() <= 1024 && sent.error_message().find('\n') == std::string::npos,
          "one short line");
  Require(DetailOf(FromGrpcStatus(sent)).SerializeAsString() == detail.SerializeAsString(), "the detail arrives");
}

// False for bytes that are not one. In one slice or in two they say the same.
template <typename Message>
bool Parse(const uint8_t* data, size_t size, Message* message) {
  const grpc::Slice whole(data, size);
  const grpc::ByteBuffer buffer(&whole, 1);
  const absl::Status status = ParseMessage(buffer, 4096, message);
  const grpc::Slice halves[] = {grpc::Slice(data, size / 2), grpc::Slice(data + size / 2, size - size / 2)};
  const grpc::ByteBuffer split(halves, 2);
  Message again;
  Require(ParseMessage(split, 4096, &again).ok() == status.ok(), "slices do not matter");
  if (!status.ok()) {
    CheckRefusal(status, false);
    return false;
  }
  Require(again.SerializeAsString() == message->SerializeAsString(), "slices do not matter");
  return true;
}

void CheckRecommend(const v1::RecommendRequest& message) {
  const EngineOptions options;
  RequestLimits limits;
  limits.levels = 3;
  const absl::StatusOr<RecommendRequest> request = FromProto(message, limits);
  if (!request.ok()) return CheckRefusal(request.status(), true);
  fuzz::RequireOk(engine::CheckRequest(*request, options, limits.levels), "what passes here passes the engine's check");
  for (int width : engine::BeamWidths(*request, options, limits.levels)) {
    Require(width >= 1 && width <= options.max_beam_width, "beam widths are bounded");
  }
  Require(request->request_id.size() <= 128, "request ids are cut");
}

void CheckResolve(const v1::ResolveRequest& message) {
  const FakeCatalogue catalogue;
  for (int i = 0; i < message.sids_size(); ++i) {
    const absl::StatusOr<Sid> sid = SidFromProto(message.sids(i), catalogue, absl::StrCat("sids[", i, "]"));
    if (!sid.ok()) {
      CheckRefusal(sid.status(), true);
    } else {
      Require(sid->levels() == catalogue.levels() && catalogue.Resolve(*sid).size() <= 8, "a SID of the catalogue");
    }
  }
}

void CheckHeaders(std::string_view text) {
  const std::string id = CleanRequestId({text.data(), text.size()});
  Require(id.size() <= 128, "request ids are cut");
  for (const char c : id) Require(c > ' ' && c < 0x7f && c != '"' && c != '\\', "request ids are printable");
  const auto trace = ParseTraceParent({text.data(), text.size()});
  Require(!trace || (trace->trace_id.size() == 32 && trace->span_id.size() == 16), "a trace context is whole");
}

}  // namespace
}  // namespace beamline::server

// As the server does, protobuf says nothing on standard error about every bad string.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
#if GOOGLE_PROTOBUF_VERSION < 4022000
  google::protobuf::SetLogHandler(nullptr);
#endif
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace beamline;  // NOLINT(google-build-using-namespace)
  server::CheckHeaders(fuzz::AsText(data, size));
  if (v1::RecommendRequest message; server::Parse(data, size, &message)) server::CheckRecommend(message);
  if (v1::BatchRecommendRequest message; server::Parse(data, size, &message)) {
    for (const v1::RecommendRequest& request : message.requests()) server::CheckRecommend(request);
  }
  if (v1::ResolveRequest message; server::Parse(data, size, &message)) server::CheckResolve(message);
  v1::EncodeRequest encode;
  v1::GetItemRequest get_item;
  v1::ReloadRequest reload;
  server::Parse(data, size, &encode);
  server::Parse(data, size, &get_item);
  server::Parse(data, size, &reload);
  return 0;
}
