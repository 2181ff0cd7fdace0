// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include <ATen/ops/empty.h>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/resources.h"
#include "beamline/kernels/ranker.h"
#include "beamline/kernels/vector_ops.h"

namespace beamline::backend {
namespace {

// A row that table rows are added to: the first of them is copied.
class FeatureSum {
 public:
  explicit FeatureSum(float* to) : to_(to) {}

  void Add(const FeatureTable& feature, int32_t id) {
    switch (feature.lookup) {
      case FeatureLookup::kIndex:
        return AddRow(feature.table, id);
      case FeatureLookup::kFromOne:
        if (id > 0) AddRow(feature.table, id - 1);
        return;
      case FeatureLookup::kBitSum:
        for (int64_t bit = 0; bit < feature.table.size(0); ++bit) {
          if ((id >> bit & 1) != 0) AddRow(feature.table, bit);
        }
        return;
    }
  }
  void End(int64_t width) {
    if (empty_) std::fill_n(to_, width, 0.0f);
  }

 private:
  void AddRow(const Tensor& table, int64_t row) {
    const int64_t width = table.size(1);
    const float* const from = table.const_data_ptr<float>() + row * width;
    if (std::exchange(empty_, false)) {
      std::copy_n(from, width, to_);
    } else {
      kernels::BestVectorOps().add(to_, from, width, to_);
    }
  }

