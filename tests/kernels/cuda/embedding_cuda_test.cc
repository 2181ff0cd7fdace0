// SPDX-License-Identifier: Apache-2.0
//
// Rows that are looked up and added.
#include "beamline/kernels/embedding_cuda.h"

#include <algorithm>

#include "kernels/cuda/device.h"

namespace beamline::kernels {
namespace {

constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16};

class EmbeddingGpu : public GpuTest {};

// What EmbedCodes, EmbedFeatures and JoinTokens add, for one element.
struct Sum {
  double value = 0, size = 0;
  void Add(double x) {
    value += x;
    size += std::abs(x);
  }
  void To(Reference* reference, DataType type) const {
    reference->Add(value, 1.01 * Epsilon(type) * std::abs(value) + 32 * Epsilon(DataType::kFloat32) * size + 1e-30);
  }
};

TEST_F(EmbeddingGpu, Codes) {
  for (DataType type : kTypes) {
    for (int width : {8, 40, 768}) {
      std::mt19937 random(width);
      const int rows = 37, table_rows = 19;
      const TypedBuffer table(type, Normal(random, size_t{table_rows} * width)), add(type, Normal(random, width));
      std::vector<uint16_t> codes(rows);
      for (uint16_t& code : codes) code = random() % table_rows;
      codes[3] = table_rows;  // outside
      codes[4] = 65535;
      const DeviceBuffer<uint16_t> codes_d(codes);
      for (bool with_codes : {true, false}) {
        for (bool with_add : {true, false}) {
          TypedBuffer out(type, size_t{rows} * width);
          ASSERT_EQ(EmbedCodesCuda({.type = type,
                                    .width = width,
                                    .rows = rows,
                                    .table = table.data(),
                                    .table_rows = table_rows,
                                    .codes = with_codes ? codes_d.data() : nullptr,
                                    .add = with_add ? add.data() : nullptr,
                                    .out = out.data()},
                                   nullptr),
                    LaunchError::kOk);
          Reference reference;
          for (int row = 0; row < rows; ++row) {
            const size_t code = with_codes ? codes[row] : 0;
            for (int i = 0; i < width; ++i) {
              Sum sum;
              if (code < table_rows) sum.Add(table.host[code * width + i]);
              if (with_add) sum.Add(add.host[i]);
              sum.To(&reference, type);
            }
          }
          EXPECT_EQ(reference.Wrong(out.Download()), "") << Name(type) << " width " << width;
        }
      }
    }
  }
}

TEST_F(EmbeddingGpu, Features) {
  for (DataType type : kTypes) {
    for (bool summed : {false, true}) {
      std::mt19937 random(5);
      const FeatureRow lookups[] = {FeatureRow::kIndex, FeatureRow::kFromOne, FeatureRow::kBitSum, FeatureRow::kIndex};
      const int buckets[] = {7, 5, 32, 1}, tokens = 50, columns = 4;
      const int widths[] = {16, summed ? 16 : 8, summed ? 16 : 48, 16};
      std::vector<TypedBuffer> tables;
      EmbedFeaturesArgs args{.type = type, .tokens = tokens, .columns = columns, .sum = summed};
      int width = 0;
      for (int c = 0; c < columns; ++c) {
        tables.emplace_back(type, Normal(random, static_cast<size_t>(buckets[c]) * widths[c]));
        args.column[c] = {tables[c].data(), buckets[c], widths[c], lookups[c]};
        width = summed ? widths[c] : width + widths[c];
      }
      std::vector<int32_t> ids(tokens * columns);
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % 9) - 1;
      ids[2] = -1;  // all 32 bits
      ids[5] = ids[6] = INT32_MIN;
      const DeviceBuffer<int32_t> ids_d(ids);
      TypedBuffer out(type, static_cast<size_t>(tokens) * width);
      args.ids = ids_d.data();
      args.out = out.data();
      ASSERT_EQ(EmbedFeaturesCuda(args, nullptr), LaunchError::kOk);
      Reference reference;
      for (int token = 0; token < tokens; ++token) {
        std::vector<Sum> row(width);
        int begin = 0;
        for (int c = 0; c < columns; ++c) {
          const int32_t id = ids[token * columns + c];
          for (int bucket = 0; bucket < buckets[c]; ++bucket) {
            const bool used = lookups[c] == FeatureRow::kIndex     ? bucket == id
                              : lookups[c] == FeatureRow::kFromOne ? bucket + 1 == id
                                                                   : (static_cast<uint32_t>(id) >> bucket & 1) != 0;
            for (int i = 0; used && i < widths[c]; ++i) row[begin + i].Add(tables[c].host[bucket * widths[c] + i]);
          }
          if (!summed) begin += widths[c];
        }
        for (const Sum& sum : row) sum.To(&reference, type);
      }
      EXPECT_EQ(reference.Wrong(out.Download()), "") << Name(type) << " summed " << summed;
    }
  }
}

