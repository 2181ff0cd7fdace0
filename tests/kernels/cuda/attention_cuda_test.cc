// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/attention_cuda.h"

#include <algorithm>
#include <numeric>

#include "beamline/kernels/warpgroups_cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/drawn_shapes.h"

namespace beamline::kernels {
namespace {

// A batch of requests: queries and keys packed, with a gap of one unused row between requests.
struct Problem {
  DataType type = DataType::kFloat32;
  int heads = 1, key_value_heads = 1, head_dim = 64;
  std::vector<int32_t> queries, keys;  // per request
  bool self = false;                   // keys are the queries' rows: an encoder
  bool same_value = false;             // K = V
  bool ordered = false;                // key_order and query_limit
  int narrow_row = -1;                 // with `ordered`: the query that sees keys 0 to 3, where others see 0 to 100
  int reach = -1;                      // of a relative bias; -1: none
  int bad_query = -1, bad_key = -1;    // a row of the first request that is NaN
  bool warpgroups = false;
  uint32_t seed = 1;
};

class AttentionRun {
 public:
  // Every matrix has its own random numbers: what comes first in two batches of a seed is the same in both.
  explicit AttentionRun(const Problem& problem) : p_(problem) {
    const int32_t query_rows = Pack(p_.queries, &query_begin_), key_rows = Pack(p_.keys, &key_begin_);
    query_step_ = p_.heads * p_.head_dim + 8;
    key_step_ = 2 * p_.key_value_heads * p_.head_dim + 16;
    std::mt19937 of_queries(p_.seed), of_keys(p_.seed + 1), of_orders(p_.seed + 2), of_limits(p_.seed + 3),
        of_bias(p_.seed + 4);
    query_ = {p_.type,
              WithNan(Normal(of_queries, static_cast<size_t>(query_rows) * query_step_), query_step_, p_.bad_query)};
    key_value_ = {p_.type, WithNan(Normal(of_keys, static_cast<size_t>(key_rows) * key_step_), key_step_, p_.bad_key)};
    for (int i = 0; i < key_rows; ++i) order_.push_back(static_cast<int32_t>(of_orders() % 20) - 1);
    for (int i = 0; i < query_rows; ++i) limit_.push_back(static_cast<int32_t>(of_limits() % 24) - 2);
    if (p_.narrow_row >= 0) {
      std::iota(order_.begin(), order_.end(), 0);
      limit_.assign(limit_.size(), 100);
      limit_[p_.narrow_row] = 3;
    }
    bias_ = Normal(of_bias, p_.reach < 0 ? 0 : static_cast<size_t>(p_.heads) * (2 * p_.reach + 1));
    scale_ = 1.0f / std::sqrt(static_cast<float>(p_.head_dim));
    rows_ = query_rows;
  }

