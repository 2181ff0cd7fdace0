// SPDX-License-Identifier: Apache-2.0
//
// Bytes to messages and back. We parse ourselves, because gRPC answers malformed bytes with UNIMPLEMENTED before any of
// our code or counters see them. Pure functions.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"

namespace beamline::server {

// Messages of beamline.v1 nest four deep; what nests deeper is an attack on the stack.
inline constexpr int kMaxMessageDepth = 16;

// INVALID_ARGUMENT (MESSAGE_MISSING): the client ended the call, or its side of it, before a whole message came.
// INVALID_ARGUMENT (MALFORMED_MESSAGE): not a message of this type, nested too deep, or text that is not UTF-8.
// INVALID_ARGUMENT (UNKNOWN_FIELDS): more than the limit's bytes of unknown fields; up to it they are dropped.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, int64_t max_unknown_field_bytes,
                          google::protobuf::Message* message);

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message);

}  // namespace beamline::server
