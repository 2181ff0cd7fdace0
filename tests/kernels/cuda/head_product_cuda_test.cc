// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/head_product_cuda.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "beamline/kernels/product_cuda.h"
#include "beamline/kernels/warpgroups_cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/drawn_shapes.h"

namespace beamline::kernels {
namespace {

class HeadProductGpu : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (PrepareWarpgroups() != LaunchError::kOk) GTEST_SKIP() << "the device has no wgmma";
  }
};

struct Problem {
  DataType type = DataType::kBFloat16;
  int rows = 1, vocab = 8, k = 8, first_row = 0;
  float scale = 1;
  bool biased = false;
};

struct Answer {
  std::vector<float> logits;  // [rows][ld], poisoned where nothing was written
  std::vector<RowPart> parts;
  int ld = 0;
};

// The operands of a problem depend on its sizes without the rows: what two of them share is the same.
class Operands {
 public:
  Operands(const Problem& p, int rows) : random_(p.vocab + p.k), x_step_(p.k + 8) {
    weight_ = {p.type, Normal(random_, static_cast<size_t>(p.vocab) * p.k, 1 / std::sqrt(static_cast<float>(p.k)))};
    bias = Normal(random_, p.vocab, 0.5f);
    x = Normal(random_, static_cast<size_t>(rows) * x_step_);
  }

  Answer Run(const Problem& p) {
    const TypedBuffer rows(p.type, x);
    const DeviceBuffer<float> biases(bias);
    Answer answer;
    answer.ld = (p.vocab + 3) / 4 * 4 + 4;
    DeviceBuffer<float> logits(static_cast<size_t>(p.rows) * answer.ld);
    DeviceBuffer<RowPart> parts(static_cast<size_t>(p.rows) * RowParts(p.vocab));
    EXPECT_EQ(HeadProductCuda({.type = p.type,
                               .rows = p.rows,
                               .vocab = p.vocab,
                               .k = p.k,
                               .x = rows.at(static_cast<size_t>(p.first_row) * x_step_),
                               .x_step = x_step_,
                               .weight = weight_.data(),
                               .bias = p.biased ? biases.data() : nullptr,
                               .scale = p.scale,
                               .logits = logits.data(),
                               .ld = answer.ld,
                               .parts = parts.data()},
                              nullptr),
              LaunchError::kOk);
    x_rounded_ = rows.host;
    answer.logits = logits.Download();
#if defined(BEAMLINE_EMULATED)
    EXPECT_TRUE(emulator::all_admitted && !emulator::copied_after_admitting);
    EXPECT_EQ(emulator::prefetched.size(), p.vocab) << "the beginning of each weight's row, once";
#endif
    answer.parts = parts.Download();
    return answer;
  }

  // [rows][vocab], by the product that has no parts.
  std::vector<float> RunDense(const Problem& p) {
    const TypedBuffer rows(p.type, x);
    const DeviceBuffer<float> biases(bias), logits(static_cast<size_t>(p.rows) * p.vocab);
    EXPECT_EQ(DenseProductCuda({.type = p.type,
                                .out_type = DataType::kFloat32,
                                .rows = p.rows,
                                .n = p.vocab,
                                .k = p.k,
                                .x = rows.at(static_cast<size_t>(p.first_row) * x_step_),
                                .weight = weight_.data(),
                                .x_step = x_step_,
                                .weight_step = p.k,
                                .out_step = p.vocab,
                                .alpha = p.scale,
                                .bias = p.biased ? biases.data() : nullptr,
                                .out = logits.data()},
                               DenseTile::k64x128, nullptr),
              LaunchError::kOk);
    return logits.Download();
  }

  // In double, and what rounding may change.
  std::pair<double, double> Expected(const Problem& p, int row, int code) const {
    double sum = 0, size = 0;
    for (int i = 0; i < p.k; ++i) {
      const double product = double{x_rounded_[static_cast<size_t>(p.first_row + row) * x_step_ + i]} *
                             weight_.host[static_cast<size_t>(code) * p.k + i];
      sum += product;
      size += std::abs(product);
    }
    const double biased = sum * p.scale + (p.biased ? bias[code] : 0);
    return {biased, Epsilon(DataType::kFloat32) * ((p.k + 8) * size * std::abs(p.scale) + 2 * std::abs(biased))};
  }

  std::vector<float> x, bias;

 private:
  std::mt19937 random_;
  const int x_step_;
  TypedBuffer weight_;
  std::vector<float> x_rounded_;
};

// Against what the logits themselves give.
void CheckParts(const Problem& p, const Answer& answer) {
  for (int row = 0; row < p.rows; ++row) {
    for (int part = 0; part < RowParts(p.vocab); ++part) {
      const float* first = &answer.logits[static_cast<size_t>(row) * answer.ld + part * kPartColumns];
      const float* last = first + std::min(kPartColumns, p.vocab - part * kPartColumns);
      const RowPart& actual = answer.parts[static_cast<size_t>(row) * RowParts(p.vocab) + part];
      const float max = *std::max_element(first, last);
      double sum = 0;
      for (const float* x = first; x != last; ++x) sum += std::exp(double{*x} - max);
      ASSERT_EQ(actual.max, max) << "row " << row << " part " << part;
      ASSERT_NEAR(actual.sum, sum, 1e-5 * sum) << "row " << row << " part " << part;
    }
  }
}

