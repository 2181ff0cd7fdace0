// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <optional>

#include "backend/reference.h"
#include "beamline/types.h"

namespace beamline::backend {
namespace {

class AttentionTest : public OpsTest {
 protected:
  static constexpr int kHeads = 2;
  static constexpr int64_t kDim = 6 * kUnit, kInner = 8 * kUnit;

  const double kScale = 0.7 / std::sqrt(kUnit);

  static constexpr kernels::RelativeBuckets kBuckets[] = {{.count = 8, .max_distance = 5, .bidirectional = false},
                                                          {.count = 8, .max_distance = 5, .bidirectional = true}};

  struct Weights {
    Pair in, key_value, out;
    std::optional<Pair> bias;  // T5: relative positions and scores as they are
    kernels::RelativeBuckets buckets;
  };
  Weights RandomWeights() {
    return {Random(3 * kInner, kDim, kScale),
            Random(2 * kInner, kDim, kScale),
            Random(kDim, kInner, kScale),
            std::nullopt,
            {}};
  }
  Weights RandomT5Weights(const kernels::RelativeBuckets& buckets) {
    Weights w = RandomWeights();
    w.bias = Random(buckets.count, kHeads);
    w.buckets = buckets;
    return w;
  }
  // Every form of scoring an op must know.
  std::vector<Weights> EveryWeights() {
    return {RandomWeights(), RandomT5Weights(kBuckets[0]), RandomT5Weights(kBuckets[1])};
  }
  static SelfAttentionWeights Self(const Weights& w) {
    SelfAttentionWeights self{.qkv = w.in.tensor, .out = w.out.tensor, .heads = kHeads};
    if (!w.bias) return self;
    self.scale = 1;
    self.bias = {w.bias->tensor, w.buckets};
    return self;
  }
  static Scoring ScoringOf(const Weights& w) {
    if (!w.bias) return {};
    return {1, [table = w.bias->matrix, buckets = w.buckets](int head, int64_t query, int64_t key) {
              return table(kernels::RelativePositionBucket(static_cast<int32_t>(key - query), buckets), head);
            }};
  }

