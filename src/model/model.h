// SPDX-License-Identifier: Apache-2.0
//
// A generative recommender: a context encoded once per request, then one decode step per SID level over its beams.
// The interface is the families' common ground (onerec_v1 and t5 now; onerec_v2 fits it). Models are immutable after
// loading and thread-safe: all state is in the values handed in and out, which share tensors, own no model, and may
// outlive it. Training and inference run the same layers: TeacherForced equals DecodeStep along each path (but in FP8,
// which first steps do without: backend::WithoutFp8).
//
// REQUIRES: batches that pass Check...Input, uploaded for the context's device. Errors of ATen (memory) are c10::Error.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backend/ops.h"
#include "model/config.h"
#include "model/inputs.h"
#include "model/ranker.h"
#include "model/weights.h"

namespace beamline::model {

// What the first decode step leaves: it has one row per request and depends on the context alone, so it is computed
// with the context and kept with it. On a CPU it is the step that streams all weights for one row.
struct FirstStep {
  at::Tensor logits;            // [batch, 1, columns]; undefined where the step has not been taken
  at::Tensor trunk;             // [batch * levels, d] where the model has a trunk
  std::vector<at::Tensor> own;  // per beam-wise decoder layer [batch, 1, 2 * heads * head_dim]; none of a single step
};

// What the decoder sees of a batch of histories.
struct EncodedContext {
  std::vector<at::Tensor> key_value;  // per decoder layer [batch, tokens, 2 * heads * head_dim]
  at::Tensor order;                   // [batch, tokens]
  FirstStep first;

  int64_t batch() const { return order.size(0); }
  int64_t tokens() const { return order.size(1); }
};

// One request's own context, trimmed to its tokens: what a cache keeps. Immutable; copies share it.
struct ContextHandle {
  std::vector<at::Tensor> key_value;  // per decoder layer [tokens, 2 * heads * head_dim]
  at::Tensor order;                   // [tokens]
  FirstStep first;                    // a batch of one

  int64_t tokens() const { return order.defined() ? order.size(0) : 0; }
  int64_t bytes() const;
};

// One handle per request of the batch, or for the first of them, without the batch's padding. Copies: nothing of the
// batch's workspace is kept.
std::vector<ContextHandle> SplitContext(backend::Context& ctx, const EncodedContext& encoded);
std::vector<ContextHandle> SplitContext(backend::Context& ctx, const EncodedContext& encoded, int64_t requests);
// Stacks handles of any lengths to one padded batch, which has room for `requests` or, if these are more, for as many
// as there are handles: the others have no tokens. REQUIRES: at least one handle, all of one model.
EncodedContext PackContexts(backend::Context& ctx, absl::Span<const ContextHandle* const> handles,
                            int64_t requests = 0);

// State of one batch's decode, between steps.
struct DecodeState {
  EncodedContext context;
  at::Tensor mask;                            // over the context
  at::Tensor lineage;                         // [batch, rows, steps taken]; undefined before the second step
  at::Tensor trunk;                           // [batch * levels, d] where the model has a trunk
  std::vector<backend::LineageCache> layers;  // per beam-wise decoder layer
  at::Tensor output;                          // [batch * rows, d] what the head of the step taken last saw
};

// Level t's step: rows are the beams selected at level t - 1. At level 0 there is one row per request and both tensors
// are undefined. Inactive rows hold code 0 and parent 0; their logits mean nothing. A model that scores an end token
// has a step more, whose level is config().levels().
struct StepInput {
  int level = 0;       // 0-based, steps come in order
  at::Tensor codes;    // int32 [batch, rows] chosen at level - 1
  at::Tensor parents;  // int32 [batch, rows] row of the previous step each came from
};

class Model {
 public:
  virtual ~Model() = default;
  // Names this model among all that the process has had: what was captured of it is of no other.
  uint64_t serial() const { return serial_; }
  virtual const ModelConfig& config() const = 0;
  virtual const Weights& weights() const = 0;

  virtual EncodedContext Encode(backend::Context& ctx, const EncoderBatch& batch) const = 0;
  virtual DecodeState BeginDecode(backend::Context& ctx, EncodedContext context) const = 0;
  // REQUIRES: at level 0, no first step in the state's context (FirstLogits below asks for it).
  // fp32 logits [batch, rows, columns]: the level's codes from column config().first_code(level) on, beside whatever
  // else a code competes with.
  virtual at::Tensor DecodeStep(backend::Context& ctx, DecodeState& state, const StepInput& step) const = 0;
  // Per step fp32 logits [batch, targets, columns] of the code at that level (then of the end token) given those
  // before. Differentiable.
  virtual std::vector<at::Tensor> TeacherForced(backend::Context& ctx, const EncodedContext& context,
                                                const TeacherBatch& targets) const = 0;
  // What its heads see: [batch * targets * steps, d].
  virtual at::Tensor TeacherForcedOutput(backend::Context& ctx, const EncodedContext& context,
                                         const TeacherBatch& targets) const = 0;
  // Null where the model has none. Lives as long as the model.
  virtual const Ranker* ranker() const { return nullptr; }

 protected:
  Model();

 private:
  const uint64_t serial_;
};

// Takes the first decode step; the context keeps what it leaves. Where the backend searches on the device, nothing is
// done: there the step is part of the search's pass.
void TakeFirstStep(backend::Context& ctx, const Model& model, EncodedContext& context);
// The logits of level 0, of the context where it has them.
at::Tensor FirstLogits(backend::Context& ctx, const Model& model, DecodeState& state);
// model.Encode as one pass: repeated as a graph where the backend has graphs. The context holds until the backend runs
// the next pass of the same shape for this batch's worker: split or search it before.
EncodedContext EncodePass(backend::Context& ctx, const Model& model, const EncoderBatch& batch);

// The model of config.family over weights that match its schema (as LoadWeights and InitWeights return them).
absl::StatusOr<std::unique_ptr<Model>> MakeModel(const ModelConfig& config, Weights weights);

}  // namespace beamline::model
