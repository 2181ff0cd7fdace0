// SPDX-License-Identifier: Apache-2.0
//
// What ops take besides tensors: the weights of one sublayer and a few shapes. Plain values that share tensors with the
// weight map. An undefined tensor means "not there" only where a comment says so. Matrices are [out, in], as in
// torch.nn.Linear.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/types/span.h"
#include "beamline/kernels/beam_select.h"
#include "beamline/kernels/relative_position.h"

namespace beamline::backend {

// gelu: the exact (erf) form; gelu_tanh: its approximation by tanh, "gelu_new" of transformers; leaky slope 0.01.
enum class Activation { kNone, kRelu, kGelu, kGeluTanh, kSilu, kLeakyRelu };

// How a feature column becomes a row of its table's width.
enum class FeatureLookup {
  kIndex,    // row `id`; row 0 is learned and stands for unknown
  kFromOne,  // row `id - 1`; id 0 is the zero vector (SID codes: tables shared with the decoder have no unknown row)
  kBitSum,   // sum of the rows whose bit is set in `id`
};

struct FeatureTable {
  at::Tensor table;  // [buckets, width]
  FeatureLookup lookup = FeatureLookup::kIndex;
};

enum class FeatureFusion { kConcat, kSum };

struct DenseWeights {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out] or undefined
};

// Added to the scores of self-attention by the distance of key and query rows inside their sequence (T5). Layers of a
// stack share one table.
struct RelativeBias {
  at::Tensor table;  // [buckets.count, heads]; undefined: no bias
  kernels::RelativeBuckets buckets;
};

struct SelfAttentionWeights {
  at::Tensor qkv;  // [3 * heads * head_dim, d]: all queries, all keys, all values
  at::Tensor out;  // [d, heads * head_dim]
  int heads = 1;
  double scale = 0;  // of the scores; 0: 1 / sqrt(head_dim)
  RelativeBias bias;
  bool inner_dropout = false;  // training drops attention probabilities, too (T5)
};

struct CrossAttentionWeights {
  at::Tensor query;      // [heads * head_dim, d]
  at::Tensor key_value;  // [2 * heads * head_dim, d]: all keys, all values
  at::Tensor out;        // [d, heads * head_dim]
  int heads = 1;
  double scale = 0;  // of the scores; 0: 1 / sqrt(head_dim)
  bool inner_dropout = false;
};

// Where the tokens of a batch [batch * tokens] go, so that no padding stands between those of a request: to the front
// of its own `tokens` rows, or, packed, one request's behind another's in fewer rows, some of nobody at the end. Int32.
struct TokenPacking {
  at::Tensor from;  // [rows]: the row that each was; -1: padding, nobody's. Undefined: all stay where they are
  // Undefined, where each request has its own rows.
  at::Tensor bounds;   // [2, batch]: the first row of each request, then how many it has
  at::Tensor order;    // [1, rows]; of nobody's, kPaddingOrder
  at::Tensor to;       // [batch * tokens]: the row of each, a request's tokens before its padding, which is -1
  int64_t tokens = 0;  // no request has more

  bool packed() const { return bounds.defined(); }
};

// What the encoder's tokens see of each other: a mask over the batch, or over a packing's order.
struct TokenView {
  at::Tensor mask;
  TokenPacking packing = {};
};

// Of which batch the rows are that a context is made of.
struct ContextRows {
  int64_t batch = 1;
  TokenPacking packing = {};
};

// What the decoder of one layer sees of the context.
struct ContextView {
  at::Tensor key_value;  // of ContextKeyValue: [batch, tokens, 2 * heads * head_dim]
  at::Tensor mask;
};

struct FeedForwardWeights {
  bool gated = true;  // down(activation(gate x) * up x), with silu SwiGLU; else down(activation(up x))
  Activation activation = Activation::kSilu;
  at::Tensor up;               // gated: [2 * width, d], gate rows first; else [width, d]
  at::Tensor down;             // [d, width]
  bool inner_dropout = false;  // training drops hidden activations, too (T5)
};

