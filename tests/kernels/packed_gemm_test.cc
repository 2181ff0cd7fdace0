// SPDX-License-Identifier: Apache-2.0
//
// Every version of the packed GEMM in every precision against double precision, with bounds that follow from what the
// precision rounds; the exact integers of int8; and two promises: a row's result depends on nothing but the row (not on
// its company, its place, or the columns asked for together), and bf16 and int8 give the same bits on every CPU, that
// with AVX-512's instruction for bf16 apart, whose bits are those of its own definition.
#include "beamline/kernels/packed_gemm.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace beamline::kernels {
namespace {

using Floats = std::vector<float>;

constexpr const char* kNames[] = {"fp32", "bf16", "int8"};

std::vector<PackedGemm> GemmVersions(Precision precision) {
  int count = 0;
  const PackedGemm* versions = AvailableGemms(precision, &count);
  return {versions, versions + count};
}

struct GemmCase {
  Precision precision;
  PackedGemm gemm;
  std::string name() const { return std::string(kNames[static_cast<int>(precision)]) + "_" + gemm.name; }
  friend void PrintTo(const GemmCase& c, std::ostream* out) { *out << c.name(); }
};

std::vector<GemmCase> Cases(const std::vector<Precision>& precisions) {
  std::vector<GemmCase> cases;
  for (const Precision precision : precisions) {
    for (const PackedGemm& gemm : GemmVersions(precision)) cases.push_back({precision, gemm});
  }
  return cases;
}

double Reference(RowActivation activation, double x) {
  switch (activation) {
    case RowActivation::kNone:
      return x;
    case RowActivation::kRelu:
      return std::max(x, 0.0);
    case RowActivation::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case RowActivation::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case RowActivation::kSilu:
      return x / (1 + std::exp(-x));
    case RowActivation::kLeakyRelu:
      return x > 0 ? x : 0.01 * x;
  }
  return 0;
}

struct Product {
  int64_t m, n, k;
  bool gated = false;
  RowActivation activation = RowActivation::kNone;
  int64_t packed_rows() const { return gated ? 2 * n : n; }
};

struct alignas(64) Line {
  char bytes[64];
};
std::vector<Line> Lines(int64_t bytes) { return std::vector<Line>((bytes + 63) / 64); }

class Packed {
 public:
  Packed(const PackedGemm& gemm, const Product& p, const Floats& weight)
      : gemm_(gemm), product_(p), panels_(Lines(gemm.packed_bytes({p.n, p.k, p.gated}))) {
    gemm_.pack(weight.data(), {p.n, p.k, p.gated}, panels_.data());
  }
  // The rows of `a` times panels [begin, end), written over c.
  void Run(const Floats& a, const Floats& bias, int64_t begin, int64_t end, Floats& c) const {
    const int64_t m = static_cast<int64_t>(a.size()) / product_.k;
    std::vector<Line> scratch = Lines(gemm_.scratch_bytes(m, product_.k));
    gemm_.run({.a = a.data(),
               .lda = product_.k,
               .m = m,
               .k = product_.k,
               .b = panels_.data(),
               .gated = product_.gated,
               .n = product_.n,
               .bias = bias.empty() ? nullptr : bias.data(),
               .activation = product_.activation,
               .c = c.data(),
               .ldc = product_.n,
               .panel_begin = begin,
               .panel_end = end,
               .scratch = scratch.data()});
  }
  Floats Run(const Floats& a, const Floats& bias) const {
    Floats c(a.size() / product_.k * product_.n, -77.0f);
    Run(a, bias, 0, PanelCount(product_.n), c);
    return c;
  }

 private:
  const PackedGemm gemm_;
  const Product product_;
  std::vector<Line> panels_;
};

class PackedGemmTest : public testing::TestWithParam<GemmCase> {
 protected:
  const PackedGemm& gemm() const { return GetParam().gemm; }
  Floats Random(int64_t count, float scale = 1) {
    std::normal_distribution<float> noise(0, scale);
    Floats values(count);
    for (float& value : values) value = noise(rng_);
    return values;
  }
  std::mt19937_64 rng_{5};
};

std::string CaseName(const testing::TestParamInfo<GemmCase>& info) { return info.param.name(); }
INSTANTIATE_TEST_SUITE_P(Versions, PackedGemmTest,
                         testing::ValuesIn(Cases({Precision::kFp32, Precision::kBf16, Precision::kInt8})), CaseName);

class Fp32GemmTest : public PackedGemmTest {};
INSTANTIATE_TEST_SUITE_P(Versions, Fp32GemmTest, testing::ValuesIn(Cases({Precision::kFp32})), CaseName);

class Int8GemmTest : public PackedGemmTest {};
INSTANTIATE_TEST_SUITE_P(Versions, Int8GemmTest, testing::ValuesIn(Cases({Precision::kInt8})), CaseName);

float LargestMagnitude(const float* values, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(values[i]));
  return largest;
}

