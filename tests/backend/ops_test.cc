// SPDX-License-Identifier: Apache-2.0
#include "backend/ops.h"

#include <algorithm>

#include "backend/reference.h"

namespace beamline::backend {
namespace {

INSTANTIATE_TEST_SUITE_P(Backends, OpsTest, testing::ValuesIn(kOpsCases),
                         [](const auto& info) { return info.param.name(); });

TEST_P(OpsTest, HostDataRoundTrip) {
  EXPECT_EQ(DownloadInts(ctx_, Ints({1, -2, kPaddingOrder, 4}, {2, 2})),
            (std::vector<int32_t>{1, -2, kPaddingOrder, 4}));
  EXPECT_EQ(DownloadFloats(ctx_, UploadFloats(ctx_, {1.001f, -3e20f}, {2})), (std::vector<float>{1.001f, -3e20f}));
  EXPECT_EQ(DownloadFloats(ctx_, UploadWeight(ctx_, {1.5f, -2.0f}, {1, 2})), (std::vector<float>{1.5f, -2.0f}));
}

TEST_P(OpsTest, RmsNorm) {
  for (const auto& [rows, units] : {std::pair<int, int>{1, 1}, {3, 7}, {600, 33}}) {
    const int d = units * kUnit;
    const Pair x = Random(rows, d), w = Random(1, d);
    Matrix expected(rows, d);
    for (int64_t r = 0; r < rows; ++r) {
      double square = 0;
      for (int64_t i = 0; i < d; ++i) square += x.matrix(r, i) * x.matrix(r, i);
      for (int64_t i = 0; i < d; ++i) expected(r, i) = x.matrix(r, i) / std::sqrt(square / d + 1e-6) * w.matrix(0, i);
    }
    ExpectNear(RmsNorm(ctx_, x.tensor, w.tensor.view({d}), 1e-6), expected);
  }
}

// The hand-written gradient against central differences of the double-precision norm.
TEST_P(OpsTest, RmsNormGradient) {
  if (GetParam().dtype != "fp32" || GetParam().backend != "aten") GTEST_SKIP() << "aten alone has gradients, in fp32";
  const int64_t rows = 300, d = 5;
  const Pair x = Random(rows, d), w = Random(1, d), g = Random(rows, d);
  Tensor xt = x.tensor.clone().requires_grad_(true), wt = w.tensor.view({d}).clone().requires_grad_(true);
  RmsNorm(ctx_, xt, wt, 1e-6).backward(g.tensor);
  const auto loss = [&](const Matrix& xm, const Matrix& wm) {
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) {
      double square = 0;
      for (int64_t i = 0; i < d; ++i) square += xm(r, i) * xm(r, i);
      for (int64_t i = 0; i < d; ++i) sum += g.matrix(r, i) * xm(r, i) / std::sqrt(square / d + 1e-6) * wm(0, i);
    }
    return sum;
  };
  const double step = 1e-4;
  const Matrix grad_x = ToMatrix(xt.grad(), rows, d), grad_w = ToMatrix(wt.grad(), 1, d);
  for (const int64_t index : {int64_t{0}, int64_t{7}, 256 * d + 1, rows * d - 1}) {
    Matrix up = x.matrix, down = x.matrix;
    up.v[index] += step, down.v[index] -= step;
    EXPECT_NEAR(grad_x.v[index], (loss(up, w.matrix) - loss(down, w.matrix)) / (2 * step), 1e-3);
  }
  for (int64_t index = 0; index < d; ++index) {
    Matrix up = w.matrix, down = w.matrix;
    up.v[index] += step, down.v[index] -= step;
    EXPECT_NEAR(grad_w.v[index], (loss(x.matrix, up) - loss(x.matrix, down)) / (2 * step), 1e-3);
  }
}

TEST_P(OpsTest, DenseWithEveryActivation) {
  const int64_t in = 6 * kUnit, out = 4 * kUnit;
  const Pair x = Random(5, in), w = Random(out, in), b = Random(1, out);
  const std::pair<Activation, std::function<double(double)>> activations[] = {
      {Activation::kNone, [](double v) { return v; }},
      {Activation::kRelu, [](double v) { return std::max(v, 0.0); }},
      {Activation::kGelu, [](double v) { return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))); }},
      {Activation::kGeluTanh, GeluTanh},
      {Activation::kSilu, Silu},
      {Activation::kLeakyRelu, [](double v) { return v > 0 ? v : 0.01 * v; }}};
  for (const auto& [activation, f] : activations) {
    Matrix expected = MatMul(x.matrix, w.matrix);
    for (int64_t r = 0; r < 5; ++r) {
      for (int64_t c = 0; c < out; ++c) expected(r, c) = f(expected(r, c) + b.matrix(0, c));
    }
    ExpectNear(Dense(ctx_, x.tensor, {w.tensor, b.tensor.view({out})}, activation), expected);
  }
  ExpectNear(Dense(ctx_, x.tensor, {w.tensor, {}}), MatMul(x.matrix, w.matrix));
}

