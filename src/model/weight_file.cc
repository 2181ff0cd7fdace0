// SPDX-License-Identifier: Apache-2.0
#include "model/weight_file.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "base/problem_list.h"
#include "beamline/status.h"
#include "model/sharding.h"
#include "model/weight_schema.h"

namespace beamline::model {

absl::Status CheckWeightFile(const ModelConfig& config, parallel::Shard of_file, const SafetensorsFile& file) {
  std::vector<ExpectedTensor> expected;
  for (const WeightSpec& spec : WeightSchema(config)) {
    expected.push_back({spec.name, {DType::kF32, DType::kBF16}, ShapeOfRank(spec, of_file)});
  }
  BEAMLINE_RETURN_IF_ERROR(CheckTensors(file, expected));
  ProblemList broken;
  for (const auto& [name, view] : file.tensors()) {
    const int64_t count = CountNonFinite(view);
    if (count > 0) broken.Add(absl::StrCat(name, ": ", count, " of ", view.elements(), " values are NaN or infinite"));
  }
  if (broken.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(file.source(), ":\n", broken.ToString()));
}

}  // namespace beamline::model
