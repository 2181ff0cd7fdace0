// SPDX-License-Identifier: Apache-2.0
//
// A history as the tokens a t5 model reads: the template's prefix, the SIDs of the newest items in time order, the
// template's suffix (model/t5_config.h). An item the catalogue lacks has no tokens: it takes no place and is counted.
// Pure.
#pragma once

#include "absl/types/span.h"
#include "beamline/catalogue.h"
#include "beamline/request.h"
#include "model/config.h"
#include "runtime/encoded_request.h"

namespace beamline::runtime {

// REQUIRES: a config of family t5, and a catalogue of its level sizes.
EncodedRequest BuildTokens(const model::ModelConfig& config, absl::Span<const Event> history,
                           const Catalogue& catalogue);

}  // namespace beamline::runtime
