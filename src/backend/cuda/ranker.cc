// SPDX-License-Identifier: Apache-2.0
//
// The ranker on the device: of a search that has its beams there, and of beams on the host, which go up for it.
#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/search.h"
#include "beamline/kernels/ranker_cuda.h"

namespace beamline::backend::cuda {
namespace {

// All but the candidates.
kernels::RankBatch BatchFor(const Context& ctx, const Tensor& states, const RankerWeights& w, int64_t requests) {
  kernels::RankBatch rank;
  rank.type = KernelType(ctx.dtype);
  rank.requests = static_cast<int32_t>(requests);
  rank.rows = static_cast<int32_t>(states.size(0) / requests);
  rank.width = static_cast<int32_t>(states.size(1));
  rank.heads = static_cast<int32_t>(w.head.size(0));
  rank.code_rows = static_cast<int32_t>(w.code.size(0));
  rank.states = states.const_data_ptr();
  rank.code_table = w.code.const_data_ptr();
  rank.head = w.head.const_data_ptr();
  rank.bias = w.bias.const_data_ptr();
  TORCH_CHECK(w.weights.size() <= kernels::kMaxRankerHeads, "cuda: ", w.weights.size(), " heads of a ranker; at most ",
              kernels::kMaxRankerHeads);
  std::copy(w.weights.begin(), w.weights.end(), rank.weight);
  rank.score_weight = w.score_weight;
  return rank;
}

}  // namespace

void CudaSearch::Rank(Context& ctx, const at::Tensor& states, const RankerWeights& w) {
  TORCH_CHECK(ranked_ && selected_ == levels_, "cuda: candidates are ranked behind the last level");
  kernels::RankBatch rank = BatchFor(ctx, states, w, requests_);
  const kernels::DeviceBeams beams = DeviceLevel(levels_ - 1);
  rank.slots = each_;
  rank.count = beams.count;
  rank.parent = beams.parent;
  rank.code = beams.code;
  rank.score = beams.score;
  rank.value = reinterpret_cast<float*>(beams_.mutable_data_ptr<int32_t>() + FirstValue());
  Check(kernels::RankCandidatesCuda(rank, static_cast<CudaBatch&>(*ctx.resources).stream()), "the ranker");
}

void CudaBackend::RankBeams(Context& ctx, const RankBeamsArgs& args) const {
  CudaBatch& batch = BatchOf(ctx);
  const auto requests = static_cast<int64_t>(args.requests.size());
  int64_t each = 1;
  for (const RankRequest& request : args.requests) {
    if (request.beams != nullptr) each = std::max<int64_t>(each, request.beams->count);
  }
  std::vector<int32_t> count(requests, 0), parent(requests * each, 0);
  std::vector<uint16_t> code(requests * each, 0);
  std::vector<float> score(requests * each, 0);
  for (int64_t b = 0; b < requests; ++b) {
    const kernels::BeamSlots* beams = args.requests[b].beams;
    if (beams == nullptr) continue;
    count[b] = beams->count;
    std::copy_n(beams->parent, count[b], parent.begin() + b * each);
    std::copy_n(beams->code, count[b], code.begin() + b * each);
    std::copy_n(beams->score, count[b], score.begin() + b * each);
  }
  const auto upload = [&](const auto& values) {
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(values[0]));
    return batch.Upload(values.data(), {bytes}, c10::ScalarType::Byte).const_data_ptr();
  };
  const Tensor values = batch.Take({requests * each}, c10::kFloat);
  kernels::RankBatch rank = BatchFor(ctx, args.states, args.weights, requests);
  rank.slots = static_cast<int32_t>(each);
  rank.count = static_cast<const int32_t*>(upload(count));
  rank.parent = static_cast<const int32_t*>(upload(parent));
  rank.code = static_cast<const uint16_t*>(upload(code));
  rank.score = static_cast<const float*>(upload(score));
  rank.value = values.mutable_data_ptr<float>();
  Check(kernels::RankCandidatesCuda(rank, batch.stream()), "the ranker");
  const char* down = batch.Download(values.const_data_ptr(), values.nbytes());
  for (int64_t b = 0; b < requests; ++b) {
    if (count[b] > 0) std::memcpy(args.requests[b].values, down + b * each * sizeof(float), count[b] * sizeof(float));
  }
}

}  // namespace beamline::backend::cuda