// The sum of one row and one column in double, and how far the precision may be from it.
struct Expected {
  double sum = 0, bound = 0;
};

Expected Sum(Precision precision, const float* row, const float* column, int64_t k) {
  Expected expected;
  double magnitude = 0, rows = 0, columns = 0;
  for (int64_t i = 0; i < k; ++i) {
    const double x = row[i], w = column[i];
    expected.sum += x * w;
    magnitude += std::abs(x * w);
    rows += std::abs(x);
    columns += std::abs(w);
  }
  // k roundings of partial sums in fp32, random in sign.
  expected.bound = 4e-7 * std::sqrt(static_cast<double>(k)) * (magnitude + 1);
  if (precision == Precision::kBf16) expected.bound += magnitude * (0x1p-7 + 0x1p-16);  // both factors by 2^-8
  if (precision == Precision::kInt8) {  // each value by half a step of its row or column
    const double row_step = LargestMagnitude(row, k) / 127.0, column_step = LargestMagnitude(column, k) / 127.0;
    expected.bound +=
        rows * column_step / 2 + columns * row_step / 2 + static_cast<double>(k) * row_step * column_step / 4;
  }
  return expected;
}

TEST_P(PackedGemmTest, AgainstDouble) {
  const RowActivation activations[] = {RowActivation::kNone,     RowActivation::kRelu, RowActivation::kGelu,
                                       RowActivation::kGeluTanh, RowActivation::kSilu, RowActivation::kLeakyRelu};
  int trial = 0;
  for (const int64_t m : {1, 2, 3, 5, 7, 12, 13, 29, 70}) {
    for (const int64_t n : {1, 15, 16, 17, 48, 130}) {
      for (const int64_t k : {1, 3, 33, 300, 1100}) {
        const bool gated = trial % 3 == 0;
        const Product p{m, n, k, gated, activations[trial++ % 6]};
        const Floats a = Random(m * k), weight = Random(p.packed_rows() * k, 1 / std::sqrt(static_cast<float>(k)));
        const Floats bias = gated || trial % 2 == 0 ? Floats() : Random(n);
        const Floats c = Packed(gemm(), p, weight).Run(a, bias);
        for (int64_t row = 0; row < m; ++row) {
          for (int64_t column = 0; column < n; ++column) {
            const float* x = a.data() + row * k;
            Expected gate = Sum(GetParam().precision, x, weight.data() + column * k, k), up{1, 0};
            if (!bias.empty()) gate.sum += bias[column];
            if (gated) up = Sum(GetParam().precision, x, weight.data() + (n + column) * k, k);
            // No activation is steeper than 1.13.
            const double expected = Reference(p.activation, gate.sum) * up.sum;
            const double bound = 1.2 * gate.bound * (std::abs(up.sum) + up.bound) +
                                 std::abs(Reference(p.activation, gate.sum)) * up.bound + 1e-6;
            ASSERT_NEAR(c[row * n + column], expected, bound)
                << m << " " << n << " " << k << " " << row << " " << column;
          }
        }
      }
    }
  }
}

// The proof by test of batch independence: any number of rows, any place, any share of the columns, one result.
TEST_P(PackedGemmTest, RowsDependOnNothingButThemselves) {
  for (const bool gated : {false, true}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{17, 67}, {144, 67}, {33, 1100}}) {
      const int64_t rows = 75;
      const Product p{rows, n, k, gated, RowActivation::kSilu};
      const Floats a = Random(rows * k), weight = Random(p.packed_rows() * k), bias = gated ? Floats() : Random(n);
      const Packed packed(gemm(), p, weight);
      const Floats together = packed.Run(a, bias);
      for (int64_t m = 1; m <= rows; ++m) {
        const int64_t first = (m * 7) % (rows - m + 1);
        const Floats alone = packed.Run(Floats(a.begin() + first * k, a.begin() + (first + m) * k), bias);
        ASSERT_EQ(std::memcmp(alone.data(), together.data() + first * n, alone.size() * sizeof(float)), 0)
            << m << " rows from " << first;
      }
    }
  }
}

TEST_P(PackedGemmTest, WritesItsPanelsOnly) {
  for (const bool gated : {false, true}) {
    const Product p{9, 100, 8, gated};
    const Packed packed(gemm(), p, Random(p.packed_rows() * p.k));
    const Floats a = Random(p.m * p.k), expected = packed.Run(a, {});
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{1, 2}, {2, 7}, {6, 7}, {0, 5}}) {
      Floats c(p.m * p.n, 5.0f);
      packed.Run(a, {}, begin, end, c);
      for (int64_t i = 0; i < p.m * p.n; ++i) {
        const int64_t panel = i % p.n / kPanel;
        ASSERT_EQ(c[i], panel >= begin && panel < end ? expected[i] : 5.0f) << i << " of " << begin << " to " << end;
      }
    }
  }
}

