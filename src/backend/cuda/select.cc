// SPDX-License-Identifier: Apache-2.0
//
// Selection on the device for a caller whose beams are on the host: they go up, the new ones come down. The logits
// stay.
#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/packed_beams.h"
#include "backend/cuda/search.h"

namespace beamline::backend::cuda {
namespace {

int64_t SlotsEach(const SelectBeamsArgs& args) {
  int64_t slots = args.logits.size(1);
  for (const SelectRequest& request : args.requests) slots = std::max<int64_t>(slots, request.width);
  return slots;
}

}  // namespace

std::unique_ptr<DeviceSearch> CudaBackend::BeginSearch(Context& ctx,
                                                       absl::Span<const DeviceSearchRequest> requests) const {
  BatchOf(ctx);  // refuses training
  return std::make_unique<CudaSearch>(ctx, tries_, requests);
}

void CudaBackend::SelectBeams(Context& ctx, const SelectBeamsArgs& args) const {
  CudaBatch& batch = BatchOf(ctx);
  const int64_t requests = args.logits.size(0), each = SlotsEach(args), slots = requests * each;
  TORCH_CHECK(static_cast<int64_t>(args.requests.size()) == requests, "SelectBeams: ", args.requests.size(),
              " requests for logits of batch ", requests);
  std::vector<int32_t> row_begin(requests + 1), width(requests), count(requests, 0);
  std::vector<kernels::ScoreRule> rule(requests, args.rule);
  std::vector<kernels::ConstraintView> views(requests);
  TrieCache::Sent sent;
  std::vector<uint32_t> node(slots, 0);
  std::vector<float> score(slots, 0);
  for (int64_t b = 0; b < requests; ++b) {
    const SelectRequest& request = args.requests[b];
    row_begin[b + 1] = static_cast<int32_t>((b + 1) * each);
    width[b] = request.width;
    if (request.width == 0) continue;  // no beams come in, and none go out
    views[b] = tries_.Upload(batch, *request.constraint, args.level, sent);
    if (args.level == 0) continue;
    count[b] = request.in->count;
    std::copy_n(request.in->node, count[b], node.begin() + b * each);
    std::copy_n(request.in->score, count[b], score.begin() + b * each);
  }
  const auto upload = [&](const auto& values) {
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(values[0]));
    return batch.Upload(values.data(), {bytes}, c10::ScalarType::Byte).mutable_data_ptr();
  };
  const PackedBeams packed(requests, slots);
  const Tensor out = batch.Take({packed.words() + requests}, c10::kInt);  // then the errors
  kernels::BeamSelectBatch select;
  select.logits = args.logits.const_data_ptr<float>();
  select.ld = args.logits.stride(1);
  select.parts = batch.PartsOf(args.logits);
  select.logits_each = static_cast<int32_t>(args.logits.size(1));
  select.vocab = static_cast<int32_t>(args.logits.size(2));
  select.first_code = args.first_code;
  select.level = args.level;
  select.requests = static_cast<int32_t>(requests);
  select.rows = static_cast<int32_t>(slots);
  select.row_begin = static_cast<const int32_t*>(upload(row_begin));
  select.width = static_cast<const int32_t*>(upload(width));
  select.rule = static_cast<const kernels::ScoreRule*>(upload(rule));
  select.constraint = static_cast<const kernels::ConstraintView*>(upload(views));
  if (args.level > 0) {
    select.in.node = static_cast<uint32_t*>(upload(node));
    select.in.score = static_cast<float*>(upload(score));
    select.in.count = static_cast<int32_t*>(upload(count));
  }
  select.out = packed.At(out.mutable_data_ptr());
  select.error = out.mutable_data_ptr<int32_t>() + packed.words();
  select.workspace = batch.worker().SelectWorkspace(select.requests, select.rows);
  const cudaStream_t stream = batch.stream();
  Check(cudaMemsetAsync(select.error, 0, static_cast<size_t>(requests) * 4, stream), "beam selection");
  Check(kernels::BeamSelectCuda(select, stream), "beam selection");

  std::vector<int32_t> down(out.numel());
  std::memcpy(down.data(), batch.Download(out.const_data_ptr(), down.size() * 4), down.size() * 4);
  const kernels::DeviceBeams beams = packed.At(down.data());
  for (int64_t b = 0; b < requests; ++b) {
    SelectRequest& request = args.requests[b];
    if (request.width == 0) continue;
    request.error = static_cast<kernels::SelectError>(down[packed.words() + b]);
    const int32_t kept = beams.count[b];
    request.out->count = kept;
    std::copy_n(beams.node + b * each, kept, request.out->node);
    std::copy_n(beams.score + b * each, kept, request.out->score);
    std::copy_n(beams.parent + b * each, kept, request.out->parent);
    std::copy_n(beams.code + b * each, kept, request.out->code);
    std::copy_n(beams.log_prob + b * each, kept, request.out->log_prob);
  }
}

}  // namespace beamline::backend::cuda
