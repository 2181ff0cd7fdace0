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

namespace beamline::backend {

enum class Activation { kNone, kRelu, kGelu, kLeakyRelu };  // gelu: the exact (erf) form; leaky slope 0.01

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

struct SelfAttentionWeights {
  at::Tensor qkv;  // [3 * heads * head_dim, d]: all queries, all keys, all values
  at::Tensor out;  // [d, heads * head_dim]
  int heads = 1;
};

struct CrossAttentionWeights {
  at::Tensor query;      // [heads * head_dim, d]
  at::Tensor key_value;  // [2 * heads * head_dim, d]: all keys, all values
  at::Tensor out;        // [d, heads * head_dim]
  int heads = 1;
};

struct FeedForwardWeights {
  bool gated = true;                          // SwiGLU: down(silu(gate x) * up x); else down(activation(up x))
  Activation activation = Activation::kGelu;  // of the ungated form
  at::Tensor up;                              // gated: [2 * width, d], gate rows first; else [width, d]
  at::Tensor down;                            // [d, width]
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

// Decoder input embeddings: level t's input is the code chosen at level t - 1, at level 0 the BOS vector.
struct CodeEmbedding {
  at::Tensor bos;                  // [d]
  std::vector<at::Tensor> tables;  // per level [level size, d]
  at::Tensor positions;            // [levels, d] or undefined: not added
};

// Keys and values of one decoder layer, one entry per step taken: written once, in step order, and found by lineage.
struct LineageCache {
  std::vector<at::Tensor> steps;  // each [batch, rows of that step, 2 * heads * head_dim]
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
  at::Tensor logits;  // fp32 [batch, rows, vocab]; request b uses its first in->count rows
  int32_t level = 0;  // 0-based
  kernels::ScoreRule rule = kernels::ScoreRule::kFull;
  absl::Span<SelectRequest> requests;  // [batch]; width 0 skips one
};

}  // namespace beamline::backend
