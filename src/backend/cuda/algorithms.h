// SPDX-License-Identifier: Apache-2.0
//
// Which algorithm of cuBLASLt multiplies with a weight: one for every number of rows, so that a row's result does not
// depend on what shares its batch. An algorithm is admitted when rows come out bit for bit the same in products of
// different sizes and at different places; of those admitted the fastest is taken. Chosen when a weight's shape is
// first met, which is at warm-up, and kept; the choice can be carried over to the next start. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <utility>

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "backend/cuda/product.h"

namespace beamline::backend::cuda {

class Algorithms {
 public:
  // `device` names the card and its driver: a choice holds for these and this version of cuBLASLt.
  Algorithms(const CublasLt& lt, cublasLtHandle_t handle, c10::Device where, std::string device)
      : lt_(lt), handle_(handle), where_(where), device_(std::move(device)) {}

  // Measures where it must, in memory of its own, and waits for the device then: not while a stream is captured. A
  // choice that was taken over is looked at once: one that the library refuses is measured again.
  cublasLtMatmulAlgo_t For(const ProductKind& kind, const LtWorkspace& workspace, cudaStream_t stream);

  // Names the device, its driver and the library.
  std::string Header() const;
  // The header, then one line for each choice.
  std::string Export() const;
  // Takes over choices made for the same device and version; others' are ignored. INVALID_ARGUMENT names the line that
  // is none.
  absl::Status Import(absl::string_view text);
  int64_t size() const;      // choices made or taken over
  int64_t measured() const;  // choices made here

 private:
  bool Takes(const ProductKind& kind, const cublasLtMatmulAlgo_t& algorithm, const LtWorkspace& workspace) const;
  cublasLtMatmulAlgo_t Choose(const ProductKind& kind, const LtWorkspace& workspace, cudaStream_t stream) const;

  const CublasLt& lt_;
  const cublasLtHandle_t handle_;
  const c10::Device where_;
  const std::string device_;
  mutable std::mutex mutex_;
  std::map<ProductKind, cublasLtMatmulAlgo_t> chosen_;    // guarded by mutex_
  std::map<ProductKind, cublasLtMatmulAlgo_t> imported_;  // guarded by mutex_; not used yet
  int64_t measured_ = 0;                                  // guarded by mutex_
};

}  // namespace beamline::backend::cuda