TEST_P(OpsTest, FeedForward) {
  const int64_t d = 6 * kUnit, width = 5 * kUnit;
  const double scale = 0.5 / std::sqrt(kUnit);
  const Pair x = Random(7, d), up = Random(2 * width, d, scale), down = Random(d, width, scale),
             down2 = Random(d, 2 * width, scale);
  ExpectNear(FeedForward(ctx_, x.tensor, {.gated = true, .up = up.tensor, .down = down.tensor}),
             LayerSwiGlu(x.matrix, up.matrix, down.matrix));
  Matrix hidden = LayerMatMul(x.matrix, up.matrix);
  for (double& value : hidden.v) value = std::max(value, 0.0);
  ExpectNear(FeedForward(ctx_, x.tensor,
                         {.gated = false, .activation = Activation::kRelu, .up = up.tensor, .down = down2.tensor}),
             LayerMatMul(hidden, down2.matrix));
  const Matrix both = LayerMatMul(x.matrix, up.matrix);
  Matrix product(7, width);
  for (int64_t r = 0; r < 7; ++r) {
    for (int64_t i = 0; i < width; ++i) product(r, i) = GeluTanh(both(r, i)) * both(r, width + i);
  }
  ExpectNear(FeedForward(ctx_, x.tensor,
                         {.gated = true, .activation = Activation::kGeluTanh, .up = up.tensor, .down = down.tensor}),
             LayerMatMul(product, down.matrix));
}

TEST_P(OpsTest, MoeChoosesWithBiasAndWeighsWithout) {
  const int64_t rows = 23, d = 6 * kUnit, experts = 5, width = 4 * kUnit;
  const int top_k = 2;
  const Pair x = Random(rows, d), gate = Random(experts, d), up = Random(experts * 2 * width, d, 0.5),
             down = Random(experts * d, width, 0.5), shared_up = Random(2 * width, d, 0.5),
             shared_down = Random(d, width, 0.5);
  const std::vector<float> bias = {0.0f, 0.4f, -0.3f, 0.1f, -2.0f};  // the last expert is never chosen
  Matrix expected = LayerSwiGlu(x.matrix, shared_up.matrix, shared_down.matrix);
  std::vector<int64_t> load(experts, 0);
  const Matrix scores = MatMul(x.matrix, gate.matrix);
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<int64_t> by_score(experts);
    for (int64_t e = 0; e < experts; ++e) by_score[e] = e;
    std::sort(by_score.begin(), by_score.end(),
              [&](int64_t a, int64_t b) { return Sigmoid(scores(r, a)) + bias[a] > Sigmoid(scores(r, b)) + bias[b]; });
    double sum = 0;
    for (int i = 0; i < top_k; ++i) sum += Sigmoid(scores(r, by_score[i]));
    for (int i = 0; i < top_k; ++i) {
      const int64_t e = by_score[i];
      ++load[e];
      Matrix row(1, d), u(2 * width, d), w(d, width);
      for (int64_t c = 0; c < d; ++c) row(0, c) = x.matrix(r, c);
      std::copy_n(up.matrix.v.begin() + e * 2 * width * d, 2 * width * d, u.v.begin());
      std::copy_n(down.matrix.v.begin() + e * d * width, d * width, w.v.begin());
      const Matrix y = SwiGlu(row, u, w);
      for (int64_t c = 0; c < d; ++c) expected(r, c) += Sigmoid(scores(r, e)) / sum * y(0, c);
    }
  }
  std::vector<ExpertLoad> loads;
  ctx_.expert_loads = &loads;
  const MoeWeights weights{.gate = gate.tensor,
                           .bias = UploadFloats(ctx_, bias, {experts}),
                           .up = up.tensor.view({experts, 2 * width, d}),
                           .down = down.tensor.view({experts, d, width}),
                           .shared_up = shared_up.tensor,
                           .shared_down = shared_down.tensor,
                           .top_k = top_k,
                           .layer = "decoder.0.moe"};
  ExpectNear(MoeFeedForward(ctx_, x.tensor, weights), expected);
  ASSERT_EQ(loads.size(), 1);
  EXPECT_EQ(loads[0].layer, "decoder.0.moe");
  EXPECT_EQ(loads[0].tokens, load);
  EXPECT_EQ(load.back(), 0);
}