  // The output rows of the requests in order, [queries, heads * head_dim] each; unused rows must stay unwritten.
  std::vector<float> OnDevice() {
    const DeviceBuffer<int32_t> query_begin(query_begin_), query_count(p_.queries), key_begin(key_begin_),
        key_count(p_.keys), order(order_), limit(limit_);
    const DeviceBuffer<float> bias(bias_);
    TypedBuffer out(p_.type, static_cast<size_t>(rows_) * query_step_);
    AttentionBatch batch;
    batch.type = p_.type;
    batch.heads = p_.heads;
    batch.key_value_heads = p_.key_value_heads;
    batch.head_dim = p_.head_dim;
    batch.scale = scale_;
    batch.query = query_.data();
    batch.query_step = batch.out_step = query_step_;
    batch.key = key_value_.data();
    batch.value = p_.same_value ? key_value_.data() : key_value_.at(p_.key_value_heads * p_.head_dim);
    batch.key_value_step = key_step_;
    batch.out = out.data();
    batch.requests = static_cast<int32_t>(p_.queries.size());
    batch.max_queries = std::max(1, *std::max_element(p_.queries.begin(), p_.queries.end()));
    batch.query_begin = query_begin.data();
    batch.query_count = query_count.data();
    batch.key_begin = key_begin.data();
    batch.key_count = key_count.data();
    batch.key_order = p_.ordered ? order.data() : nullptr;
    batch.query_limit = p_.ordered ? limit.data() : nullptr;
    batch.relative_bias = p_.reach < 0 ? nullptr : bias.data();
    batch.reach = std::max(0, p_.reach);
    batch.warpgroups = p_.warpgroups;
    EXPECT_EQ(AttentionPrepare(), LaunchError::kOk);
    EXPECT_NE(PrepareWarpgroups(), LaunchError::kCuda);
    EXPECT_EQ(AttentionCuda(batch, nullptr), LaunchError::kOk);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
#if defined(BEAMLINE_EMULATED)
    if (p_.warpgroups && p_.type != DataType::kFloat32) {
      EXPECT_FALSE(emulator::copied_after_admitting) << "the next kernel would come too early";
      const auto [fewest, most] = std::minmax_element(p_.queries.begin(), p_.queries.end());
      const int32_t fewest_keys = *std::min_element(p_.keys.begin(), p_.keys.end());
      if (*fewest == *most && *fewest > 0 && fewest_keys > 0) {  // no block without work
        EXPECT_TRUE(emulator::all_admitted) << "the next kernel would come at its end";
      }
    }
#endif
    const std::vector<float> all = out.Download();
    std::vector<float> rows;
    std::vector<bool> used(rows_, false);
    for (size_t b = 0; b < p_.queries.size(); ++b) {
      for (int32_t i = 0; i < p_.queries[b]; ++i) {
        const size_t row = query_begin_[b] + i;
        used[row] = true;
        rows.insert(rows.end(), all.begin() + row * query_step_, all.begin() + row * query_step_ + Width());
        for (size_t j = row * query_step_ + Width(); j < (row + 1) * query_step_; ++j)
          EXPECT_TRUE(MayBeUnwritten(all[j]));
      }
    }
    for (int32_t row = 0; row < rows_; ++row) {
      if (!used[row]) EXPECT_TRUE(MayBeUnwritten(all[static_cast<size_t>(row) * query_step_])) << "row " << row;
    }
    return rows;
  }

  // In double. Tolerance, with e the rounding of the type, v the largest |value| and s the largest sum of |q k| scale:
  // probabilities and the result are rounded to the type (2 e v), a score is off by its dot product's rounding, which
  // changes the result by at most twice that times v, and sums of n terms in fp32 by n units.
  Reference Expected() const {
    Reference reference;
    for (size_t b = 0; b < p_.queries.size(); ++b) {
      for (int32_t i = 0; i < p_.queries[b]; ++i) {
        for (int h = 0; h < p_.heads; ++h) Row(b, i, h, &reference);
      }
    }
    return reference;
  }

 private:
  size_t Width() const { return static_cast<size_t>(p_.heads) * p_.head_dim; }

  static int32_t Pack(const std::vector<int32_t>& counts, std::vector<int32_t>* begin) {
    int32_t rows = 0;
    for (int32_t count : counts) {
      begin->push_back(rows);
      rows += count + 1;
    }
    return rows;
  }

  static std::vector<float> WithNan(std::vector<float> rows, int64_t step, int row) {
    if (row >= 0) std::fill_n(rows.begin() + row * step, step, NAN);
    return rows;
  }