  // Rows [begin, begin + count) of a matrix.
  static Matrix Slice(const Matrix& x, int64_t begin, int64_t count) {
    Matrix y(count, x.cols);
    std::copy_n(x.v.begin() + begin * x.cols, count * x.cols, y.v.begin());
    return y;
  }
  static void Paste(const Matrix& from, Matrix& to, int64_t begin) {
    std::copy(from.v.begin(), from.v.end(), to.v.begin() + begin * to.cols);
  }
  Matrix SelfReference(const Matrix& x, const Weights& w, const std::function<bool(int64_t, int64_t)>& sees) {
    const Matrix qkv = LayerMatMul(x, w.in.matrix);
    return LayerMatMul(beamline::backend::Attend(Columns(qkv, 0, kInner), Columns(qkv, kInner, kInner),
                                                 Columns(qkv, 2 * kInner, kInner), kHeads, sees, ScoringOf(w)),
                       w.out.matrix);
  }
};

INSTANTIATE_TEST_SUITE_P(Backends, AttentionTest, testing::ValuesIn(kOpsCases),
                         [](const auto& info) { return info.param.name(); });

// One rule of visibility: order[key] <= limit; the second history is all padding, whose rows see nothing.
TEST_P(AttentionTest, SelfAttentionUnderBothMasks) {
  const int64_t batch = 2, tokens = 5;
  const std::vector<int32_t> order = {
      -1, 0, 1, 0, kPaddingOrder, kPaddingOrder, kPaddingOrder, kPaddingOrder, kPaddingOrder, kPaddingOrder};
  const Tensor order_tensor = Ints(order, {batch, tokens});
  const Pair x = Random(batch * tokens, kDim);
  for (const Weights& w : EveryWeights()) {
    for (const bool causal : {false, true}) {
      Matrix expected(batch * tokens, kDim);
      for (int64_t b = 0; b < batch; ++b) {
        const auto sees = [&](int64_t q, int64_t k) {
          return order[b * tokens + k] <= (causal ? order[b * tokens + q] : kSeesAllOrders);
        };
        Paste(SelfReference(Slice(x.matrix, b * tokens, tokens), w, sees), expected, b * tokens);
      }
      const Tensor mask =
          causal ? VisibilityMask(ctx_, order_tensor, order_tensor, 1) : PaddingMask(ctx_, order_tensor);
      ExpectNear(SelfAttention(ctx_, x.tensor, Self(w), {mask}), expected);
    }
  }
}

// Four histories, one empty, with padding in their middle and at their end, and a row of nobody's: each token's answer
// is that of the double-precision form over its own history's tokens, and that of the tokens at the front of own rows.
TEST_P(AttentionTest, SelfAttentionOfPackedTokens) {
  const int64_t batch = 4, tokens = 6;
  // orders -1 0 1 . 1 . | . . . . . . | 0 . . . . . | -1 0 1 2 3 4
  const std::vector<int32_t> packed_order = {-1, 0, 1, 1, 0, -1, 0, 1, 2, 3, 4, kPaddingOrder};
  const std::vector<int32_t> from = {0, 1, 2, 4, 12, 18, 19, 20, 21, 22, 23, -1};
  const int64_t begins[] = {0, 4, 4, 5}, counts[] = {4, 0, 1, 6};
  std::vector<int32_t> to(batch * tokens, -1), front_order(batch * tokens, kPaddingOrder), front(batch * tokens, -1);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < counts[b]; ++i) {
      to[b * tokens + i] = static_cast<int32_t>(begins[b] + i);
      front_order[b * tokens + i] = packed_order[begins[b] + i];
      front[b * tokens + i] = from[begins[b] + i];
    }
  }
  const TokenPacking packing{.from = Ints(from, {12}),
                             .bounds = Ints({0, 4, 4, 5, 4, 0, 1, 6}, {2, batch}),
                             .order = Ints(packed_order, {1, 12}),
                             .to = Ints(to, {batch * tokens}),
                             .tokens = tokens};
  const Pair x = Random(batch * tokens, kDim);
  const Tensor packed = PackTokens(ctx_, x.tensor, packing), orders = Ints(front_order, {batch, tokens});
  const Tensor at_front = PackTokens(ctx_, x.tensor, {.from = Ints(front, {batch * tokens})});
  for (const Weights& w : EveryWeights()) {
    for (const bool causal : {false, true}) {
      Matrix expected(batch * tokens, kDim);  // padding: zeros
      for (int64_t b = 0; b < batch; ++b) {
        Matrix own(counts[b], kDim);
        for (int64_t i = 0; i < counts[b]; ++i) Paste(Slice(x.matrix, from[begins[b] + i], 1), own, i);
        const int32_t* order = packed_order.data() + begins[b];
        Paste(SelfReference(own, w, [&](int64_t q, int64_t k) { return !causal || order[k] <= order[q]; }), expected,
              b * tokens);
      }
      const auto mask = [&](const Tensor& of) {
        return causal ? VisibilityMask(ctx_, of, of, 1) : PaddingMask(ctx_, of);
      };
      const Tensor y = SelfAttention(ctx_, packed, Self(w), {mask(packing.order), packing});
      const Tensor unpacked = UnpackTokens(ctx_, y, packing);
      ExpectNear(unpacked, expected);
      if (GetParam().backend == "aten") continue;
      const std::vector<float> values = DownloadFloats(ctx_, unpacked);
      const std::vector<float> in_own_rows =
          DownloadFloats(ctx_, SelfAttention(ctx_, at_front, Self(w), {mask(orders)}));
      for (int64_t b = 0; b < batch; ++b) {
        const auto begin = values.begin() + b * tokens * kDim;
        EXPECT_TRUE(std::equal(begin, begin + counts[b] * kDim, in_own_rows.begin() + b * tokens * kDim))
            << "history " << b << ": other bits than in rows of its own";
      }
    }
  }
}

// A context's keys and values come back to their places; padding is zeros.
TEST_P(AttentionTest, ContextKeyValueOfPackedTokens) {
  const TokenPacking packing{.from = Ints({0, 3, 4}, {3}),
                             .bounds = Ints({0, 1, 1, 2}, {2, 2}),
                             .order = Ints({0, 0, 1}, {1, 3}),
                             .to = Ints({0, -1, -1, 1, 2, -1}, {6}),
                             .tokens = 3};
  const Weights w = RandomWeights();
  const Pair x = Random(6, kDim);
  const CrossAttentionWeights cross{
      .query = w.in.tensor, .key_value = w.key_value.tensor, .out = w.out.tensor, .heads = kHeads};
  Matrix expected = LayerMatMul(x.matrix, w.key_value.matrix);
  for (const int64_t row : {1, 2, 5}) Paste(Matrix(1, 2 * kInner), expected, row);
  const Tensor y = ContextKeyValue(ctx_, PackTokens(ctx_, x.tensor, packing), cross, {2, packing});
  ASSERT_EQ(y.sizes(), (std::vector<int64_t>{2, 3, 2 * kInner}));
  ExpectNear(y, expected);
}

