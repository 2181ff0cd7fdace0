// SPDX-License-Identifier: Apache-2.0
#include "loadgen/engine_target.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "beamline/retry.h"
#include "loadgen/workload.h"

namespace beamline::loadgen {
namespace {

struct EngineCall {
  explicit EngineCall(size_t requests) : answers(requests), left(requests) {}
  std::vector<Answer> answers;  // each written by its request's callback alone
  std::atomic<size_t> left;
  Target::Done done;
};

Answer AnswerOf(absl::StatusOr<RecommendResult> result, bool want_items) {
  Answer answer;
  answer.status = result.status();
  if (!result.ok()) {
    answer.retry_after = GetRetryAfter(answer.status).value_or(absl::ZeroDuration());
    return answer;
  }
  answer.timings = result->timings;
  answer.context_cached = result->context_cached;
  answer.narrowing = result->narrowing;
  for (const int width : result->beam_widths) answer.beams = std::max(answer.beams, width);
  if (want_items) {
    for (const RecommendedItem& item : result->items) answer.items.push_back(item.item);
  }
  return answer;
}

}  // namespace

absl::Status EngineTarget::Prepare(std::vector<RecommendRequest> pool, int64_t /*open_calls*/) {
  pool_ = std::move(pool);
  return absl::OkStatus();
}

void EngineTarget::Send(absl::Span<const int> indices, absl::Time deadline, bool want_items, Done done) {
  auto call = std::make_shared<EngineCall>(indices.size());
  call->done = std::move(done);
  const auto company = std::make_shared<Company>(static_cast<int>(indices.size()));
  for (size_t i = 0; i < indices.size(); ++i) {
    RecommendRequest request = pool_[indices[i]];
    if (request.user_id.empty() && request.history.empty()) request.user_id = NewUser();
    request.deadline = deadline;
    request.company = company;
    engine_.Submit(std::move(request), [call, i, want_items](absl::StatusOr<RecommendResult> result) {
      call->answers[i] = AnswerOf(std::move(result), want_items);
      // acq_rel: the last one sees what the others wrote.
      if (call->left.fetch_sub(1, std::memory_order_acq_rel) == 1) call->done(std::move(call->answers));
    });
  }
}

}  // namespace beamline::loadgen
