// SPDX-License-Identifier: Apache-2.0
//
// Events and user attributes -> the ids a model reads (model/feature_index.h), by the model's configuration. Used by
// the runner for requests and by the trainer for its windows, so a model is served what it was trained on.
//
// Which event goes where: the short-term pathway holds the newest events, the positive-feedback pathway the newest
// positive ones (IsPositive); an event may be in both. Events whose item the catalogue lacks take no place: the newest
// of a history are uploads that no catalogue has yet. Ages count from the newest of the others, of any kind. Family t5:
// runtime/token_template.h. Immutable, thread-safe; it shares the vocabulary.
#pragma once

#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "beamline/catalogue.h"
#include "beamline/request.h"
#include "model/config.h"
#include "runtime/encoded_request.h"
#include "runtime/vocabulary.h"

namespace beamline::runtime {

// Any sign of liking it (like, follow, comment, forward, long view, profile entry), and no dislike. A bare event, which
// says nothing of how it went (no label, play time or duration), is positive too: whoever sends plain item ids sends
// what the user engaged with. An exposure that led to nothing therefore states a play time or a duration.
bool IsPositive(const Event& event);

class FeatureBuilder {
 public:
  FeatureBuilder(model::ModelConfig config, std::shared_ptr<const Vocabulary> vocabulary);

  EncodedRequest Build(const FeatureSource& source, const Catalogue& catalogue) const;

  const model::ModelConfig& config() const { return config_; }
  const Vocabulary& vocabulary() const { return *vocabulary_; }

 private:
  struct Element;
  std::vector<int32_t> StaticFeatures(const FeatureSource& source) const;
  EncodedPathway BuildPathway(const model::PathwayConfig& pathway, const std::vector<int>& kept, int first_order,
                              absl::Span<const Element> elements) const;
  int32_t FeatureId(const model::FeatureConfig& feature, const Element& element, int64_t previous_ms) const;
  void AppendCodes(const Element& element, std::vector<int32_t>& features) const;

  model::ModelConfig config_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  bool needs_attributes_ = false;  // author, tag or duration is a feature
};

}  // namespace beamline::runtime