TEST_P(AttentionTest, CausalSelfAttention) {
  for (const int length : {1, 3, 8}) {
    const int64_t groups = 4;
    const Pair x = Random(groups * length, kDim);
    for (const Weights& w : EveryWeights()) {
      Matrix expected(groups * length, kDim);
      for (int64_t g = 0; g < groups; ++g) {
        Paste(SelfReference(Slice(x.matrix, g * length, length), w, [](int64_t q, int64_t k) { return k <= q; }),
              expected, g * length);
      }
      ExpectNear(CausalSelfAttention(ctx_, x.tensor, Self(w), length), expected);
    }
  }
}

// Training: the bias table gets the gradient that central differences of the double-precision form say, under both
// kinds of mask.
TEST_P(AttentionTest, RelativeBiasGradient) {
  if (GetParam().dtype != "fp32" || GetParam().backend != "aten") GTEST_SKIP() << "aten alone has gradients, in fp32";
  const int64_t length = 7;
  const Weights w = RandomT5Weights(kBuckets[0]);
  const Pair x = Random(length, kDim), g = Random(length, kDim);
  const Tensor mask = PaddingMask(ctx_, Ints({0, 1, 2, 3, 4, 5, kPaddingOrder}, {1, length}));
  for (const bool causal : {false, true}) {
    SelfAttentionWeights self = Self(w);
    self.bias.table = w.bias->tensor.clone().requires_grad_(true);
    const Tensor y =
        causal ? CausalSelfAttention(ctx_, x.tensor, self, length) : SelfAttention(ctx_, x.tensor, self, {mask});
    y.backward(g.tensor);
    const Matrix gradient = ToMatrix(self.bias.table.grad(), kBuckets[0].count, kHeads);
    const auto loss = [&](size_t index, double step) {
      Weights moved = w;
      moved.bias->matrix.v[index] += step;
      const Matrix out = SelfReference(x.matrix, moved, [&](int64_t q, int64_t k) { return causal ? k <= q : k < 6; });
      double sum = 0;
      for (size_t i = 0; i < out.v.size(); ++i) sum += out.v[i] * g.matrix.v[i];
      return sum;
    };
    double largest = 0;
    for (size_t index = 0; index < gradient.v.size(); ++index) {
      EXPECT_NEAR(gradient.v[index], (loss(index, 1e-4) - loss(index, -1e-4)) / 2e-4, 1e-3);
      largest = std::max(largest, std::abs(gradient.v[index]));
    }
    EXPECT_GT(largest, 0.01);
  }
}

TEST_P(AttentionTest, CrossAttentionWithLimitsPerGroup) {
  const int64_t batch = 2, tokens = 4, groups = 3;
  const int repeat = 2;
  const std::vector<int32_t> order = {-1, 0, 1, 2, -1, 0, kPaddingOrder, kPaddingOrder};
  const std::vector<int32_t> limit = {-2, 0, kSeesAllOrders, -1, kSeesAllOrders, 5};  // -2 sees nothing
  const Weights w = RandomWeights();
  const Pair query = Random(kInner, kDim, kScale), x = Random(batch * groups * repeat, kDim),
             c = Random(batch * tokens, kDim);
  CrossAttentionWeights weights{query.tensor, w.key_value.tensor, w.out.tensor, kHeads};

  const Tensor context = ContextKeyValue(ctx_, c.tensor, weights, {batch});
  EXPECT_EQ(context.sizes(), at::IntArrayRef({batch, tokens, 2 * kInner}));
  const Matrix kv = ToMatrix(context, batch * tokens, 2 * kInner);
  ExpectNear(context, LayerMatMul(c.matrix, w.key_value.matrix));

  const Tensor mask = VisibilityMask(ctx_, Ints(order, {batch, tokens}), Ints(limit, {batch, groups}), repeat);
  for (const double scale : {0.0, 1.0}) {
    Matrix expected(batch * groups * repeat, kDim);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t rows = groups * repeat;
      const Matrix q = LayerMatMul(Slice(x.matrix, b * rows, rows), query.matrix), own = Slice(kv, b * tokens, tokens);
      const auto sees = [&](int64_t row, int64_t k) {
        return order[b * tokens + k] <= limit[b * groups + row / repeat];
      };
      const Matrix y = beamline::backend::Attend(q, Columns(own, 0, kInner), Columns(own, kInner, kInner), kHeads, sees,
                                                 {.scale = scale});
      Paste(LayerMatMul(y, w.out.matrix), expected, b * rows);
    }
    weights.scale = scale;
    ExpectNear(CrossAttention(ctx_, x.tensor, weights, {context, mask}), expected);
  }
}