// A gate may be as sure as it likes that no expert is right: sigmoids of -36, -48 and -192 in fp32, the last of them 0.
TEST_P(OpsTest, MoeScoresThatUnderflowGiveFiniteRows) {
  const int64_t rows = 3, d = 6 * kUnit, experts = 3, width = 4 * kUnit;
  std::vector<float> x_values;
  for (const float logit : {36.0f, 48.0f, 192.0f}) x_values.insert(x_values.end(), d, logit / static_cast<float>(d));
  const Tensor x_tensor = UploadWeight(ctx_, x_values, {rows, d});
  const Matrix x = ToMatrix(x_tensor, rows, d);
  const Tensor gate = UploadWeight(ctx_, std::vector<float>(experts * d, -1.0f), {experts, d});
  const Pair up = Random(experts * 2 * width, d, 0.5), down = Random(experts * d, width, 0.5),
             shared_up = Random(2 * width, d, 0.5), shared_down = Random(d, width, 0.5);
  Matrix expected = LayerSwiGlu(x, shared_up.matrix, shared_down.matrix);
  for (const int e : {0, 1}) {  // the bias' choice
    Matrix u(2 * width, d), w(d, width);
    std::copy_n(up.matrix.v.begin() + e * 2 * width * d, 2 * width * d, u.v.begin());
    std::copy_n(down.matrix.v.begin() + e * d * width, d * width, w.v.begin());
    const Matrix y = SwiGlu(x, u, w);
    for (const int64_t r : {0, 1}) {
      const double score = Sigmoid(r == 0 ? -36 : -48);
      for (int64_t c = 0; c < d; ++c) expected(r, c) += score / (2 * score + 1e-20) * y(r, c);
    }
  }
  const MoeWeights weights{.gate = gate,
                           .bias = UploadFloats(ctx_, std::vector<float>{0.2f, 0.1f, 0.0f}, {experts}),
                           .up = up.tensor.view({experts, 2 * width, d}),
                           .down = down.tensor.view({experts, d, width}),
                           .shared_up = shared_up.tensor,
                           .shared_down = shared_down.tensor,
                           .top_k = 2,
                           .layer = "decoder.0.moe"};
  const Tensor y = MoeFeedForward(ctx_, x_tensor, weights);
  for (const double value : ToMatrix(y, rows, d).v) ASSERT_TRUE(std::isfinite(value)) << value;
  ExpectNear(y, expected);
}

TEST_P(OpsTest, ResidualAndDropout) {
  const Pair x = Random(200, 50 * kUnit), y = Random(200, 50 * kUnit);
  Matrix expected = x.matrix;
  for (size_t i = 0; i < expected.v.size(); ++i) expected.v[i] += y.matrix.v[i];
  ctx_.dropout = 0.3;  // without effect outside training
  ExpectNear(Residual(ctx_, x.tensor, y.tensor), expected);

  ctx_.training = true;
  if (GetParam().backend != "aten") {
    EXPECT_THROW(Residual(ctx_, x.tensor, y.tensor), c10::Error) << "trains in silence, without dropout";
    return;
  }
  std::vector<float> runs[2];
  for (std::vector<float>& run : runs) {
    ctx_.generator = MakeGenerator(ctx_, 5);
    const Tensor zero = UploadWeight(ctx_, std::vector<float>(10000), {200, 50});
    const Tensor one = UploadWeight(ctx_, std::vector<float>(10000, 1.0f), {200, 50});
    run = DownloadFloats(ctx_, Residual(ctx_, zero, one));
  }
  EXPECT_EQ(runs[0], runs[1]) << "a seed repeats";
  int kept = 0;
  for (const float value : runs[0]) {
    if (value == 0) continue;
    EXPECT_NEAR(value, 1 / 0.7, 0.01);
    ++kept;
  }
  EXPECT_NEAR(kept, 7000, 250);
}