// SwiGLU experts behind a sigmoid gate (DeepSeek-V3): experts are chosen by score + bias, weighted by score alone,
// normalised over the chosen.
struct MoeWeights {
  at::Tensor gate;         // [experts, d]
  at::Tensor bias;         // [experts] fp32; moved by the trainer, never by a gradient
  at::Tensor up;           // [experts, 2 * width, d], gate rows first
  at::Tensor down;         // [experts, d, width]
  at::Tensor shared_up;    // [2 * shared * width, d] or undefined: experts every token passes
  at::Tensor shared_down;  // [d, shared * width] or undefined
  int top_k = 1;
  std::string layer;  // names the entry in Context::expert_loads
};

// Decoder input embeddings: level t's input is the code chosen at level t - 1, at level 0 the BOS vector. A family with
// one vocabulary has one table at every level, in which code c of level l is row first_rows[l] + c.
struct CodeEmbedding {
  at::Tensor bos;                   // [d]; undefined: row bos_row of tables[0]
  std::vector<at::Tensor> tables;   // per level [rows, d]
  at::Tensor positions;             // [levels, d] or undefined: not added
  std::vector<int32_t> first_rows;  // per level, row of code 0; empty: 0 everywhere
  int32_t bos_row = 0;
};

// logits = weight (scale * x) + bias
struct HeadWeights {
  at::Tensor weight;  // [vocab, d]
  at::Tensor bias;    // fp32 [vocab] or undefined; finite
  double scale = 1;
};

// The last layer of a ranker (model/ranker.h): of a candidate whose parent's state is s and whose last code is c,
//   logit[h] = head[h] . silu(s + code[c]) + bias[h],
//   value = score_weight * score + sum over h of weights[h] * sigmoid(logit[h]).
struct RankerWeights {
  at::Tensor code;             // [codes of the last level, width]
  at::Tensor head;             // [heads, width]
  at::Tensor bias;             // [heads]
  std::vector<float> weights;  // [heads], at most kernels::kMaxRankerHeads
  float score_weight = 0;
};

// The rows level, level + levels, ... of batch * groups runs of `levels` rows: those of one level.
struct LevelRows {
  int levels = 1;
  int level = 0;  // 0-based
  int64_t batch = 1;
};

// Keys and values of one decoder layer, one entry per step taken: written once, in step order, and found by lineage.
struct LineageCache {
  std::vector<at::Tensor> steps;  // each [batch, rows of that step, 2 * heads * head_dim]
};

// What the rows of a decode step see of the steps before.
struct LineageStep {
  int64_t batch = 1;
  at::Tensor lineage;  // of ExtendLineage; undefined in the first step
  bool last = false;   // nobody will look at this step's keys and values: they are not kept
  LineageCache& cache;
};

// One request's share of a selection; see kernels/beam_select.h. Pointers are host memory.
struct SelectRequest {
  const kernels::ConstraintView* constraint = nullptr;
  const kernels::BeamSlots* in = nullptr;  // null at level 0
  kernels::BeamSlots* out = nullptr;
  int32_t width = 0;
  kernels::SelectError error = kernels::SelectError::kOk;  // written by the op
};

struct SelectBeamsArgs {
  at::Tensor logits;       // fp32 [batch, rows, vocab]; request b uses its first in->count rows
  int32_t level = 0;       // 0-based
  int32_t first_code = 0;  // column of the level's code 0
  kernels::ScoreRule rule = kernels::ScoreRule::kFull;
  absl::Span<SelectRequest> requests;  // [batch]; width 0 skips one
};

// One request's candidates, in host memory: the beams of the last level, whose parents are rows of the states.
struct RankRequest {
  const kernels::BeamSlots* beams = nullptr;  // null, or no beams: skipped
  float* values = nullptr;                    // [beams->count], written by the op; a NaN where the model gives one
};

struct RankBeamsArgs {
  at::Tensor states;  // [batch * rows, width]
  const RankerWeights& weights;
  absl::Span<const RankRequest> requests;  // [batch]
};

}  // namespace beamline::backend
