// SPDX-License-Identifier: Apache-2.0
#include "scheduler/batch_policy.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/container/flat_hash_set.h"

namespace beamline::scheduler {
namespace {

using Action = BatchDecision::Action;

constexpr int64_t kFreePadding = 2;  // computed over asked for

// The size of a batch, and of those in it that an encode batch will run.
struct Forming {
  BatchSize size, encoded;

  void Add(const QueuedJob& job) {
    size.Add(job.rows, job.context_tokens);
    if (!job.expects_context) encoded.Add(job.rows, job.context_tokens);
  }
};

// What batches of one kind are measured by.
struct Terms {
  WorkKind kind;
  const CostsAt& costs;
  const BatchLimits& limits;

  absl::Time now() const { return costs.now(); }

  bool Fits(const BatchSize& size, const QueuedJob& job) const {
    if (size.requests == 0) return true;  // the most urgent job always goes, even alone above a limit
    if (size.requests >= limits.max_requests) return false;
    BatchSize grown = size;
    grown.Add(job.rows, job.context_tokens);
    if (grown.computed_rows() > limits.max_rows) return false;
    return kind == WorkKind::kDecode || grown.padded_tokens() <= limits.max_context_tokens;
  }
  bool Full(const BatchSize& size) const {
    return size.requests >= limits.max_requests || size.computed_rows() >= limits.max_rows ||
           (kind == WorkKind::kEncode && size.padded_tokens() >= limits.max_context_tokens);
  }
  static bool Pads(const Forming& batch) { return batch.size.computed_rows() > kFreePadding * batch.size.rows; }
  // Whether the job takes no longer with the batch, `together`, than after it.
  bool Gains(const Forming& batch, const QueuedJob& job, const Forming& together) const {
    Forming alone;
    alone.Add(job);
    return Needed(together) <= Needed(batch) + Needed(alone);
  }
  // Until the answers of a batch: what follows an encode batch is one decode batch of the same jobs.
  absl::Duration Needed(const Forming& batch) const {
    absl::Duration needed = costs.Estimate(WorkKind::kDecode, batch.size);
    if (kind == WorkKind::kEncode && batch.encoded.requests > 0) {
      needed += costs.Estimate(WorkKind::kEncode, batch.encoded);
    }
    return needed;
  }
};

// The best batch of one queue and the time at which it closes (`now` or earlier: closed).
struct Candidate {
  std::vector<const QueuedJob*> jobs;  // most urgent first
  absl::Time closes = absl::InfiniteFuture();
};

// Takes jobs of `order` into an empty `batch`, both the most urgent first. Those that others' width would pad come
// after all that it would not: these may have more use for the place.
Forming Gather(absl::Span<const QueuedJob* const> order, const Terms& terms, std::vector<const QueuedJob*>& batch) {
  Forming formed;
  absl::Time tightest = absl::InfiniteFuture();
  std::vector<bool> taken(order.size());
  for (const bool may_pad : {false, true}) {
    for (size_t i = 0; i < order.size(); ++i) {
      const QueuedJob& job = *order[i];
      if (taken[i] || job.group != order[0]->group) continue;
      if (!terms.Fits(formed.size, job)) continue;  // a smaller one further down may still fit
      Forming grown = formed;
      grown.Add(job);
      if (Terms::Pads(grown) && !(may_pad && terms.Gains(formed, job, grown))) continue;
      const absl::Time end = terms.now() + terms.Needed(grown);
      if (i > 0 && end > std::min(tightest, job.deadline)) continue;  // its chance is a smaller batch, others' is this
      formed = grown;
      if (end <= job.deadline) tightest = std::min(tightest, job.deadline);  // else a probe, late even alone
      taken[i] = true;
    }
  }
  for (size_t i = 0; i < order.size(); ++i) {
    if (taken[i]) batch.push_back(order[i]);
  }
  return formed;
}

// Whether more of the jobs would be late behind the batch of `all` than are in that batch and not in the one of
// `patient`, which are some of them.
bool MoreAreLateBehind(absl::Span<const QueuedJob* const> all, absl::Span<const QueuedJob* const> patient,
                       const Terms& terms) {
  std::vector<const QueuedJob*> first, instead;
  const Forming formed = Gather(all, terms, first);
  const absl::Time end = terms.now() + terms.Needed(formed) + terms.Needed(Gather(patient, terms, instead));
  const absl::flat_hash_set<const QueuedJob*> in_first(first.begin(), first.end());
  const auto both = std::count_if(instead.begin(), instead.end(), [&](auto* job) { return in_first.contains(job); });
  const auto late = std::count_if(instead.begin(), instead.end(),
                                  [&](auto* job) { return job->deadline < end && !in_first.contains(job); });
  return late > static_cast<int64_t>(first.size()) - both;
}

// Drops the jobs that cannot afford a full batch where that saves others of the head's priority. Not where the batch
// would not begin with one of these: they would lose their deadlines to others.
void PassOverTightJobs(std::vector<const QueuedJob*>& order, const Terms& terms) {
  const QueuedJob& head = *order[0];
  std::vector<const QueuedJob*> rivals;
  std::copy_if(order.begin(), order.end(), std::back_inserter(rivals),
               [&](const QueuedJob* job) { return job->priority >= head.priority && job->group == head.group; });
  Forming full;
  bool overflow = false;
  for (const QueuedJob* job : rivals) {
    Forming grown = full;
    grown.Add(*job);
    if (Terms::Pads(grown)) continue;  // it is in nobody's way
    if (terms.Fits(full.size, *job)) {
      full = grown;
    } else {
      overflow = true;
    }
  }
  const absl::Time end = terms.now() + terms.Needed(full);
  const auto tight = [&](const QueuedJob* job) { return job->deadline < end; };
  std::vector<const QueuedJob*> patient;
  std::remove_copy_if(rivals.begin(), rivals.end(), std::back_inserter(patient), tight);
  if (patient.empty() || patient.size() == rivals.size()) return;
  if (*std::find_if_not(order.begin(), order.end(), tight) != patient[0]) return;
  if (overflow || MoreAreLateBehind(rivals, patient, terms)) std::erase_if(order, tight);
}

Candidate FormBatch(absl::Span<const QueuedJob> queue, bool waits, const Terms& terms) {
  std::vector<const QueuedJob*> order;
  order.reserve(queue.size());
  for (const QueuedJob& job : queue) {
    if (!IsDead(job, terms.kind == WorkKind::kDecode, terms.costs)) order.push_back(&job);
  }
  Candidate batch;
  if (order.empty()) return batch;
  std::sort(order.begin(), order.end(),
            [&](const QueuedJob* a, const QueuedJob* b) { return MoreUrgent(*a, *b, terms.now(), terms.limits); });
  const size_t alive = order.size();
  PassOverTightJobs(order, terms);

  const Forming formed = Gather(order, terms, batch.jobs);
  if (!waits || batch.jobs.size() < alive || terms.Full(formed.size)) {
    batch.closes = terms.now();
    return batch;
  }
  const absl::Duration needed = terms.Needed(formed);
  for (const QueuedJob* job : batch.jobs) {
    const absl::Duration slack = job->deadline - job->submitted - needed;
    batch.closes = std::min(batch.closes, job->submitted + std::min(slack / 2, terms.limits.max_queue_delay));
  }
  return batch;
}

}  // namespace

bool MoreUrgent(const QueuedJob& a, const QueuedJob& b, absl::Time now, const BatchLimits& limits) {
  const bool a_starves = now - a.submitted >= limits.starvation_limit;
  const bool b_starves = now - b.submitted >= limits.starvation_limit;
  if (a_starves != b_starves) return a_starves;
  if (a_starves) return a.id < b.id;
  if (a.priority != b.priority) return a.priority > b.priority;
  if (a.deadline != b.deadline) return a.deadline < b.deadline;
  return a.id < b.id;
}

bool IsDead(const QueuedJob& job, bool encoded, const CostsAt& costs) {
  if (job.cancelled || job.deadline <= costs.now()) return true;
  if (job.deadline == absl::InfiniteFuture() || job.probe) return false;
  BatchSize alone;
  alone.Add(job.rows, job.context_tokens);
  absl::Duration needed = costs.Estimate(WorkKind::kDecode, alone);
  if (!encoded && !job.expects_context) needed += costs.Estimate(WorkKind::kEncode, alone);
  return costs.now() + needed > job.deadline;
}

BatchDecision DecideBatch(const QueueView& view, absl::Time now, const CostTable& cost, const BatchLimits& limits) {
  BatchDecision decision;
  const CostsAt costs(cost, now);
  const bool gathers =
      std::any_of(view.encode.begin(), view.encode.end(), [](const QueuedJob& job) { return job.awaits_company; });
  const bool shares = !view.idle;
  const Candidate encode =
      FormBatch(view.encode, (shares || gathers) && !view.closing, {WorkKind::kEncode, costs, limits});
  const Candidate decode = FormBatch(view.decode, shares && !view.closing, {WorkKind::kDecode, costs, limits});
  const bool encode_closed = !encode.jobs.empty() && encode.closes <= now;
  const bool decode_closed = !decode.jobs.empty() && decode.closes <= now;
  const Candidate* chosen = nullptr;
  if (decode_closed && (!encode_closed || !MoreUrgent(*encode.jobs[0], *decode.jobs[0], now, limits))) {
    decision.action = Action::kDecode;
    chosen = &decode;
  } else if (encode_closed) {
    decision.action = Action::kEncode;
    chosen = &encode;
  }
  if (chosen == nullptr) {
    decision.wait_until = std::min(encode.closes, decode.closes);
    return decision;
  }
  for (const QueuedJob* job : chosen->jobs) decision.batch.push_back(job->id);
  decision.then_decode =
      chosen == &encode && view.idle && view.decode.empty() && decision.batch.size() == view.encode.size();
  return decision;
}

}  // namespace beamline::scheduler
