// SPDX-License-Identifier: Apache-2.0
//
// Trie-constrained beam search over a batch of requests (design: "Beam search contract"): one decode step per SID
// level, and after each the best `width` eligible prefixes of every request over all its parents together. Widths,
// score rules and constraints differ per request; nothing one request does changes another's answer. Step 1 runs one
// row per request, later steps one row per beam; rows of requests with fewer beams, or dead ones, are inactive. Where
// the model scores an end token, one more step adds its log-probability to every beam and reorders them. Where it has a
// ranker (model/ranker.h), every hypothesis gets its value; their order stays the beam's.
//
// Thread-safe: Run keeps all state in its own frame. c10::Error of the model leaves Run as an exception; the runtime
// catches it at its border.
#pragma once

#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "backend/context.h"
#include "backend/device_search.h"
#include "beamline/kernels/trie_view.h"
#include "beamline/request.h"
#include "decode/beam_state.h"
#include "decode/hypothesis.h"
#include "decode/path_scorer.h"
#include "model/model.h"

namespace beamline::decode {

// Pointers and spans outlive the search.
struct SearchRequest {
  const kernels::ConstraintView* constraint = nullptr;
  absl::Span<const int> widths;  // [levels], 1..kernels::kMaxBeamWidth each
  ScoreRule score_rule = ScoreRule::kFull;
  bool trace = false;  // the result tells the beams of every level
};

struct SearchResult {
  // INVALID_ARGUMENT: the request does not fit the model. INTERNAL `non_finite_logits`: a NaN, a +inf or a row without
  // a finite log-sum-exp, or `non_finite_value`: a value of the ranker that is not a number. Else what the gate said,
  // or OK.
  absl::Status status;
  std::vector<Hypothesis> hypotheses;           // score descending, equal scores in SID order; empty unless OK
  std::vector<std::vector<TracedBeam>> traced;  // [levels run], each in the search's order; only where asked for
  bool at_once = false;                         // the device ran all steps: nobody knows when each ended
};

// Asked between steps for each request that still has beams, where the device searches once, before the first; an error
// ends that request alone.
using SearchGate = absl::FunctionRef<absl::Status(int request)>;

class BeamSearch {
 public:
  // Both outlive the search. `path_scorer` may be null.
  explicit BeamSearch(const model::Model& model, const PathScorer* path_scorer = nullptr)
      : model_(model), path_scorer_(path_scorer) {}

  // One result per request, in order. The context may have room for more requests, which are passed over. REQUIRES:
  // context.batch() >= requests.size().
  std::vector<SearchResult> Run(backend::Context& ctx, model::EncodedContext context,
                                absl::Span<const SearchRequest> requests, SearchGate gate) const;

 private:
  struct Live;
  struct Batch;
  void RunOnHost(backend::Context& ctx, model::EncodedContext context, Batch& batch, SearchGate gate) const;
  // The same with the beams on the device: no step waits for another, the host sees the beams at the end, and the gate
  // is asked once, before all steps.
  void RunOnDevice(backend::Context& ctx, const model::EncodedContext& context, backend::DeviceSearch& search,
                   Batch& batch) const;
  // The search's result, then the end token's logits where the model scores it.
  std::vector<at::Tensor> EnqueueSteps(backend::Context& ctx, model::EncodedContext context,
                                       backend::DeviceSearch& search) const;
  std::unique_ptr<backend::DeviceSearch> BeginOnDevice(backend::Context& ctx, const Batch& batch) const;
  int SelectedWidth(const SearchRequest& request, int level) const;
  void Reserve(Batch& batch) const;
  void Select(backend::Context& ctx, const at::Tensor& logits, int level, Batch& batch) const;
  void ScoreEnd(backend::Context& ctx, const at::Tensor& logits, Batch& batch) const;
  // Of the beams of the last level, from what its head saw.
  void Rank(backend::Context& ctx, const at::Tensor& output, Batch& batch) const;
  absl::Status KeepBestPaths(int request, int level, int width, BeamState& beams) const;

  const model::Model& model_;
  const PathScorer* path_scorer_;
};

}  // namespace beamline::decode
