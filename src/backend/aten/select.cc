// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>

#include "backend/aten/aten_backend.h"

namespace beamline::backend {

void AtenBackend::SelectOnHost(const SelectBeamsArgs& args, int64_t begin, int64_t end) {
  const int64_t ld = args.logits.stride(1), vocab = args.logits.size(2);
  TORCH_CHECK(static_cast<int64_t>(args.requests.size()) == args.logits.size(0), "SelectBeams: ", args.requests.size(),
              " requests for logits of batch ", args.logits.size(0));
  for (int64_t b = begin; b < end; ++b) {
    SelectRequest& request = args.requests[b];
    if (request.width == 0) continue;
    request.error = kernels::BeamSelectCpu({.logits = args.logits.const_data_ptr<float>() + b * args.logits.stride(0),
                                            .ld = ld,
                                            .vocab = static_cast<int32_t>(vocab),
                                            .first_code = args.first_code,
                                            .level = args.level,
                                            .width = request.width,
                                            .rule = args.rule,
                                            .constraint = request.constraint,
                                            .in = request.in,
                                            .out = request.out});
  }
}

void AtenBackend::SelectBeams(Context& ctx, const SelectBeamsArgs& args) const {
  SelectBeamsArgs on_host = args;
  on_host.logits = args.logits.to(c10::kCPU, c10::kFloat).contiguous();  // [batch, rows, vocab]
  at::parallel_for(0, on_host.logits.size(0), 1,
                   [&](int64_t begin, int64_t end) { SelectOnHost(on_host, begin, end); });
}

}  // namespace beamline::backend
