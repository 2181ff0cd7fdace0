// SPDX-License-Identifier: Apache-2.0
//
// What the repository asks of whoever can load models. The engine implements it over runtime::LoadRunner, because what
// is swapped as one is the model, its catalogue and the rules compiled for it; tests implement it over nothing. The
// repository never looks inside a model.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace beamline::repository {

// A loaded bundle. Shared as const by all who use it; destroyed after its last user let go: on the repository's thread,
// or once that has stopped on the user's.
class Model {
 public:
  virtual ~Model() = default;
  virtual const std::string& version() const = 0;               // names the content
  virtual std::string catalogue_version() const { return ""; }  // of the catalogue that is swapped with it, if any
};

// Keeps a version loaded for as long as it is held. Hold one per request, never longer: it delays the unloading.
using ModelHandle = std::shared_ptr<const Model>;

// Called by one thread at a time: the starter's for the first version, then the repository's own.
class Loader {
 public:
  virtual ~Loader() = default;
  // A digest of what would be loaded of `path` (the bundle, and the catalogue where that is another's), cheaply,
  // without verifying or loading it.
  virtual absl::StatusOr<std::string> Identify(const std::string& path) = 0;
  // All of the bundle at `path` is what Identify said; nothing is loaded.
  virtual absl::Status Verify(const std::string& path) = 0;
  // Verifies all of the bundle before any of it is used. Errors name file, field and limit; ABORTED: what is there now
  // is not what Identify called `digest`.
  virtual absl::StatusOr<std::unique_ptr<Model>> Load(const std::string& path, const std::string& digest) = 0;
  // Makes the first real request as fast as any other; fails where the model would fail it. Nobody else has `model`.
  // `serving` is what it is to replace; null for the first.
  virtual absl::Status WarmUp(Model& model, const Model* serving) = 0;
};

}  // namespace beamline::repository
