// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/search.h"

#include <algorithm>
#include <cstring>

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
  append(row_begin);
  append(widths);
  append(rules);
  input_ = batch.Upload(bytes.data(), {static_cast<int64_t>(bytes.size())}, c10::ScalarType::Byte);
  const PackedBeams packed(requests_, int64_t{requests_} * each_);
  beams_ = batch.Take({levels_ * packed.words() + requests_}, c10::kInt);
}

std::string CudaSearch::shape() const { return absl::StrCat(requests_, ":", absl::StrJoin(rows_, ",")); }

kernels::DeviceBeams CudaSearch::DeviceLevel(int level) const {
  const PackedBeams packed(requests_, int64_t{requests_} * each_);
  return packed.At(beams_.mutable_data_ptr<int32_t>() + level * packed.words());
}

const int32_t* CudaSearch::Numbers() const {
  const auto* views = static_cast<const kernels::ConstraintView*>(input_.const_data_ptr());
  return reinterpret_cast<const int32_t*>(views + requests_);
}

void CudaSearch::Select(Context& ctx, const at::Tensor& logits, int level, int32_t first_code) {
  auto& batch = static_cast<CudaBatch&>(*ctx.resources);
  TORCH_CHECK(level == selected_ && level < levels_, "cuda: level ", level, " of a search was selected out of order");
  const PackedBeams packed(requests_, int64_t{requests_} * each_);
  kernels::BeamSelectBatch select;
  select.logits = logits.const_data_ptr<float>();
  select.ld = logits.stride(1);
  select.logits_each = static_cast<int32_t>(logits.size(1));
  select.vocab = static_cast<int32_t>(logits.size(2));
  select.first_code = first_code;
  select.level = level;
  select.requests = requests_;
  select.rows = requests_ * each_;
  const int32_t* numbers = Numbers();
  select.row_begin = numbers;
  select.width = numbers + requests_ + 1 + level * requests_;
  select.rule = reinterpret_cast<const kernels::ScoreRule*>(numbers + requests_ + 1 + levels_ * requests_);
  select.constraint = static_cast<const kernels::ConstraintView*>(input_.const_data_ptr());
  if (level > 0) select.in = DeviceLevel(level - 1);
  select.out = DeviceLevel(level);
  select.error = beams_.mutable_data_ptr<int32_t>() + levels_ * packed.words();
  select.workspace = batch.worker().SelectWorkspace(requests_, requests_ * each_);
  Check(kernels::BeamSelectCuda(select, batch.stream()), "beam selection");
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
}

kernels::BeamSlots CudaSearch::Beams(int level, int request) const {
  const PackedBeams packed(requests_, int64_t{requests_} * each_);
  const kernels::DeviceBeams beams = packed.At(const_cast<int32_t*>(host_.data()) + level * packed.words());
  const int64_t first = int64_t{request} * each_;
  return {beams.node + first, beams.score + first,    beams.parent + first,
          beams.code + first, beams.log_prob + first, beams.count[request]};
}

kernels::SelectError CudaSearch::Error(int request) const {
  const PackedBeams packed(requests_, int64_t{requests_} * each_);
  return static_cast<kernels::SelectError>(host_[levels_ * packed.words() + request]);
}

}  // namespace beamline::backend::cuda
