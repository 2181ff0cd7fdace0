// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/ranker_cuda.h"

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/drawn_shapes.h"

namespace beamline::kernels {
namespace {

constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16};

class RankerGpu : public GpuTest {};

constexpr float kScoreWeight = 0.75f;

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Shape {
  int requests, slots, rows, width, heads, codes;
};

// A batch with candidates of its own for every request: the first has all its slots, the last has none.
struct Batch {
  Batch(DataType type, const Shape& s, uint32_t seed)
      : random(seed),
        shape(s),
        states(type, Values(s.requests * s.rows, s.width)),
        code_table(type, Values(s.codes, s.width)),
        head(type, Values(s.heads, s.width)),
        bias(type, Values(1, s.heads)),
        values(static_cast<size_t>(s.requests) * s.slots) {
    for (int b = 0; b < s.requests; ++b) {
      count.push_back(b == 0 ? s.slots : b + 1 == s.requests ? 0 : static_cast<int>(random() % (s.slots + 1)));
      for (int i = 0; i < s.slots; ++i) {
        parent.push_back(static_cast<int>(random() % s.rows));
        code.push_back(static_cast<uint16_t>(random() % s.codes));
        score.push_back(-static_cast<float>(random() % 4096) / 256);
      }
    }
    for (int h = 0; h < s.heads; ++h) weight.push_back(static_cast<float>(h % 2 == 0 ? 1 + h : -0.5 * h));
  }

  std::vector<float> Values(int rows, int columns) {
    std::normal_distribution<float> normal(0, 0.7f);
    std::vector<float> drawn(static_cast<size_t>(rows) * columns);
    for (float& one : drawn) one = normal(random);
    return drawn;
  }

  RankBatch Args() {
    count_d = DeviceBuffer<int32_t>(count);
    parent_d = DeviceBuffer<int32_t>(parent);
    code_d = DeviceBuffer<uint16_t>(code);
    score_d = DeviceBuffer<float>(score);
    RankBatch args{.type = states.type,
                   .requests = shape.requests,
                   .slots = shape.slots,
                   .rows = shape.rows,
                   .width = shape.width,
                   .heads = shape.heads,
                   .code_rows = shape.codes,
                   .states = states.data(),
                   .code_table = code_table.data(),
                   .head = head.data(),
                   .bias = bias.data(),
                   .score_weight = kScoreWeight,
                   .count = count_d.data(),
                   .parent = parent_d.data(),
                   .code = code_d.data(),
                   .score = score_d.data(),
                   .value = values.data()};
    std::copy(weight.begin(), weight.end(), args.weight);
    return args;
  }

  void AddTo(Reference& reference) const {
    for (int b = 0; b < shape.requests; ++b) {
      for (int i = 0; i < shape.slots; ++i) {
        if (i >= count[b]) {
          reference.Add(0, 0x1p-60);
          continue;
        }
        const int slot = b * shape.slots + i;
        const int row = parent[slot] >= 0 && parent[slot] < shape.rows ? parent[slot] : 0;
        const int known = code[slot] < shape.codes ? code[slot] : 0;
        double value = double{kScoreWeight} * score[slot], allowed = 0x1p-24 * 4 * std::abs(value);
        for (int h = 0; h < shape.heads; ++h) {
          double logit = bias.host[h], size = std::abs(logit);
          for (int j = 0; j < shape.width; ++j) {
            const double x = double{states.host[(b * shape.rows + row) * shape.width + j]} +
                             code_table.host[known * shape.width + j];
            const double term = x * Sigmoid(x) * head.host[h * shape.width + j];
            logit += term;
            size += std::abs(term);
          }
          value += weight[h] * Sigmoid(logit);
          // A sum's rounding, through a slope of at most a quarter; sigmoids and the weighted sum are a few roundings.
          allowed += std::abs(weight[h]) * 0x1p-24 * (size * (shape.width + 16) / 4 + 16);
        }
        reference.Add(value, allowed);
      }
    }
  }

