// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/search.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backend/ops.h"
#include "beamline/kernels/state_cuda.h"

namespace beamline::backend::cuda {

CudaSearch::CudaSearch(const Context& ctx, TrieCache& tries, absl::Span<const DeviceSearchRequest> requests)
    : requests_(static_cast<int>(requests.size())) {
  auto& batch = static_cast<CudaBatch&>(*ctx.resources);
  for (const DeviceSearchRequest& request : requests) {
    levels_ = std::max(levels_, static_cast<int>(request.widths.size()));
    scores_end_ = scores_end_ || request.scores_end;
    ranked_ = ranked_ || request.ranked;
  }
  TORCH_CHECK(levels_ > 0 && levels_ <= kernels::kMaxTrieLevels, "cuda: a search of ", levels_, " levels");
  rows_.assign(levels_, 1);
  std::vector<int32_t> widths(levels_ * requests_, 0), row_begin(requests_ + 1);  // widths [levels][requests]
  std::vector<kernels::ScoreRule> rules(requests_);
  std::vector<kernels::ConstraintView> views(requests_);
  TrieCache::Sent sent;
  for (int b = 0; b < requests_; ++b) {
    rules[b] = requests[b].rule;
    for (size_t level = 0; level < requests[b].widths.size(); ++level) {
      const int32_t width = requests[b].widths[level];
      widths[level * requests_ + b] = width;
      rows_[level] = std::max(rows_[level], width);
    }
    if (requests[b].constraint != nullptr) views[b] = tries.Upload(batch, *requests[b].constraint, levels_ - 1, sent);
  }
  for (int32_t& rows : rows_) rows = static_cast<int32_t>(RoomFor(ctx, rows));
  each_ = *std::max_element(rows_.begin(), rows_.end());
  for (int b = 0; b <= requests_; ++b) row_begin[b] = b * each_;
  std::vector<char> bytes;
  const auto append = [&](const auto& values) {
    const char* begin = reinterpret_cast<const char*>(values.data());
    bytes.insert(bytes.end(), begin, begin + values.size() * sizeof(values[0]));
  };
  append(views);
  if (scores_end_) append(std::vector<kernels::ConstraintView>(requests_, UploadEnd(batch)));
  append(row_begin);
  append(widths);
  append(rules);
  input_ = batch.Upload(bytes.data(), {static_cast<int64_t>(bytes.size())}, c10::ScalarType::Byte);
  beams_ = batch.Take({FirstValue() + (ranked_ ? int64_t{requests_} * each_ : 0)}, c10::kInt);
}

int64_t CudaSearch::FirstError() const {
  const PackedBeams packed(requests_, int64_t{requests_} * each_);
  return (levels_ + (scores_end_ ? 1 : 0)) * packed.words();
}

std::string CudaSearch::shape() const { return absl::StrCat(requests_, ":", absl::StrJoin(rows_, ",")); }

kernels::DeviceBeams CudaSearch::DeviceLevel(int level) const {
  const PackedBeams packed(requests_, int64_t{requests_} * each_);
  return packed.At(beams_.mutable_data_ptr<int32_t>() + level * packed.words());
}

kernels::ConstraintView CudaSearch::UploadEnd(CudaBatch& batch) const {
  std::vector<uint32_t> offsets(each_ + 1);
  std::iota(offsets.begin(), offsets.end(), 0u);
  const auto upload = [&](const void* values, int64_t bytes) {
    return batch.Upload(values, {bytes}, c10::ScalarType::Byte).const_data_ptr();
  };
  const std::vector<uint16_t> zeros(each_, 0);
  const auto* codes = static_cast<const uint16_t*>(upload(zeros.data(), 2 * int64_t{each_}));
  const auto nodes = static_cast<uint32_t>(each_);
  kernels::ConstraintView end;
  end.trie.levels = 2;
  end.trie.level[0] = {.codes = codes,
                       .offsets = static_cast<const uint32_t*>(upload(offsets.data(), 4 * (int64_t{each_} + 1))),
                       .num_nodes = nodes};
  end.trie.level[1] = {.codes = codes, .offsets = nullptr, .num_nodes = nodes};
  end.snapshot_trie = end.trie;
  return end;
}

const kernels::ConstraintView* CudaSearch::Constraints() const {
  return static_cast<const kernels::ConstraintView*>(input_.const_data_ptr());
}

const int32_t* CudaSearch::Numbers() const {
  return reinterpret_cast<const int32_t*>(Constraints() + requests_ * (scores_end_ ? 2 : 1));
}

kernels::BeamSelectBatch CudaSearch::SelectionOf(Context& ctx, const at::Tensor& logits, int level,
                                                 int32_t first_code) const {
  const int32_t* numbers = Numbers();
  kernels::BeamSelectBatch select;
  select.logits = logits.const_data_ptr<float>();
  select.ld = logits.stride(1);
  select.parts = static_cast<CudaBatch&>(*ctx.resources).PartsOf(logits);
  select.logits_each = static_cast<int32_t>(logits.size(1));
  select.vocab = static_cast<int32_t>(logits.size(2));
  select.first_code = first_code;
  select.level = level;
  select.requests = requests_;
  select.rows = requests_ * each_;
  select.row_begin = numbers;
  select.width = numbers + requests_ + 1 + level * requests_;
  select.rule = reinterpret_cast<const kernels::ScoreRule*>(numbers + requests_ + 1 + levels_ * requests_);
  select.constraint = Constraints();
  select.error = beams_.mutable_data_ptr<int32_t>() + FirstError();
  select.workspace = static_cast<CudaBatch&>(*ctx.resources).worker().SelectWorkspace(requests_, requests_ * each_);
  return select;
}

void CudaSearch::Select(Context& ctx, const at::Tensor& logits, int level, int32_t first_code) {
  TORCH_CHECK(level == selected_ && level < levels_, "cuda: level ", level, " of a search was selected out of order");
  kernels::BeamSelectBatch select = SelectionOf(ctx, logits, level, first_code);
  if (level > 0) select.in = DeviceLevel(level - 1);
  select.out = DeviceLevel(level);
  Check(kernels::BeamSelectCuda(select, static_cast<CudaBatch&>(*ctx.resources).stream()), "beam selection");
  ++selected_;
}

// A selection from a trie whose nodes are the beams in the order of their leaves, so that equal scores stay in that
// order.
void CudaSearch::SelectEnd(Context& ctx, const at::Tensor& logits, int32_t end_code) {
  auto& batch = static_cast<CudaBatch&>(*ctx.resources);
  TORCH_CHECK(scores_end_ && selected_ == levels_, "cuda: an end token before the last level");
  const kernels::DeviceBeams leaves = DeviceLevel(levels_ - 1);
  const at::Tensor rank = batch.Take({requests_, each_}, c10::kInt);
  auto* ranks = reinterpret_cast<uint32_t*>(rank.mutable_data_ptr<int32_t>());
  Check(kernels::RankNodesCuda(
            {.requests = requests_, .slots = each_, .count = leaves.count, .node = leaves.node, .rank = ranks},
            batch.stream()),
        "the order of leaves");
  kernels::BeamSelectBatch select = SelectionOf(ctx, logits, levels_ - 1, end_code);
  select.level = 1;  // of the end token's trie
  select.constraint = Constraints() + requests_;
  select.in = leaves;
  select.in.node = ranks;
  select.out = DeviceLevel(levels_);
  Check(kernels::BeamSelectCuda(select, batch.stream()), "the end token");
  ++selected_;
}

DeviceSearch::StepTensors CudaSearch::NextStep(Context& ctx) {
  auto& batch = static_cast<CudaBatch&>(*ctx.resources);
  TORCH_CHECK(selected_ > 0, "cuda: a step without beams");
  const int32_t rows = rows_[selected_ - 1];
  const kernels::DeviceBeams beams = DeviceLevel(selected_ - 1);
  StepTensors step{batch.Take({requests_, rows}, c10::kInt), batch.Take({requests_, rows}, c10::kInt)};
  Check(kernels::NextStepCuda({.requests = requests_,
                               .slots = each_,
                               .rows = rows,
                               .count = beams.count,
                               .code = beams.code,
                               .parent = beams.parent,
                               .codes = step.codes.mutable_data_ptr<int32_t>(),
                               .parents = step.parents.mutable_data_ptr<int32_t>()},
                              batch.stream()),
        "the next step's input");
  return step;
}

void CudaSearch::Finish(Context& ctx) {
  host_.resize(beams_.numel());
  const char* down = static_cast<CudaBatch&>(*ctx.resources).Download(beams_.const_data_ptr(), beams_.nbytes());
  std::memcpy(host_.data(), down, beams_.nbytes());
  if (!scores_end_) return;
  for (int request = 0; request < requests_; ++request) {  // nodes become the leaves that they stand for
    const kernels::BeamSlots leaves = Beams(levels_ - 1, request), end = Beams(levels_, request);
    for (int32_t i = 0; i < end.count; ++i) end.node[i] = leaves.node[end.parent[i]];
  }
}

kernels::BeamSlots CudaSearch::Beams(int level, int request) const {
  const PackedBeams packed(requests_, int64_t{requests_} * each_);
  const kernels::DeviceBeams beams = packed.At(const_cast<int32_t*>(host_.data()) + level * packed.words());
  const int64_t first = int64_t{request} * each_;
  return {beams.node + first, beams.score + first,    beams.parent + first,
          beams.code + first, beams.log_prob + first, beams.count[request]};
}

kernels::SelectError CudaSearch::Error(int request) const {
  return static_cast<kernels::SelectError>(host_[FirstError() + request]);
}

absl::Span<const float> CudaSearch::Values(int request) const {
  const float* values = reinterpret_cast<const float*>(host_.data() + FirstValue());
  return {values + int64_t{request} * each_, static_cast<size_t>(Beams(levels_ - 1, request).count)};
}

}  // namespace beamline::backend::cuda
