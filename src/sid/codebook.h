// SPDX-License-Identifier: Apache-2.0
//
// A codebook: what the codes of a semantic ID mean. Level l holds size_l centroids of dimension dim; a vector's SID is
// found by taking the nearest centroid of level 1, subtracting it, and going on with the residual (residual
// quantisation; OneRec, arXiv 2506.13695, section 3.1). A *foreign* codebook knows only its level sizes: SIDs that came
// as an index file of somebody else's tokenizer. Either has a fingerprint, the SHA-256 of a canonical form, which
// stamps models and catalogues so that a pair from different tokenizers is refused. Immutable after construction, and
// then thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/float_matrix.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "beamline/types.h"

namespace beamline::sid {

class Codebook {
 public:
  // centroids: one [size_l, dim] matrix per level, 1..kMaxLevels of them, sizes 1..kMaxLevelSize, all finite.
  static absl::StatusOr<Codebook> FromCentroids(std::string name, std::vector<FloatMatrix> centroids);
  // index_digest: SHA-256 of the index file (or of whatever defines the SIDs), 64 hexadecimal digits.
  static absl::StatusOr<Codebook> Foreign(std::string name, std::vector<uint32_t> level_sizes,
                                          std::string index_digest);

  // codebook.safetensors: tensors level_0 ... level_{L-1} F32 [size, dim] (none if foreign); metadata format,
  // name, level_sizes, fingerprint, index_digest. Load recomputes the fingerprint and refuses another one.
  static absl::StatusOr<Codebook> Load(const std::string& path);
  absl::Status Save(const std::string& path) const;

  const std::string& name() const { return name_; }
  int levels() const { return static_cast<int>(level_sizes_.size()); }
  const std::vector<uint32_t>& level_sizes() const { return level_sizes_; }
  bool has_centroids() const { return !centroids_.empty(); }
  int64_t dim() const { return centroids_.empty() ? 0 : centroids_[0].cols; }  // 0 if foreign
  const FloatMatrix& centroids(int level) const { return centroids_[level]; }  // REQUIRES: has_centroids()
  const std::string& fingerprint() const { return fingerprint_; }              // 64 hexadecimal digits

  // OK iff the SID has this codebook's level count and every code is below its level's size.
  absl::Status CheckSid(const Sid& sid) const;

  // Nearest centroid per level; ties go to the lower code. The same SIDs for every pool and machine. A null pool runs
  // inline. Errors: foreign codebook, other dimension, a value that is not finite (row named).
  absl::StatusOr<std::vector<Sid>> Encode(const FloatMatrix& vectors, ThreadPool* pool = nullptr,
                                          Progress* progress = nullptr) const;
  // Sum of the centroids, level 1 first. Errors: foreign codebook, CheckSid (row named).
  absl::StatusOr<FloatMatrix> Decode(absl::Span<const Sid> sids) const;

 private:
  Codebook() = default;
  std::string ComputeFingerprint() const;

  std::string name_;
  std::vector<uint32_t> level_sizes_;
  std::vector<FloatMatrix> centroids_;  // [levels] of [size, dim]; empty if foreign
  std::string index_digest_;            // empty unless foreign
  std::string fingerprint_;
};

// Every row finite and of squared length at most 1e30, so that no distance overflows; the error names the row.
absl::Status CheckVectors(const FloatMatrix& vectors);

// "256,256,256" <-> {256, 256, 256}. Errors: no level, more than kMaxLevels, a size outside 1..kMaxLevelSize.
absl::StatusOr<std::vector<uint32_t>> ParseLevelSizes(absl::string_view text);
std::string FormatLevelSizes(absl::Span<const uint32_t> level_sizes);
absl::Status CheckLevelSizes(absl::Span<const uint32_t> level_sizes);

}  // namespace beamline::sid
