// SPDX-License-Identifier: Apache-2.0
#include "engine/answer.h"

#include <algorithm>

namespace beamline::engine {
namespace {

std::vector<ItemId> ItemsOf(const runtime::RequestJob& job, uint32_t leaf, int limit) {
  if (job.eligibility != nullptr) return job.eligibility->ResolveEligible(leaf, limit);
  const catalogue::ItemRange range = job.snapshot->LeafItems(leaf);
  std::vector<ItemId> items;
  for (uint32_t i = 0; i < std::min<uint32_t>(range.size(), limit); ++i) {
    items.push_back(job.snapshot->item_id(range.begin + i));
  }
  return items;
}

ShortReason WhyShort(const runtime::RequestJob& job) {
  const uint64_t eligible = EligibleSids(job);
  if (eligible == 0) return ShortReason::kNoEligibleItems;
  return job.hypotheses.size() == eligible ? ShortReason::kEligibleItemsExhausted : ShortReason::kBeamExhausted;
}

}  // namespace

uint64_t EligibleSids(const runtime::RequestJob& job) {
  return job.eligibility == nullptr ? job.snapshot->num_leaves() : job.eligibility->eligible_leaves();
}

RecommendResult AssembleAnswer(const runtime::RequestJob& job, const AnswerLimits& limits) {
  RecommendResult result;
  for (const runtime::Hypothesis& hypothesis : job.hypotheses) {
    const int wanted = limits.top_k - static_cast<int>(result.items.size());
    if (wanted == 0) break;
    for (ItemId item : ItemsOf(job, hypothesis.leaf, std::min(wanted, limits.items_per_sid))) {
      result.items.push_back({item, hypothesis.sid, hypothesis.log_probs, hypothesis.score});
    }
  }
  if (static_cast<int>(result.items.size()) < limits.top_k) result.short_reason = WhyShort(job);
  result.beam_widths = job.beam_widths;
  result.unknown_items = job.input.unknown_items;
  result.dropped_events = job.input.dropped_events;
  result.context_cached = job.context_cached;
  result.catalogue_version = job.snapshot->version();
  return result;
}

StageTimings TimingsOf(const scheduler::Job& job) {
  StageTimings timings;
  timings.encode = job.encode_ended - job.encode_started;
  timings.decode = job.decode_ended - job.decode_started;
  timings.queue = (job.encode_started - job.submitted) + (job.decode_started - job.encode_ended);
  return timings;
}

}  // namespace beamline::engine