TEST_P(OpsTest, LevelHeadTakesItsLevelAndStaysFp32) {
  const int64_t batch = 2, rows = 3, levels = 4, d = 6 * kUnit, vocab = 9;
  const Pair x = Random(batch * rows * levels, d), w = Random(vocab, d);
  // The cpu backend rounds what a product takes, by 2^-8 or half a step; none rounds what it gives.
  const bool narrow = GetParam().backend == "cpu" && GetParam().dtype != "fp32";
  const double tolerance = narrow ? 0.1 : 2e-5;
  for (int level = 0; level < levels; ++level) {
    Matrix own(batch * rows, d);
    for (int64_t r = 0; r < batch * rows; ++r) {
      for (int64_t i = 0; i < d; ++i) own(r, i) = x.matrix(r * levels + level, i);
    }
    const Tensor logits = LevelHead(ctx_, x.tensor, {.weight = w.tensor}, {levels, level, batch});
    EXPECT_EQ(logits.sizes(), at::IntArrayRef({batch, rows, vocab}));
    EXPECT_EQ(logits.scalar_type(), c10::kFloat);
    const Matrix expected = MatMul(own, w.matrix), got = ToMatrix(logits, batch * rows, vocab);
    for (size_t i = 0; i < got.v.size(); ++i) EXPECT_NEAR(got.v[i], expected.v[i], tolerance) << "in bf16 too";

    const std::vector<float> bias = {0, 0, -1e30f, 3, 0, 0, 0, 0, 0.5f};
    const HeadWeights scaled{.weight = w.tensor, .bias = UploadFloats(ctx_, bias, {vocab}), .scale = 0.25};
    const Matrix other = ToMatrix(LevelHead(ctx_, x.tensor, scaled, {levels, level, batch}), batch * rows, vocab);
    for (size_t i = 0; i < other.v.size(); ++i) {
      const double wanted = 0.25 * expected.v[i] + bias[i % vocab];
      EXPECT_NEAR(other.v[i], wanted, std::max(tolerance, std::abs(wanted) * 1e-6));
    }
  }
}

TEST_P(OpsTest, EmbedFeatures) {
  const int64_t d = 3 * kUnit;
  const Pair plain = Random(5, d), codes = Random(4, d), bits = Random(8, d);
  const std::vector<FeatureTable> tables = {{plain.tensor, FeatureLookup::kIndex},
                                            {codes.tensor, FeatureLookup::kFromOne},
                                            {bits.tensor, FeatureLookup::kBitSum}};
  const std::vector<int32_t> ids = {0, 0, 0, 4, 4, 255, 2, 1, 0b1000001, 1, 3, 128};  // [2, 2, 3]
  Matrix concat(4, 3 * d), sum(4, d);
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t i = 0; i < d; ++i) {
      concat(r, i) = plain.matrix(ids[3 * r], i);
      concat(r, d + i) = ids[3 * r + 1] == 0 ? 0 : codes.matrix(ids[3 * r + 1] - 1, i);
      for (int bit = 0; bit < 8; ++bit) concat(r, 2 * d + i) += (ids[3 * r + 2] >> bit & 1) * bits.matrix(bit, i);
      sum(r, i) = concat(r, i) + concat(r, d + i) + concat(r, 2 * d + i);
    }
  }
  ExpectNear(EmbedFeatures(ctx_, tables, FeatureFusion::kConcat, Ints(ids, {2, 2, 3})), concat);
  ExpectNear(EmbedFeatures(ctx_, tables, FeatureFusion::kSum, Ints(ids, {2, 2, 3})), sum);
}

TEST_P(OpsTest, JoinTokensSetsPathwaysSideBySide) {
  const int64_t d = 3 * kUnit;
  const Pair a = Random(2, d), b = Random(4, d), table = Random(6, d);  // lengths 1 and 2, batch 2
  const std::vector<int32_t> positions = {0, 1, 2, 0, 5, 4};
  Matrix expected(6, d);
  for (int64_t batch = 0; batch < 2; ++batch) {
    for (int64_t t = 0; t < 3; ++t) {
      for (int64_t i = 0; i < d; ++i) {
        expected(3 * batch + t, i) =
            table.matrix(positions[3 * batch + t], i) + (t == 0 ? a.matrix(batch, i) : b.matrix(2 * batch + t - 1, i));
      }
    }
  }
  ExpectNear(JoinTokens(ctx_, {a.tensor, b.tensor}, table.tensor, Ints(positions, {2, 3})), expected);
  ExpectNear(JoinTokens(ctx_, {b.tensor}, {}, Ints({0, 0, 0, 0}, {2, 2})), b.matrix);
}