// A value that is not finite spoils its own row, visibly, and no other.
TEST_P(PackedGemmTest, NonFiniteRowsStayVisible) {
  const Product p{5, 20, 40};
  const Packed packed(gemm(), p, Random(p.n * p.k));
  Floats a = Random(p.m * p.k);
  const Floats good = packed.Run(a, {});
  a[1 * p.k + 7] = std::numeric_limits<float>::quiet_NaN();
  a[3 * p.k + 39] = std::numeric_limits<float>::infinity();
  const Floats c = packed.Run(a, {});
  for (int64_t i = 0; i < p.m * p.n; ++i) {
    const int64_t row = i / p.n;
    if (row == 1 || row == 3) {
      EXPECT_FALSE(std::isfinite(c[i])) << i;
    } else {
      EXPECT_EQ(c[i], good[i]) << i;
    }
  }
}

// So does one of a weight its column, among them the last of a panel that is not full.
TEST_P(PackedGemmTest, NonFiniteColumnsStayVisible) {
  const Product p{5, 20, 40};
  Floats weight = Random(p.n * p.k);
  const Floats a = Random(p.m * p.k), good = Packed(gemm(), p, weight).Run(a, {});
  weight[1 * p.k + 7] = std::numeric_limits<float>::quiet_NaN();
  weight[19 * p.k + 39] = -std::numeric_limits<float>::infinity();
  const Floats c = Packed(gemm(), p, weight).Run(a, {});
  for (int64_t i = 0; i < p.m * p.n; ++i) {
    const int64_t column = i % p.n;
    if (column == 1 || column == 19) {
      EXPECT_FALSE(std::isfinite(c[i])) << i;
    } else {
      EXPECT_EQ(c[i], good[i]) << i;
    }
  }
}

TEST_P(PackedGemmTest, TakesNoRows) {
  for (const bool gated : {false, true}) {
    const Product p{0, 20, 40, gated};
    EXPECT_TRUE(Packed(gemm(), p, Random(p.packed_rows() * p.k)).Run({}, {}).empty());
  }
}

// Activations far from zero: no overflow, no NaN, the right limits.
TEST_P(Fp32GemmTest, ActivationsAtTheEnds) {
  const Floats weight = {1}, a = {-1e30f, -300, -88, -1e-30f, 0, 1e-30f, 88, 300, 1e15f};
  for (const RowActivation activation : {RowActivation::kGelu, RowActivation::kGeluTanh, RowActivation::kSilu}) {
    const Floats c = Packed(gemm(), {static_cast<int64_t>(a.size()), 1, 1, false, activation}, weight).Run(a, {});
    for (size_t i = 0; i < a.size(); ++i) {
      if (a[i] > -100) {
        EXPECT_NEAR(c[i], Reference(activation, a[i]), 1e-6 * std::abs(a[i]) + 1e-30) << a[i];
      } else {
        EXPECT_EQ(c[i], 0) << a[i];
      }
    }
  }
}

// Quantised as the header says, summed in 64 bits.
TEST_P(Int8GemmTest, IsExactInIntegers) {
  const auto quantise = [](const float* from, int64_t k, std::vector<int64_t>* to) {
    const float largest = LargestMagnitude(from, k);
    to->resize(k);
    for (int64_t i = 0; i < k; ++i) (*to)[i] = std::lrint(from[i] * (127.0f / largest));
    return largest / 127.0f;
  };
  const Product p{7, 21, 500};
  const Floats a = Random(p.m * p.k, 3), weight = Random(p.n * p.k, 0.1f);
  const Floats c = Packed(gemm(), p, weight).Run(a, {});
  std::vector<int64_t> x, w;
  for (int64_t row = 0; row < p.m; ++row) {
    const float row_scale = quantise(a.data() + row * p.k, p.k, &x);
    for (int64_t column = 0; column < p.n; ++column) {
      const float scale = quantise(weight.data() + column * p.k, p.k, &w) * row_scale;
      int64_t sum = 0;
      for (int64_t i = 0; i < p.k; ++i) sum += x[i] * w[i];
      ASSERT_EQ(c[row * p.n + column], static_cast<float>(sum) * scale) << row << " " << column;
    }
  }
}

