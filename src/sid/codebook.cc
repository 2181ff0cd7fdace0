// SPDX-License-Identifier: Apache-2.0
#include "sid/codebook.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/interrupt.h"
#include "base/safetensors.h"
#include "beamline/status.h"
#include "sid/centroid_search.h"

namespace beamline::sid {
namespace {

static_assert(std::endian::native == std::endian::little, "fingerprints and files hold little-endian floats");

constexpr char kFormat[] = "beamline-codebook-1";
constexpr int64_t kMaxDim = 65536;
constexpr int64_t kEncodeRowsPerTask = 1024;
constexpr int64_t kRowsPerPart = 64 * kEncodeRowsPerTask;  // between looks at Ctrl-C

// Squares of what passes stay far inside fp32's range.
constexpr float kMaxSquaredNorm = 1e30f;

std::string TensorName(size_t level) { return absl::StrCat("level_", level); }

bool IsDigest(const std::string& text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

absl::Status CheckName(const std::string& name) {
  const bool printable = std::all_of(name.begin(), name.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  if (!name.empty() && name.size() <= 256 && printable) return absl::OkStatus();
  return absl::InvalidArgumentError("codebook name must be 1 to 256 printable ASCII characters");
}

}  // namespace

absl::Status CheckVectors(const FloatMatrix& vectors) {
  for (int64_t i = 0; i < vectors.rows; ++i) {
    const float norm = SquaredNorm(vectors.row_span(i));
    // Written so that a NaN fails too.
    if (!(norm <= kMaxSquaredNorm)) {
      return absl::InvalidArgumentError(
          absl::StrCat("vector ", i, " has squared length ", norm, ", must be finite and at most ", kMaxSquaredNorm));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Codebook> Codebook::FromCentroids(std::string name, std::vector<FloatMatrix> centroids) {
  Codebook codebook;
  for (const FloatMatrix& level : centroids) {
    if (level.rows < 1 || level.rows > kMaxLevelSize || level.cols < 1 || level.cols > kMaxDim) {
      return absl::InvalidArgumentError(absl::StrCat("codebook level ", codebook.level_sizes_.size() + 1, " is [",
                                                     level.rows, ",", level.cols, "], must be [1..", kMaxLevelSize,
                                                     ", 1..", kMaxDim, "]"));
    }
    if (level.cols != centroids[0].cols) {
      return absl::InvalidArgumentError(absl::StrCat("codebook level ", codebook.level_sizes_.size() + 1,
                                                     " has dimension ", level.cols, ", level 1 has ",
                                                     centroids[0].cols));
    }
    BEAMLINE_RETURN_IF_ERROR(CheckVectors(level));
    codebook.level_sizes_.push_back(static_cast<uint32_t>(level.rows));
  }
  BEAMLINE_RETURN_IF_ERROR(CheckLevelSizes(codebook.level_sizes_));
  BEAMLINE_RETURN_IF_ERROR(CheckName(name));
  codebook.name_ = std::move(name);
  codebook.centroids_ = std::move(centroids);
  codebook.fingerprint_ = codebook.ComputeFingerprint();
  return codebook;
}

absl::StatusOr<Codebook> Codebook::Foreign(std::string name, std::vector<uint32_t> level_sizes,
                                           std::string index_digest) {
  BEAMLINE_RETURN_IF_ERROR(CheckLevelSizes(level_sizes));
  BEAMLINE_RETURN_IF_ERROR(CheckName(name));
  if (!IsDigest(index_digest)) {
    return absl::InvalidArgumentError("index digest must be a SHA-256 of 64 lower-case hexadecimal digits");
  }
  Codebook codebook;
  codebook.name_ = std::move(name);
  codebook.level_sizes_ = std::move(level_sizes);
  codebook.index_digest_ = std::move(index_digest);
  codebook.fingerprint_ = codebook.ComputeFingerprint();
  return codebook;
}

// The name does not count: the same codes mean the same under any name.
std::string Codebook::ComputeFingerprint() const {
  Sha256 digest;
  const std::string head =
      absl::StrCat(kFormat, "\nlevels ", FormatLevelSizes(level_sizes_), "\n", has_centroids() ? "dim " : "index ",
                   has_centroids() ? absl::StrCat(dim()) : index_digest_, "\n");
  digest.Update({head.data(), head.size()});
  for (const FloatMatrix& level : centroids_) {
    digest.Update({reinterpret_cast<const char*>(level.values.data()), level.values.size() * sizeof(float)});
  }
  return digest.HexDigest();
}

absl::Status Codebook::Save(const std::string& path) const {
  SafetensorsWriter writer;
  writer.SetMetadata("format", kFormat);
  writer.SetMetadata("name", name_);
  writer.SetMetadata("level_sizes", FormatLevelSizes(level_sizes_));
  writer.SetMetadata("fingerprint", fingerprint_);
  if (!has_centroids()) writer.SetMetadata("index_digest", index_digest_);
  for (size_t level = 0; level < centroids_.size(); ++level) {
    BEAMLINE_RETURN_IF_ERROR(writer.Add<float>(TensorName(level), {centroids_[level].rows, centroids_[level].cols},
                                               centroids_[level].values));
  }
  return writer.Write(path);
}

absl::StatusOr<Codebook> Codebook::Load(const std::string& path) {
  SafetensorsLimits limits;
  limits.max_file_bytes = uint64_t{4} << 30;
  limits.max_tensors = kMaxLevels;
  limits.allow_empty = true;
  BEAMLINE_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Read(path, limits));
  const auto error = [&path](absl::string_view message) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", message));
  };
  BEAMLINE_ASSIGN_OR_RETURN(const std::string format, file.GetMetadata("format"));
  if (format != kFormat) return error(absl::StrCat("codebook format '", format.substr(0, 64), "', must be ", kFormat));
  BEAMLINE_ASSIGN_OR_RETURN(std::string name, file.GetMetadata("name"));
  BEAMLINE_ASSIGN_OR_RETURN(const std::string sizes_text, file.GetMetadata("level_sizes"));
  BEAMLINE_ASSIGN_OR_RETURN(const std::string fingerprint, file.GetMetadata("fingerprint"));
  auto sizes = ParseLevelSizes(sizes_text);
  if (!sizes.ok()) return error(sizes.status().message());

  absl::StatusOr<Codebook> codebook;
  if (file.tensors().empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(std::string index_digest, file.GetMetadata("index_digest"));
    codebook = Foreign(std::move(name), *std::move(sizes), std::move(index_digest));
  } else {
    std::vector<ExpectedTensor> expected;
    expected.reserve(sizes->size());
    for (size_t level = 0; level < sizes->size(); ++level) {
      expected.push_back({TensorName(level), {DType::kF32}, {(*sizes)[level], -1}});
    }
    BEAMLINE_RETURN_IF_ERROR(CheckTensors(file, expected));
    std::vector<FloatMatrix> centroids;
    for (const ExpectedTensor& tensor : expected) {
      BEAMLINE_ASSIGN_OR_RETURN(FloatMatrix level, file.GetFloatMatrix(tensor.name));
      centroids.push_back(std::move(level));
    }
    codebook = FromCentroids(std::move(name), std::move(centroids));
  }
  if (!codebook.ok()) return error(codebook.status().message());
  if (codebook->fingerprint() != fingerprint) {
    return absl::DataLossError(absl::StrCat(path, ": fingerprint is ", codebook->fingerprint(), ", the file says ",
                                            fingerprint.substr(0, 64), "; it was damaged or edited"));
  }
  return codebook;
}

absl::Status Codebook::CheckSid(const Sid& sid) const {
  if (sid.levels() != levels()) {
    return absl::InvalidArgumentError(
        absl::StrCat("SID ", sid.ToString(), " has ", sid.levels(), " codes, the codebook has ", levels(), " levels"));
  }
  for (int level = 0; level < levels(); ++level) {
    if (sid[level] >= level_sizes_[level]) {
      return absl::InvalidArgumentError(absl::StrCat("SID ", sid.ToString(), " has code ", sid[level], " on level ",
                                                     level + 1, ", which has ", level_sizes_[level], " codes"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Sid>> Codebook::Encode(const FloatMatrix& vectors, ThreadPool* pool,
                                                  Progress* progress) const {
  if (!has_centroids()) {
    return absl::FailedPreconditionError(
        absl::StrCat("codebook '", name_, "' came from an index file without centroids and cannot encode"));
  }
  if (vectors.cols != dim()) {
    return absl::InvalidArgumentError(
        absl::StrCat("vectors have dimension ", vectors.cols, ", the codebook has ", dim()));
  }
  BEAMLINE_RETURN_IF_ERROR(CheckVectors(vectors));
  std::vector<CentroidSearch> searches;
  searches.reserve(centroids_.size());
  for (const FloatMatrix& level : centroids_) searches.emplace_back(level);
  std::vector<Sid> sids(vectors.rows);
  const auto encode = [&](int64_t begin, int64_t end) {
    std::vector<float> residuals(vectors.row(begin), vectors.row(end));
    std::vector<uint32_t> codes(end - begin);
    for (int level = 0; level < levels(); ++level) {
      searches[level].Nearest(residuals.data(), end - begin, codes.data(), nullptr);
      for (int64_t i = begin; i < end; ++i) {
        const float* centroid = centroids_[level].row(codes[i - begin]);
        float* residual = &residuals[(i - begin) * dim()];
        for (int64_t d = 0; d < dim(); ++d) residual[d] -= centroid[d];
        sids[i].push_back(codes[i - begin]);
      }
    }
  };
  StartProgress(progress, "encode", vectors.rows, "items");
  for (int64_t first = 0; first < vectors.rows; first += kRowsPerPart) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    const int64_t part = std::min(kRowsPerPart, vectors.rows - first);
    ParallelFor(pool, part, kEncodeRowsPerTask,
                [&](int64_t begin, int64_t end) { encode(first + begin, first + end); });
    UpdateProgress(progress, first + part);
  }
  FinishProgress(progress);
  return sids;
}

absl::StatusOr<FloatMatrix> Codebook::Decode(absl::Span<const Sid> sids) const {
  if (!has_centroids()) {
    return absl::FailedPreconditionError(
        absl::StrCat("codebook '", name_, "' came from an index file without centroids and cannot decode"));
  }
  FloatMatrix vectors(static_cast<int64_t>(sids.size()), dim());
  for (int64_t i = 0; i < vectors.rows; ++i) {
    if (const absl::Status status = CheckSid(sids[i]); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("row ", i, ": ", status.message()));
    }
    float* vector = vectors.row(i);
    for (int level = 0; level < levels(); ++level) {
      const float* centroid = centroids_[level].row(sids[i][level]);
      for (int64_t d = 0; d < dim(); ++d) vector[d] += centroid[d];
    }
  }
  return vectors;
}

}  // namespace beamline::sid