  void Row(size_t b, int32_t i, int h, Reference* reference) const {
    const int32_t row = query_begin_[b] + i;
    const float* q = query_.host.data() + static_cast<size_t>(row) * query_step_ + h * p_.head_dim;
    const size_t key_at = static_cast<size_t>(h / (p_.heads / p_.key_value_heads)) * p_.head_dim;
    const size_t value_at = key_at + (p_.same_value ? 0 : static_cast<size_t>(p_.key_value_heads) * p_.head_dim);
    std::vector<double> out(p_.head_dim, 0);
    double sum = 0, largest = 0, products = 0, max = -INFINITY;
    std::vector<double> scores;
    for (int32_t j = 0; j < p_.keys[b]; ++j) {
      const size_t key = static_cast<size_t>(key_begin_[b] + j) * key_step_;
      double dot = 0, size = 0;
      for (int d = 0; d < p_.head_dim; ++d) {
        const double product = double{q[d]} * key_value_.host[key + key_at + d];
        dot += product;
        size += std::abs(product);
        largest = std::max<double>(largest, std::abs(key_value_.host[key + value_at + d]));
      }
      products = std::max(products, size * scale_);
      double score = dot * scale_;
      if (p_.reach >= 0) score += bias_[h * (2 * p_.reach + 1) + p_.reach + std::clamp(j - i, -p_.reach, p_.reach)];
      if (p_.ordered && order_[key_begin_[b] + j] > limit_[row]) score = -INFINITY;
      scores.push_back(score);
      max = std::max(max, score);
    }
    for (int32_t j = 0; j < p_.keys[b]; ++j) {
      if (scores[j] == -INFINITY) continue;
      const double weight = std::exp(scores[j] - max);
      sum += weight;
      const size_t key = static_cast<size_t>(key_begin_[b] + j) * key_step_;
      for (int d = 0; d < p_.head_dim; ++d) out[d] += weight * key_value_.host[key + value_at + d];
    }
    const double fp32 = Epsilon(DataType::kFloat32);
    const double tolerance =
        largest * (2 * Epsilon(p_.type) + fp32 * (p_.keys[b] + 16) + 2 * fp32 * (p_.head_dim + 16) * (products + 4));
    for (double x : out) reference->Add(sum > 0 ? x / sum : 0, tolerance + 1e-30);
  }

