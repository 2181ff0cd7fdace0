// SPDX-License-Identifier: Apache-2.0
#include "model/model.h"

#include <algorithm>
#include <atomic>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "model/onerec_v1.h"
#include "model/t5.h"

namespace beamline::model {

int64_t ContextHandle::bytes() const {
  int64_t bytes = order.defined() ? static_cast<int64_t>(order.nbytes()) : 0;
  for (const at::Tensor& tensor : key_value) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

Model::Model()
    : serial_([] {
        static std::atomic<uint64_t> last{0};
        return ++last;
      }()) {}

// The order is the one that was uploaded: it is the same, and its values are known on the host.
EncodedContext EncodePass(backend::Context& ctx, const Model& model, const EncoderBatch& batch) {
  std::vector<at::Tensor> inputs = {batch.static_features, batch.positions, batch.order};
  inputs.insert(inputs.end(), std::begin(batch.features), std::end(batch.features));
  EncodedContext context{.order = batch.order};
  context.key_value =
      backend::RunPass(ctx, absl::StrCat("encode ", model.serial()), inputs, [&](absl::Span<const at::Tensor> in) {
        EncoderBatch own = batch;
        own.static_features = in[0];
        own.positions = in[1];
        own.order = in[2];
        std::copy(in.begin() + 3, in.end(), std::begin(own.features));
        return model.Encode(ctx, own).key_value;
      });
  return context;
}

std::vector<ContextHandle> SplitContext(backend::Context& ctx, const EncodedContext& encoded) {
  std::vector<ContextHandle> handles(encoded.batch());
  for (size_t row = 0; row < handles.size(); ++row) {
    handles[row].order = backend::TakeVisible(ctx, encoded.order, encoded.order, static_cast<int64_t>(row));
    for (const at::Tensor& layer : encoded.key_value) {
      handles[row].key_value.push_back(backend::TakeVisible(ctx, layer, encoded.order, static_cast<int64_t>(row)));
    }
  }
  return handles;
}

EncodedContext PackContexts(backend::Context& ctx, absl::Span<const ContextHandle* const> handles) {
  int64_t capacity = 1;  // a batch of empty histories still has one hidden token
  for (const ContextHandle* handle : handles) capacity = std::max(capacity, handle->tokens());
  EncodedContext packed;
  std::vector<at::Tensor> rows(handles.size());
  for (size_t row = 0; row < handles.size(); ++row) rows[row] = handles[row]->order;
  packed.order = backend::StackPadded(ctx, rows, capacity, backend::kPaddingOrder);
  for (size_t layer = 0; layer < handles[0]->key_value.size(); ++layer) {
    for (size_t row = 0; row < handles.size(); ++row) rows[row] = handles[row]->key_value[layer];
    packed.key_value.push_back(backend::StackPadded(ctx, rows, capacity, 0));
  }
  return packed;
}

absl::StatusOr<std::unique_ptr<Model>> MakeModel(const ModelConfig& config, Weights weights) {
  BEAMLINE_RETURN_IF_ERROR(ValidateConfig(config));
  for (const WeightSpec& spec : WeightSchema(config)) {
    if (!weights.Get(spec.name).defined()) {
      return absl::InvalidArgumentError(absl::StrCat("weights: tensor ", spec.name, " is missing"));
    }
  }
  if (config.is_t5()) return std::make_unique<T5>(config, std::move(weights));
  return std::make_unique<OneRecV1>(config, std::move(weights));
}

}  // namespace beamline::model
