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

// [left | right], right scaled. Rows empty on the left stay empty unless `all_rows`.
SparseMatrix SideBySide(const SparseMatrix& left, const SparseMatrix& right, float scale, bool all_rows) {
  SparseMatrix joined;
  joined.cols = left.cols + right.cols;
  joined.columns.reserve(left.columns.size() + right.columns.size());
  joined.values.reserve(left.values.size() + right.values.size());
  for (int64_t row = 0; row < left.rows(); ++row) {
    for (uint64_t e = left.offsets[row]; e < left.offsets[row + 1]; ++e) {
      joined.columns.push_back(left.columns[e]);
      joined.values.push_back(left.values[e]);
    }
    for (uint64_t e = right.offsets[row]; e < right.offsets[row + 1] && (all_rows || !left.row_empty(row)); ++e) {
      joined.columns.push_back(static_cast<uint32_t>(left.cols + right.columns[e]));
      joined.values.push_back(right.values[e] * scale);
    }
    joined.offsets.push_back(joined.columns.size());
  }
  return joined;
}

double Length(const FloatMatrix& vectors, int64_t row) { return std::sqrt(double{SquaredNorm(vectors.row_span(row))}); }

void SetLength(FloatMatrix& vectors, int64_t row, double length) {
  const double norm = Length(vectors, row);
  if (norm == 0) return;
  for (int64_t d = 0; d < vectors.cols; ++d)
    vectors.row(row)[d] = static_cast<float>(vectors.row(row)[d] * length / norm);
}

// An item without co-occurrences stands at the weighted mean of its attributes, each of which stands at the weighted
// mean of its items that have some; its length is the mean one. In the decomposition itself such items would open
// directions of their own, far from the items they resemble.
void PlaceByAttributes(const SparseMatrix& ppmi, const SparseMatrix& block, ThreadPool* pool, FloatMatrix& vectors) {
  const SparseMatrix holders = Transpose(block);
  FloatMatrix means = Multiply(holders, vectors, pool);  // rows without co-occurrences are zero
  double length = 0;
  int64_t warm = 0;
  for (int64_t i = 0; i < vectors.rows; ++i) {
    if (ppmi.row_empty(i)) continue;
    length += Length(vectors, i);
    ++warm;
  }
  for (int64_t key = 0; key < means.rows; ++key) {
    double weight = 0;
    for (uint64_t e = holders.offsets[key]; e < holders.offsets[key + 1]; ++e) {
      if (!ppmi.row_empty(holders.columns[e])) weight += holders.values[e];
    }
    if (weight == 0) continue;
    for (int64_t d = 0; d < means.cols; ++d) means.row(key)[d] = static_cast<float>(means.row(key)[d] / weight);
  }
  const FloatMatrix placed = Multiply(block, means, pool);
  for (int64_t i = 0; i < vectors.rows; ++i) {
    if (!ppmi.row_empty(i)) continue;
    std::copy_n(placed.row(i), vectors.cols, vectors.row(i));
    SetLength(vectors, i, length / static_cast<double>(std::max<int64_t>(1, warm)));
  }
}

// Returns how many items had nothing to go by and got the mean of the others.
int64_t FillWithMean(FloatMatrix& vectors) {
  std::vector<double> mean(vectors.cols, 0.0);
  std::vector<int64_t> unknown;
  for (int64_t i = 0; i < vectors.rows; ++i) {
    if (Length(vectors, i) == 0) unknown.push_back(i);
    for (int64_t d = 0; d < vectors.cols; ++d) mean[d] += vectors.row(i)[d];
  }
  const auto known = static_cast<double>(vectors.rows - static_cast<int64_t>(unknown.size()));
  for (const int64_t i : unknown) {
    for (int64_t d = 0; d < vectors.cols; ++d) vectors.row(i)[d] = static_cast<float>(mean[d] / std::max(1.0, known));
  }
  return static_cast<int64_t>(unknown.size());
}

}  // namespace

absl::StatusOr<CollaborativeEmbedding> EmbedItems(const ItemSequences& sequences, const ItemAttributeKeys& attributes,
                                                  const CollaborativeEmbeddingOptions& options,
                                                  const EmbeddingRun& run) {
  BEAMLINE_RETURN_IF_ERROR(CheckInput(sequences, attributes, options));
  BEAMLINE_ASSIGN_OR_RETURN(const SparseMatrix ppmi, BuildPpmi(sequences, options, run.pool, run.progress));
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
  const SparseMatrix matrix = SideBySide(ppmi, block, static_cast<float>(scale), ppmi_energy == 0);

  const SparseSvdOptions svd_options{.rank = options.dim, .iterations = options.iterations, .seed = options.seed};
  BEAMLINE_ASSIGN_OR_RETURN(SparseSvd svd, ComputeSparseSvd(matrix, svd_options, run.pool, run.progress));
  CollaborativeEmbedding result;
  result.vectors = std::move(svd.left);
  for (int64_t i = 0; i < result.vectors.rows; ++i) {
    for (int d = 0; d < options.dim; ++d) {
      result.vectors.row(i)[d] *= static_cast<float>(std::pow(svd.singular_values[d], options.singular_exponent));
    }
    result.items_without_events += ppmi.row_empty(i) ? 1 : 0;
  }
  if (ppmi_energy > 0 && block_energy > 0) PlaceByAttributes(ppmi, block, run.pool, result.vectors);
  for (int64_t i = 0; options.normalize && i < result.vectors.rows; ++i) SetLength(result.vectors, i, 1.0);
  result.items_without_anything = FillWithMean(result.vectors);
  result.singular_values = std::move(svd.singular_values);
  result.cooccurrences = static_cast<int64_t>(ppmi.values.size());
  result.attribute_columns = block.cols;
  return result;
}

}  // namespace beamline::sid
