// SPDX-License-Identifier: Apache-2.0
//
// One request that an operator enters on the admin page, run as any other, and everything about it as JSON: history,
// the beams of every level with their probabilities, the videos. The body is a beamline.v1.RecommendRequest in
// protobuf's JSON form, checked as on the public port. All of it is a user's data: it goes into the answer to the
// operator and nowhere else. Thread-safe.
#pragma once

#include "beamline/engine.h"
#include "server/admin_http.h"
#include "server/translate.h"

namespace beamline::server {

// Waits for the engine, a few seconds at most. 400: the request is wrong; 403: it was not sent by our own page, or not
// to this machine by its loopback name; 503: the engine did not answer it. Errors are {"error": "..."}.
HttpPage RunLiveRequest(const HttpPost& post, const RequestLimits& limits, Engine& engine);

}  // namespace beamline::server
