// SPDX-License-Identifier: Apache-2.0
//
// What decides the final order of an answer: the value of each generated candidate (a reward or value model, weights,
// business rules; OneRec's P-score and GR4AD's eCPM are such values). The search generates, the ranker orders. A model
// may bring a ranker of its own (`beamline train-ranker`), which runs with the search; one that an embedder gives comes
// after it. Without either the beam's own order stands.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "beamline/catalogue.h"
#include "beamline/request.h"

namespace beamline {

// Thread-safe; called on the engine's workers between the last decode step and the answer, so it must not block. An
// embedder brings its own in EngineOptions::ranker; the engine keeps it as long as it lives.
class Ranker {
 public:
  virtual ~Ranker() = default;

  // The value of every candidate, higher is earlier: values[i] belongs to candidates[i], and both have one length,
  // which is not 0. `candidates` are all eligible items of the generated SIDs, up to `items_per_sid` each, in the order
  // of the model's ranker or else the beam's, which decides between equal values. Attributes of items: `catalogue`. An
  // error fails this request alone, with its code; a value that is not a number is INTERNAL.
  virtual absl::Status Rank(absl::Span<const RecommendedItem> candidates, const Catalogue& catalogue,
                            absl::Span<float> values) const = 0;
};

}  // namespace beamline
