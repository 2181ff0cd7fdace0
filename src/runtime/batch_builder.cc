// SPDX-License-Identifier: Apache-2.0
#include "runtime/batch_builder.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "backend/ops.h"
#include "beamline/status.h"

namespace beamline::runtime {
namespace {

constexpr absl::string_view kPathwayNames[] = {"short_term", "positive"};

std::array<const model::PathwayConfig*, model::kPathways> Pathways(const model::ModelConfig& config) {
  return {&config.short_term, &config.positive};
}

absl::Status CheckSize(absl::string_view what, size_t actual, size_t expected) {
  if (actual == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("input.", what, ": ", actual, " values, the model's configuration asks for ", expected));
}

}  // namespace

absl::Status CheckEncodedRequest(const model::ModelConfig& config, const EncodedRequest& request) {
  BEAMLINE_RETURN_IF_ERROR(CheckSize("static_features", request.static_features.size(), config.user.columns()));
  for (int p = 0; p < model::kPathways; ++p) {
    const model::PathwayConfig& pathway = *Pathways(config)[p];
    const EncodedPathway& encoded = request.pathways[p];
    if (encoded.length < 0 || encoded.length > pathway.length) {
      return absl::InvalidArgumentError(absl::StrCat("input.", kPathwayNames[p], ": ", encoded.length,
                                                     " elements, the model's window is ", pathway.length));
    }
    const size_t columns = encoded.length == 0 ? 0 : model::FeatureColumns(config, pathway);
    BEAMLINE_RETURN_IF_ERROR(
        CheckSize(absl::StrCat(kPathwayNames[p], ".features"), encoded.features.size(), columns * encoded.length));
    BEAMLINE_RETURN_IF_ERROR(CheckSize(absl::StrCat(kPathwayNames[p], ".order"), encoded.order.size(), encoded.length));
  }
  const EncodedRequest* const one[] = {&request};
  return model::CheckEncoderInput(config, BuildEncoderBatch(config, one));
}

model::EncoderInput BuildEncoderBatch(const model::ModelConfig& config,
                                      absl::Span<const EncodedRequest* const> requests) {
  return BuildEncoderBatch(config, requests, [](int64_t size, int64_t) { return size; });
}

model::EncoderInput BuildEncoderBatch(const model::ModelConfig& config,
                                      absl::Span<const EncodedRequest* const> requests, RoomForSize room) {
  std::array<int, model::kPathways> capacity = {0, 0};
  for (const EncodedRequest* request : requests) {
    for (int p = 0; p < model::kPathways; ++p) capacity[p] = std::max(capacity[p], request->pathways[p].length);
  }
  for (int p = 0; p < model::kPathways; ++p) {
    if (capacity[p] == 0) continue;
    const int64_t elements = room(capacity[p], backend::kFewestTokens);
    capacity[p] = static_cast<int>(std::min<int64_t>(elements, Pathways(config)[p]->length));
  }
  const int static_tokens = config.user.enabled ? 1 : 0;
  // An encoder over nothing is no batch: one padding element stands in.
  if (static_tokens + capacity[0] + capacity[1] == 0) capacity[config.short_term.enabled() ? 0 : 1] = 1;

  const int batch_size = static_cast<int>(requests.size());
  model::EncoderInput input =
      model::MakeEncoderInput(config, static_cast<int>(room(batch_size, 1)), capacity[0], capacity[1]);
  const int row_tokens = static_tokens + capacity[0] + capacity[1];
  for (int b = 0; b < batch_size; ++b) {
    const EncodedRequest& request = *requests[b];
    std::copy(request.static_features.begin(), request.static_features.end(),
              input.static_features.begin() + b * config.user.columns());
    if (static_tokens == 1) input.order[b * row_tokens] = -1;
    int first_token = static_tokens;
    for (int p = 0; p < model::kPathways; ++p) {
      const EncodedPathway& pathway = request.pathways[p];
      const int64_t columns = model::FeatureColumns(config, *Pathways(config)[p]);
      std::copy(pathway.features.begin(), pathway.features.end(),
                input.pathways[p].features.begin() + b * capacity[p] * columns);
      std::copy(pathway.order.begin(), pathway.order.end(), input.order.begin() + b * row_tokens + first_token);
      first_token += capacity[p];
    }
  }
  return input;
}

}  // namespace beamline::runtime
