// SPDX-License-Identifier: Apache-2.0
#include "engine/answer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "beamline/status.h"

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

// Lets the first `most` items of each author pass; 0: all.
class AuthorLimit {
 public:
  AuthorLimit(const catalogue::CatalogueSnapshot& snapshot, int most) : snapshot_(snapshot), most_(most) {}

  bool Passes(ItemId item) {
    if (most_ == 0) return true;
    const std::optional<uint32_t> position = snapshot_.FindPosition(item);
    const uint64_t author = position.has_value() ? snapshot_.author(*position) : 0;
    if (author == 0 || ++passed_[author] <= most_) return true;
    left_out_ = true;
    return false;
  }
  bool left_out() const { return left_out_; }

 private:
  const catalogue::CatalogueSnapshot& snapshot_;
  const int most_;
  absl::flat_hash_map<uint64_t, int> passed_;
  bool left_out_ = false;
};

ShortReason WhyShort(const runtime::RequestJob& job, bool left_out) {
  const uint64_t eligible = EligibleSids(job);
  if (eligible == 0) return ShortReason::kNoEligibleItems;
  if (job.hypotheses.size() < eligible) return ShortReason::kBeamExhausted;
  return left_out ? ShortReason::kAuthorsExhausted : ShortReason::kEligibleItemsExhausted;
}

// In the beam's order, or, of a model with a ranker, largest value first; equal values keep the beam's order.
std::vector<const runtime::Hypothesis*> Ordered(const runtime::RequestJob& job) {
  std::vector<const runtime::Hypothesis*> ordered;
  ordered.reserve(job.hypotheses.size());
  for (const runtime::Hypothesis& hypothesis : job.hypotheses) ordered.push_back(&hypothesis);
  if (!job.ranked) return ordered;
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) { return a->value > b->value; });
  return ordered;
}

// The items of every hypothesis that pass, at most `limit`.
std::vector<RecommendedItem> Candidates(const runtime::RequestJob& job, size_t limit, int items_per_sid,
                                        AuthorLimit& authors) {
  std::vector<RecommendedItem> candidates;
  for (const runtime::Hypothesis* hypothesis : Ordered(job)) {
    for (ItemId item : ItemsOf(job, hypothesis->leaf, items_per_sid)) {
      if (candidates.size() >= limit) return candidates;
      if (!authors.Passes(item)) continue;
      candidates.push_back({item, hypothesis->sid, hypothesis->log_probs, hypothesis->score});
      if (job.ranked) candidates.back().value = hypothesis->value;
    }
  }
  return candidates;
}

// The first `limit` of the candidates that pass.
std::vector<RecommendedItem> TakeFirst(std::vector<RecommendedItem> candidates, size_t limit, AuthorLimit& authors) {
  std::vector<RecommendedItem> taken;
  for (RecommendedItem& candidate : candidates) {
    if (taken.size() >= limit) break;
    if (authors.Passes(candidate.item)) taken.push_back(std::move(candidate));
  }
  return taken;
}

// Largest value first; equal values keep their order.
absl::Status RankCandidates(const Ranker& ranker, const Catalogue& catalogue,
                            std::vector<RecommendedItem>& candidates) {
  if (candidates.empty()) return absl::OkStatus();
  std::vector<float> values(candidates.size());
  BEAMLINE_RETURN_IF_ERROR(ranker.Rank(candidates, catalogue, absl::MakeSpan(values)));
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i])) {
      return absl::InternalError(absl::StrCat("the ranker's value of item ", candidates[i].item, " is not a number"));
    }
  }
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] > values[b]; });
  std::vector<RecommendedItem> ranked;
  ranked.reserve(order.size());
  for (size_t index : order) ranked.push_back(std::move(candidates[index]));
  candidates = std::move(ranked);
  return absl::OkStatus();
}

}  // namespace

uint64_t EligibleSids(const runtime::RequestJob& job) {
  return job.eligibility == nullptr ? job.snapshot->num_leaves() : job.eligibility->eligible_leaves();
}

absl::StatusOr<RecommendResult> AssembleAnswer(const runtime::RequestJob& job, const AnswerLimits& limits,
                                               const Ranker* ranker) {
  const size_t top_k = limits.top_k;
  RecommendResult result;
  AuthorLimit authors(*job.snapshot, limits.max_per_author), anyone(*job.snapshot, 0);
  if (ranker == nullptr) {
    result.items = Candidates(job, top_k, limits.items_per_sid, authors);
  } else {
    std::vector<RecommendedItem> all =
        Candidates(job, std::numeric_limits<size_t>::max(), limits.items_per_sid, anyone);
    BEAMLINE_RETURN_IF_ERROR(RankCandidates(*ranker, *job.snapshot, all));
    result.items = TakeFirst(std::move(all), top_k, authors);
  }
  if (result.items.size() < top_k) result.short_reason = WhyShort(job, authors.left_out());
  result.beam_widths = job.beam_widths;
  result.narrowing = job.narrowing;
  result.seen_events = job.input.seen_events;
  result.unknown_items = job.input.unknown_items;
  result.dropped_events = job.input.dropped_events;
  result.context_cached = job.context_cached;
  result.catalogue_version = job.snapshot->version();
  return result;
}

StageTimings TimingsOf(const scheduler::Job& job, absl::Time now) {
  const auto reached = [](absl::Time time) { return time != absl::InfinitePast(); };
  StageTimings timings;
  if (!reached(job.submitted)) return timings;
  timings.queue = (reached(job.encode_started) ? job.encode_started : now) - job.submitted;
  if (!reached(job.encode_started)) return timings;
  timings.encode = job.encode_ended - job.encode_started;
  timings.encode_requests = job.encode_requests;
  timings.queue += (reached(job.decode_started) ? job.decode_started : now) - job.encode_ended;
  if (!reached(job.decode_started)) return timings;
  const absl::Time end = reached(job.decode_ended) ? job.decode_ended : now;
  timings.decode = end - job.decode_started;
  timings.decode_requests = job.decode_requests;
  timings.decode_rows = job.decode_rows;
  if (job.at_once) return timings;
  absl::Time begun = job.decode_started;
  for (absl::Time ended : job.steps_ended) timings.steps.push_back(ended - std::exchange(begun, ended));
  timings.steps.push_back(end - begun);
  return timings;
}

}  // namespace beamline::engine