  std::mt19937 random;
  Shape shape;
  TypedBuffer states, code_table, head, bias;
  std::vector<int32_t> count, parent;
  std::vector<uint16_t> code;
  std::vector<float> weight, score;
  DeviceBuffer<int32_t> count_d, parent_d;
  DeviceBuffer<uint16_t> code_d;
  DeviceBuffer<float> score_d, values;
};

void CheckShape(DataType type, const Shape& shape) {
  Batch batch(type, shape, shape.width);
  ASSERT_EQ(RankCandidatesCuda(batch.Args(), nullptr), LaunchError::kOk);
  Reference reference;
  batch.AddTo(reference);
  EXPECT_EQ(reference.Wrong(batch.values.Download()), "")
      << Name(type) << ", " << shape.requests << " requests, " << shape.slots << " slots, " << shape.rows
      << " rows, width " << shape.width << ", " << shape.heads << " heads, " << shape.codes << " codes";
}

TEST_F(RankerGpu, AgainstDoublePrecision) {
  std::vector<Shape> shapes = {
      {1, 1, 1, 8, 1, 1}, {3, 5, 4, 24, 2, 7}, {2, 33, 17, 256, 8, 100}, {2, 9, 9, 264, 3, 65535}};
  if (!SmallShapesOnly()) shapes.push_back({8, 512, 512, 256, 4, 8192}), shapes.push_back({1, 512, 512, 4096, 8, 8192});
  for (const DataType type : kTypes) {
    for (const Shape& shape : shapes) CheckShape(type, shape);
  }
}

TEST_F(RankerGpu, DrawnShapes) {
  ForDrawnShapes([](Draw& draw) {
    const DataType type = draw.Type();
    CheckShape(type, {.requests = draw.Size(5),
                      .slots = draw.Size(100),
                      .rows = draw.Size(60),
                      .width = draw.Eights(600),
                      .heads = draw.Size(kMaxRankerHeads),
                      .codes = draw.Size(300)});
  });
}

// What a search of nonsense would leave: nothing outside of the tables is read.
TEST_F(RankerGpu, ParentsAndCodesOutsideOfTheirTablesCountAsZero) {
  Batch batch(DataType::kFloat32, {1, 4, 3, 16, 2, 5}, 1);
  batch.count = {100};  // more than there are slots
  batch.parent = {-1, 3, 2, 0x7fffffff};
  batch.code = {4, 5, 65535, 0};
  ASSERT_EQ(RankCandidatesCuda(batch.Args(), nullptr), LaunchError::kOk);
  Reference reference;
  batch.AddTo(reference);
  EXPECT_EQ(reference.Wrong(batch.values.Download()), "");
}

// The same candidate has the same bits wherever it stands.
TEST_F(RankerGpu, CompanyChangesNothing) {
  for (const DataType type : kTypes) {
    Batch batch(type, {2, 30, 6, 520, 3, 9}, 5);
    std::fill(batch.count.begin(), batch.count.end(), 30);
    std::fill(batch.parent.begin(), batch.parent.begin() + 30, 4);
    std::fill(batch.code.begin(), batch.code.begin() + 30, uint16_t{7});
    std::fill(batch.score.begin(), batch.score.begin() + 30, -3.7f);
    ASSERT_EQ(RankCandidatesCuda(batch.Args(), nullptr), LaunchError::kOk);
    const std::vector<float> values = batch.values.Download();
    for (int i = 1; i < 30; ++i) EXPECT_EQ(values[i], values[0]) << Name(type);
    // The second request alone, in a launch of its own.
    RankBatch args = batch.Args();
    const DeviceBuffer<float> own(30);
    args.requests = 1;
    args.states = batch.states.at(6 * 520);
    args.count += 1, args.parent += 30, args.code += 30, args.score += 30;
    args.value = own.data();
    ASSERT_EQ(RankCandidatesCuda(args, nullptr), LaunchError::kOk);
    EXPECT_EQ(own.Download(), std::vector<float>(values.begin() + 30, values.end())) << Name(type);
  }
}

// A candidate whose state is not a number has a value that is none, and its neighbours have theirs.
TEST_F(RankerGpu, ANanStaysWithItsCandidate) {
  Batch batch(DataType::kFloat32, {1, 3, 3, 8, 2, 2}, 3);
  batch.parent = {0, 1, 2};
  std::vector<float> states = batch.states.host;
  states[8 + 5] = NAN;
  batch.states = TypedBuffer(DataType::kFloat32, states);
  ASSERT_EQ(RankCandidatesCuda(batch.Args(), nullptr), LaunchError::kOk);
  const std::vector<float> values = batch.values.Download();
  EXPECT_TRUE(std::isfinite(values[0]) && std::isnan(values[1]) && std::isfinite(values[2]));
}

TEST_F(RankerGpu, RefusesWhatItCannotDo) {
  Batch batch(DataType::kBFloat16, {2, 4, 4, 16, 2, 5}, 1);
  const RankBatch good = batch.Args();
  ASSERT_EQ(RankCandidatesCuda(good, nullptr), LaunchError::kOk);
  const auto refused = [&](auto change) {
    RankBatch bad = good;
    change(bad);
    EXPECT_EQ(RankCandidatesCuda(bad, nullptr), LaunchError::kInvalidArgument);
  };
  refused([](RankBatch& a) { Misalign(a.bias); });
  refused([](RankBatch& a) { Misalign(a.count); });
  refused([](RankBatch& a) { Misalign(a.parent); });
  refused([](RankBatch& a) { Misalign(a.code); });
  refused([](RankBatch& a) { Misalign(a.score); });
  refused([](RankBatch& a) { Misalign(a.value); });
  refused([](RankBatch& b) { b.requests = 0; });
  refused([](RankBatch& b) { b.slots = 0; });
  refused([](RankBatch& b) { b.slots = 1 << 26; });
  refused([](RankBatch& b) { b.rows = 0; });
  refused([](RankBatch& b) { b.rows = (1 << 25) + 1; });
  refused([](RankBatch& b) { b.width = 0; });
  refused([](RankBatch& b) { b.width = 12; });
  refused([](RankBatch& b) { b.width = kMaxRankerWidth + 8; });
  refused([](RankBatch& b) { b.heads = 0; });
  refused([](RankBatch& b) { b.heads = kMaxRankerHeads + 1; });
  refused([](RankBatch& b) { b.code_rows = 0; });
  refused([](RankBatch& b) { b.type = DataType::kE4M3; });
  refused([](RankBatch& b) { b.states = nullptr; });
  refused([](RankBatch& b) { b.states = static_cast<const char*>(b.states) + 2; });
  refused([](RankBatch& b) { b.code_table = nullptr; });
  refused([](RankBatch& b) { b.head = static_cast<const char*>(b.head) + 8; });
  refused([](RankBatch& b) { b.bias = nullptr; });
  refused([](RankBatch& b) { b.count = nullptr; });
  refused([](RankBatch& b) { b.parent = nullptr; });
  refused([](RankBatch& b) { b.code = nullptr; });
  refused([](RankBatch& b) { b.score = nullptr; });
  refused([](RankBatch& b) { b.value = nullptr; });
}

}  // namespace
}  // namespace beamline::kernels
