// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/embedding_cuda.h"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace beamline::kernels {
namespace {

constexpr int kThreads = 256;

struct Table {
  const void* values;
  int32_t rows, width;
};

// Adds kVector columns of a table's row; nothing for a row the table does not have.
template <class T>
__device__ void AddRow(Table table, int32_t row, int32_t column, float (&sum)[kVector]) {
  if (row < 0 || row >= table.rows) return;
  float values[kVector];
  LoadVector(static_cast<const T*>(table.values) + int64_t{row} * table.width + column, values);
#pragma unroll
  for (int i = 0; i < kVector; ++i) sum[i] += values[i];
}

// Which eight columns of which row a thread makes.
struct Vector {
  int64_t row;
  int32_t column;
};

__device__ Vector VectorOf(int32_t width) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int32_t vectors = width / kVector;
  return {at / vectors, static_cast<int32_t>(at % vectors) * kVector};
}

template <class T>
__global__ void __launch_bounds__(kThreads) EmbedCodes(const __grid_constant__ EmbedCodesArgs args) {
  AwaitPredecessors();
  const Vector at = VectorOf(args.width);
  if (at.row >= args.rows) return;
  float sum[kVector] = {};
  int32_t row = 0;
  if (args.codes != nullptr) row = args.codes[at.row];
  if (args.ids != nullptr) row = args.ids[at.row * args.id_step];
  AddRow<T>({args.table, args.table_rows, args.width}, row, at.column, sum);
  if (args.add != nullptr) AddRow<T>({args.add, 1, args.width}, 0, at.column, sum);
  const int64_t step = args.out_step == 0 ? args.width : args.out_step;
  StoreVector(static_cast<T*>(args.out) + at.row * step + at.column, sum);
}

template <class T>
__device__ void AddFeature(const FeatureColumn& feature, int32_t id, int32_t column, float (&sum)[kVector]) {
  if (feature.lookup == FeatureRow::kBitSum) {
    for (int32_t bit = 0; bit < feature.buckets; ++bit) {
      if ((static_cast<uint32_t>(id) >> bit & 1u) != 0) {
        AddRow<T>({feature.table, feature.buckets, feature.width}, bit, column, sum);
      }
    }
    return;
  }
  int32_t row = id;
  if (feature.lookup == FeatureRow::kFromOne) row = id > 0 ? id - 1 : -1;
  AddRow<T>({feature.table, feature.buckets, feature.width}, row, column, sum);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    EmbedFeatures(const __grid_constant__ EmbedFeaturesArgs args, int32_t width) {
  AwaitPredecessors();
  const Vector at = VectorOf(width);
  if (at.row >= args.tokens) return;
  const int32_t* ids = args.ids + at.row * args.columns;
  float sum[kVector] = {};
  int32_t begin = 0;  // of a column's part of the row
  for (int32_t i = 0; i < args.columns; ++i) {
    if (args.sum) {
      AddFeature<T>(args.column[i], ids[i], at.column, sum);
    } else if (at.column < begin + args.column[i].width) {
      AddFeature<T>(args.column[i], ids[i], at.column - begin, sum);
      break;
    }
    begin += args.column[i].width;
  }
  StoreVector(static_cast<T*>(args.out) + at.row * width + at.column, sum);
}

// A token's pathway, and its row there.
struct TokenSource {
  int32_t from;
  int32_t row;
};

__device__ TokenSource SourceOf(const JoinTokensArgs& args, int64_t token) {
  if (args.from != nullptr) return {args.from[token], args.row[token]};
  const int32_t each = args.tokens / args.requests;
  const int32_t request = static_cast<int32_t>(token / each);
  int32_t at = static_cast<int32_t>(token % each);
#pragma unroll
  for (int32_t i = 0; i < kMaxPathways; ++i) {
    const int32_t length = args.pathway_rows[i] / args.requests;
    if (at < length) return {i, request * length + at};
    at -= length;
  }
  return {-1, 0};
}

template <class T>
__global__ void __launch_bounds__(kThreads) JoinTokens(const __grid_constant__ JoinTokensArgs args) {
  AwaitPredecessors();
  const Vector at = VectorOf(args.width);
  if (at.row >= args.tokens) return;
  float sum[kVector] = {};
  const TokenSource source = SourceOf(args, at.row);
  if (source.from >= 0 && source.from < kMaxPathways) {
    AddRow<T>({args.pathway[source.from], args.pathway_rows[source.from], args.width}, source.row, at.column, sum);
  }
  if (args.positions != nullptr) {
    AddRow<T>({args.positions, args.position_rows, args.width}, args.position[at.row], at.column, sum);
  }
  StoreVector(static_cast<T*>(args.out) + at.row * args.width + at.column, sum);
}

bool ValidWidth(int64_t width) { return width >= 8 && width <= kMaxRowWidth && width % 8 == 0; }

unsigned Blocks(int64_t rows, int64_t width) {
  return static_cast<unsigned>((rows * (width / kVector) + kThreads - 1) / kThreads);
}

// No more rows than a grid of vectors has room for.
bool ValidRows(int64_t rows, int64_t width) {
  return rows >= 1 && rows * (width / kVector) <= int64_t{0x7fffffff} * kThreads;
}

int64_t OutWidth(const EmbedFeaturesArgs& args) {
  int64_t width = 0;
  for (int32_t i = 0; i < args.columns; ++i) {
    const FeatureColumn& column = args.column[i];
    if (!ValidWidth(column.width) || column.table == nullptr || !IsAligned(column.table) || column.buckets < 1)
      return 0;
    if (column.lookup == FeatureRow::kBitSum && column.buckets > 32) return 0;
    if (column.lookup < FeatureRow::kIndex || column.lookup > FeatureRow::kBitSum) return 0;
    if (args.sum && column.width != args.column[0].width) return 0;
    width = args.sum ? column.width : width + column.width;
  }
  return width;
}

}  // namespace

