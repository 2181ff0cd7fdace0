// SPDX-License-Identifier: Apache-2.0
#include "sid/collaborative_embedding.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "sid/centroid_search.h"
#include "sid/cooccurrence.h"
#include "sid/sparse_svd.h"

namespace beamline::sid {
namespace {

absl::Status CheckInput(const ItemSequences& sequences, const ItemAttributeKeys& attributes,
                        const CollaborativeEmbeddingOptions& options) {
  const auto check = [](bool ok, absl::string_view field, double value, absl::string_view limits) {
    if (ok) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("item embedding: ", field, " is ", value, ", must be ", limits));
  };
  BEAMLINE_RETURN_IF_ERROR(check(options.dim >= 1 && options.dim <= 512, "dim", options.dim, "1 to 512"));
  BEAMLINE_RETURN_IF_ERROR(check(options.window >= 0, "window", options.window, "at least 0"));
  BEAMLINE_RETURN_IF_ERROR(
      check(options.max_user_events >= 2, "max_user_events", options.max_user_events, "at least 2"));
  BEAMLINE_RETURN_IF_ERROR(check(options.context_smoothing >= 0 && options.context_smoothing <= 1, "context_smoothing",
                                 options.context_smoothing, "0 to 1"));
  BEAMLINE_RETURN_IF_ERROR(check(std::isfinite(options.shift), "shift", options.shift, "finite"));
  BEAMLINE_RETURN_IF_ERROR(check(options.max_neighbours >= 1, "max_neighbours", options.max_neighbours, "at least 1"));
  BEAMLINE_RETURN_IF_ERROR(check(options.singular_exponent >= 0 && options.singular_exponent <= 2, "singular_exponent",
                                 options.singular_exponent, "0 to 2"));
  BEAMLINE_RETURN_IF_ERROR(check(options.attributes_weight >= 0 && options.attributes_weight <= 1e6,
                                 "attributes_weight", options.attributes_weight, "0 to 1e6"));
  BEAMLINE_RETURN_IF_ERROR(
      check(options.iterations >= 1 && options.iterations <= 100, "iterations", options.iterations, "1 to 100"));
  BEAMLINE_RETURN_IF_ERROR(check(sequences.num_items >= 1, "num_items", sequences.num_items, "at least 1"));
  BEAMLINE_RETURN_IF_ERROR(check(attributes.keys.empty() || attributes.keys.size() == sequences.num_items,
                                 "attribute lists", static_cast<double>(attributes.keys.size()),
                                 absl::StrCat("0 or the number of items, ", sequences.num_items)));
  for (const uint32_t item : sequences.items) {
    BEAMLINE_RETURN_IF_ERROR(check(item < sequences.num_items, "item index", item,
                                   absl::StrCat("below the number of items, ", sequences.num_items)));
  }
  return absl::OkStatus();
}

double Energy(const SparseMatrix& matrix) {
  double energy = 0;
  for (const float value : matrix.values) energy += double{value} * value;
  return energy;
}

// [left | right], right scaled.
SparseMatrix SideBySide(const SparseMatrix& left, const SparseMatrix& right, float scale) {
  SparseMatrix joined;
  joined.cols = left.cols + right.cols;
  joined.columns.reserve(left.columns.size() + right.columns.size());
  joined.values.reserve(left.values.size() + right.values.size());
  for (int64_t row = 0; row < left.rows(); ++row) {
    for (uint64_t e = left.offsets[row]; e < left.offsets[row + 1]; ++e) {
      joined.columns.push_back(left.columns[e]);
      joined.values.push_back(left.values[e]);
    }
    for (uint64_t e = right.offsets[row]; e < right.offsets[row + 1]; ++e) {
      joined.columns.push_back(static_cast<uint32_t>(left.cols + right.columns[e]));
      joined.values.push_back(right.values[e] * scale);
    }
    joined.offsets.push_back(joined.columns.size());
  }
  return joined;
}

void ScaleRow(float* row, int64_t cols, double scale) {
  for (int64_t d = 0; d < cols; ++d) row[d] = static_cast<float>(row[d] * scale);
}

// Items without co-occurrences have only the attribute part of a row and would huddle around the origin: they get the
// mean length of the others, or unit length where all rows do.
void ScaleRows(const SparseMatrix& ppmi, bool normalize, FloatMatrix& vectors) {
  double length = 0;
  int64_t warm = 0;
  for (int64_t i = 0; i < vectors.rows; ++i) {
    if (ppmi.row_empty(i)) continue;
    length += std::sqrt(double{SquaredNorm(vectors.row_span(i))});
    ++warm;
  }
  const double target = normalize || warm == 0 ? 1.0 : length / static_cast<double>(warm);
  for (int64_t i = 0; i < vectors.rows; ++i) {
    const double norm = std::sqrt(double{SquaredNorm(vectors.row_span(i))});
    if (norm > 0 && (normalize || ppmi.row_empty(i))) ScaleRow(vectors.row(i), vectors.cols, target / norm);
  }
}

// Returns how many items had nothing to go by and got the mean of the others.
int64_t FillWithMean(const SparseMatrix& matrix, FloatMatrix& vectors) {
  std::vector<double> mean(vectors.cols, 0.0);
  int64_t known = 0;
  for (int64_t i = 0; i < vectors.rows; ++i) {
    if (matrix.row_empty(i)) continue;
    ++known;
    for (int64_t d = 0; d < vectors.cols; ++d) mean[d] += vectors.row(i)[d];
  }
  for (int64_t i = 0; i < vectors.rows; ++i) {
    if (!matrix.row_empty(i)) continue;
    for (int64_t d = 0; d < vectors.cols; ++d) {
      vectors.row(i)[d] = static_cast<float>(mean[d] / static_cast<double>(known));
    }
  }
  return vectors.rows - known;
}

}  // namespace