  const Problem p_;
  std::vector<int32_t> query_begin_, key_begin_, order_, limit_;
  int32_t rows_ = 0;
  int64_t query_step_ = 0, key_step_ = 0;
  float scale_ = 1;
  TypedBuffer query_, key_value_;
  std::vector<float> bias_;
};

// By wgmma, where it is to be had, and without.
class AttentionGpu : public GpuTest, public testing::WithParamInterface<bool> {
 protected:
  static void Check(Problem problem) {
    problem.warpgroups = GetParam();
    AttentionRun run(problem);
    const std::vector<float> actual = run.OnDevice();
    EXPECT_EQ(run.Expected().Wrong(actual), "")
        << Name(problem.type) << " head_dim " << problem.head_dim << " heads " << problem.heads << "/"
        << problem.key_value_heads << " queries " << testing::PrintToString(problem.queries) << " keys "
        << testing::PrintToString(problem.keys) << " reach " << problem.reach << " ordered " << problem.ordered;
  }
};

constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16};

TEST_P(AttentionGpu, EveryHeadSize) {
  for (DataType type : kTypes) {
    for (int head_dim : {8, 16, 32, 64, 96, 128, 200, 256}) {
      Check(
          {.type = type, .heads = 2, .key_value_heads = 2, .head_dim = head_dim, .queries = {3, 66}, .keys = {70, 5}});
    }
  }
}

TEST_P(AttentionGpu, DrawnShapes) {
  const int longest = SmallShapesOnly() ? 150 : 600;
  ForDrawnShapes([&](Draw& draw) {
    Problem p{.type = draw.Type(),
              .key_value_heads = draw.Size(3),
              .head_dim = draw.Eights(256),
              .same_value = draw.Coin(),
              .ordered = draw.Coin(),
              .reach = draw.Coin() ? -1 : draw.Below(140),
              .seed = draw.Seed()};
    p.heads = p.key_value_heads * draw.Size(3);
    for (int requests = draw.Size(6); requests > 0; --requests) {
      p.queries.push_back(draw.Below(6) == 0 ? 0 : draw.Size(longest));
      p.keys.push_back(draw.Below(6) == 0 ? 0 : draw.Size(2 * longest));
    }
    Check(p);
  });
}

TEST_P(AttentionGpu, LengthsFromNothingToMany) {
  for (DataType type : kTypes) {
    Check({.type = type, .head_dim = 64, .queries = {1, 0, 17, 64, 65, 2}, .keys = {1, 9, 0, 63, 64, 129}});
  }
  for (DataType type : kTypes) {  // as many keys as make a pipeline begin anew
    Check({.type = type, .head_dim = 32, .queries = {130, 2}, .keys = {400, 650}});
  }
  if (SmallShapesOnly()) return;
  for (DataType type : kTypes) {
    Check(
        {.type = type, .heads = 3, .key_value_heads = 3, .head_dim = 128, .queries = {512, 511}, .keys = {2000, 513}});
  }
}

TEST_P(AttentionGpu, GroupedHeadsAndSharedKeysAndValues) {
  for (DataType type : kTypes) {
    for (bool same : {false, true}) {
      Check({.type = type,
             .heads = 6,
             .key_value_heads = 2,
             .head_dim = 32,
             .queries = {20},
             .keys = {77},
             .same_value = same});
    }
  }
}

TEST_P(AttentionGpu, OrderHidesKeys) {
  for (DataType type : kTypes) {
    for (int head_dim : {24, 64}) {
      Check({.type = type,
             .heads = 2,
             .key_value_heads = 1,
             .head_dim = head_dim,
             .queries = {30, 5},
             .keys = {130, 40},
             .ordered = true});
    }
  }
}

// Whether anything is hidden is asked for many rows at once; and of the last keys everything is.
TEST_P(AttentionGpu, OneRowOfManySeesLess) {
  for (const int row : {0, 8, 31, 47, 63, 64, 72}) {
    Check({.type = DataType::kBFloat16,
           .head_dim = 32,
           .queries = {80},
           .keys = {200},
           .ordered = true,
           .narrow_row = row});
  }
}

TEST_P(AttentionGpu, RelativeBias) {
  for (DataType type : kTypes) {
    for (int reach : {0, 5, 128}) {
      Check({.type = type,
             .heads = 2,
             .key_value_heads = 2,
             .head_dim = 64,
             .queries = {40, 70},
             .keys = {40, 70},
             .self = true,
             .reach = reach});
    }
  }
}

// A NaN is not taken for a key that is hidden: it reaches the rows that see it, which are all NaN, and no others.
TEST_P(AttentionGpu, NanReachesWhoSeesIt) {
  for (const DataType type : kTypes) {
    for (const int head_dim : {40, 64}) {
      const Problem good{.type = type,
                         .heads = 2,
                         .key_value_heads = 2,
                         .head_dim = head_dim,
                         .queries = {3, 2},
                         .keys = {1, 40},
                         .warpgroups = GetParam()};
      const size_t width = 2 * static_cast<size_t>(head_dim);
      const std::vector<float> expected = AttentionRun(good).OnDevice();
      const auto nan_rows = [&](Problem problem) {
        const std::vector<float> actual = AttentionRun(problem).OnDevice();
        std::vector<int> rows;
        for (size_t i = 0; i < actual.size(); ++i) {
          if (std::isnan(actual[i])) {
            if (i % width == 0) rows.push_back(static_cast<int>(i / width));
          } else {
            EXPECT_EQ(actual[i], expected[i]);
          }
        }
        for (const int row : rows) {
          EXPECT_TRUE(std::all_of(actual.begin() + row * width, actual.begin() + (row + 1) * width,
                                  [](float x) { return std::isnan(x); }));
        }
        return rows;
      };
      Problem bad = good;
      bad.bad_query = 1;
      EXPECT_EQ(nan_rows(bad), std::vector<int>{1}) << Name(type) << " " << head_dim;
      bad = good;
      bad.bad_key = 0;
      EXPECT_EQ(nan_rows(bad), (std::vector<int>{0, 1, 2})) << Name(type) << " " << head_dim;
    }
  }
}

// The same request alone, and between others: equal bits.
TEST_P(AttentionGpu, CompanyChangesNothing) {
  int device = 0, multiprocessors = 0;
  ASSERT_EQ(cudaGetDevice(&device), cudaSuccess);
  ASSERT_EQ(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), cudaSuccess);
  for (DataType type : kTypes) {
    const auto rows = [&](std::vector<int32_t> queries, std::vector<int32_t> keys) {
      return AttentionRun({.type = type,
                           .head_dim = 64,
                           .queries = std::move(queries),
                           .keys = std::move(keys),
                           .ordered = true,
                           .reach = 5,
                           .warpgroups = GetParam()})
          .OnDevice();
    };
    const std::vector<float> alone = rows({70}, {330});
    std::vector<int32_t> many_queries(multiprocessors + 1, 1),
        many_keys(multiprocessors + 1, 2);  // blocks of two warpgroups there, of one alone
    many_queries[0] = 70;
    many_keys[0] = 330;
    for (const std::vector<float>& in_company :
         {rows({70, 7, 128}, {330, 200, 3}), rows({70, 7, 128}, {330, 1, 190}), rows(many_queries, many_keys)}) {
      ASSERT_TRUE(std::equal(alone.begin(), alone.end(), in_company.begin()))
          << Name(type) << " " << in_company.size() / 64 << " rows";
    }
  }
}

