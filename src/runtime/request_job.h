// SPDX-License-Identifier: Apache-2.0
//
// One recommendation request as a scheduler job: the model's input, what the search may reach, and the hypotheses that
// come back. The engine fills the first group before Scheduler::Submit and reads the second in `done`; between the two
// only the runner touches it, one stage at a time. No torch here: a context is an opaque handle.
//
// The pins keep one model, one catalogue snapshot and one compiled eligibility alive for as long as the job lives, so
// an answer never mixes versions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "beamline/request.h"
#include "catalogue/eligibility.h"
#include "catalogue/snapshot.h"
#include "decode/hypothesis.h"
#include "runtime/encoded_request.h"
#include "scheduler/executor.h"

namespace beamline::runtime {

// What identifies a context: equal keys, compared in full, have equal contexts.
struct ContextKey {
  std::string user_id;
  std::string history_digest;  // Digest(input)
  std::string model_version;

  friend bool operator==(const ContextKey&, const ContextKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const ContextKey& key) {
    return H::combine(std::move(h), key.user_id, key.history_digest, key.model_version);
  }
};

// Encoder output of one request on the runner's device; the runner alone knows what is inside. Immutable, shared by the
// cache and by the jobs that use it.
class RequestContext {
 public:
  virtual ~RequestContext() = default;
  virtual int64_t bytes() const = 0;
};

using decode::Hypothesis;

class Runner;

struct RequestJob : scheduler::Job {
  // Input; constant after Submit. `beam_rows` and `context_tokens` of the base are set by SetCosts.
  EncodedRequest input;
  ContextKey context_key;        // an empty history_digest: not cached
  std::vector<int> beam_widths;  // [levels], each >= 1; fixed before the batch forms
  int narrowing = 0;             // the engine's, for the answer: RecommendResult::narrowing
  ScoreRule score_rule = ScoreRule::kFull;
  bool trace = false;
  bool trial = false;             // of a warm-up: memory that runs out is RESOURCE_EXHAUSTED, to be tried again later
  std::shared_ptr<Runner> model;  // executes the job, and nothing else does; `batch_group` is its alone
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot;
  std::shared_ptr<const catalogue::CompiledEligibility> eligibility;  // of `snapshot`; null: unrestricted

  // Output of the runner.
  std::shared_ptr<const RequestContext> context;  // set by TryAttachContext or Encode
  bool context_cached = false;
  std::vector<Hypothesis> hypotheses;           // score descending, equal scores in SID order
  bool ranked = false;                          // they have values: the model has a ranker
  std::vector<std::vector<TracedBeam>> traced;  // the beams of every level, where `trace`

  // The job's cost for the scheduler, from `input` and `beam_widths`.
  void SetCosts();
};

}  // namespace beamline::runtime
