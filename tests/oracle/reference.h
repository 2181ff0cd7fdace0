// SPDX-License-Identifier: Apache-2.0
//
// One request through the whole model in double, for every prefix of a set; and how far from it a right answer in fp32
// may be, which is derived and not chosen. The plainest code in fp32, one sum after the other, is the same reference in
// float: its states h differ from the double ones by some |dh|. Another order of the sums makes errors of that size in
// other directions, which is as if the weights were others by a rounding. So |dh| is the largest of a few such probes,
// each with weights moved by one, and a logit, a product of h and a row w of the head, may be off by
//
//   kLuck |dh| |w|  +  sqrt(d) r |h| |w|
//
// (Cauchy and Schwarz; the second term is the product's own rounding r = 2^-24, d of them at random). A log-probability
// may be off by twice that, once for its logit and once for the log-sum-exp. In bf16 and fp16 weights and states are
// rounded more and sums are not: the same with weights moved by such a rounding, and another r.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "absl/strings/string_view.h"
#include "oracle/decoder.h"
#include "oracle/pass.h"
#include "runtime/encoded_request.h"

namespace beamline::oracle {

inline constexpr double kRounding = 1.0 / (1 << 24);  // of one operation in fp32, relative
double RoundingOf(absl::string_view dtype);           // of a value; 0: what it does to a sum is not derived (int8, fp8)
inline constexpr double kLuck = 2;                    // the worst of a few probes is not the worst there is
inline constexpr int kProbes = 4;

struct Reference {
  std::map<Prefix, std::vector<double>> logits;
  std::map<Prefix, double> behaviours;  // of whole SIDs, where there is a ranker
  // Whether every gate chooses its experts by more than roundings. If not, the numbers are of another model.
  bool decided = true;
  double logit_error = 0;
  double behaviours_error = 0;

  double LogProbError(double log_prob, size_t columns) const;
  double ValueError(double value, double score_weight, double score) const;
};

class ReferenceModel {
 public:
  // `rounding`: of weights and states, at least kRounding.
  ReferenceModel(const model::ModelConfig& config, const HostWeights& weights, double rounding);

  // `prefixes` hold their own beginnings; whole SIDs among them are ranked, and scored where the end token is.
  Reference Run(const runtime::EncodedRequest& request, const std::set<Prefix>& prefixes) const;

 private:
  const model::ModelConfig& config_;
  const double rounding_;
  const Weights<double> exact_;
  std::vector<Weights<float>> probes_;
};

}  // namespace beamline::oracle
