// SPDX-License-Identifier: Apache-2.0
//
// How many rows and panels of a product are summed in registers at once.
#pragma once

namespace beamline::kernels {
namespace {

// Rows of a tile: as many accumulators as hide the latency of a multiply-add and fit the registers.
#if defined(__AVX512F__)
constexpr int kTileRows = 12;
constexpr int TilePanels(int rows) { return rows == 1 ? 8 : rows <= 5 ? 4 : 2; }
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
constexpr int TilePanels(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }
#else
constexpr int kTileRows = 2;
constexpr int TilePanels(int rows) { return rows == 1 ? 2 : 1; }
#endif

}  // namespace
}  // namespace beamline::kernels
