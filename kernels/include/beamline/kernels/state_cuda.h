// SPDX-License-Identifier: Apache-2.0
//
// What a search keeps between its steps, on the device: who sees which token, the lineage of the beams, the input of
// the next step, and contexts that move in and out of batches. All are copies and integer logic: exact. Requests stand
// one behind the other with the same number of rows each, all together at most kMaxStateRows. Arrays are
// aligned to their elements, rows of bytes to 4; a row has 4..2^30 bytes, a multiple of 4.
#pragma once

#include <cstdint>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

inline constexpr int32_t kMaxStateRows = 0x7fffff00;

inline constexpr int32_t kHiddenOrder = 0x7fffffff;  // of padding: only as large a limit reaches it

// How AttentionCuda learns what is visible, made once per pass:
//   order [requests][tokens], then limit [requests][groups], then keys [requests]: one behind the last token in reach
//   of a limit.
struct VisibilityArgs {
  int32_t requests = 0;
  int32_t tokens = 0;              // of each request
  int32_t groups = 0;              // limits of each request
  const int32_t* order = nullptr;  // [requests][tokens]; null: token t has order t
  const int32_t* limit = nullptr;  // [requests][groups]; null: kHiddenOrder - 1, or, with own_order, the token's order
  bool own_order = false;          // groups is then tokens
  int32_t* out = nullptr;          // [requests * (tokens + groups + 1)]
};

LaunchError VisibilityCuda(const VisibilityArgs& args, CudaStream stream);

// out[s][b * rows + r] = lineage[s][b * parent_rows + p] for s < steps, out[steps][b * rows + r] = p, p = parents[b *
// rows + r]: for every row the row that its ancestor had in each step. A parent outside of its step counts as row 0.
struct ExtendLineageArgs {
  int32_t requests = 0;
  int32_t rows = 0;                  // of each request
  int32_t parent_rows = 0;           // of each request, one step earlier
  int32_t steps = 0;                 // planes of `lineage`, at most 64
  const int32_t* lineage = nullptr;  // [steps][requests * parent_rows]; unused without steps
  const int32_t* parents = nullptr;  // [requests * rows]
  int32_t* out = nullptr;            // [steps + 1][requests * rows]
};

LaunchError ExtendLineageCuda(const ExtendLineageArgs& args, CudaStream stream);

// The beams of a selection as the next step's input: the first `rows` slots of each request; past its count, zeros.
struct NextStepArgs {
  int32_t requests = 0;
  int32_t slots = 0;                // of each request
  int32_t rows = 0;                 // of each request, at most `slots`
  const int32_t* count = nullptr;   // [requests]
  const uint16_t* code = nullptr;   // [requests * slots]
  const int32_t* parent = nullptr;  // [requests * slots]
  int32_t* codes = nullptr;         // [requests * rows]
  int32_t* parents = nullptr;       // [requests * rows]
};

LaunchError NextStepCuda(const NextStepArgs& args, CudaStream stream);

// rank[slot] = how many of the request's beams have a smaller node: what orders beams as their nodes do, from 0 on.
struct RankNodesArgs {
  int32_t requests = 0;
  int32_t slots = 0;               // of each request
  const int32_t* count = nullptr;  // [requests], at most `slots` are looked at
  const uint32_t* node = nullptr;  // [requests * slots]; different ones
  uint32_t* rank = nullptr;        // [requests * slots]; of the first `count` of each
};

LaunchError RankNodesCuda(const RankNodesArgs& args, CudaStream stream);

inline constexpr int32_t kMaxTaken = 64;  // of one launch

// Of each x the rows whose order is not kHiddenOrder, in their order.
struct TakeVisibleArgs {
  int32_t tokens = 0;
  int32_t count = 0;               // of x, at most kMaxTaken
  const int32_t* order = nullptr;  // [tokens]
  int64_t row_bytes[kMaxTaken] = {};
  const void* x[kMaxTaken] = {};  // [tokens][row_bytes]
  void* out[kMaxTaken] = {};      // [visible tokens][row_bytes]
};

LaunchError TakeVisibleCuda(const TakeVisibleArgs& args, CudaStream stream);

inline constexpr int32_t kMaxStacked = 128;  // of one launch

// out[i] = rows[i], then `fill` up to `capacity` rows.
struct StackRowsArgs {
  int32_t requests = 0;  // at most kMaxStacked
  int32_t capacity = 0;
  int64_t row_bytes = 0;
  uint32_t fill = 0;                   // four bytes of it
  const void* rows[kMaxStacked] = {};  // [count[i]][row_bytes]
  int32_t count[kMaxStacked] = {};     // at most `capacity`
  void* out = nullptr;                 // [requests][capacity][row_bytes]
};

LaunchError StackRowsCuda(const StackRowsArgs& args, CudaStream stream);

inline constexpr int32_t kMaxCopied = 128;  // of one launch

// Several copies at once.
struct CopyAllArgs {
  int32_t count = 0;                  // at most kMaxCopied
  const void* from[kMaxCopied] = {};  // of any alignment; 16 bytes are fastest
  void* to[kMaxCopied] = {};
  int64_t bytes[kMaxCopied] = {};  // at least 1
};

LaunchError CopyAllCuda(const CopyAllArgs& args, CudaStream stream);

}  // namespace beamline::kernels
