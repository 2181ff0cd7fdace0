// SPDX-License-Identifier: Apache-2.0
#include "model/sharding.h"

#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "beamline/status.h"

namespace beamline::model {
namespace {

absl::Status CheckDivides(absl::string_view field, int64_t value, int ranks) {
  if (value % ranks == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("config.json: ", field, ": ", value,
                                                 " cannot be shared equally by parallel.size ", ranks,
                                                 " ranks; use a size that divides it"));
}

absl::Status CheckEnough(absl::string_view field, int64_t value, int ranks) {
  if (value >= ranks) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("config.json: ", field, ": ", value, " are fewer than the ", ranks, " ranks of parallel.size"));
}

}  // namespace

absl::Status CheckRanks(const ModelConfig& config, int ranks) {
  BEAMLINE_RETURN_IF_ERROR(CheckDivides("heads", config.heads, ranks));
  BEAMLINE_RETURN_IF_ERROR(CheckDivides("encoder.ffn.width", config.encoder.ffn.width, ranks));
  BEAMLINE_RETURN_IF_ERROR(CheckDivides("decoder.ffn.width", config.decoder.ffn.width, ranks));
  if (config.is_t5()) return CheckEnough("t5.vocabulary", config.t5.vocabulary, ranks);
  for (int level = 0; level < config.levels(); ++level) {
    BEAMLINE_RETURN_IF_ERROR(CheckEnough(absl::StrCat("level_sizes[", level, "]"), config.level_sizes[level], ranks));
  }
  return absl::OkStatus();
}

std::vector<int64_t> ShapeOfRank(const WeightSpec& spec, parallel::Shard shard) {
  std::vector<int64_t> shape = spec.shape;
  if (spec.split.axis < 0) return shape;
  int64_t& size = shape[spec.split.axis];
  size = spec.split.parts * shard.count(size / spec.split.parts);
  return shape;
}

void ForEachRunOfRank(const WeightSpec& spec, parallel::Shard shard,
                      absl::FunctionRef<void(int64_t first, int64_t count)> run) {
  if (spec.split.axis < 0 || shard.whole()) return run(0, spec.elements());
  int64_t outer = spec.split.parts, inner = 1;  // blocks, and elements per step along the axis
  for (int axis = 0; axis < spec.split.axis; ++axis) outer *= spec.shape[axis];
  for (size_t axis = spec.split.axis + 1; axis < spec.shape.size(); ++axis) inner *= spec.shape[axis];
  const int64_t length = spec.shape[spec.split.axis] / spec.split.parts;
  for (int64_t block = 0; block < outer; ++block) {
    run((block * length + shard.begin(length)) * inner, shard.count(length) * inner);
  }
}

PartChooser ChoosePartsOfRank(const ModelConfig& config, parallel::Shard shard) {
  std::map<std::string, WeightSpec> schema;
  for (WeightSpec& spec : WeightSchema(config)) schema.emplace(spec.name, std::move(spec));
  return [schema = std::move(schema), shard](const std::string& name,
                                             const TensorView& whole) -> absl::StatusOr<TensorPart> {
    const auto found = schema.find(name);
    const WeightSpec spec = found == schema.end() ? WeightSpec{.name = name, .shape = whole.shape} : found->second;
    if (spec.shape != whole.shape) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is ", whole.ToString(), ", must be [",
                                                     absl::StrJoin(spec.shape, ","), "]"));
    }
    TensorPart part{.shape = ShapeOfRank(spec, shard)};
    ForEachRunOfRank(spec, shard, [&](int64_t first, int64_t count) { part.runs.push_back({first, count}); });
    return part;
  };
}

}  // namespace beamline::model
