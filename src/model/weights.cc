// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <cmath>
#include <numbers>
#include <optional>

#include "absl/strings/str_cat.h"
#include "backend/backend.h"
#include "backend/ops.h"
#include "base/digest.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "beamline/status.h"
#include "model/sharding.h"
#include "model/size_check.h"
#include "model/weight_file.h"

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

at::Tensor Upload(backend::Context& ctx, const WeightSpec& spec, absl::Span<const int64_t> shape,
                  const std::vector<float>& values) {
  return spec.role == WeightRole::kBuffer ? backend::UploadFloats(ctx, values, shape)
                                          : backend::UploadWeight(ctx, values, shape);
}

void AppendFloats(const TensorView& view, int64_t first, int64_t count, std::vector<float>& values) {
  if (view.dtype == DType::kF32) {
    const absl::Span<const float> run = view.as<float>().subspan(first, count);
    values.insert(values.end(), run.begin(), run.end());
    return;
  }
  for (const uint16_t bits : view.as<uint16_t>().subspan(first, count)) values.push_back(BFloat16ToFloat(bits));
}

absl::Status CheckSizesOf(const backend::Context& ctx, const ModelConfig& config) {
  const int ranks = backend::ShardOf(ctx).size;
  BEAMLINE_RETURN_IF_ERROR(CheckRanks(config, ranks));
  return CheckSizes(config, ctx.backend->GetModelLimits(), ranks);
}

// Of the device, or of the host where tensors are there.
absl::Status CheckRoom(const backend::Context& ctx, const ModelConfig& config) {
  const std::optional<DeviceMemory> device = ctx.backend->GetDeviceMemory();
  if (!device) return ctx.device.is_cpu() ? CheckMemory(config, StorageOf(ctx), 0) : absl::OkStatus();
  return CheckDeviceMemory({.what = absl::StrCat("the model's ", CountParameters(config).total, " parameters"),
                            .parts = {{"weights", EstimateWeights(config, StorageOf(ctx)).kept}},
                            .remedy = "use bf16, a smaller model, or a device with more memory"},
                           device->free);
}

}  // namespace

const at::Tensor& Weights::Get(const std::string& name) const {
  static const at::Tensor undefined;
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? undefined : it->second;
}

WeightStorage StorageOf(const backend::Context& ctx) {
  return {.bytes = static_cast<int64_t>(c10::elementSize(ctx.dtype)),
          .packed_bytes = ctx.backend->PackedWeightBytes(),
          .ranks = backend::ShardOf(ctx).size};
}

Weights InitWeights(backend::Context& ctx, const ModelConfig& config, uint64_t seed) {
  Weights weights;
  for (const WeightSpec& spec : WeightSchema(config))
    weights.Set(spec.name, Upload(ctx, spec, spec.shape, InitialValues(spec, seed)));
  return weights;
}

absl::StatusOr<Weights> LoadWeights(backend::Context& ctx, const ModelConfig& config, const std::string& path) {
  BEAMLINE_RETURN_IF_ERROR(ValidateConfig(config));
  BEAMLINE_RETURN_IF_ERROR(CheckSizesOf(ctx, config));
  BEAMLINE_RETURN_IF_ERROR(CheckRoom(ctx, config));
  BEAMLINE_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Read(path));
  return LoadWeights(ctx, config, file);
}

absl::StatusOr<Weights> LoadWeights(backend::Context& ctx, const ModelConfig& config, const SafetensorsFile& file) {
  BEAMLINE_RETURN_IF_ERROR(ValidateConfig(config));
  const parallel::Shard shard = backend::ShardOf(ctx);
  BEAMLINE_RETURN_IF_ERROR(CheckSizesOf(ctx, config));
  BEAMLINE_RETURN_IF_ERROR(CheckWeightFile(config, file.parts() ? shard : parallel::Shard{}, file));
  Weights weights;
  weights.SetShard(shard);
  for (const WeightSpec& spec : WeightSchema(config)) {
    BEAMLINE_ASSIGN_OR_RETURN(const TensorView view, file.Get(spec.name));
    const std::vector<int64_t> shape = ShapeOfRank(spec, shard);
    std::vector<float> values;
    int64_t elements = 1;
    for (const int64_t size : shape) elements *= size;
    values.reserve(elements);  // as EstimateWeightBytes counts it: growing would take up to three times as much
    if (file.parts()) {
      AppendFloats(view, 0, view.elements(), values);
    } else {
      ForEachRunOfRank(spec, shard, [&](int64_t first, int64_t count) { AppendFloats(view, first, count, values); });
    }
    weights.Set(spec.name, Upload(ctx, spec, shape, values));
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