// A request of so many query rows, without begins and counts.
std::vector<float> OneRequest(DataType type, int head_dim, int keys, bool with_bias, bool ordered, int first,
                              int queries, bool warpgroups) {
  constexpr int kRows = 70, kReach = 20;
  std::mt19937 random(keys);
  const TypedBuffer query(type, Normal(random, size_t{kRows} * head_dim)),
      key_value(type, Normal(random, size_t{2} * keys * head_dim));
  const DeviceBuffer<float> bias(Normal(random, 2 * kReach + 1));
  std::vector<int32_t> order(keys), limit(kRows);
  for (int32_t& of_key : order) of_key = static_cast<int32_t>(random() % 20);
  for (int32_t& of_row : limit) of_row = static_cast<int32_t>(random() % 24);
  const DeviceBuffer<int32_t> orders(order), limits(limit);
  TypedBuffer out(type, static_cast<size_t>(queries) * head_dim);
  AttentionBatch batch;
  batch.type = type;
  batch.head_dim = head_dim;
  batch.scale = 0.25f;
  batch.query = query.at(static_cast<size_t>(first) * head_dim);
  batch.key = key_value.data();
  batch.value = key_value.at(head_dim);
  batch.out = out.data();
  batch.query_step = batch.out_step = head_dim;
  batch.key_value_step = 2 * head_dim;
  batch.requests = 1;
  batch.max_queries = queries;
  batch.max_keys = keys;
  batch.key_order = ordered ? orders.data() : nullptr;
  batch.query_limit = ordered ? limits.data() + first : nullptr;
  batch.relative_bias = with_bias ? bias.data() : nullptr;
  batch.reach = kReach;
  batch.warpgroups = warpgroups;
  EXPECT_EQ(AttentionPrepare(), LaunchError::kOk);
  EXPECT_NE(PrepareWarpgroups(), LaunchError::kCuda);
  EXPECT_EQ(AttentionCuda(batch, nullptr), LaunchError::kOk);
  return out.Download();
}

