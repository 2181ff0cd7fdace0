// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backend/backend.h"
#include "backend/ops.h"
#include "base/digest.h"
#include "base/safetensors.h"
#include "beamline/status.h"

namespace beamline::model {
namespace {

// Counter-based: value i of a tensor depends on seed, name and i alone.
double Uniform(uint64_t stream, uint64_t counter) {
  return (static_cast<double>(StableMix64(counter, stream) >> 11) + 0.5) * 0x1.0p-53;  // in (0, 1)
}

std::vector<float> InitialValues(const WeightSpec& spec, uint64_t seed) {
  std::vector<float> values(spec.elements(), spec.initializer == Initializer::kOnes ? 1.0f : 0.0f);
  if (spec.initializer != Initializer::kNormal) return values;
  const uint64_t stream = StableHash64(spec.name, seed);
  for (size_t i = 0; i < values.size(); i += 2) {  // Box-Muller
    const double radius = spec.stddev * std::sqrt(-2 * std::log(Uniform(stream, i)));
    const double angle = 2 * std::numbers::pi * Uniform(stream, i + 1);
    values[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < values.size()) values[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
  const int64_t leading = spec.leading_rows * spec.elements() / spec.shape[0];
  for (int64_t i = 0; i < leading; ++i) values[i] *= static_cast<float>(spec.leading_stddev / spec.stddev);
  return values;
}

at::Tensor Upload(backend::Context& ctx, const WeightSpec& spec, const std::vector<float>& values) {
  return spec.role == WeightRole::kBuffer ? backend::UploadFloats(ctx, values, spec.shape)
                                          : backend::UploadWeight(ctx, values, spec.shape);
}

std::vector<float> ToFloats(const TensorView& view) {
  if (view.dtype == DType::kF32) {
    const absl::Span<const float> values = view.as<float>();
    return {values.begin(), values.end()};
  }
  const absl::Span<const uint16_t> bits = view.as<uint16_t>();
  std::vector<float> values(bits.size());
  for (size_t i = 0; i < bits.size(); ++i) values[i] = BFloat16ToFloat(bits[i]);
  return values;
}

absl::Status CheckFile(const ModelConfig& config, const SafetensorsFile& file) {
  std::vector<ExpectedTensor> expected;
  for (const WeightSpec& spec : WeightSchema(config)) {
    expected.push_back({spec.name, {DType::kF32, DType::kBF16}, spec.shape});
  }
  BEAMLINE_RETURN_IF_ERROR(CheckTensors(file, expected));
  std::vector<std::string> broken;
  for (const auto& [name, view] : file.tensors()) {
    const int64_t count = CountNonFinite(view);
    if (count > 0)
      broken.push_back(absl::StrCat(name, ": ", count, " of ", view.elements(), " values are NaN or infinite"));
  }
  if (broken.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(file.source(), ":\n", absl::StrJoin(broken, "\n")));
}

}  // namespace

const at::Tensor& Weights::Get(const std::string& name) const {
  static const at::Tensor undefined;
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? undefined : it->second;
}

WeightStorage StorageOf(const backend::Context& ctx) {
  return {.bytes = static_cast<int64_t>(c10::elementSize(ctx.dtype)), .packed_bytes = ctx.backend->PackedWeightBytes()};
}

Weights InitWeights(backend::Context& ctx, const ModelConfig& config, uint64_t seed) {
  Weights weights;
  for (const WeightSpec& spec : WeightSchema(config))
    weights.Set(spec.name, Upload(ctx, spec, InitialValues(spec, seed)));
  return weights;
}

absl::StatusOr<Weights> LoadWeights(backend::Context& ctx, const ModelConfig& config, const std::string& path) {
  BEAMLINE_RETURN_IF_ERROR(ValidateConfig(config));
  if (ctx.device.is_cpu()) BEAMLINE_RETURN_IF_ERROR(CheckMemory(config, StorageOf(ctx), 0));
  BEAMLINE_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Read(path));
  return LoadWeights(ctx, config, file);
}

absl::StatusOr<Weights> LoadWeights(backend::Context& ctx, const ModelConfig& config, const SafetensorsFile& file) {
  BEAMLINE_RETURN_IF_ERROR(ValidateConfig(config));
  BEAMLINE_RETURN_IF_ERROR(CheckFile(config, file));
  Weights weights;
  for (const WeightSpec& spec : WeightSchema(config)) {
    BEAMLINE_ASSIGN_OR_RETURN(const TensorView view, file.Get(spec.name));
    weights.Set(spec.name, Upload(ctx, spec, ToFloats(view)));
  }
  return weights;
}

absl::Status SaveWeights(backend::Context& ctx, const ModelConfig& config, const Weights& weights,
                         const std::string& path) {
  SafetensorsWriter writer;
  std::vector<std::vector<float>> values;  // live until Write
  for (const WeightSpec& spec : WeightSchema(config)) {
    const at::Tensor& tensor = weights.Get(spec.name);
    if (!tensor.defined()) return absl::InternalError(absl::StrCat(path, ": the model has no tensor ", spec.name));
    values.push_back(backend::DownloadFloats(ctx, tensor));
    BEAMLINE_RETURN_IF_ERROR(writer.Add<float>(spec.name, spec.shape, values.back()));
  }
  return writer.Write(path);
}

}  // namespace beamline::model