TEST_F(EmbeddingGpu, Tokens) {
  for (DataType type : kTypes) {
    std::mt19937 random(9);
    const int width = 24, tokens = 60, position_rows = 11;
    const int pathway_rows[] = {1, 20, 33};
    std::vector<TypedBuffer> pathways;
    JoinTokensArgs args{.type = type, .width = width, .tokens = tokens};
    for (int p = 0; p < 3; ++p) {
      pathways.emplace_back(type, Normal(random, static_cast<size_t>(pathway_rows[p]) * width));
      args.pathway[p] = pathways[p].data();
      args.pathway_rows[p] = pathway_rows[p];
    }
    const TypedBuffer positions(type, Normal(random, size_t{position_rows} * width));
    std::vector<int32_t> from(tokens), row(tokens), position(tokens);
    for (int t = 0; t < tokens; ++t) {
      from[t] = random() % 3;
      row[t] = random() % pathway_rows[from[t]];
      position[t] = random() % position_rows;
    }
    from[0] = 3;  // no such pathway: the position alone
    from[1] = -1;
    row[2] = 1000;
    position[3] = position_rows;
    const DeviceBuffer<int32_t> from_d(from), row_d(row), position_d(position);
    TypedBuffer out(type, size_t{tokens} * width);
    args.from = from_d.data();
    args.row = row_d.data();
    args.positions = positions.data();
    args.position_rows = position_rows;
    args.position = position_d.data();
    args.out = out.data();
    ASSERT_EQ(JoinTokensCuda(args, nullptr), LaunchError::kOk);
    Reference reference;
    for (int t = 0; t < tokens; ++t) {
      for (int i = 0; i < width; ++i) {
        Sum sum;
        if (from[t] >= 0 && from[t] < 3 && row[t] < pathway_rows[from[t]]) {
          sum.Add(pathways[from[t]].host[row[t] * width + i]);
        }
        if (position[t] < position_rows) sum.Add(positions.host[position[t] * width + i]);
        sum.To(&reference, type);
      }
    }
    EXPECT_EQ(reference.Wrong(out.Download()), "") << Name(type);
  }
}

// Ids instead of codes, rows of the result apart, and pathways side by side without being told so.
TEST_F(GpuTest, LookupsOfTheOpSet) {
  for (DataType type : kTypes) {
    std::mt19937 random(5);
    const TypedBuffer table(type, Normal(random, 6 * 16)), other(type, Normal(random, 4 * 16));
    const DeviceBuffer<int32_t> ids(std::vector<int32_t>{5, -9, 0, -9, 6, -9});  // the last is outside
    TypedBuffer out(type, std::vector<float>(3 * 32, 1.0f));
    ASSERT_EQ(EmbedCodesCuda({.type = type,
                              .width = 16,
                              .rows = 3,
                              .table = table.data(),
                              .table_rows = 6,
                              .ids = ids.data(),
                              .id_step = 2,
                              .out = out.data(),
                              .out_step = 32},
                             nullptr),
              LaunchError::kOk);
    std::vector<float> expected(3 * 32, 1.0f);
    std::copy_n(table.host.begin() + 5 * 16, 16, expected.begin());
    std::copy_n(table.host.begin(), 16, expected.begin() + 32);
    std::fill_n(expected.begin() + 64, 16, 0.0f);
    EXPECT_EQ(out.Download(), expected);

    JoinTokensArgs join{.type = type, .width = 16, .tokens = 10, .requests = 2};
    join.pathway[0] = table.data(), join.pathway_rows[0] = 6;
    join.pathway[1] = other.data(), join.pathway_rows[1] = 4;
    TypedBuffer joined(type, 10 * 16);
    join.out = joined.data();
    ASSERT_EQ(JoinTokensCuda(join, nullptr), LaunchError::kOk);
    std::vector<float> tokens;
    for (int b = 0; b < 2; ++b) {
      tokens.insert(tokens.end(), table.host.begin() + b * 48, table.host.begin() + b * 48 + 48);
      tokens.insert(tokens.end(), other.host.begin() + b * 32, other.host.begin() + b * 32 + 32);
    }
    EXPECT_EQ(joined.Download(), tokens);
    join.pathway_rows[1] = 3;
    EXPECT_EQ(JoinTokensCuda(join, nullptr), LaunchError::kInvalidArgument);
  }
}