// The largest sums there can be, of either sign, and rows of zeros.
TEST_P(Int8GemmTest, DoesNotSaturate) {
  const Product p{3, 2, kMaxInt8Depth};
  Floats a(p.m * p.k, 2.0f), weight(p.n * p.k, 3.0f);
  std::fill_n(a.begin() + p.k, p.k, 0.0f);
  std::fill_n(weight.begin() + p.k, p.k, -3.0f);
  const Floats c = Packed(gemm(), p, weight).Run(a, {});
  const float largest = 6.0f * static_cast<float>(p.k);
  EXPECT_NEAR(c[0], largest, 1e-6 * largest);
  EXPECT_NEAR(c[1], -largest, 1e-6 * largest);
  EXPECT_EQ(c[2], 0);
  EXPECT_EQ(c[3], 0);
}

class SameBits : public testing::TestWithParam<Precision> {};
INSTANTIATE_TEST_SUITE_P(Precisions, SameBits, testing::Values(Precision::kBf16, Precision::kInt8),
                         [](const auto& info) { return std::string(kNames[static_cast<int>(info.param)]); });

TEST_P(SameBits, OnEveryInstructionSet) {
  const std::vector<PackedGemm> versions = GemmVersions(GetParam());
  if (versions.size() == 1) GTEST_SKIP() << "this CPU runs the plain version alone";
  std::mt19937_64 rng(3);
  std::normal_distribution<float> noise;
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 70, 64}, {19, 33, 200}, {50, 128, 1000}, {4, 5, 3}}) {
    const Product p{m, n, k};
    Floats a(m * k), weight(n * k);
    for (float& value : a) value = noise(rng);
    for (float& value : weight) value = noise(rng);
    const Floats plain = Packed(versions[0], p, weight).Run(a, {});
    for (const PackedGemm& version : versions) {
      if (std::string(version.name) == "avx512_bf16") continue;  // AddsPairsOddFirst
      const Floats c = Packed(version, p, weight).Run(a, {});
      EXPECT_EQ(std::memcmp(c.data(), plain.data(), c.size() * sizeof(float)), 0) << version.name;
    }
  }
}

float RoundedToBf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// VDPBF16PS by its definition: a chain over pairs of k, the odd product first, each sum rounded once.
TEST(Bf16PairsGemm, AddsPairsOddFirst) {
  const std::vector<PackedGemm> versions = GemmVersions(Precision::kBf16);
  const auto pairs = std::find_if(versions.begin(), versions.end(),
                                  [](const PackedGemm& gemm) { return std::string(gemm.name) == "avx512_bf16"; });
  if (pairs == versions.end()) GTEST_SKIP() << "this CPU has no AVX512_BF16: kernels_x86 tests it emulated";
  std::mt19937_64 rng(6);
  std::normal_distribution<float> noise;
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 130, 64}, {19, 33, 201}, {3, 17, 2050}, {4, 5, 1}}) {
    const Product p{m, n, k};
    Floats a(m * k), weight(n * k);
    for (float& value : a) value = noise(rng);
    for (float& value : weight) value = noise(rng);
    const Floats c = Packed(*pairs, p, weight).Run(a, {});
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t column = 0; column < n; ++column) {
        const auto add = [&, x = a.data() + row * k, w = weight.data() + column * k](int64_t i, float sum) {
          return i < k ? std::fma(RoundedToBf16(x[i]), RoundedToBf16(w[i]), sum) : sum;
        };
        float expected = 0;
        for (int64_t i = 0; i < k; i += 2) expected = add(i, add(i + 1, expected));
        ASSERT_EQ(c[row * n + column], expected) << m << " " << n << " " << k << " " << row << " " << column;
      }
    }
  }
}

// AMX against the same algorithm on plain tiles, whole tiles and ragged ones.
TEST_P(SameBits, OnAmxAsOnPlainTiles) {
  const std::vector<PackedGemm> versions = GemmVersions(GetParam());
  if (std::string(versions.back().name) != "amx") {
    GTEST_SKIP() << "this CPU has no AMX: kernels_x86 tests it emulated";
  }
  std::mt19937_64 rng(4);
  std::normal_distribution<float> noise;
  for (const int64_t m : {1, 15, 16, 17, 32, 33, 300}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{16, 64}, {47, 100}, {1024, 128}, {128, 1024}}) {
      const Product p{m, n, k, m % 2 == 0};
      Floats a(m * k), weight(p.packed_rows() * k);
      for (float& value : a) value = noise(rng);
      for (float& value : weight) value = noise(rng);
      const Floats plain = Packed(versions.front(), p, weight).Run(a, {});
      const Floats amx = Packed(versions.back(), p, weight).Run(a, {});
      EXPECT_EQ(std::memcmp(amx.data(), plain.data(), amx.size() * sizeof(float)), 0) << m << " " << n << " " << k;
    }
  }
}

}  // namespace
}  // namespace beamline::kernels
