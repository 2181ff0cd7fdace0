// SPDX-License-Identifier: Apache-2.0
//
// The machine-readable half of an error: a beamline.v1.ErrorDetail carried as a payload of absl::Status from the place
// that knows the field, its limit and the actual value to the one place that writes it on the wire (grpc_status.h).
// Messages hold field paths, limits and numbers, never text of the request. Pure functions.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "beamline/v1/types.pb.h"

namespace beamline::server {

// Values of ErrorDetail.reason that more than one place uses; the proto lists all.
inline constexpr absl::string_view kMalformedMessage = "MALFORMED_MESSAGE";
inline constexpr absl::string_view kMessageMissing = "MESSAGE_MISSING";
inline constexpr absl::string_view kUnknownFields = "UNKNOWN_FIELDS";
inline constexpr absl::string_view kFieldMissing = "FIELD_MISSING";
inline constexpr absl::string_view kFieldOutOfRange = "FIELD_OUT_OF_RANGE";
inline constexpr absl::string_view kFieldInvalid = "FIELD_INVALID";
inline constexpr absl::string_view kMetadataTooLarge = "METADATA_TOO_LARGE";
inline constexpr absl::string_view kAnswerTooLarge = "ANSWER_TOO_LARGE";
inline constexpr absl::string_view kOutOfMemory = "OUT_OF_MEMORY";
inline constexpr absl::string_view kStopping = "STOPPING";

// Names the payload, and on the wire the detail.
inline constexpr char kErrorDetailUrl[] = "type.googleapis.com/beamline.v1.ErrorDetail";

struct FieldProblem {
  absl::string_view reason = kFieldInvalid;
  std::string field;   // its path, e.g. "history[3].item_id"
  std::string limit;   // e.g. "1..1000"
  std::string actual;  // a number; never the request's text
  std::string text;    // what is wrong and what to do; empty: "<actual> is outside <limit>"
};

// INVALID_ARGUMENT, "<field>: <text>", or the text alone where no field is given.
absl::Status InvalidField(const FieldProblem& problem);

// `status` with the reason (and field, where given) attached.
absl::Status WithReason(absl::Status status, absl::string_view reason, absl::string_view field = {});

// `status` with all of the problem attached but its text, which the status has.
absl::Status WithProblem(absl::Status status, const FieldProblem& problem);

// Puts a path in front of the field, in detail and message: how an entry's error becomes its batch's.
absl::Status PrefixField(const absl::Status& status, absl::string_view prefix);

// The detail attached, or one that says what code and retry hint (beamline/retry.h) alone say. REQUIRES: !status.ok().
v1::ErrorDetail DetailOf(const absl::Status& status);

}  // namespace beamline::server
