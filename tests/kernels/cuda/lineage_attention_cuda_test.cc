// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/lineage_attention_cuda.h"

#include <numeric>

#include "kernels/cuda/device.h"
#include "kernels/cuda/drawn_shapes.h"

namespace beamline::kernels {
namespace {

struct Problem {
  DataType type = DataType::kFloat32;
  int heads = 2, key_value_heads = 2, head_dim = 64, step = 2;
  bool with_bias = false;
  bool dense = false;                                          // by rows_each
  std::vector<int32_t> slots = {5, 1, 11}, count = {5, 0, 9};  // of each request, unless dense
  int furthest = kMaxSteps;                                    // distance of a step that the bias leaves visible
};

class LineageAttentionGpu : public GpuTest {
 protected:
  static void Check(const Problem& p);
};

void LineageAttentionGpu::Check(const Problem& p) {
  std::mt19937 random(p.step * 100 + p.head_dim);
  const std::vector<int32_t>& count = p.count;
  const int requests = static_cast<int>(count.size());
  std::vector<int32_t> begin(requests + 1, 0), request_of;  // of each row; behind the last slot is a row of nobody's
  std::partial_sum(p.slots.begin(), p.slots.end(), begin.begin() + 1);
  for (int b = 0; b < requests; ++b) request_of.insert(request_of.end(), p.slots[b], b);
  request_of.push_back(requests);
  const auto rows_each = [](int s) { return 2 + s; };
  const int capacity = p.dense ? requests * rows_each(p.step) : begin.back() + 1,
            rows = p.step == 0 && !p.dense ? requests : capacity;
  const int width = p.heads * p.head_dim, key_width = p.key_value_heads * p.head_dim;
  const int query_step = width + 2 * key_width, key_step = query_step;
  // As the fused product leaves them: queries, keys and values side by side, one matrix per step.
  std::vector<TypedBuffer> qkv;
  for (int s = 0; s <= p.step; ++s) {
    const int of_step = p.dense ? requests * rows_each(s) : s == 0 ? requests : capacity;
    qkv.emplace_back(p.type, Normal(random, static_cast<size_t>(of_step) * query_step));
  }
  std::vector<int32_t> lineage(static_cast<size_t>(std::max(1, p.step)) * capacity, 0);
  for (int s = 0; s < p.step && p.dense; ++s) {
    for (int row = 0; row < capacity; ++row) lineage[s * capacity + row] = random() % rows_each(s);
  }
  for (int s = 1; s < p.step && !p.dense; ++s) {
    for (int b = 0; b < requests; ++b) {
      for (int r = begin[b]; r < begin[b + 1]; ++r) lineage[s * capacity + r] = random() % (begin[b + 1] - begin[b]);
    }
  }
  std::vector<float> bias = Normal(random, static_cast<size_t>(p.heads) * kMaxSteps);
  for (size_t i = 0; i < bias.size(); ++i) {
    if (static_cast<int>(i % kMaxSteps) > p.furthest) bias[i] = -INFINITY;
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(p.head_dim));

  const DeviceBuffer<int32_t> begin_d(begin), count_d(count), lineage_d(lineage);
  const DeviceBuffer<float> bias_d(bias);
  TypedBuffer out(p.type, static_cast<size_t>(rows) * width);
  LineageAttentionBatch batch;
  batch.type = p.type;
  batch.heads = p.heads;
  batch.key_value_heads = p.key_value_heads;
  batch.head_dim = p.head_dim;
  batch.scale = scale;
  batch.step = p.step;
  batch.requests = requests;
  batch.rows = capacity;
  for (int s = 0; s <= p.step && p.dense; ++s) batch.rows_each[s] = rows_each(s);
  if (!p.dense) batch.row_begin = begin_d.data();
  if (!p.dense) batch.row_count = count_d.data();
  batch.lineage = lineage_d.data();
  batch.query = qkv[p.step].data();
  batch.query_step = query_step;
  for (int s = 0; s <= p.step; ++s) {
    batch.key[s] = qkv[s].at(width);
    batch.value[s] = qkv[s].at(width + key_width);
  }
  batch.key_value_step = key_step;
  batch.bias = p.with_bias ? bias_d.data() : nullptr;
  batch.out = out.data();
  batch.out_step = width;
  ASSERT_EQ(LineageAttentionCuda(batch, nullptr), LaunchError::kOk);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<float> actual = out.Download();

  Reference reference;
  std::vector<float> computed;
  for (int row = 0; row < rows; ++row) {
    const int b = p.dense ? row / rows_each(p.step) : p.step > 0 ? request_of[row] : row;
    const bool active = p.step == 0 || p.dense || (b < requests && row - begin[b] < count[b]);
    for (int h = 0; h < p.heads; ++h) {
      const size_t at = static_cast<size_t>(row) * width + h * p.head_dim;
      if (!active) {
        EXPECT_TRUE(MayBeUnwritten(actual[at])) << "row " << row << " was written";
        continue;
      }
      const float* q = qkv[p.step].host.data() + static_cast<size_t>(row) * query_step + h * p.head_dim;
      const size_t key_at = width + static_cast<size_t>(h / (p.heads / p.key_value_heads)) * p.head_dim;
      std::vector<double> sum(p.head_dim, 0);
      double total = 0, largest = 0, products = 0;
      for (int s = 0; s <= p.step; ++s) {
        const int first = p.dense ? b * rows_each(s) : s == 0 ? b : begin[b];
        const int key_row = s == p.step ? row : first + lineage[s * capacity + row];
        const float* key = qkv[s].host.data() + static_cast<size_t>(key_row) * key_step + key_at;
        double dot = 0, size = 0;
        for (int d = 0; d < p.head_dim; ++d) {
          dot += double{q[d]} * key[d];
          size += std::abs(double{q[d]} * key[d]);
          largest = std::max<double>(largest, std::abs(key[key_width + d]));
        }
        products = std::max(products, size * scale);
        const double weight = std::exp(dot * scale + (p.with_bias ? bias[h * kMaxSteps + p.step - s] : 0));
        total += weight;
        for (int d = 0; d < p.head_dim; ++d) sum[d] += weight * key[key_width + d];
      }
      const double fp32 = Epsilon(DataType::kFloat32);
      for (int d = 0; d < p.head_dim; ++d) {
        reference.Add(sum[d] / total, largest * (Epsilon(p.type) + fp32 * (p.step + 16) +
                                                 2 * fp32 * (p.head_dim + 8) * (products + 4)));
        computed.push_back(actual[at + d]);
      }
    }
  }
  EXPECT_EQ(reference.Wrong(computed), "") << Name(p.type) << " head_dim " << p.head_dim << " step " << p.step;
}

TEST_F(LineageAttentionGpu, EqualsTheReference) {
  for (DataType type : {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16}) {
    for (int step : {0, 1, 2, 3, 7}) {
      Check({.type = type, .step = step});
      Check({.type = type, .step = step, .dense = true});
    }
    for (int head_dim : {8, 16, 40, 96, 128, 200, 256}) Check({.type = type, .head_dim = head_dim});
    Check({.type = type, .heads = 6, .key_value_heads = 2, .head_dim = 32, .step = 3, .with_bias = true});
    for (int furthest : {0, 2}) {  // steps that are loaded together and are all hidden come before what is seen
      for (int head_dim : {64, 256}) {
        Check({.type = type, .head_dim = head_dim, .step = kMaxSteps - 1, .with_bias = true, .furthest = furthest});
      }
    }
  }
}

TEST_F(LineageAttentionGpu, DrawnShapes) {
  ForDrawnShapes([](Draw& draw) {
    Problem p{.type = draw.Type(),
              .key_value_heads = draw.Size(3),
              .head_dim = draw.Eights(256),
              .step = draw.Below(kMaxSteps),
              .with_bias = draw.Coin(),
              .dense = draw.Coin(),
              .furthest = draw.Below(kMaxSteps + 1)};
    p.heads = p.key_value_heads * draw.Size(4);
    p.slots.clear(), p.count.clear();
    for (int requests = draw.Size(8); requests > 0; --requests) {
      p.slots.push_back(draw.Size(90));
      p.count.push_back(draw.Coin() ? p.slots.back() : draw.Below(p.slots.back() + 1));
    }
    Check(p);
  });
}

TEST(LineageAttentionCudaArguments, AreChecked) {
  static char memory[64] __attribute__((aligned(16)));
  LineageAttentionBatch good;
  good.head_dim = 32;
  good.step = 1;
  good.requests = 1;
  good.rows = 4;
  good.query = good.out = memory;
  good.key[0] = good.key[1] = good.value[0] = good.value[1] = memory;
  good.row_begin = good.row_count = good.lineage = reinterpret_cast<const int32_t*>(memory);
  good.query_step = good.out_step = good.key_value_step = 32;
  const auto refused = [&](auto change) {
    LineageAttentionBatch batch = good;
    change(batch);
    return LineageAttentionCuda(batch, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.heads = 0; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& a) { Misalign(a.row_begin); }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& a) { Misalign(a.row_count); }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& a) { Misalign(a.lineage); }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& a) { Misalign(a.bias); }));
  const auto with_heads = [](LineageAttentionBatch& b, int32_t heads) {
    b.heads = heads;
    b.query_step = b.out_step = int64_t{heads} * b.head_dim;
  };
  EXPECT_TRUE(refused([&](LineageAttentionBatch& b) { with_heads(b, 65536); }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.requests = b.rows = 65536; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.rows = (1 << 26) + 1; }));
  EXPECT_TRUE(refused([&](LineageAttentionBatch& b) {  // 2^35 rows of heads
    with_heads(b, 1 << 10);
    b.rows = 1 << 25;
  }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.key_value_heads = 3; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.head_dim = 12; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.step = -1; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.step = kMaxSteps; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.rows = 0; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.query_step = 24; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.key_value_step = 34; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.value[1] = nullptr; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.key[0] = memory + 4; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.lineage = nullptr; }));
  EXPECT_TRUE(refused([](LineageAttentionBatch& b) { b.type = static_cast<DataType>(-1); }));
  if (!WhyNoGpu().empty()) EXPECT_EQ(LineageAttentionCuda(good, nullptr), LaunchError::kCuda);
}

}  // namespace
}  // namespace beamline::kernels
