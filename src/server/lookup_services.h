// SPDX-License-Identifier: Apache-2.0
//
// beamline.v1.CatalogueService and ModelService on raw bytes. They only read memory and answer on gRPC's thread.
// Thread-safe.
#pragma once

#include <memory>

#include "grpcpp/impl/service_type.h"
#include "server/call.h"

namespace beamline::server {

// `service` outlives the returned services.
std::unique_ptr<grpc::Service> MakeCatalogueService(ServiceContext* service);
// `inside`: for operators, who are told of paths and of why versions were refused.
std::unique_ptr<grpc::Service> MakeModelService(ServiceContext* service, bool inside);

}  // namespace beamline::server
