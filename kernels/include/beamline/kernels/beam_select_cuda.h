// SPDX-License-Identifier: Apache-2.0
//
// One decode step's constrained beam selection for a batch of requests, on the device: BeamSelectCpu of every request
// (beam_select.h: numbers, order, errors) with widths, rules and constraints of its own, and the lineage of the beams
// it keeps. One kernel at level 0, later three, each one pass over the active rows, no host round trip: exact at any
// number of candidates.
//
// Packing. Request b owns the beam slots [row_begin[b], row_begin[b + 1]) of every per-row array, at least one and at
// least as many as its widest level. At level 0 logits row b belongs to request b; later, logits row r to slot r, or,
// with `logits_each`, row b * logits_each + i to the i-th slot of request b.
//
// Algorithm: log-sum-exp of each row, from its parts if they are given (then the sums of `kFull` are made in their
// order, not in BeamSelectCpu's); then a radix selection over the distance of a score from the best parent's and the
// order keys (candidate_order.h), 11 bits at a time, until the candidates that share the decided bits of the last one
// taken fit a buffer; these are sorted. The second digit is needed where thousands of distances agree to 7 bits, later
// ones where so many scores are equal, or more than 4,096 nats from the best parent's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "beamline/kernels/beam_select.h"
#include "beamline/kernels/launch.h"

namespace beamline::kernels {

// Slots of a batch: arrays of `rows` entries as in BeamSlots. Slots at and beyond a request's count hold node, parent
// and code 0, score -inf and log-probability 0, so that the next step's lookups stay inside their tables.
struct DeviceBeams {
  uint32_t* node = nullptr;
  float* score = nullptr;
  int32_t* parent = nullptr;  // slot within the request
  uint16_t* code = nullptr;
  float* log_prob = nullptr;
  int32_t* count = nullptr;  // [requests]
};

inline constexpr int32_t kMaxVocabulary = 1 << 24;  // columns of a row of logits

// What a head that makes logits knows of kPartColumns columns of a row besides (head_product_cuda.h), so that the row
// need not be read again.
inline constexpr int32_t kPartColumns = 128;
struct RowPart {
  float max;  // the largest logit
  float sum;  // of exp(logit - max): NaN where one is NaN or +inf, 0 where all are -inf
};
constexpr int32_t RowParts(int32_t vocab) { return (vocab + kPartColumns - 1) / kPartColumns; }

struct BeamSelectBatch {
  const float* logits = nullptr;               // [requests at level 0, else rows or requests * logits_each][ld]
  int64_t ld = 0;                              // elements between rows, >= vocab
  const RowPart* parts = nullptr;              // [rows of logits][RowParts(vocab)], or null
  int32_t logits_each = 0;                     // no request has more active slots in `in`
  int32_t vocab = 0;                           // columns of a row, 1..kMaxVocabulary
  int32_t first_code = 0;                      // column of code 0, below vocab
  int32_t level = 0;                           // 0-based level being selected, below kMaxTrieLevels
  int32_t requests = 0;                        // 1..65535
  int32_t rows = 0;                            // capacity in slots, requests..2^26: row_begin[requests] <= rows
  const int32_t* row_begin = nullptr;          // [requests + 1], strictly ascending from 0
  const int32_t* width = nullptr;              // [requests], 0..the request's slots and kMaxBeamWidth
  const ScoreRule* rule = nullptr;             // [requests]
  const ConstraintView* constraint = nullptr;  // [requests]; the views' arrays are device memory too
  DeviceBeams in;                              // of the level before; unused at level 0
  DeviceBeams out;                             // shares no array with `in`
  const int32_t* lineage_in = nullptr;         // [level][rows]; unused at level 0
  int32_t* lineage_out = nullptr;              // [level + 1][rows], or null: plane s holds the slot of the beam's
                                               // ancestor in step s, as LineageAttention reads it
  int32_t* error = nullptr;                    // [requests], a SelectError: set at level 0, later only on an error
  void* workspace = nullptr;                   // BeamSelectWorkspaceBytes, prepared once, 16-byte aligned
};

// Bytes of workspace for batches of at most that many requests and rows.
size_t BeamSelectWorkspaceBytes(int32_t requests, int32_t rows);

// Zeroes a new workspace, whose `requests` and `rows` every later batch must then pass. Each selection leaves it ready
// for the next one on the same stream.
LaunchError BeamSelectPrepare(void* workspace, int32_t requests, int32_t rows, CudaStream stream);

// A request whose row fails, or that had failed before, gets count 0 and keeps its first error; others are unaffected.
// One whose beams have run out is not looked at: count 0 without an error.
LaunchError BeamSelectCuda(const BeamSelectBatch& batch, CudaStream stream);

}  // namespace beamline::kernels
