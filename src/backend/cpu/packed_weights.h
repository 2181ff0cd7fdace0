// SPDX-License-Identifier: Apache-2.0
//
// Weights as a version of kernels/packed_gemm.h packs them, packed at their first use and kept while somebody holds the
// tensor they came from: dropped by ReleaseUnused, or when another weight is packed. A weight that has been used must
// not be written to. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/container/flat_hash_map.h"
#include "beamline/kernels/packed_gemm.h"

namespace beamline::backend {

struct PackedWeight {
  const kernels::PackedGemm* gemm = nullptr;
  at::Tensor panels;  // bytes
  bool gated = false;
  int64_t n = 0;  // columns of the product
  int64_t k = 0;

  double flops_per_row() const { return 2.0 * static_cast<double>(n * k) * (gated ? 2 : 1); }
  // Floats of scratch that Run wants for up to `rows` rows.
  int64_t ScratchFloats(int64_t rows) const { return (gemm->scratch_bytes(rows, k) + 63) / 64 * 16; }
  // Fills in what the weight knows.
  void Run(kernels::GemmArgs args) const;
};

class PackedWeights {
 public:
  // Rows [first, first + rows) of the contiguous fp32 matrix `weight` [..., k], as if it were flat. `gated`: see
  // packed_gemm.h; rows is then 2 * n.
  struct Slice {
    int64_t first = 0;
    int64_t rows = 0;
    bool gated = false;
    kernels::Precision precision = kernels::Precision::kFp32;
  };
  std::shared_ptr<const PackedWeight> Get(const at::Tensor& weight, const Slice& slice);

  void ReleaseUnused();
  int64_t size() const;
  int64_t bytes() const;

 private:
  struct Key {
    const void* storage = nullptr;
    int64_t offset = 0;  // of the first row, in floats
    int64_t rows = 0;
    bool gated = false;
    kernels::Precision precision = kernels::Precision::kFp32;

    friend bool operator==(const Key&, const Key&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.storage, key.offset, key.rows, key.gated, key.precision);
    }
  };
  // The weak pointer keeps the storage's address from being used again, so a key that is found means the same storage.
  struct Entry {
    c10::weak_intrusive_ptr<c10::StorageImpl> source;
    std::shared_ptr<const PackedWeight> packed;
  };

  mutable std::shared_mutex mu_;
  absl::flat_hash_map<Key, Entry> entries_;  // guarded by mu_
};

}  // namespace beamline::backend
