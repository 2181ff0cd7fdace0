// SPDX-License-Identifier: Apache-2.0
//
// What the cases of beamline_kernels_cuda_bench share: the model's shape, and who has which cases. Bytes are the fewest
// that must move: of a table or a trie only what is read, and once.
#pragma once

#include <cstdint>
#include <string>

#include "beamline/kernels/launch.h"
#include "cuda_bench.h"

namespace beamline::kernels {

inline constexpr int kWidth = 1536, kHeads = 12, kHeadDim = 128, kContext = 512, kBeam = 512, kVocab = 8192,
                     kLevels = 3;

void Require(LaunchError error, const char* what);  // exits with a message

const char* Name(DataType type);
inline std::string Of(DataType type) { return std::string(", ") + Name(type); }
inline std::string Requests(int requests) { return std::to_string(requests) + " requests"; }

// Device memory as in cuda_bench.h.
void* RandomMatrix(int64_t rows, int64_t columns, DataType type);
void* EmptyMatrix(int64_t rows, int64_t columns, DataType type);

// Selection over a catalogue, by score rule and by what narrows it (selection_cuda_bench.cc).
void SelectionCases(bench::Bench& bench, bool quick);
// What makes rows from rows (row_cuda_bench.cc): norms, activations, lookups, FP8, sums, and a search's state.
void RowCases(bench::Bench& bench, int requests, DataType type);
void ActivationCases(bench::Bench& bench, int rows);
void LookupCases(bench::Bench& bench, int requests);
void NarrowCases(bench::Bench& bench, int rows);
void SumCases(bench::Bench& bench, int requests);
void StateCases(bench::Bench& bench, int requests);
void RankerCases(bench::Bench& bench, int requests);

}  // namespace beamline::kernels