// A row of a request alone, and with others of that request: equal bits. (A relative bias knows which row it is, so
// with one the first row is looked at.)
TEST_P(AttentionGpu, RowsOfARequestChangeNothing) {
  for (DataType type : kTypes) {
    for (int keys : {1, 33, 131, 300}) {
      for (int form : {0, 1, 2, 3}) {
        const bool with_bias = form % 2 == 1, ordered = form >= 2;
        for (int head_dim : {32, 96, 128}) {
          if (SmallShapesOnly() && head_dim > 32) continue;
          const std::vector<float> all = OneRequest(type, head_dim, keys, with_bias, ordered, 0, 70, GetParam());
          for (int row : {0, 37, 69}) {
            if (row > 0 && (with_bias || (SmallShapesOnly() && row == 37))) continue;
            const std::vector<float> alone = OneRequest(type, head_dim, keys, with_bias, ordered, row, 1, GetParam());
            ASSERT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + static_cast<size_t>(row) * head_dim))
                << Name(type) << " head_dim " << head_dim << " keys " << keys << " form " << form << " row " << row;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, AttentionGpu, testing::Bool(),
                         [](const auto& wgmma) { return wgmma.param ? "Warpgroups" : "Tiles"; });

TEST(AttentionCudaArguments, AreChecked) {
  static char memory[64] __attribute__((aligned(16)));
  AttentionBatch good;
  good.head_dim = 64;
  good.query = good.key = good.value = good.out = memory;
  good.query_step = good.key_value_step = good.out_step = 64;
  good.requests = good.max_queries = 1;
  const int32_t* ints = reinterpret_cast<const int32_t*>(memory);
  good.query_begin = good.query_count = good.key_begin = good.key_count = ints;
  const auto refused = [&](auto change) {
    AttentionBatch batch = good;
    change(batch);
    return AttentionCuda(batch, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.type = static_cast<DataType>(7); }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.heads = 0; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) {
    b.heads = 65536;
    b.query_step = b.out_step = int64_t{65536} * 64;
  }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.key_value_heads = 2; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.head_dim = 0; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.head_dim = 60; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.head_dim = b.query_step = b.key_value_step = b.out_step = 264; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.query_step = 56; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.query_step = 68; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.key_value_step = 56; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.out_step = 65; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.value = nullptr; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.key = memory + 2; }));
  EXPECT_TRUE(refused([](AttentionBatch& a) { Misalign(a.query_begin); }));
  EXPECT_TRUE(refused([](AttentionBatch& a) { Misalign(a.query_count); }));
  EXPECT_TRUE(refused([](AttentionBatch& a) { Misalign(a.key_begin); }));
  EXPECT_TRUE(refused([](AttentionBatch& a) { Misalign(a.key_count); }));
  EXPECT_TRUE(refused([](AttentionBatch& a) { Misalign(a.relative_bias); }));
  EXPECT_TRUE(refused([&](AttentionBatch& b) {
    b.key_order = b.query_limit = ints;
    Misalign(b.key_order);
  }));
  EXPECT_TRUE(refused([&](AttentionBatch& b) {
    b.key_order = b.query_limit = ints;
    Misalign(b.query_limit);
  }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.requests = 0; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.requests = 65536; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.max_queries = 0; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.max_queries = kMaxAttentionRows + 1; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.max_keys = kMaxAttentionRows + 1; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.limit_repeat = 0; }));
  EXPECT_TRUE(refused([](AttentionBatch& b) { b.key_count = nullptr; }));
  EXPECT_TRUE(refused([&](AttentionBatch& b) { b.key_order = ints; }));
  EXPECT_TRUE(refused([&](AttentionBatch& b) { b.query_limit = ints; }));
  EXPECT_TRUE(refused([&](AttentionBatch& b) {
    b.relative_bias = reinterpret_cast<const float*>(memory);
    b.reach = -1;
  }));
  EXPECT_TRUE(refused([&](AttentionBatch& b) {
    b.relative_bias = reinterpret_cast<const float*>(memory);
    b.reach = (1 << 20) + 1;
  }));
  if (!WhyNoGpu().empty()) EXPECT_EQ(AttentionCuda(good, nullptr), LaunchError::kCuda);
}

}  // namespace
}  // namespace beamline::kernels
