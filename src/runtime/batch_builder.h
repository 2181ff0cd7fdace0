// SPDX-License-Identifier: Apache-2.0
//
// Encoded requests of any lengths -> one padded model::EncoderInput. Capacities are the longest short-term and the
// longest positive pathway of the batch, or the room for that; elements stand at the front of their pathway, padding
// behind them is masked. Pure functions.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/config.h"
#include "model/inputs.h"
#include "runtime/encoded_request.h"

namespace beamline::runtime {

// Fits the model: sizes, windows and id ranges. INVALID_ARGUMENT names the field and index. Asked per request, so that
// one bad input fails alone.
absl::Status CheckEncodedRequest(const model::ModelConfig& config, const EncodedRequest& request);

// How much room a batch has for so many requests or elements: at least as much, and where it knows few sizes, none
// below `fewest`.
using RoomForSize = absl::FunctionRef<int64_t(int64_t size, int64_t fewest)>;

// REQUIRES: at least one request, all of which pass CheckEncodedRequest. With `room`, requests of padding alone may
// follow them, and pathways may be longer, but not longer than the model's.
model::EncoderInput BuildEncoderBatch(const model::ModelConfig& config,
                                      absl::Span<const EncodedRequest* const> requests);
model::EncoderInput BuildEncoderBatch(const model::ModelConfig& config,
                                      absl::Span<const EncodedRequest* const> requests, RoomForSize room);

}  // namespace beamline::runtime
