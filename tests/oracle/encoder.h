// SPDX-License-Identifier: Apache-2.0
//
// The encoder of one request. onerec_v1 (2506.13695, section 2.3.1): a token for the user, one for every element of the
// short-term and of the positive pathway, each a small network over its features, plus learned positions. t5: rows of
// the embedding. Then pre-normed layers. No padding: there is one request.
#pragma once

#include <string>
#include <vector>

#include "model/feature_index.h"
#include "oracle/layers.h"
#include "runtime/encoded_request.h"

namespace beamline::oracle {

// concat -> Dense, LeakyReLU, Dense
template <typename Real>
MatrixOf<Real> TokenNetwork(const Pass<Real>& pass, const std::string& name, const std::vector<Real>& features) {
  MatrixOf<Real> x(1, static_cast<int64_t>(features.size()));
  x.v = features;
  x = Dense(pass, x, absl::StrCat(name, ".dense1"));
  for (Real& value : x.v) value = value > 0 ? value : value * Real{.01f};
  return Dense(pass, x, absl::StrCat(name, ".dense2"));
}

// The vectors of an element's features, one after the other: a sid has one per level, labels are the sum of their
// bits'.
template <typename Real>
std::vector<std::vector<Real>> FeatureVectors(const Pass<Real>& pass, const model::PathwayConfig& pathway,
                                              const int32_t* ids) {
  std::vector<std::vector<Real>> vectors;
  const auto look_up = [&](const MatrixOf<Real>& table, const std::vector<int64_t>& rows) {
    MatrixOf<Real> sum(1, table.cols);
    for (const int64_t row : rows) AddRow(sum, 0, table, row);
    vectors.push_back(sum.v);
  };
  for (const model::FeatureConfig& feature : pathway.features) {
    if (feature.kind == model::FeatureKind::kSid) {
      for (int level = 0; level < pass.config.levels(); ++level, ++ids) {
        const std::string table = absl::StrCat(feature.shared ? "codes." : "features.sid.", level);
        look_up(pass[table], *ids == 0 ? std::vector<int64_t>() : std::vector<int64_t>{*ids - 1});  // 0: unknown
      }
      continue;
    }
    std::vector<int64_t> rows = {*ids};
    if (feature.kind == model::FeatureKind::kLabels) {
      rows.clear();
      for (int bit = 0; bit < 8; ++bit) {
        if ((*ids >> bit & 1) != 0) rows.push_back(bit);
      }
    }
    look_up(pass[absl::StrCat("features.", model::FeatureName(feature.kind))], rows);
    ++ids;
  }
  return vectors;
}

template <typename Real>
MatrixOf<Real> ElementToken(const Pass<Real>& pass, const model::PathwayConfig& pathway, const std::string& name,
                            const int32_t* ids) {
  std::vector<Real> joined;
  MatrixOf<Real> sum(1, pass.config.d_model);
  for (const std::vector<Real>& vector : FeatureVectors(pass, pathway, ids)) {
    joined.insert(joined.end(), vector.begin(), vector.end());
    if (pathway.fusion != model::InputFusion::kSum) continue;
    for (size_t i = 0; i < vector.size(); ++i) sum.v[i] += vector[i];
  }
  return pathway.fusion == model::InputFusion::kSum ? sum : TokenNetwork(pass, name, joined);
}

template <typename Real>
MatrixOf<Real> UserToken(const Pass<Real>& pass, const std::vector<int32_t>& ids) {
  std::vector<Real> joined;
  const size_t attributes_from = pass.config.user.user_buckets > 0 ? 1 : 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string table =
        i < attributes_from ? "static.user" : absl::StrCat("static.attribute.", i - attributes_from);
    const MatrixOf<Real> row = RowsOf(pass[table], ids[i], 1);
    joined.insert(joined.end(), row.v.begin(), row.v.end());
  }
  return TokenNetwork(pass, "static", joined);
}

template <typename Real>
struct Tokens {
  MatrixOf<Real> x;
  std::vector<int> order;  // a place in the history; the user's is before all

  void Append(const MatrixOf<Real>& token, int at) {
    x.cols = token.cols;
    ++x.rows;
    x.v.insert(x.v.end(), token.v.begin(), token.v.end());
    order.push_back(at);
  }
};

template <typename Real>
Tokens<Real> EmbedTokens(const Pass<Real>& pass, const runtime::EncodedRequest& request) {
  const model::ModelConfig& config = pass.config;
  Tokens<Real> tokens{.x = MatrixOf<Real>(0, config.d_model)};
  if (config.is_t5()) {
    const std::string table = config.t5.encoder_embedding ? "encoder.embedding" : "embedding";
    for (const int32_t row : request.pathways[0].features) {
      tokens.Append(RowsOf(pass[table], row, 1), static_cast<int>(tokens.order.size()));
    }
    return tokens;
  }
  const auto append = [&](MatrixOf<Real> token, int order, int position) {
    AddRow(token, 0, pass["position"], position);
    tokens.Append(token, order);
  };
  int position = 0;
  if (config.user.enabled) append(UserToken(pass, request.static_features), -1, position++);
  for (const bool positive : {false, true}) {
    const model::PathwayConfig& pathway = positive ? config.positive : config.short_term;
    const runtime::EncodedPathway& own = request.pathways[positive ? 1 : 0];
    const int columns = model::FeatureColumns(config, pathway);
    for (int i = 0; i < own.length; ++i) {
      append(ElementToken(pass, pathway, positive ? "positive" : "short_term", own.features.data() + i * columns),
             own.order[i], position + i);
    }
    position += pathway.length;
  }
  return tokens;
}

// -> what the decoder sees of a request, [tokens, d]
template <typename Real>
MatrixOf<Real> Encode(Pass<Real>& pass, const runtime::EncodedRequest& request) {
  Tokens<Real> tokens = EmbedTokens(pass, request);
  MatrixOf<Real>& x = tokens.x;
  const auto sees = [&](int64_t query, int64_t key) {
    return !pass.config.encoder.causal || tokens.order[key] <= tokens.order[query];
  };
  const backend::Scoring scoring = ScoringOf(pass, "encoder", tokens.order);
  for (int i = 0; i < pass.config.encoder.layers; ++i) {
    const std::string layer = absl::StrCat("encoder.", i);
    Add(x, SelfAttention(pass, RmsNorm(pass, x, absl::StrCat(layer, ".attention_norm")),
                         absl::StrCat(layer, ".attention"), sees, scoring));
    Add(x, FeedForward(pass, pass.config.encoder.ffn, layer, RmsNorm(pass, x, absl::StrCat(layer, ".ffn_norm"))));
  }
  return RmsNorm(pass, x, "encoder.norm");
}

}  // namespace beamline::oracle
