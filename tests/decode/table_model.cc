// SPDX-License-Identifier: Apache-2.0
#include "decode/table_model.h"

#include <algorithm>
#include <limits>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

namespace beamline::decode::testing {
namespace {

at::Tensor IntTensor(absl::Span<const int64_t> shape) {
  return at::full(at::IntArrayRef(shape.data(), shape.size()), 0, at::kInt);
}

}  // namespace

TableModel::TableModel(std::vector<uint32_t> level_sizes, std::vector<LogitsOf> logits,
                       std::set<std::vector<Code>> legal)
    : logits_(std::move(logits)), legal_(std::move(legal)) {
  config_.level_sizes = std::move(level_sizes);
}

model::EncodedContext TableModel::Context(absl::Span<const int> requests) const {
  model::EncodedContext context;
  context.order = IntTensor({static_cast<int64_t>(requests.size()), 1});
  for (size_t b = 0; b < requests.size(); ++b) context.order.data_ptr<int32_t>()[b] = requests[b];
  return context;
}

model::DecodeState TableModel::BeginDecode(backend::Context&, model::EncodedContext context) const {
  model::DecodeState state;
  state.context = std::move(context);
  return state;
}

// `lineage` of the state holds every row's prefix: [batch, rows, level].
at::Tensor TableModel::DecodeStep(backend::Context&, model::DecodeState& state, const model::StepInput& step) const {
  const int64_t batch = state.context.batch();
  const int64_t row_count = step.level == 0 ? 1 : step.codes.size(1);
  ++steps;
  rows.push_back(row_count);
  const int64_t vocab = config_.level_sizes[step.level];
  at::Tensor prefixes = IntTensor({batch, row_count, step.level});
  at::Tensor logits = at::full({batch, row_count, vocab}, std::numeric_limits<float>::quiet_NaN(), at::kFloat);
  for (int64_t b = 0; b < batch; ++b) {
    std::set<std::vector<Code>> seen;
    for (int64_t row = 0; row < row_count; ++row) {
      std::vector<Code> prefix;
      int32_t* stored = prefixes.data_ptr<int32_t>() + (b * row_count + row) * step.level;
      if (step.level > 0) {
        const int64_t parent = step.parents.data_ptr<int32_t>()[b * row_count + row];
        const int64_t parent_rows = state.lineage.size(1);
        const int32_t* parent_prefix =
            state.lineage.data_ptr<int32_t>() + (b * parent_rows + parent) * (step.level - 1);
        prefix.assign(parent_prefix, parent_prefix + step.level - 1);
        prefix.push_back(static_cast<Code>(step.codes.data_ptr<int32_t>()[b * row_count + row]));
        std::copy(prefix.begin(), prefix.end(), stored);
        if (!legal_.contains(prefix) || !seen.insert(prefix).second) continue;
      }
      const std::vector<float> values = logits_[state.context.order.data_ptr<int32_t>()[b]](prefix);
      std::copy(values.begin(), values.end(), logits.data_ptr<float>() + (b * row_count + row) * vocab);
    }
  }
  state.lineage = prefixes;
  return logits;
}

}  // namespace beamline::decode::testing
