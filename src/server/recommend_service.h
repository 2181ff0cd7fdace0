// SPDX-License-Identifier: Apache-2.0
//
// beamline.v1.RecommendService on raw bytes: parse, check, translate, submit, translate back. Never blocks: answers are
// sent from the engine's threads. Thread-safe.
#pragma once

#include <memory>

#include "grpcpp/impl/service_type.h"
#include "server/call.h"

namespace beamline::server {

// `service` outlives the returned service.
std::unique_ptr<grpc::Service> MakeRecommendService(ServiceContext* service);

}  // namespace beamline::server