TEST_P(OpsTest, CodeEmbeddings) {
  const int64_t d = 3 * kUnit;
  const Pair bos = Random(1, d), t0 = Random(4, d), t1 = Random(5, d), positions = Random(3, d);
  const CodeEmbedding embedding{bos.tensor.view({d}), {t0.tensor, t1.tensor, {}}, positions.tensor};
  const std::vector<int32_t> codes = {3, 4, 0, 1, 2, 0};  // [1, 2, 3]
  Matrix expected(6, d), step(4, d);
  for (int64_t g = 0; g < 2; ++g) {
    for (int64_t i = 0; i < d; ++i) {
      expected(3 * g, i) = bos.matrix(0, i) + positions.matrix(0, i);
      expected(3 * g + 1, i) = t0.matrix(codes[3 * g], i) + positions.matrix(1, i);
      expected(3 * g + 2, i) = t1.matrix(codes[3 * g + 1], i) + positions.matrix(2, i);
    }
  }
  ExpectNear(EmbedPrefix(ctx_, embedding, Ints(codes, {1, 2, 3}), 3), expected);
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t i = 0; i < d; ++i) step(r, i) = t1.matrix(r, i) + positions.matrix(2, i);
  }
  ExpectNear(EmbedStep(ctx_, embedding, {.level = 2, .batch = 2}, Ints({0, 1, 2, 3}, {2, 2})), step);
  Matrix first(2, d);
  for (int64_t i = 0; i < 2 * d; ++i) first.v[i] = bos.matrix(0, i % d) + positions.matrix(0, i % d);
  ExpectNear(EmbedStep(ctx_, embedding, {.level = 0, .batch = 2}, {}), first);
}

// One table for all levels: codes of level 0 from row 2, of level 1 from row 6, BOS in row 1; one step more than
// levels.
TEST_P(OpsTest, CodeEmbeddingsOfOneVocabulary) {
  const int64_t d = 3 * kUnit;
  const Pair table = Random(9, d);
  const CodeEmbedding embedding{.tables = {table.tensor, table.tensor}, .first_rows = {2, 6}, .bos_row = 1};
  const std::vector<int32_t> codes = {3, 2, 0, 1};  // [1, 2, 2]
  const int rows[] = {1, 5, 8, 1, 2, 7};
  Matrix expected(6, d), step(2, d), first(2, d);
  for (int64_t i = 0; i < d; ++i) {
    for (int64_t r = 0; r < 6; ++r) expected(r, i) = table.matrix(rows[r], i);
    for (int64_t r = 0; r < 2; ++r) step(r, i) = table.matrix(rows[3 * r + 2], i), first(r, i) = table.matrix(1, i);
  }
  ExpectNear(EmbedPrefix(ctx_, embedding, Ints(codes, {1, 2, 2}), 3), expected);
  ExpectNear(EmbedStep(ctx_, embedding, {.level = 2, .batch = 1}, Ints({2, 1}, {1, 2})), step);
  ExpectNear(EmbedStep(ctx_, embedding, {.level = 0, .batch = 2}, {}), first);
}

TEST_P(OpsTest, TrunkAndFusion) {
  const int64_t d = 3 * kUnit;
  const Pair positions = Random(2, d), trunk = Random(4, d), code = Random(4, d), w = Random(d, 2 * d),
             b = Random(1, d);
  Matrix repeated(6, d), rows(6, d), fused(4, d);
  for (int64_t r = 0; r < 6; ++r) {
    for (int64_t i = 0; i < d; ++i) {
      repeated(r, i) = positions.matrix(r % 2, i);
      rows(r, i) = trunk.matrix(r / 3 * 2 + 1, i);
    }
  }
  ExpectNear(EmbedPositions(ctx_, positions.tensor, 3), repeated);
  ExpectNear(TrunkRows(ctx_, trunk.tensor, {.levels = 2, .level = 1, .batch = 2}, 3), rows);
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t o = 0; o < d; ++o) {
      double gate = b.matrix(0, o);
      for (int64_t i = 0; i < d; ++i)
        gate += w.matrix(o, i) * trunk.matrix(r, i) + w.matrix(o, d + i) * code.matrix(r, i);
      fused(r, o) = trunk.matrix(r, o) + Sigmoid(gate) * code.matrix(r, o);
    }
  }
  ExpectNear(GatedFusion(ctx_, trunk.tensor, code.tensor, {w.tensor, b.tensor.view({d})}), fused);
}

}  // namespace
}  // namespace beamline::backend