absl::StatusOr<CollaborativeEmbedding> EmbedItems(const ItemSequences& sequences, const ItemAttributeKeys& attributes,
                                                  const CollaborativeEmbeddingOptions& options, ThreadPool* pool,
                                                  Progress* progress) {
  BEAMLINE_RETURN_IF_ERROR(CheckInput(sequences, attributes, options));
  BEAMLINE_ASSIGN_OR_RETURN(const SparseMatrix ppmi, BuildPpmi(sequences, options, pool, progress));
  const bool with_attributes = options.attributes_weight > 0 && !attributes.keys.empty();
  const SparseMatrix block =
      BuildAttributeBlock(with_attributes ? attributes : ItemAttributeKeys{}, sequences.num_items);
  const double ppmi_energy = Energy(ppmi);
  const double block_energy = Energy(block);
  if (ppmi_energy == 0 && block_energy == 0) {
    return absl::InvalidArgumentError(
        "item embedding: nothing to learn from: no two items of one user, no attribute shared by some items");
  }
  const double scale =
      ppmi_energy > 0 && block_energy > 0 ? std::sqrt(options.attributes_weight * ppmi_energy / block_energy) : 1.0;
  const SparseMatrix matrix = SideBySide(ppmi, block, static_cast<float>(scale));

  const SparseSvdOptions svd_options{.rank = options.dim, .iterations = options.iterations, .seed = options.seed};
  BEAMLINE_ASSIGN_OR_RETURN(SparseSvd svd, ComputeSparseSvd(matrix, svd_options, pool, progress));
  CollaborativeEmbedding result;
  result.vectors = std::move(svd.left);
  for (int64_t i = 0; i < result.vectors.rows; ++i) {
    for (int d = 0; d < options.dim; ++d) {
      result.vectors.row(i)[d] *= static_cast<float>(std::pow(svd.singular_values[d], options.singular_exponent));
    }
    result.items_without_events += ppmi.row_empty(i) ? 1 : 0;
  }
  ScaleRows(ppmi, options.normalize, result.vectors);
  result.items_without_anything = FillWithMean(matrix, result.vectors);
  result.singular_values = std::move(svd.singular_values);
  result.cooccurrences = static_cast<int64_t>(ppmi.values.size());
  result.attribute_columns = block.cols;
  return result;
}

}  // namespace beamline::sid
