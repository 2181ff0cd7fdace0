// SPDX-License-Identifier: Apache-2.0
//
// Which algorithms of cuBLASLt multiply with a weight. A row's result must not depend on what shares its batch, so all
// of a weight's are of one class: they give the same bits, for every number of rows and at every place (an algorithm
// that splits sums by the number of rows is in no class). Our own products are of every class whose bits they give. Of
// a class the fastest is taken for each of a few numbers of rows, and of all classes the one that is slowed down least
// by being one. Chosen when a weight's shape is first met, which is at warm-up, and kept; the choice can be carried
// over to the next start. Thread-safe.
//
// E4M3's sums stay in the tensor cores' registers wherever an algorithm does that (cuBLASLt's "fast accumulation"):
// unasked, they are promoted to fp32 from time to time, which is expected to cost much of what E4M3 gains. Registers of
// 14 bits, as Hopper is said to have, would be off by .0013 of the result's size after 4,096 terms, where E4M3's own
// rounding is by .038 (bench/results/fp8_gate.md).
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "backend/cuda/product.h"

namespace beamline::backend::cuda {

// Of times [choice][step] the choice that is slower than the fastest of each step by the least factor, on average.
size_t LeastSlowdown(absl::Span<const std::vector<float>> times);

// The numbers of rows for which an algorithm is chosen, ascending; others take the next larger one's.
std::vector<int64_t> RowSteps(c10::Device where);
// The most rows of one product, for which equal bits were looked at: more are multiplied in parts.
int64_t MostRows(const ProductKind& kind, const std::vector<int64_t>& steps);

std::vector<int64_t> StepsOf(const ProductKind& kind, const std::vector<int64_t>& steps);  // of at most MostRows

// "skinny to 16, cublaslt to 8192": which kernels these numbers of rows take.
std::string DescribeKernels(absl::Span<const Algorithm> choice, absl::Span<const int64_t> rows);

class Algorithms {
 public:
  struct Device {
    c10::Device where;
    std::string name;         // of the card and its driver: a choice holds for these and this version of cuBLASLt
    bool warpgroups = false;  // whether our own products may be by wgmma
  };
  Algorithms(const CublasLt& lt, cublasLtHandle_t handle, Device device)
      : lt_(lt), handle_(handle), steps_(RowSteps(device.where)), device_(std::move(device)) {}

  int64_t MostRows(const ProductKind& kind) const { return cuda::MostRows(kind, steps_); }
  // For at most MostRows rows. Measures where it must, in memory of its own, and waits for the device then: not while a
  // stream is captured. A choice that was taken over is looked at once: one that the library refuses is measured again.
  Algorithm For(const ProductKind& kind, int64_t rows, const LtWorkspace& workspace, cudaStream_t stream);

  // Names the device, its driver and the library.
  std::string Header() const;
  // The header, then one line for each choice.
  std::string Export() const;
  // Takes over choices made for the same device and version; others' are ignored. INVALID_ARGUMENT names the line that
  // is none.
  absl::Status Import(absl::string_view text);
  // The same in the place of choices that are used already (backend.h, AdoptTuning).
  absl::Status Adopt(absl::string_view text);
  int64_t size() const;      // choices made or taken over
  int64_t measured() const;  // choices made here

 private:
  using Choice = std::vector<Algorithm>;  // one for each of steps_
  // Of the same device and version, else empty.
  absl::StatusOr<std::map<ProductKind, Choice>> Parse(absl::string_view text) const;
  bool Takes(const ProductKind& kind, const Choice& choice, const LtWorkspace& workspace) const;
  Choice Choose(const ProductKind& kind, const LtWorkspace& workspace, cudaStream_t stream) const;
  // Empty where no class of algorithms takes every number of rows.
  Choice ChooseOf(const ProductKind& kind, bool fast_sums, const LtWorkspace& workspace, cudaStream_t stream) const;

  const CublasLt& lt_;
  const cublasLtHandle_t handle_;
  const std::vector<int64_t> steps_;
  const Device device_;
  mutable std::mutex mu_;
  std::map<ProductKind, std::shared_ptr<std::mutex>> measuring_;  // guarded by mu_
  std::map<ProductKind, Choice> chosen_;                          // guarded by mu_
  std::map<ProductKind, Choice> imported_;                        // guarded by mu_; not used yet
  int64_t measured_ = 0;                                          // guarded by mu_
};

}  // namespace beamline::backend::cuda
