// SPDX-License-Identifier: Apache-2.0
//
// FP8 (E4M3) in the products of attention and feed-forward with their weights, or all but self-attention's: every row
// of activations and every output channel of a weight has a scale of its own. All else (experts, heads, input layers,
// norms, attention's own products), and everything under WithoutFp8, stays in the context's dtype. A weight is
// quantised on the device at its first use, which is at warm-up, and kept beside the original while somebody holds
// that.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include <ATen/core/Tensor.h>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backend/fp8_products.h"

namespace beamline::backend::cuda {

class CudaBatch;

enum class Fp8Scaling : int {
  kInProduct = 0,  // by cuBLASLt
  kAfter = 1,      // by a kernel of ours: where cuBLASLt has no scales for rows
};

struct Fp8 {
  Fp8Products products = Fp8Products::kNone;
  Fp8Scaling scaling = Fp8Scaling::kInProduct;
  bool on() const { return products != Fp8Products::kNone; }
};

// What a device of that compute capability does. FAILED_PRECONDITION below 8.9, which has no FP8.
absl::StatusOr<Fp8Scaling> Fp8ScalingOf(int major, int minor, absl::string_view device);

// Widths that such products take; others run in the context's dtype.
inline constexpr int64_t kFp8Width = 16;

// A matrix of [rows, columns] values, and what each row is to be multiplied by.
struct Fp8Matrix {
  at::Tensor values;  // uint8 [rows, columns], E4M3
  at::Tensor scale;   // fp32 [rows]
};

// Rows of a dtype, `step` elements apart, enqueued on the batch's stream.
struct Fp8Source {
  const void* x = nullptr;
  int64_t rows = 0, columns = 0, step = 0;
  c10::ScalarType dtype = c10::kBFloat16;
};
void QuantizeTo(CudaBatch& batch, const Fp8Source& source, const Fp8Matrix& to);

// Thread-safe. While a weight is quantised only those wait that want the same one, as in trie_cache.h.
class Fp8Weights {
 public:
  // Waits for the device where the weight is new; not while a stream is captured.
  Fp8Matrix Get(CudaBatch& batch, const at::Tensor& weight);
  void ReleaseUnused();
  int64_t size() const;

 private:
  struct Entry {
    explicit Entry(const at::Tensor& weight) : source(weight.storage().getWeakStorageImpl()) {}
    const c10::weak_intrusive_ptr<c10::StorageImpl> source;  // keeps the address from being used again
    std::mutex mu;                                           // held while it is quantised
    Fp8Matrix matrix;                                        // guarded by mu; undefined: not yet
  };
  std::shared_ptr<Entry> Find(const at::Tensor& weight);

  mutable std::mutex mu_;
  absl::flat_hash_map<const void*, std::shared_ptr<Entry>> entries_;  // guarded by mu_; by the first element's address
};

}  // namespace beamline::backend::cuda