TEST(EmbeddingCudaArguments, AreChecked) {
  static char memory[64] __attribute__((aligned(16)));
  const EmbedCodesArgs codes{.width = 8, .rows = 1, .table = memory, .table_rows = 1, .out = memory};
  const auto codes_refused = [&](auto change) {
    EmbedCodesArgs args = codes;
    change(args);
    return EmbedCodesCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(codes_refused([](EmbedCodesArgs& a) { a.width = 9; }));
  EXPECT_TRUE(codes_refused([](EmbedCodesArgs& a) { a.width = kMaxRowWidth + 8; }));
  EXPECT_TRUE(codes_refused([](EmbedCodesArgs& a) { a.width = kMaxRowWidth, a.rows = 1 << 22; }));
  EXPECT_TRUE(codes_refused([](EmbedCodesArgs& a) { a.rows = 0; }));
  EXPECT_TRUE(codes_refused([](EmbedCodesArgs& a) { a.table = nullptr; }));
  EXPECT_TRUE(codes_refused([](EmbedCodesArgs& a) { a.table_rows = 0; }));
  EXPECT_TRUE(codes_refused([](EmbedCodesArgs& a) { a.add = memory + 2; }));
  EXPECT_TRUE(codes_refused([](EmbedCodesArgs& a) { Misalign(a.codes); }));
  EXPECT_TRUE(codes_refused([](EmbedCodesArgs& a) { Misalign(a.ids); }));
  EXPECT_TRUE(codes_refused([](EmbedCodesArgs& a) { Misalign(a.out); }));
  const int32_t* ints = reinterpret_cast<const int32_t*>(memory);
  EmbedFeaturesArgs features{.tokens = 1, .columns = 2, .ids = ints, .out = memory};
  features.column[0] = {memory, 3, 8, FeatureRow::kIndex};
  features.column[1] = {memory, 3, 16, FeatureRow::kBitSum};
  const auto features_refused = [&](auto change) {
    EmbedFeaturesArgs args = features;
    change(args);
    return EmbedFeaturesCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(features_refused([](EmbedFeaturesArgs& a) { a.tokens = 0; }));
  EXPECT_TRUE(features_refused([](EmbedFeaturesArgs& a) { a.columns = kMaxFeatureColumns + 1; }));
  EXPECT_TRUE(features_refused([](EmbedFeaturesArgs& a) { a.sum = true; }));                      // widths differ
  EXPECT_TRUE(features_refused([](EmbedFeaturesArgs& a) { a.column[0].width = kMaxRowWidth; }));  // of both together
  EXPECT_TRUE(features_refused([](EmbedFeaturesArgs& a) { a.column[1].buckets = 33; }));
  EXPECT_TRUE(features_refused([](EmbedFeaturesArgs& a) { a.column[1].lookup = static_cast<FeatureRow>(3); }));
  EXPECT_TRUE(features_refused([](EmbedFeaturesArgs& a) { a.column[1].lookup = static_cast<FeatureRow>(-1); }));
  EXPECT_TRUE(features_refused([](EmbedFeaturesArgs& a) { a.column[0].table = nullptr; }));
  EXPECT_TRUE(features_refused([](EmbedFeaturesArgs& a) { a.ids = nullptr; }));
  EXPECT_TRUE(features_refused([](EmbedFeaturesArgs& a) { Misalign(a.ids); }));
  EXPECT_TRUE(features_refused([](EmbedFeaturesArgs& a) { Misalign(a.out); }));
  JoinTokensArgs tokens{.width = 8, .tokens = 1, .from = ints, .row = ints, .out = memory};
  const auto tokens_refused = [&](auto change) {
    JoinTokensArgs args = tokens;
    change(args);
    return JoinTokensCuda(args, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(tokens_refused([](JoinTokensArgs& a) { a.width = 0; }));
  EXPECT_TRUE(tokens_refused([](JoinTokensArgs& a) { a.width = kMaxRowWidth + 8; }));
  EXPECT_TRUE(tokens_refused([](JoinTokensArgs& a) { a.pathway_rows[2] = 1; }));
  EXPECT_TRUE(tokens_refused([](JoinTokensArgs& a) { a.positions = memory; }));
  EXPECT_TRUE(tokens_refused([](JoinTokensArgs& a) { a.from = nullptr; }));
  EXPECT_TRUE(tokens_refused([](JoinTokensArgs& a) { Misalign(a.from); }));
  EXPECT_TRUE(tokens_refused([](JoinTokensArgs& a) { Misalign(a.row); }));
  EXPECT_TRUE(tokens_refused([](JoinTokensArgs& a) { Misalign(a.out); }));
  EXPECT_TRUE(tokens_refused([](JoinTokensArgs& a) {
    a.positions = memory;
    a.position_rows = 1;
    Misalign(a.position);
  }));
  if (WhyNoGpu().empty()) return;
  EXPECT_EQ(EmbedCodesCuda(codes, nullptr), LaunchError::kCuda);
  EXPECT_EQ(EmbedFeaturesCuda(features, nullptr), LaunchError::kCuda);
  EXPECT_EQ(JoinTokensCuda(tokens, nullptr), LaunchError::kCuda);
}

}  // namespace
}  // namespace beamline::kernels
