// SPDX-License-Identifier: Apache-2.0
#include "server/wire.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "grpcpp/support/slice.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

absl::Status Malformed(const google::protobuf::Message& message, size_t bytes) {
  return WithReason(
      absl::InvalidArgumentError(absl::StrCat("malformed message: ", bytes, " bytes are not a valid ",
                                              std::string(message.GetDescriptor()->full_name()),
                                              " (truncated, nested too deep, or text that is not UTF-8)")),
      kMalformedMessage);
}

bool Parse(const grpc::ByteBuffer& bytes, google::protobuf::Message* message) {
  grpc::ByteBuffer copy(bytes);  // shares the slices; the reader wants a mutable buffer
  grpc::ProtoBufferReader reader(&copy);
  if (!reader.status().ok()) return false;
  google::protobuf::io::CodedInputStream coded(&reader);
  coded.SetRecursionLimit(kMaxMessageDepth);
  return message->ParseFromCodedStream(&coded) && coded.ConsumedEntireMessage() && reader.status().ok();
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& bytes, int64_t max_unknown_field_bytes,
                          google::protobuf::Message* message) {
  message->Clear();
  if (!bytes.Valid()) {
    return WithReason(absl::InvalidArgumentError("no message: the call ended before a whole one came"),
                      kMessageMissing);
  }
  if (bytes.Length() == 0) return absl::OkStatus();
  if (!Parse(bytes, message)) return Malformed(*message, bytes.Length());
  const size_t with_unknown = message->ByteSizeLong();
  message->DiscardUnknownFields();
  const int64_t unknown = static_cast<int64_t>(with_unknown - message->ByteSizeLong());
  if (unknown <= max_unknown_field_bytes) return absl::OkStatus();
  return InvalidField({kUnknownFields, "", absl::StrCat(max_unknown_field_bytes), absl::StrCat(unknown),
                       absl::StrCat("unknown fields: ", unknown, " bytes, more than the limit of ",
                                    max_unknown_field_bytes, "; does the client use another version of the proto?")});
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message) {
  grpc::Slice slice(message.ByteSizeLong());
  // The slice is ours alone until it is handed on, so writing through its read-only view is sound.
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace beamline::server
