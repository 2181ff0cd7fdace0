// SPDX-License-Identifier: Apache-2.0
#include "sid/generate_vectors.h"

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "beamline/status.h"
#include "sid/random_source.h"

namespace beamline::sid {
namespace {

constexpr int64_t kMaxItems = 100'000'000;
constexpr int kMaxGeneratedDim = 4096;
constexpr int kTopics = 512;
constexpr int kStylesPerTopic = 16;
constexpr float kStyleScale = 0.5f;
constexpr float kNoiseScale = 0.3f;
constexpr int64_t kReportEvery = 65536;

// About normal, of variance 1: the sum of four uniform 16-bit numbers. Without the library's functions, whose last bits
// differ between machines.
float Draw(RandomSource& random) {
  constexpr float kMean = 4 * 32767.5f;
  constexpr float kDeviation = 37837.2f;  // 2 * 65536 / sqrt(12)
  const uint64_t bits = random.Next();
  const uint64_t sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
  return (static_cast<float>(sum) - kMean) / kDeviation;
}

FloatMatrix Centres(int64_t count, int dim, RandomSource& random) {
  FloatMatrix centres(count, dim);
  for (float& value : centres.values) value = Draw(random);
  return centres;
}

}  // namespace

absl::StatusOr<ItemVectors> GenerateVectors(const VectorOptions& options, Progress* progress) {
  if (options.items < 1 || options.items > kMaxItems) {
    return absl::InvalidArgumentError(absl::StrCat("items: is ", options.items, ", must be 1 to ", kMaxItems));
  }
  if (options.dim < 1 || options.dim > kMaxGeneratedDim) {
    return absl::InvalidArgumentError(absl::StrCat("dim: is ", options.dim, ", must be 1 to ", kMaxGeneratedDim));
  }
  BEAMLINE_RETURN_IF_ERROR(CheckMemory(absl::StrCat(options.items, " vectors of ", options.dim, " dimensions"),
                                       options.items * options.dim * static_cast<int64_t>(sizeof(float)),
                                       "generate fewer items or dimensions"));
  RandomSource random(options.seed, 0);
  const FloatMatrix topics = Centres(kTopics, options.dim, random);
  const FloatMatrix styles = Centres(int64_t{kTopics} * kStylesPerTopic, options.dim, random);
  ItemVectors result;
  result.items.reserve(options.items);
  result.vectors = FloatMatrix(options.items, options.dim);
  StartProgress(progress, "generate vectors", options.items, "items");
  for (int64_t item = 0; item < options.items; ++item) {
    const int64_t style = static_cast<int64_t>(random.Below(kTopics * kStylesPerTopic));
    const float* const topic = topics.row(style / kStylesPerTopic);
    float* const vector = result.vectors.row(item);
    for (int i = 0; i < options.dim; ++i) {
      vector[i] = topic[i] + kStyleScale * styles.row(style)[i] + kNoiseScale * Draw(random);
    }
    result.items.push_back(static_cast<ItemId>(item) + 1);
    if (item % kReportEvery != 0) continue;
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    UpdateProgress(progress, item);
  }
  UpdateProgress(progress, options.items);
  FinishProgress(progress);
  return result;
}

}  // namespace beamline::sid