// As many steps as a decode can have, the end token's among them, with crossing parents: every row must attend to
// exactly its own ancestors.
TEST_P(AttentionTest, LineageAttention) {
  const int steps = GetParam().dtype == "int8" ? 3 : kMaxLevels + 1;  // among many, its scores choose other ancestors
  const int64_t batch = 2;
  std::vector<int64_t> widths = {1, 3, 2};
  std::vector<std::vector<int32_t>> parents = {{}, {0, 0, 0, 0, 0, 0}, {2, 0, 1, 1}};
  widths.resize(steps, 2);
  parents.resize(steps, {1, 0, 0, 1});
  for (const Weights& w : EveryWeights()) {
    Tensor lineage;
    LineageCache cache;
    std::vector<Pair> inputs;
    for (int step = 0; step < steps; ++step) {
      const int64_t rows = widths[step];
      inputs.push_back(Random(batch * rows, kDim));
      if (step > 0) lineage = ExtendLineage(ctx_, lineage, Ints(parents[step], {batch, rows}));
      const Tensor y =
          LineageAttention(ctx_, inputs.back().tensor, Self(w), {batch, lineage, step + 1 == steps, cache});

      Matrix expected(batch * rows, kDim);
      for (int64_t b = 0; b < batch; ++b) {
        for (int64_t row = 0; row < rows; ++row) {
          Matrix path(step + 1, kDim);
          for (int64_t s = step, r = row; s >= 0; --s) {
            Paste(Slice(inputs[s].matrix, b * widths[s] + r, 1), path, s);
            if (s > 0) r = parents[s][b * widths[s] + r];
          }
          const Matrix all = SelfReference(path, w, [](int64_t q, int64_t k) { return k <= q; });
          Paste(Slice(all, step, 1), expected, b * rows + row);
        }
      }
      ExpectNear(y, expected);
    }
    EXPECT_EQ(cache.steps.size(), static_cast<size_t>(steps - 1)) << "the last step appends nothing";
  }
}

TEST_P(AttentionTest, TakeVisibleAndStackPadded) {
  const Pair x = Random(6, 2);  // [2, 3, 2]
  const Tensor order = Ints({-1, kPaddingOrder, 4, kPaddingOrder, kPaddingOrder, kPaddingOrder}, {2, 3});
  const Tensor cube = x.tensor.view({2, 3, 2});
  const std::vector<Tensor> firsts = TakeVisible(ctx_, {cube, order}, order, 0);
  const Tensor& first = firsts[0];
  const Tensor second = TakeVisible(ctx_, {cube}, order, 1)[0];
  EXPECT_EQ(second.size(0), 0);
  Matrix expected(9, 2);
  std::fill(expected.v.begin(), expected.v.end(), 7.0);
  for (int64_t i = 0; i < 2; ++i) expected(3, i) = x.matrix(0, i), expected(4, i) = x.matrix(2, i);
  const Tensor stacked = StackPadded(ctx_, {second, first, {}}, 3, 7);
  EXPECT_EQ(stacked.sizes(), at::IntArrayRef({3, 3, 2}));
  ExpectNear(stacked, expected);
  EXPECT_EQ(DownloadInts(ctx_, firsts[1]), (std::vector<int32_t>{-1, 4}));

  // As layers do: more of them than fit into one launch.
  const std::vector<Tensor> many = TakeVisible(ctx_, std::vector<Tensor>(70, cube), order, 0);
  ASSERT_EQ(many.size(), 70u);
  std::vector<Tensor> rows;
  for (const Tensor& taken : many) {
    rows.push_back(taken);
    rows.push_back(second);
    rows.emplace_back();
  }
  const std::vector<Tensor> layers = StackAllPadded(ctx_, rows, 70, 3);
  ASSERT_EQ(layers.size(), 70u);
  Matrix padded(9, 2);
  for (int64_t i = 0; i < 2; ++i) padded(0, i) = x.matrix(0, i), padded(1, i) = x.matrix(2, i);
  for (const size_t layer : {size_t{0}, size_t{43}, size_t{69}}) {
    EXPECT_EQ(layers[layer].sizes(), at::IntArrayRef({3, 3, 2}));
    ExpectNear(layers[layer], padded);
  }
  EXPECT_TRUE(StackAllPadded(ctx_, {}, 0, 3).empty());
}