void CheckProblem(const Problem& p) {
  Operands operands(p, p.rows);
  const Answer answer = operands.Run(p);
  Reference reference;
  std::vector<float> logits;
  for (int row = 0; row < p.rows; ++row) {
    for (int code = 0; code < p.vocab; ++code) {
      const auto [expected, tolerance] = operands.Expected(p, row, code);
      reference.Add(expected, tolerance);
      logits.push_back(answer.logits[static_cast<size_t>(row) * answer.ld + code]);
    }
    for (int code = p.vocab; code < answer.ld; ++code) {
      ASSERT_TRUE(MayBeUnwritten(answer.logits[static_cast<size_t>(row) * answer.ld + code]));
    }
  }
  EXPECT_EQ(reference.Wrong(logits), "") << Name(p.type) << " rows " << p.rows << " vocab " << p.vocab << " k " << p.k;
  CheckParts(p, answer);
}

TEST_F(HeadProductGpu, EqualsTheReference) {
  std::vector<Problem> problems = {{.rows = 1, .vocab = 1, .k = 8},
                                   {.rows = 3, .vocab = 131, .k = 72, .scale = 0.25f, .biased = true},
                                   {.rows = 64, .vocab = 128, .k = 456},
                                   {.rows = 130, .vocab = 389, .k = 328, .biased = true}};
  if (!SmallShapesOnly()) problems.push_back({.rows = 512, .vocab = 8192, .k = 1536, .biased = true});
  for (Problem p : problems) {
    for (const DataType type : {DataType::kBFloat16, DataType::kFloat16}) {
      p.type = type;
      CheckProblem(p);
    }
  }
}

TEST_F(HeadProductGpu, DrawnShapes) {
  ForDrawnShapes([](Draw& draw) {
    CheckProblem({.type = draw.NarrowType(),
                  .rows = draw.Size(200),
                  .vocab = draw.Size(700),
                  .k = draw.Eights(600),
                  .scale = draw.Of({1.0f, 0.3f, -2.0f}),
                  .biased = draw.Coin()});
  });
}

// Whichever of the two a head takes.
TEST_F(HeadProductGpu, RoundsAsADenseProductDoes) {
  for (const DataType type : {DataType::kBFloat16, DataType::kFloat16}) {
    const Problem p{.type = type, .rows = 20, .vocab = 132, .k = 72, .scale = 0.3f, .biased = true};
    Operands operands(p, p.rows);
    const Answer answer = operands.Run(p);
    const std::vector<float> dense = operands.RunDense(p);
    for (int row = 0; row < p.rows; ++row) {
      for (int code = 0; code < p.vocab; ++code) {
        ASSERT_EQ(answer.logits[static_cast<size_t>(row) * answer.ld + code], dense[row * p.vocab + code])
            << Name(type) << " row " << row << " code " << code;
      }
    }
  }
}

TEST_F(HeadProductGpu, CompanyChangesNothing) {
  const Problem all{.rows = 90, .vocab = 300, .k = 392, .biased = true};
  Operands operands(all, all.rows);
  const Answer together = operands.Run(all);
  for (const int row : {0, 7, 63, 64, 89}) {
    Problem one = all;
    one.rows = 1;
    one.first_row = row;
    const Answer alone = operands.Run(one);
    ASSERT_TRUE(std::equal(alone.logits.begin(), alone.logits.begin() + all.vocab,
                           together.logits.begin() + static_cast<int64_t>(row) * together.ld))
        << row;
    for (int part = 0; part < RowParts(all.vocab); ++part) {
      const RowPart& expected = together.parts[static_cast<size_t>(row) * RowParts(all.vocab) + part];
      ASSERT_EQ(alone.parts[part].max, expected.max) << row;
      ASSERT_EQ(alone.parts[part].sum, expected.sum) << row;
    }
  }
}

// What the selection has to know of a row without reading it: a NaN and a +inf, and a part of nothing but -inf.
TEST_F(HeadProductGpu, PartsTellWhatIsNotFinite) {
  const Problem p{.rows = 70, .vocab = 300, .k = 72, .biased = true};
  Operands operands(p, p.rows);
  for (int code = 128; code < 256; ++code) operands.bias[code] = -INFINITY;
  operands.bias[299] = INFINITY;
  std::fill_n(operands.x.begin() + 65 * (p.k + 8), p.k, NAN);
  const Answer answer = operands.Run(p);
  for (int row = 0; row < p.rows; ++row) {
    const RowPart* parts = &answer.parts[static_cast<size_t>(row) * 3];
    EXPECT_EQ(std::isnan(parts[0].sum), row == 65) << row;
    EXPECT_TRUE(std::isnan(parts[2].sum)) << row;
    if (row == 65) continue;
    EXPECT_EQ(parts[1].max, -INFINITY) << row;
    EXPECT_EQ(parts[1].sum, 0) << row;
  }
}

TEST(HeadProductCudaArguments, AreChecked) {
  static char memory[64] __attribute__((aligned(16)));
  HeadProductArgs good{.rows = 2, .vocab = 8, .k = 8, .x_step = 8, .ld = 8};
  good.x = good.weight = memory;
  good.logits = reinterpret_cast<float*>(memory);
  good.parts = reinterpret_cast<RowPart*>(memory);
  const auto refused = [&](auto change) {
    HeadProductArgs args = good;
    change(args);
    return HeadProductCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.type = DataType::kFloat32; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.rows = 0; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.rows = 65535 * 64 + 1; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.vocab = 0; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.vocab = a.ld = (1 << 24) + 4; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.k = a.x_step = 12; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.k = a.x_step = kMaxRowWidth + 8; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.x_step = 12; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.ld = 4; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.ld = 10; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.parts = nullptr; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { a.x = memory + 2; }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { Misalign(a.bias); }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { Misalign(a.parts); }));
  EXPECT_TRUE(refused([](HeadProductArgs& a) { Misalign(a.logits); }));
  if (!WhyNoGpu().empty()) EXPECT_EQ(HeadProductCuda(good, nullptr), LaunchError::kInvalidArgument);
}

}  // namespace
}  // namespace beamline::kernels
