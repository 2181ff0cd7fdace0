// SPDX-License-Identifier: Apache-2.0
//
// What algorithms make of one shape of weight: which are offered, the bits they give, their time. The matrices show the
// order of sums in every type (algorithm_trial.cc). In memory of its own; waits for its stream.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/types/span.h"
#include "backend/cuda/product.h"

namespace beamline::backend::cuda {

// Rows of the product whose bits tell algorithms apart.
inline constexpr int64_t kTrialRows = 256;

class AlgorithmTrial {
 public:
  struct Device {
    const CublasLt& lt;
    c10::Device where;
    LtStream on;
  };
  // For products of up to `most_rows` rows.
  AlgorithmTrial(const Device& device, const ProductKind& kind, int64_t most_rows);
  ~AlgorithmTrial();
  AlgorithmTrial(const AlgorithmTrial&) = delete;
  AlgorithmTrial& operator=(const AlgorithmTrial&) = delete;

  // What cuBLASLt offers for products of these numbers of rows, each once; of E4M3 with fast sums or without.
  std::vector<Algorithm> Offered(absl::Span<const int64_t> rows, bool fast_sums) const;
  // The product of kTrialRows rows, if products of fewer of them give the same bits; else empty.
  std::vector<char> EqualRows(const Algorithm& algorithm);
  // Whether the algorithm's products of up to kTrialRows rows, as many as it can do, give these bits. False where it
  // can do none.
  bool Gives(const Algorithm& algorithm, const std::vector<char>& bits);
  // The first rows with what the products above, `bits`, do without: alpha, a bias and what the result held before, of
  // which the kind has any. These nearly take back what `bits` say that the sums are (a bias one row's; behind an
  // activation those that it lets pass), so that a step that is rounded otherwise shows: in fp32 nearly always, in a
  // narrow result in one value of 20 to 200. Empty where the algorithm cannot do it.
  std::vector<char> FinishedRows(const Algorithm& algorithm, const std::vector<char>& bits);
  // Whether a product of `rows` rows, kTrialRows different ones over and over, gives those bits, too.
  bool GivesRows(const Algorithm& algorithm, int64_t rows, const std::vector<char>& bits);
  // Milliseconds of a product of `rows` rows with a weight that is not in the cache; infinite where the algorithm
  // cannot do it.
  float Time(const Algorithm& algorithm, int64_t rows);

 private:
  at::Tensor Upload(kernels::DataType type, const std::vector<float>& values, int64_t copies = 1) const;
  void CopyTo(const at::Tensor& to, const std::vector<char>& bytes) const;
  Product MakeProduct(int64_t rows) const;
  ProductArrays Arrays(int64_t first_row, int64_t weight_copy = 0) const;
  bool Start(const Algorithm& algorithm, int64_t rows, int64_t first_row);
  bool GivesLastRows(const Algorithm& algorithm, int64_t rows, const std::vector<char>& bits);
  std::vector<char> Rows(int64_t first, int64_t count) const;

  const Device device_;
  const ProductKind kind_;
  const int64_t row_bytes_;  // of the result
  int64_t weight_copies_ = 1;
  at::Tensor x_, weight_, bias_, seen_bias_, ungated_, out_, row_scale_, column_scale_, ahead_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace beamline::backend::cuda
