// SPDX-License-Identifier: Apache-2.0
#include "train/checkpoint.h"

#include <cstddef>
#include <deque>
#include <set>
#include <utility>

#include <ATen/core/grad_mode.h>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "backend/ops.h"
#include "base/json.h"
#include "base/safetensors.h"
#include "base/utf8.h"
#include "beamline/status.h"
#include "model/weight_schema.h"

namespace beamline::train {
namespace {

constexpr char kFormatName[] = "beamline-training-checkpoint-";
constexpr int kFormatVersion = 3;
constexpr size_t kShownBytes = 100;

absl::Status CheckFormat(const std::string& format, const std::string& path) {
  const std::string ours = absl::StrCat(kFormatName, kFormatVersion);
  if (format == ours) return absl::OkStatus();
  int version = 0;
  absl::string_view number = format;
  const char* what = "; it is no training checkpoint: give another --out";
  if (absl::ConsumePrefix(&number, kFormatName) && absl::SimpleAtoi(number, &version)) {
    what = version > kFormatVersion ? "; it was written by a newer Beamline: upgrade, or give another --out"
                                    : "; one of an earlier version cannot go on: remove it to begin anew";
  }
  return absl::InvalidArgumentError(absl::StrCat(path, ": metadata 'format' is '", PrintableUtf8(format, kShownBytes),
                                                 "', this program reads '", ours, "'", what));
}

// Tensors of a part with their names in the file.
std::vector<std::pair<std::string, model::WeightSpec>> Names(const model::ModelConfig& config,
                                                             const CheckpointPart& part) {
  std::vector<std::pair<std::string, model::WeightSpec>> names;
  for (model::WeightSpec& spec : model::WeightSchema(config)) {
    if (!part.buffers && spec.role == model::WeightRole::kBuffer) continue;
    names.emplace_back(absl::StrCat(part.prefix, ".", spec.name), std::move(spec));
  }
  return names;
}

bool Has(const SafetensorsFile& file, const CheckpointPart& part) {
  const std::string prefix = absl::StrCat(part.prefix, ".");
  const auto found = file.tensors().lower_bound(prefix);
  return found != file.tensors().end() && absl::StartsWith(found->first, prefix);
}

}  // namespace

absl::Status WriteCheckpoint(backend::Context& ctx, const CheckpointContents& contents, const std::string& path) {
  std::deque<std::vector<float>> values;  // alive until the file is written
  SafetensorsWriter writer;
  for (const CheckpointPart& part : contents.parts) {
    for (const auto& [name, spec] : Names(contents.config, part)) {
      values.push_back(backend::DownloadFloats(ctx, part.tensors.Get(spec.name).detach()));
      BEAMLINE_RETURN_IF_ERROR(writer.Add<float>(name, spec.shape, values.back()));
    }
  }
  writer.SetMetadata("format", absl::StrCat(kFormatName, kFormatVersion));
  writer.SetMetadata("state", contents.state.dump());
  return writer.Write(path);
}

absl::StatusOr<ReadCheckpointResult> ReadCheckpoint(backend::Context& ctx, const model::ModelConfig& config,
                                                    absl::Span<const CheckpointPart> parts, const std::string& path) {
  BEAMLINE_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Read(path));
  BEAMLINE_ASSIGN_OR_RETURN(const std::string format, file.GetMetadata("format"));
  BEAMLINE_RETURN_IF_ERROR(CheckFormat(format, path));
  BEAMLINE_ASSIGN_OR_RETURN(const std::string text, file.GetMetadata("state"));
  BEAMLINE_RETURN_IF_ERROR(file.GetMetadata(kSafetensorsDigest).status());  // not one edited by other means
  ReadCheckpointResult result;
  BEAMLINE_ASSIGN_OR_RETURN(result.state, ParseJson(text, absl::StrCat("metadata 'state' of ", path)));

  std::vector<ExpectedTensor> expected;
  for (const CheckpointPart& part : parts) {
    if (part.optional && !Has(file, part)) continue;
    result.parts.push_back(part.prefix);
    for (const auto& [name, spec] : Names(config, part)) expected.push_back({name, {DType::kF32}, spec.shape});
  }
  BEAMLINE_RETURN_IF_ERROR(CheckTensors(file, expected));

  const at::NoGradGuard no_gradients;
  for (const CheckpointPart& part : parts) {
    if (!absl::c_linear_search(result.parts, part.prefix)) continue;
    for (const auto& [name, spec] : Names(config, part)) {
      BEAMLINE_ASSIGN_OR_RETURN(const TensorView view, file.Get(name));
      at::Tensor target = part.tensors.Get(spec.name).detach();
      target.copy_(backend::UploadFloats(ctx, view.as<float>(), spec.shape));
    }
  }
  return result;
}

}  // namespace beamline::train
