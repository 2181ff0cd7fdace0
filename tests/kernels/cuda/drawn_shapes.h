// SPDX-License-Identifier: Apache-2.0
//
// Shapes that nobody chose: each is drawn from a seed, which a failure names. A test draws a few;
//   BEAMLINE_SHAPES=500      has every such test draw so many,
//   BEAMLINE_SHAPES_FROM=17  begin with this seed (default 1).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <random>
#include <string>

#include "kernels/cuda/device.h"

namespace beamline::kernels {

class Draw {
 public:
  explicit Draw(uint32_t seed) : random_(seed) {}

  int Below(int bound) { return static_cast<int>(random_() % static_cast<uint32_t>(bound)); }
  bool Coin() { return Below(2) == 0; }
  // 1 to `most`: a third of them small, and a third beside or at a multiple of a tile's size.
  int Size(int most) {
    const int tile = 8 << Below(5), kind = Below(3);
    if (kind == 0) return 1 + Below(std::min(most, 9));
    if (kind == 1) return std::clamp(tile * (1 + Below(std::max(1, most / tile))) + Below(3) - 1, 1, most);
    return 1 + Below(most);
  }
  int Eights(int most) { return 8 * Size(most / 8); }
  template <class T>
  T Of(std::initializer_list<T> values) {
    return values.begin()[Below(static_cast<int>(values.size()))];
  }
  DataType Type() { return Of({DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16}); }
  DataType NarrowType() { return Of({DataType::kBFloat16, DataType::kFloat16}); }
  uint32_t Seed() { return static_cast<uint32_t>(random_()); }

 private:
  std::mt19937 random_;
};

// check(draw) for each seed, to the first that fails.
template <class Check>
void ForDrawnShapes(Check check) {
  const auto from_environment = [](const char* name, unsigned long otherwise) {
    const char* const said = std::getenv(name);
    return said == nullptr ? otherwise : std::strtoul(said, nullptr, 10);
  };
  const unsigned long first = from_environment("BEAMLINE_SHAPES_FROM", 1),
                      count = from_environment("BEAMLINE_SHAPES", SmallShapesOnly() ? 5 : 50);
  for (unsigned long seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("BEAMLINE_SHAPES_FROM=" + std::to_string(seed));
    Draw draw(static_cast<uint32_t>(seed));
    check(draw);
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace beamline::kernels
