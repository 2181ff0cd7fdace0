// SPDX-License-Identifier: Apache-2.0
//
// The decoder over all prefixes of a catalogue at once: a row is a prefix, its input [BOS] or the prefix's last code,
// and it sees its own beginnings. So nothing here knows of beams, caches or lineages. With a trunk, the first layers
// run without codes, a row per level, and are joined with the code by a gate (LazyAR).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "beamline/types.h"
#include "oracle/layers.h"

namespace beamline::oracle {

using Prefix = std::vector<Code>;

inline bool BeginsWith(const Prefix& prefix, const Prefix& beginning) {
  return beginning.size() <= prefix.size() && std::equal(beginning.begin(), beginning.end(), prefix.begin());
}

template <typename Real>
struct Decoded {
  MatrixOf<Real> output;                  // [prefixes, d], what the heads see
  std::vector<std::vector<Real>> logits;  // [prefixes] of the next code, and of what it competes with
};

template <typename Real>
void RunDecoderLayer(Pass<Real>& pass, int index, MatrixOf<Real>& x, const Sees& sees, const backend::Scoring& scoring,
                     const MatrixOf<Real>& context) {
  const std::string layer = absl::StrCat("decoder.", index);
  const auto normed = [&](const char* norm) { return RmsNorm(pass, x, absl::StrCat(layer, norm)); };
  Add(x, SelfAttention(pass, normed(".self_norm"), absl::StrCat(layer, ".self"), sees, scoring));
  Add(x, CrossAttention(pass, normed(".cross_norm"), absl::StrCat(layer, ".cross"), context));
  Add(x, FeedForward(pass, pass.config.decoder.ffn, layer, normed(".ffn_norm")));
}

// BOS or the last code.
template <typename Real>
MatrixOf<Real> EmbedPrefixes(const Pass<Real>& pass, const std::vector<Prefix>& prefixes) {
  const model::ModelConfig& config = pass.config;
  MatrixOf<Real> x(static_cast<int64_t>(prefixes.size()), config.d_model);
  for (size_t r = 0; r < prefixes.size(); ++r) {
    const int level = static_cast<int>(prefixes[r].size());
    if (config.is_t5()) {
      const int row =
          level == 0 ? config.t5.start : config.first_code(level - 1) + static_cast<int>(prefixes[r].back());
      AddRow(x, r, pass["embedding"], row);
    } else if (level == 0) {
      AddRow(x, r, pass["bos"], 0);
    } else {
      AddRow(x, r, pass[absl::StrCat("codes.", level - 1)], prefixes[r].back());
    }
  }
  return x;
}

// A row per level, which has seen the positions up to its own and the context.
template <typename Real>
MatrixOf<Real> RunTrunk(Pass<Real>& pass, const MatrixOf<Real>& context) {
  MatrixOf<Real> trunk = pass["decoder.position"];
  const auto earlier = [](int64_t query, int64_t key) { return key <= query; };
  for (int i = 0; i < pass.config.decoder.trunk_layers; ++i) RunDecoderLayer(pass, i, trunk, earlier, {}, context);
  return trunk;
}

// trunk + sigmoid(W [trunk; code] + b) * code
template <typename Real>
void FuseTrunk(const Pass<Real>& pass, const MatrixOf<Real>& trunk, const std::vector<Prefix>& prefixes,
               MatrixOf<Real>& x) {
  for (int64_t r = 0; r < x.rows; ++r) {
    const int64_t level = static_cast<int64_t>(prefixes[r].size());
    MatrixOf<Real> both(1, 2 * x.cols);
    for (int64_t c = 0; c < x.cols; ++c) both(0, c) = trunk(level, c), both(0, x.cols + c) = x(r, c);
    const MatrixOf<Real> gate = Dense(pass, both, "decoder.fusion");
    for (int64_t c = 0; c < x.cols; ++c) {
      x(r, c) = static_cast<Real>(trunk(level, c) + backend::Sigmoid(gate(0, c)) * x(r, c));
    }
  }
}

// The head of the rows whose prefix has `level` codes; t5 has one for all.
inline std::string HeadName(const model::ModelConfig& config, int level) {
  if (config.is_t5()) return config.decoder.tied_heads ? "embedding" : "head";
  return absl::StrCat(config.decoder.tied_heads ? "codes." : "head.", level);
}

inline double HeadScale(const model::ModelConfig& config) {
  return config.is_t5() && config.t5.scale_head ? 1 / std::sqrt(static_cast<double>(config.d_model)) : 1;
}

template <typename Real>
std::vector<Real> Logits(const Pass<Real>& pass, MatrixOf<Real> row, int level) {
  for (Real& value : row.v) value *= static_cast<Real>(HeadScale(pass.config));
  MatrixOf<Real> logits = MatMul(row, pass[HeadName(pass.config, level)]);
  if (pass.config.is_t5() && pass.config.t5.padded) Add(logits, pass["head_bias"]);
  return logits.v;
}

template <typename Real>
Decoded<Real> Decode(Pass<Real>& pass, const MatrixOf<Real>& context, const std::vector<Prefix>& prefixes) {
  const model::ModelConfig& config = pass.config;
  std::vector<int> depth;
  for (const Prefix& prefix : prefixes) depth.push_back(static_cast<int>(prefix.size()));
  MatrixOf<Real> x = EmbedPrefixes(pass, prefixes);
  if (config.decoder.trunk_layers > 0) {
    FuseTrunk(pass, RunTrunk(pass, context), prefixes, x);
  } else if (!config.is_t5()) {
    for (int64_t r = 0; r < x.rows; ++r) AddRow(x, r, pass["decoder.position"], depth[r]);
  }
  const auto own_beginnings = [&](int64_t query, int64_t key) { return BeginsWith(prefixes[query], prefixes[key]); };
  const backend::Scoring scoring = ScoringOf(pass, "decoder", depth);
  for (int i = config.decoder.trunk_layers; i < config.decoder.layers; ++i) {
    RunDecoderLayer(pass, i, x, own_beginnings, scoring, context);
  }
  Decoded<Real> decoded{.output = RmsNorm(pass, x, "decoder.norm")};
  for (size_t r = 0; r < prefixes.size(); ++r) {
    decoded.logits.push_back(Logits(pass, RowsOf(decoded.output, r, 1), depth[r]));
  }
  return decoded;
}

}  // namespace beamline::oracle
