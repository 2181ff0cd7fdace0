// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>

#include "backend/aten/aten_backend.h"

namespace beamline::backend {

void AtenBackend::SelectBeams(Context& ctx, const SelectBeamsArgs& args) const {
  const Tensor logits = args.logits.to(c10::kCPU, c10::kFloat).contiguous();  // [batch, rows, vocab]
  const int64_t rows = logits.size(1), vocab = logits.size(2);
  const float* data = logits.const_data_ptr<float>();
  const int64_t batch = static_cast<int64_t>(args.requests.size());
  TORCH_CHECK(batch == logits.size(0), "SelectBeams: ", batch, " requests for logits of batch ", logits.size(0));
  at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      SelectRequest& request = args.requests[b];
      if (request.width == 0) continue;
      request.error = kernels::BeamSelectCpu({.logits = data + b * rows * vocab,
                                              .ld = vocab,
                                              .vocab = static_cast<int32_t>(vocab),
                                              .first_code = args.first_code,
                                              .level = args.level,
                                              .width = request.width,
                                              .rule = args.rule,
                                              .constraint = request.constraint,
                                              .in = request.in,
                                              .out = request.out});
    }
  });
}

}  // namespace beamline::backend
