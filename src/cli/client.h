// SPDX-License-Identifier: Apache-2.0
//
// A small blocking client of beamline.v1: one channel, a deadline on every call (gRPC's own service-config timeout is a
// second short), errors with the target in front and a hint behind. Not thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "beamline/types.h"
#include "beamline/v1/admin.grpc.pb.h"
#include "beamline/v1/catalogue.grpc.pb.h"
#include "beamline/v1/model.grpc.pb.h"
#include "beamline/v1/recommend.grpc.pb.h"

namespace beamline::cli {

class Client {
 public:
  Client(const std::string& target, absl::Duration timeout);

  absl::StatusOr<v1::RecommendResponse> Recommend(const v1::RecommendRequest& request);
  absl::StatusOr<v1::GetStatusResponse> GetStatus();
  // Of the admin listener alone; what serves then.
  absl::StatusOr<v1::ModelVersion> Reload(const std::string& bundle);
  absl::StatusOr<v1::ModelVersion> Rollback();
  // Absent when the catalogue does not have it.
  absl::StatusOr<std::optional<v1::Item>> GetItem(ItemId item);

 private:
  absl::Status Explain(const grpc::Status& status) const;

  const std::string target_;
  const absl::Duration timeout_;
  std::unique_ptr<v1::RecommendService::Stub> recommend_;
  std::unique_ptr<v1::CatalogueService::Stub> catalogue_;
  std::unique_ptr<v1::ModelService::Stub> model_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
};

}  // namespace beamline::cli