  float* const to_;
  bool empty_ = true;
};

constexpr double kFlopsPerFloat = 16;  // looking one up takes as long

}  // namespace

// Not aten's: its sum of a bit set's rows is a matrix product, whose order of adding depends on how many rows there
// are.
Tensor CpuBackend::EmbedFeatures(Context& ctx, absl::Span<const FeatureTable> tables, FeatureFusion fusion,
                                 const Tensor& features) const {
  const int64_t columns = features.size(-1), rows = features.numel() / columns;
  int64_t width = tables[0].table.size(1);
  for (const FeatureTable& feature : tables.subspan(1)) {
    if (fusion == FeatureFusion::kConcat) width += feature.table.size(1);
  }
  Tensor x = Take(ctx, {rows, width});
  const auto embed = [&](int64_t begin, int64_t end, float* /*scratch*/) {
    const int32_t* ids = features.const_data_ptr<int32_t>() + begin * columns;
    float* to = x.mutable_data_ptr<float>() + begin * width;
    for (int64_t row = begin; row < end; ++row) {
      if (fusion == FeatureFusion::kSum) {
        FeatureSum sum(to);
        for (const FeatureTable& feature : tables) sum.Add(feature, *ids++);
        sum.End(width);
        to += width;
        continue;
      }
      for (const FeatureTable& feature : tables) {
        FeatureSum alone(to);
        alone.Add(feature, *ids++);
        alone.End(feature.table.size(1));
        to += feature.table.size(1);
      }
    }
  };
  const double floats = static_cast<double>(fusion == FeatureFusion::kSum ? columns * width : width);
  ForRowBlocks(ctx, {.rows = rows, .block = std::max<int64_t>(1, rows), .flops_per_row = kFlopsPerFloat * floats},
               embed);
  return x;
}

Tensor CpuBackend::EmbedStep(Context& ctx, const CodeEmbedding& embedding, const LevelRows& of,
                             const Tensor& codes) const {
  // A model of one level whose head is untied and whose sid features are not shared has no table.
  const int level = of.level;
  const int64_t rows = level == 0 ? of.batch : codes.numel();
  const int64_t d = embedding.bos.defined() ? embedding.bos.size(0) : embedding.tables[0].size(1);
  const float* bos = embedding.bos.defined() ? embedding.bos.const_data_ptr<float>()
                                             : embedding.tables[0].const_data_ptr<float>() + embedding.bos_row * d;
  const float* table = level == 0 ? nullptr : embedding.tables[level - 1].const_data_ptr<float>();
  if (level > 0 && !embedding.first_rows.empty()) table += int64_t{embedding.first_rows[level - 1]} * d;
  const float* position =
      embedding.positions.defined() ? embedding.positions.const_data_ptr<float>() + level * d : nullptr;
  Tensor x = Take(ctx, {rows, d});
  float* to = x.mutable_data_ptr<float>();
  for (int64_t row = 0; row < rows; ++row, to += d) {
    const float* from = level == 0 ? bos : table + int64_t{codes.const_data_ptr<int32_t>()[row]} * d;
    for (int64_t i = 0; i < d; ++i) to[i] = position == nullptr ? from[i] : from[i] + position[i];
  }
  return x;
}

Tensor CpuBackend::GatherRows(Context& ctx, const Tensor& x, const Tensor& rows) const {
  const int64_t width = x.size(1);
  Tensor y = Take(ctx, {rows.size(0), width});
  const int32_t* const from = rows.const_data_ptr<int32_t>();
  ForRowBlocks(ctx,
               {.rows = rows.size(0),
                .block = std::max<int64_t>(1, rows.size(0)),
                .flops_per_row = kFlopsPerFloat * static_cast<double>(width)},
               [&](int64_t begin, int64_t end, float* /*scratch*/) {
                 float* to = y.mutable_data_ptr<float>() + begin * width;
                 for (int64_t row = begin; row < end; ++row, to += width) {
                   if (from[row] < 0) {
                     std::fill_n(to, width, 0.0f);
                   } else {
                     std::copy_n(x.const_data_ptr<float>() + from[row] * width, width, to);
                   }
                 }
               });
  return y;
}

Tensor CpuBackend::TrunkRows(Context& ctx, const Tensor& trunk, const LevelRows& of, int64_t rows) const {
  const int64_t d = trunk.size(1);
  Tensor x = Take(ctx, {of.batch * rows, d});
  float* to = x.mutable_data_ptr<float>();
  for (int64_t row = 0; row < of.batch * rows; ++row) {
    to = std::copy_n(trunk.const_data_ptr<float>() + (row / rows * of.levels + of.level) * d, d, to);
  }
  return x;
}

Tensor CpuBackend::ExtendLineage(Context& ctx, const Tensor& lineage, const Tensor& parents) const {
  const int64_t batch = parents.size(0), rows = parents.size(1), steps = lineage.defined() ? lineage.size(2) : 0;
  Tensor extended = Take(ctx, {batch, rows, steps + 1}, c10::kInt);
  int32_t* to = extended.mutable_data_ptr<int32_t>();
  for (int64_t row = 0; row < batch * rows; ++row) {
    const int32_t parent = parents.const_data_ptr<int32_t>()[row];
    if (steps > 0) {
      const int64_t ancestor = row / rows * lineage.size(1) + parent;
      to = std::copy_n(lineage.const_data_ptr<int32_t>() + ancestor * steps, steps, to);
    }
    *to++ = parent;
  }
  return extended;
}

// Kept by the context cache, hence not from the workspace.
Tensor CpuBackend::TakeVisible(Context& ctx, const Tensor& x, const Tensor& order, int64_t row) const {
  const int64_t capacity = order.size(1),
                bytes = static_cast<int64_t>(x.nbytes()) / std::max<int64_t>(1, x.size(0) * capacity);
  const int32_t* orders = order.const_data_ptr<int32_t>() + row * capacity;
  std::vector<int64_t> shape = x.sizes().vec();
  shape.erase(shape.begin());
  shape[0] = std::count_if(orders, orders + capacity, [](int32_t o) { return o <= kSeesAllOrders; });
  Tensor visible = at::empty(shape, x.options());
  char* to = static_cast<char*>(visible.mutable_data_ptr());
  const char* from = static_cast<const char*>(x.const_data_ptr()) + row * capacity * bytes;
  for (int64_t i = 0; i < capacity; ++i, from += bytes) {
    if (orders[i] > kSeesAllOrders) continue;
    std::memcpy(to, from, bytes);
    to += bytes;
  }
  return visible;
}

Tensor CpuBackend::JoinRows(Context& ctx, absl::Span<const Tensor> parts) const {
  std::vector<int64_t> shape = parts[0].sizes().vec();
  for (const Tensor& part : parts.subspan(1)) shape[0] += part.size(0);
  Tensor joined = Take(ctx, shape, parts[0].scalar_type());
  char* to = static_cast<char*>(joined.mutable_data_ptr());
  for (const Tensor& part : parts) {
    std::memcpy(to, part.const_data_ptr(), part.nbytes());
    to += part.nbytes();
  }
  return joined;
}

Tensor CpuBackend::StackPadded(Context& ctx, absl::Span<const Tensor> rows, int64_t capacity, int32_t fill) const {
  std::vector<int64_t> shape = rows[0].sizes().vec();
  shape[0] = capacity;
  shape.insert(shape.begin(), static_cast<int64_t>(rows.size()));
  Tensor stacked = Take(ctx, shape, rows[0].scalar_type());
  const int64_t elements = stacked.numel() / static_cast<int64_t>(rows.size());
  for (size_t row = 0; row < rows.size(); ++row) {
    const int64_t kept = rows[row].defined() ? rows[row].numel() : 0, at = static_cast<int64_t>(row) * elements;
    if (stacked.scalar_type() == c10::kInt) {
      int32_t* to = stacked.mutable_data_ptr<int32_t>() + at;
      if (kept > 0) std::copy_n(rows[row].const_data_ptr<int32_t>(), kept, to);
      std::fill(to + kept, to + elements, fill);
    } else {
      float* to = stacked.mutable_data_ptr<float>() + at;
      if (kept > 0) std::copy_n(rows[row].const_data_ptr<float>(), kept, to);
      std::fill(to + kept, to + elements, static_cast<float>(fill));
    }
  }
  return stacked;
}

void CpuBackend::SelectBeams(Context& ctx, const SelectBeamsArgs& args) const {
  const int64_t batch = args.logits.size(0);
  const double work = 32.0 * static_cast<double>(args.logits.size(1) * args.logits.size(2));  // about that per logit
  ForRowBlocks(ctx, {.rows = batch, .block = batch, .flops_per_row = work},
               [&](int64_t begin, int64_t end, float*) { SelectOnHost(args, begin, end); });
}

void CpuBackend::RankBeams(Context&, const RankBeamsArgs& args) const {
  const RankerWeights& w = args.weights;
  const auto requests = static_cast<int64_t>(args.requests.size());
  const int64_t rows = args.states.size(0) / requests, width = args.states.size(1);
  for (int64_t b = 0; b < requests; ++b) {
    const kernels::BeamSlots* beams = args.requests[b].beams;
    if (beams == nullptr) continue;
    kernels::RankCandidatesCpu({.count = beams->count,
                                .width = static_cast<int32_t>(width),
                                .heads = static_cast<int32_t>(w.head.size(0)),
                                .states = args.states.const_data_ptr<float>() + b * rows * width,
                                .code_table = w.code.const_data_ptr<float>(),
                                .head = w.head.const_data_ptr<float>(),
                                .bias = w.bias.const_data_ptr<float>(),
                                .weight = w.weights.data(),
                                .parents = beams->parent,
                                .codes = beams->code,
                                .score_weight = w.score_weight,
                                .scores = beams->score,
                                .values = args.requests[b].values});
  }
}

}  // namespace beamline::backend
