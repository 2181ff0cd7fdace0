// SPDX-License-Identifier: Apache-2.0
//
// AdamW (Loshchilov and Hutter 2019) over a model's weights, with clipping of the global gradient norm. Weights are
// updated in place, so the model that shares them changes too. Matrices and embedding tables have a decay each, vectors
// none; buffers are not touched. Not thread-safe; the same steps on the same machine give the same bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "model/config.h"
#include "model/weights.h"

namespace beamline::train {

struct OptimizerOptions {
  double weight_decay = 0.01;
  double embedding_decay = 0;
  double beta1 = 0.9;
  double beta2 = 0.98;
  double epsilon = 1e-8;
  double clip_norm = 1.0;  // 0: off
};

class AdamW {
 public:
  // Marks the weights as requiring gradients. `weights` are shared, not copied; some of the schema's: those alone are
  // trained.
  AdamW(const model::ModelConfig& config, const model::Weights& weights, const OptimizerOptions& options);

  void ZeroGradients();
  // Clips and applies the gradients; weights without one (an expert no token reached) count as zero gradient. Returns
  // the global norm before clipping, a scalar on the weights' device, for which nothing waits; if it is not finite no
  // weight and no state is changed.
  at::Tensor Step(double learning_rate);

  int64_t steps() const;  // waits for the device
  // State to save and restore: tensors by weight name, and the step count.
  struct Moment {
    std::string name;
    at::Tensor first;
    at::Tensor second;
  };
  const std::vector<Moment>& moments() const { return moments_; }
  void Restore(int64_t steps);  // after the moments were overwritten in place

 private:
  struct Group {
    double decay = 0;
    std::vector<at::Tensor> parameters, first, second;
  };

  OptimizerOptions options_;
  std::vector<Group> groups_;
  std::vector<Moment> moments_;
  at::Tensor count_;  // of steps, on the device
};

}  // namespace beamline::train
