// SPDX-License-Identifier: Apache-2.0
#include "runtime/encoded_request.h"

#include "base/digest.h"

namespace beamline::runtime {
namespace {

// Sizes go in as well, so that no two different inputs have the same bytes.
void Update(Sha256& digest, const std::vector<int32_t>& values) {
  const uint64_t size = values.size();
  digest.Update({reinterpret_cast<const char*>(&size), sizeof(size)});
  digest.Update({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(int32_t)});
}

}  // namespace

std::string Digest(const EncodedRequest& request) {
  Sha256 digest;
  Update(digest, request.static_features);
  for (const EncodedPathway& pathway : request.pathways) {
    Update(digest, pathway.features);
    Update(digest, pathway.order);
  }
  return digest.HexDigest();
}

}  // namespace beamline::runtime
