// SPDX-License-Identifier: Apache-2.0
//
// beamline.v1.AdminService on raw bytes: hands reloads and rollbacks to the engine, which answers from a thread of its
// own. For the admin listener alone. Thread-safe.
#pragma once

#include <memory>

#include "grpcpp/impl/service_type.h"
#include "server/call.h"

namespace beamline::server {

// `service` outlives the returned service.
std::unique_ptr<grpc::Service> MakeAdminService(ServiceContext* service);

}  // namespace beamline::server
