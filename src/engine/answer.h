// SPDX-License-Identifier: Apache-2.0
//
// From the hypotheses of a finished job to the ranked items of the answer: SIDs by the model's ranker where it has one,
// -> items, up to `items_per_sid` each by relevance, in the embedder's ranker's order, of each author the first
// `max_per_author`, `top_k` in all, and why there are fewer. Pure. An item has one SID and a hypothesis names each SID
// once, so no item can come twice.
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "beamline/ranker.h"
#include "beamline/request.h"
#include "runtime/request_job.h"

namespace beamline::engine {

struct AnswerLimits {
  int top_k = 10;
  int items_per_sid = 1;
  int max_per_author = 0;
};

// SIDs that hold an eligible item.
uint64_t EligibleSids(const runtime::RequestJob& job);

// Items, short_reason, beam_widths, counts and catalogue version; the caller adds timings and the model's version.
// Without an embedder's ranker (null) the model's order stands, or the beam's. Fails as the ranker fails.
absl::StatusOr<RecommendResult> AssembleAnswer(const runtime::RequestJob& job, const AnswerLimits& limits,
                                               const Ranker* ranker);

// Where a job's time went until `now`, finished or not; `prepare`, `resolve` and `total` are the caller's.
StageTimings TimingsOf(const scheduler::Job& job, absl::Time now);

}  // namespace beamline::engine
