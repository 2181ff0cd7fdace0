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

namespace {

int64_t Bytes(const at::Tensor& tensor) { return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0; }

// f(one, all): of the same tensor of a request's and of the batch's first step.
template <typename One, typename All, typename F>
void ForEachTensor(One& one, All& all, F f) {
  f(one.logits, all.logits);
  f(one.trunk, all.trunk);
  for (size_t layer = 0; layer < all.own.size(); ++layer) f(one.own[layer], all.own[layer]);
}

}  // namespace

int64_t ContextHandle::bytes() const {
  int64_t bytes = Bytes(order) + Bytes(first.logits) + Bytes(first.trunk);
  for (const at::Tensor& tensor : key_value) bytes += Bytes(tensor);
  for (const at::Tensor& tensor : first.own) bytes += Bytes(tensor);
  return bytes;
}

Model::Model()
    : serial_([] {
        static std::atomic<uint64_t> last{0};
        return ++last;
      }()) {}

// The order is the one that was uploaded: it is the same, and its values are known on the host.
EncodedContext EncodePass(backend::Context& ctx, const Model& model, const EncoderBatch& batch) {
  if (ctx.communicator != nullptr) return model.Encode(ctx, batch);  // other ranks take part
  const backend::TokenPacking& packing = batch.packing;
  std::vector<at::Tensor> inputs = {batch.static_features, batch.positions, batch.order, packing.from,
                                    packing.bounds,        packing.order,   packing.to};
  inputs.insert(inputs.end(), std::begin(batch.features), std::end(batch.features));
  EncodedContext context{.order = batch.order};
  context.key_value =
      backend::RunPass(ctx, absl::StrCat("encode ", model.serial()), inputs, [&](absl::Span<const at::Tensor> in) {
        EncoderBatch own = batch;
        own.static_features = in[0];
        own.positions = in[1];
        own.order = in[2];
        own.packing = {.from = in[3], .bounds = in[4], .order = in[5], .to = in[6], .tokens = packing.tokens};
        std::copy(in.begin() + 7, in.end(), std::begin(own.features));
        return model.Encode(ctx, own).key_value;
      });
  return context;
}

std::vector<ContextHandle> SplitContext(backend::Context& ctx, const EncodedContext& encoded) {
  return SplitContext(ctx, encoded, encoded.batch());
}

std::vector<ContextHandle> SplitContext(backend::Context& ctx, const EncodedContext& encoded, int64_t requests) {
  std::vector<ContextHandle> handles(requests);
  std::vector<at::Tensor> all = {encoded.order};
  all.insert(all.end(), encoded.key_value.begin(), encoded.key_value.end());
  for (size_t row = 0; row < handles.size(); ++row) {
    std::vector<at::Tensor> taken = backend::TakeVisible(ctx, all, encoded.order, static_cast<int64_t>(row));
    handles[row].order = std::move(taken[0]);
    handles[row].key_value.assign(std::make_move_iterator(taken.begin() + 1), std::make_move_iterator(taken.end()));
    handles[row].first.own.resize(encoded.first.own.size());
    ForEachTensor(handles[row].first, encoded.first, [&](at::Tensor& one, const at::Tensor& all) {
      if (!all.defined()) return;
      const int64_t count = all.size(0) / encoded.batch();
      one = backend::TakeRows(ctx, all, static_cast<int64_t>(row) * count, count);
    });
  }
  return handles;
}

EncodedContext PackContexts(backend::Context& ctx, absl::Span<const ContextHandle* const> handles, int64_t requests) {
  int64_t capacity = 1;  // a batch of empty histories still has one hidden token
  for (const ContextHandle* handle : handles) capacity = std::max(capacity, handle->tokens());
  capacity = backend::RoomFor(ctx, capacity, backend::kFewestTokens);
  EncodedContext packed;
  std::vector<at::Tensor> rows(std::max(static_cast<size_t>(requests), handles.size()));  // those behind: undefined
  for (size_t row = 0; row < handles.size(); ++row) rows[row] = handles[row]->order;
  packed.order = backend::StackPadded(ctx, rows, capacity, backend::kPaddingOrder);
  const size_t layers = handles[0]->key_value.size();
  std::vector<at::Tensor> of_layers(layers * rows.size());
  for (size_t layer = 0; layer < layers; ++layer) {
    for (size_t row = 0; row < handles.size(); ++row) {
      of_layers[layer * rows.size() + row] = handles[row]->key_value[layer];
    }
  }
  packed.key_value = backend::StackAllPadded(ctx, of_layers, static_cast<int64_t>(layers), capacity);
  const FirstStep& first = handles[0]->first;
  packed.first.own.resize(first.own.size());
  const auto join = [&](const auto& of) {
    for (size_t row = 0; row < handles.size(); ++row) rows[row] = of(handles[row]->first);
    const auto taken = absl::MakeConstSpan(rows).subspan(0, handles.size());
    return rows[0].defined() ? backend::JoinRows(ctx, taken) : at::Tensor();
  };
  packed.first.logits = join([](const FirstStep& step) { return step.logits; });
  packed.first.trunk = join([](const FirstStep& step) { return step.trunk; });
  for (size_t layer = 0; layer < first.own.size(); ++layer) {
    packed.first.own[layer] = join([layer](const FirstStep& step) { return step.own[layer]; });
  }
  return packed;
}

void TakeFirstStep(backend::Context& ctx, const Model& model, EncodedContext& context) {
  if (backend::SearchesOnDevice(ctx)) return;
  DecodeState state = model.BeginDecode(ctx, context);
  context.first.logits = model.DecodeStep(ctx, state, {});
  context.first.trunk = state.trunk;
  for (const backend::LineageCache& layer : state.layers) {
    if (!layer.steps.empty()) context.first.own.push_back(layer.steps[0]);
  }
}

at::Tensor FirstLogits(backend::Context& ctx, const Model& model, DecodeState& state) {
  const FirstStep& first = state.context.first;
  if (!first.logits.defined()) return model.DecodeStep(ctx, state, {});
  for (size_t layer = 0; layer < first.own.size(); ++layer) state.layers[layer].steps = {first.own[layer]};
  return first.logits;
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