// Of logits, whose rows may stand further apart than they are long.
TEST_P(AttentionTest, TakeRowsAndJoinRows) {
  if (SearchesOnDevice(ctx_)) GTEST_SKIP() << "there the first step belongs to the search";
  const Pair x = Random(6, 5);
  const Tensor cut = x.tensor.narrow(1, 0, 3);
  const Tensor last = TakeRows(ctx_, cut, 4, 2), first = TakeRows(ctx_, cut, 0, 1);
  const Tensor joined = JoinRows(ctx_, {last, first});
  EXPECT_EQ(joined.sizes(), at::IntArrayRef({3, 3}));
  Matrix expected(3, 3);
  for (int64_t i = 0; i < 3; ++i) {
    expected(0, i) = x.matrix(4, i), expected(1, i) = x.matrix(5, i), expected(2, i) = x.matrix(0, i);
  }
  ExpectNear(joined, expected);
}

// Two requests over one two-level trie: widths of their own, an idle request skipped, a NaN failing its own row only.
TEST_P(AttentionTest, SelectBeams) {
  const uint16_t codes[] = {0, 2, 3};
  kernels::ConstraintView constraint;
  constraint.trie.levels = 1;
  constraint.trie.level[0] = {.codes = codes, .offsets = nullptr, .num_nodes = 3};
  constraint.snapshot_trie = constraint.trie;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values = {1, 9, 3, 2, 0, 0, 0, 0, nan, 1, 1, 1, 1, 1, 1, 1};
  const Tensor logits = UploadFloats(ctx_, values, {4, 1, 4});

  struct Slots {
    std::vector<uint32_t> node = std::vector<uint32_t>(4);
    std::vector<float> score = std::vector<float>(4), log_prob = std::vector<float>(4);
    std::vector<int32_t> parent = std::vector<int32_t>(4);
    std::vector<uint16_t> code = std::vector<uint16_t>(4);
    kernels::BeamSlots view;
    Slots() { view = {node.data(), score.data(), parent.data(), code.data(), log_prob.data(), 0}; }
  };
  std::vector<Slots> slots(4);
  std::vector<SelectRequest> requests(4);
  const int widths[] = {2, 4, 2, 0};
  for (int b = 0; b < 4; ++b) requests[b] = {.constraint = &constraint, .out = &slots[b].view, .width = widths[b]};
  SelectBeams(ctx_, {.logits = logits, .level = 0, .requests = absl::MakeSpan(requests)});

  ASSERT_EQ(slots[0].view.count, 2);  // code 1 is the likeliest, but not in the trie
  EXPECT_EQ(slots[0].code[0], 2);
  EXPECT_EQ(slots[0].code[1], 3);
  const double normaliser = std::log(std::exp(1.0) + std::exp(9.0) + std::exp(3.0) + std::exp(2.0));
  EXPECT_NEAR(slots[0].score[0], 3 - normaliser, 1e-5);
  ASSERT_EQ(slots[1].view.count, 3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(slots[1].code[i], codes[i]) << "ties in code order";
  EXPECT_EQ(requests[1].error, kernels::SelectError::kOk);
  EXPECT_EQ(requests[2].error, kernels::SelectError::kNonFiniteLogits);
  EXPECT_EQ(slots[2].view.count, 0);
  EXPECT_EQ(slots[3].view.count, 0);

  // The same logits behind three columns of another level's: the codes begin at column 3, the sum runs over all.
  std::vector<float> wide;
  for (int b = 0; b < 4; ++b) {
    wide.insert(wide.end(), {8, -1, 2});
    wide.insert(wide.end(), values.begin() + 4 * b, values.begin() + 4 * b + 4);
  }
  SelectBeams(ctx_, {.logits = UploadFloats(ctx_, wide, {4, 1, 7}),
                     .level = 0,
                     .first_code = 3,
                     .requests = absl::MakeSpan(requests)});
  ASSERT_EQ(slots[0].view.count, 2);
  EXPECT_EQ(slots[0].code[0], 2);
  EXPECT_EQ(slots[0].code[1], 3);
  const double whole = std::log(std::exp(normaliser) + std::exp(8.0) + std::exp(-1.0) + std::exp(2.0));
  EXPECT_NEAR(slots[0].score[0], 3 - whole, 1e-5);
}

TEST(ContextTest, UnknownDevicesAndDtypesAreRefused) {
  EXPECT_FALSE(MakeContext("tpu", "fp32").ok());
  EXPECT_FALSE(MakeContext("meta", "fp32").ok());
  EXPECT_FALSE(MakeContext("cpu", "fp64").ok());
}

}  // namespace
}  // namespace beamline::backend