LaunchError EmbedCodesCuda(const EmbedCodesArgs& args, CudaStream stream) {
  if (!ValidWidth(args.width) || !ValidRows(args.rows, args.width) || args.table == nullptr || args.out == nullptr ||
      args.table_rows < 1 || !IsAligned(args.table) || !IsAligned(args.add) || !IsAligned(args.out) ||
      (args.codes != nullptr && args.ids != nullptr) || args.id_step < 1 || args.out_step < 0 ||
      (args.out_step != 0 && args.out_step < args.width) || args.out_step % 8 != 0 ||
      !AreNaturallyAligned(args.codes, args.ids)) {
    return LaunchError::kInvalidArgument;
  }
  return WithType(args.type, [&]<class T>(T) {
    return Launch(EmbedCodes<T>, {Blocks(args.rows, args.width), kThreads}, stream, args);
  });
}

LaunchError EmbedFeaturesCuda(const EmbedFeaturesArgs& args, CudaStream stream) {
  if (args.columns < 1 || args.columns > kMaxFeatureColumns || args.ids == nullptr || args.out == nullptr ||
      !IsAligned(args.out) || !AreNaturallyAligned(args.ids)) {
    return LaunchError::kInvalidArgument;
  }
  const int64_t width = OutWidth(args);
  if (!ValidWidth(width) || !ValidRows(args.tokens, width)) return LaunchError::kInvalidArgument;
  return WithType(args.type, [&]<class T>(T) {
    return Launch(EmbedFeatures<T>, {Blocks(args.tokens, width), kThreads}, stream, args, static_cast<int32_t>(width));
  });
}

LaunchError JoinTokensCuda(const JoinTokensArgs& args, CudaStream stream) {
  if (!ValidWidth(args.width) || !ValidRows(args.tokens, args.width) ||
      (args.from == nullptr) != (args.row == nullptr) || args.out == nullptr || !IsAligned(args.out) ||
      !IsAligned(args.positions) || !AreNaturallyAligned(args.from, args.row, args.position)) {
    return LaunchError::kInvalidArgument;
  }
  if (args.from == nullptr) {
    int64_t rows = 0;
    for (int32_t of_pathway : args.pathway_rows) {
      if (args.requests < 1 || of_pathway % args.requests != 0) return LaunchError::kInvalidArgument;
      rows += of_pathway;
    }
    if (rows != args.tokens) return LaunchError::kInvalidArgument;
  }
  if (args.positions != nullptr && (args.position == nullptr || args.position_rows < 1)) {
    return LaunchError::kInvalidArgument;
  }
  for (int i = 0; i < kMaxPathways; ++i) {
    if (args.pathway_rows[i] < 0 || (args.pathway_rows[i] > 0 && args.pathway[i] == nullptr) ||
        !IsAligned(args.pathway[i])) {
      return LaunchError::kInvalidArgument;
    }
  }
  return WithType(args.type, [&]<class T>(T) {
    return Launch(JoinTokens<T>, {Blocks(args.tokens, args.width), kThreads}, stream, args);
  });
}

}  // namespace beamline::kernels
