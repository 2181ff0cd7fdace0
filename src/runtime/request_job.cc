// SPDX-License-Identifier: Apache-2.0
#include "runtime/request_job.h"

#include <algorithm>

namespace beamline::runtime {

void RequestJob::SetCosts() {
  context_tokens = input.context_tokens();
  beam_rows = beam_widths.empty() ? 1 : *std::max_element(beam_widths.begin(), beam_widths.end());
}

}  // namespace beamline::runtime
